//! Partial aggregation in the region that owns the rows: what is asked for, and the plan that both sides make of it.
//!
//! ```text
//!   rows as of the epoch ─▶ filters, projections, joins (stages) ─▶ partial aggregation ─▶ keys and states of groups
//! ```
//!
//! States are DataFusion's own, merged by its final aggregation, so both sides have to be of one build: a request says
//! which one made it ([`engine`]), and an owner of another does not read on. It is refused then, and so is whatever makes
//! no sense to the owner; the gateway asks for rows instead.

use std::sync::{Arc, LazyLock};

use datafusion::DATAFUSION_VERSION;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, LimitOptions, PhysicalGroupBy};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use serde::{Deserialize, Serialize};
use tributary_replication::bundle::decode_rows;

use super::expression::{Expression, Reader};
use super::join::Join;
use super::states::paced;
use super::{ScanRequest, functions};

/// What this file and its neighbours send; it changes when that does.
const FORMAT: u32 = 2;
/// The most stages, groups and aggregates of a request, and columns of a join.
pub(super) const PARTS_MAX: usize = 1_024;

/// What an owner and a gateway have in common that understand each other's partial states.
pub fn engine() -> &'static str {
    static ENGINE: LazyLock<String> = LazyLock::new(|| {
        let version = env!("CARGO_PKG_VERSION");
        format!("tributary {version}, datafusion {DATAFUSION_VERSION}, format {FORMAT}")
    });
    &ENGINE
}

/// Partial aggregation over a scan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartialRequest {
    /// The rows. Its columns are the input of the first stage.
    pub scan: ScanRequest,
    /// What is done with them before, in this order.
    pub stages: Vec<Stage>,
    /// By what they are grouped; without any there is one group.
    pub groups: Vec<Expression>,
    /// What is computed.
    pub aggregates: Vec<Call>,
    /// So many groups are enough, whichever: only where nothing is computed of them.
    pub limit: Option<u64>,
    /// The constants that stand in expressions, one column each, as an Arrow stream of one row; empty without any.
    pub values: Vec<u8>,
    /// The tables that rows are joined with, as Arrow streams; see [`super::side`].
    pub sides: Vec<Vec<u8>>,
}

/// What is done with rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Only those for which it holds are kept.
    Filter(Expression),
    /// They get these columns.
    Project(Vec<Expression>),
    /// They are joined with a side.
    Join(Join),
}

/// An aggregate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Its name.
    pub function: String,
    /// What it takes.
    pub arguments: Vec<Expression>,
    /// Over rows for which this holds.
    pub filter: Option<Expression>,
}

impl PartialRequest {
    /// The aggregation over the rows of the scan and these sides; `None` when the request makes no sense.
    pub fn over(
        &self,
        input: Arc<dyn ExecutionPlan>,
        sides: &[Arc<dyn ExecutionPlan>],
        config: Arc<ConfigOptions>,
    ) -> Option<AggregateExec> {
        let parts = [self.stages.len(), self.groups.len(), self.aggregates.len()];
        if parts.into_iter().any(|parts| parts > PARTS_MAX) {
            return None;
        }
        let values = match self.values.is_empty() {
            true => None,
            false => Some(decode_rows(&self.values).ok()?),
        };
        let mut reader = Reader::new(values.as_ref(), config)?;
        let mut plan = input;
        for stage in &self.stages {
            plan = staged(stage, plan, sides, &mut reader)?;
        }
        let schema = plan.schema();
        let groups = named(&self.groups, "g", &schema, &mut reader)?;
        let groups = match groups.is_empty() {
            true => PhysicalGroupBy::default(),
            false => PhysicalGroupBy::new_single(groups),
        };
        let (mut aggregates, mut filters) = (Vec::new(), Vec::new());
        for (number, call) in self.aggregates.iter().enumerate() {
            let arguments = call
                .arguments
                .iter()
                .map(|argument| reader.read(argument, &schema));
            let arguments = arguments.collect::<Option<Vec<_>>>()?;
            let aggregate = AggregateExprBuilder::new(functions::aggregate(&call.function)?, arguments)
                .schema(Arc::clone(&schema))
                .alias(format!("a{number}"))
                .build();
            aggregates.push(Arc::new(aggregate.ok()?));
            filters.push(match &call.filter {
                Some(filter) => Some(reader.read(filter, &schema)?),
                None => None,
            });
        }
        let mode = AggregateMode::Partial;
        let aggregate = AggregateExec::try_new(mode, groups, aggregates, filters, plan, schema).ok()?;
        let Some(limit) = self.limit else {
            return Some(aggregate);
        };
        let is_distinct = self.aggregates.is_empty() && !self.groups.is_empty();
        let limit = usize::try_from(limit).ok().filter(|_| is_distinct)?;
        Some(aggregate.with_limit_options(Some(LimitOptions::new(limit))))
    }
}

fn staged(
    stage: &Stage,
    input: Arc<dyn ExecutionPlan>,
    sides: &[Arc<dyn ExecutionPlan>],
    reader: &mut Reader,
) -> Option<Arc<dyn ExecutionPlan>> {
    let schema = input.schema();
    Some(match stage {
        Stage::Filter(filter) => Arc::new(FilterExec::try_new(reader.read(filter, &schema)?, input).ok()?),
        Stage::Project(columns) => {
            let columns = named(columns, "c", &schema, reader)?;
            Arc::new(ProjectionExec::try_new(columns, input).ok()?)
        }
        Stage::Join(join) => paced(Arc::new(join.over(sides, input, reader)?))?,
    })
}

type Named = (Arc<dyn PhysicalExpr>, String);

fn named(
    expressions: &[Expression],
    prefix: &str,
    schema: &SchemaRef,
    reader: &mut Reader,
) -> Option<Vec<Named>> {
    let expressions = expressions.iter().enumerate();
    let named = expressions
        .map(|(number, expression)| Some((reader.read(expression, schema)?, format!("{prefix}{number}"))));
    named.collect()
}
