//! Moves the first half of an aggregate to the regions that own the rows: a rule of the physical optimizer.
//!
//! ```text
//!   AggregateExec: Final                    AggregateExec: Final
//!     AggregateExec: Partial        ─▶        UnionExec
//!       filters, projections, joins             AggregateExec: Partial, filters, …: this region's rows
//!         FarExec: rows                         FarExec: states, computed by the owners
//! ```
//!
//! The halves are those that DataFusion makes of every aggregate over several partitions, so the answer is what it
//! would be without the rule. Only what goes along whole is moved: plain groups, aggregates of [`super::functions`]
//! without DISTINCT or ORDER BY, expressions that the other side reads as the very same, hash joins as [`super::join`]
//! has them with a small side that reads nothing of other regions. Everything else (other joins, a limit or a window
//! below the aggregate, GROUPING SETS, functions that are not listed) stays at the gateway, over rows.
//!
//! A side is computed after the statement is planned ([`super::side`]). Should it stay here, the statement is planned
//! again with [`Pushing::Scans`]; where an owner does not understand a request, with [`Pushing::Nothing`].

mod path;

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::streaming::StreamingTableExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, InputOrderMode, PhysicalExpr};
use tributary_replication::bundle::encode_rows;

use super::expression::Writer;
use super::functions;
use super::partial::{Call, PartialRequest};
use super::request::Request;
use super::scan::{FarExec, FarPartition, FarParts};
use path::{Path, replaced};

/// The rule's name.
const NAME: &str = "push_aggregates_to_owners";

/// The rule that joins both halves of an aggregate where there is one partition; after it there is nothing to move.
const JOINS_HALVES: &str = "CombinePartialFinalAggregate";

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// What is moved to the owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushing {
    /// Aggregates over rows, and over joins of rows with small sides.
    Joins,
    /// Aggregates over rows.
    Scans,
    /// No aggregate.
    Nothing,
}

/// The rules with this one in its place.
pub fn with_rule(rules: &[Rule], pushing: Pushing) -> Vec<Rule> {
    let others = rules.iter().filter(|rule| rule.name() != NAME);
    let mut rules: Vec<Rule> = others.cloned().collect();
    if pushing != Pushing::Nothing {
        let place = rules.iter().position(|rule| rule.name() == JOINS_HALVES);
        rules.insert(place.unwrap_or(rules.len()), Arc::new(PushAggregates { pushing }));
    }
    rules
}

#[derive(Debug)]
struct PushAggregates {
    pushing: Pushing,
}

impl PhysicalOptimizerRule for PushAggregates {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let joins = self.pushing == Pushing::Joins;
        let pushed = plan.transform_up(|plan| {
            Ok(match pushed(&plan, joins, config) {
                Some(pushed) => Transformed::yes(pushed),
                None => Transformed::no(plan),
            })
        })?;
        Ok(pushed.data)
    }

    fn name(&self) -> &str {
        NAME
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// What takes the place of a partial aggregation over rows of other regions.
fn pushed(
    plan: &Arc<dyn ExecutionPlan>,
    joins: bool,
    config: &ConfigOptions,
) -> Option<Arc<dyn ExecutionPlan>> {
    let aggregate = plan.downcast_ref::<AggregateExec>()?;
    let is_plain = *aggregate.mode() == AggregateMode::Partial
        && aggregate.group_expr().is_single()
        && *aggregate.input_order_mode() == InputOrderMode::Linear;
    let path = is_plain.then(|| Path::below(aggregate, joins))??;
    let parts = path.scan.parts();
    let scans = parts.scans.upgrade()?;
    if !path.sides.is_empty() && !scans.may_send_sides() {
        return None;
    }
    let (requests, text) = requests(aggregate, &path, parts, config)?;
    let schema = aggregate.schema();
    let states = parts.far.iter().zip(requests).map(|(part, request)| {
        let (region, reads) = (part.region.clone(), Arc::clone(&part.reads));
        let request = Request::States(Box::new(request));
        let states = FarPartition::new(region, Arc::clone(&schema), reads, request);
        Arc::new(states.with_sides(path.sides.clone()))
    });
    let states: Vec<Arc<FarPartition>> = states.collect();
    let far: Arc<dyn ExecutionPlan> = Arc::new(FarExec::new(
        FarParts {
            schema,
            own: None,
            far: states.clone(),
            scans: parts.scans.clone(),
            is_lookup: parts.is_lookup,
            text,
        },
        None,
    ));
    let mut all = match &parts.own {
        None => far,
        Some(own) => {
            let own = vec![Arc::clone(own)];
            let own = StreamingTableExec::try_new(Arc::clone(&parts.schema), own, None, [], false, None);
            let near = replaced(plan, vec![path.over(Arc::new(own.ok()?))?])?;
            UnionExec::try_new(vec![near, far]).ok()?
        }
    };
    // Where a join gathered the rows of all regions, what is above it expects one partition.
    if plan.output_partitioning().partition_count() == 1 && all.output_partitioning().partition_count() > 1 {
        all = Arc::new(CoalescePartitionsExec::new(all));
    }
    // Last: from here on the scans of rows are not opened.
    scans.replace(&parts.far, &states);
    Some(all)
}

/// What each owner is asked, and what EXPLAIN says of it.
fn requests(
    aggregate: &AggregateExec,
    path: &Path<'_>,
    parts: &FarParts,
    config: &ConfigOptions,
) -> Option<(Vec<PartialRequest>, String)> {
    let config = Arc::new(config.clone());
    let mut writer = Writer::new(Arc::clone(&config));
    let (stages, shown) = path.stages(&mut writer)?;
    let schema = aggregate.input().schema();
    let mut written = |expr: &Arc<dyn PhysicalExpr>| writer.write(expr, &schema);
    let groups = aggregate.group_expr().expr().iter();
    let groups = groups
        .map(|(group, _)| written(group))
        .collect::<Option<Vec<_>>>()?;
    let calls = aggregate.aggr_expr().iter().zip(aggregate.filter_expr());
    let aggregates = calls.map(|(call, filter)| call_of(call, filter.as_ref(), &mut written));
    let aggregates = aggregates.collect::<Option<Vec<_>>>()?;
    let limit = aggregate.limit_options();
    if limit.is_some_and(|limit| limit.descending().is_some()) {
        return None;
    }
    let values = writer
        .values()
        .map(|values| encode_rows(&values))
        .unwrap_or_default();
    let request = |part: &Arc<FarPartition>| PartialRequest {
        scan: part.request.scan().clone(),
        stages: stages.clone(),
        groups: groups.clone(),
        aggregates: aggregates.clone(),
        limit: limit.map(|limit| limit.limit() as u64),
        values: values.clone(),
        sides: Vec::new(),
    };
    let requests: Vec<PartialRequest> = parts.far.iter().map(request).collect();
    let empty =
        |schema: &SchemaRef| -> Arc<dyn ExecutionPlan> { Arc::new(EmptyExec::new(Arc::clone(schema))) };
    let sides: Vec<_> = path.sides.iter().map(|side| empty(&side.schema())).collect();
    let is_same = |request: &PartialRequest| {
        let planned = request.over(empty(&parts.schema), &sides, Arc::clone(&config));
        planned.is_some_and(|planned| have_same_types(&planned.schema(), &aggregate.schema()))
    };
    let text = text_of(aggregate, &shown);
    requests.first().is_some_and(is_same).then_some((requests, text))
}

fn have_same_types(one: &SchemaRef, other: &SchemaRef) -> bool {
    let types = |schema: &SchemaRef| -> Vec<_> {
        schema
            .fields()
            .iter()
            .map(|field| field.data_type().clone())
            .collect()
    };
    types(one) == types(other)
}

fn call_of(
    call: &AggregateFunctionExpr,
    filter: Option<&Arc<dyn PhysicalExpr>>,
    written: &mut impl FnMut(&Arc<dyn PhysicalExpr>) -> Option<super::expression::Expression>,
) -> Option<Call> {
    let is_plain = !call.is_distinct()
        && !call.ignore_nulls()
        && !call.is_reversed()
        && call.order_bys().is_empty()
        && functions::aggregate(call.fun().name()).is_some_and(|known| *known == *call.fun());
    if !is_plain {
        return None;
    }
    let arguments = call.expressions();
    Some(Call {
        function: call.fun().name().to_owned(),
        arguments: arguments.iter().map(&mut *written).collect::<Option<_>>()?,
        filter: match filter {
            Some(filter) => Some(written(filter)?),
            None => None,
        },
    })
}

fn text_of(aggregate: &AggregateExec, stages: &[String]) -> String {
    let groups = aggregate.group_expr().expr().iter();
    let groups = groups.map(|(group, name)| format!("{group} as {name}"));
    let groups = groups.collect::<Vec<_>>().join(", ");
    let calls = aggregate.aggr_expr().iter().map(|call| call.name());
    let calls = calls.collect::<Vec<_>>().join(", ");
    let mut text = format!("partial aggregation by the owners: gby=[{groups}], aggr=[{calls}]");
    if !stages.is_empty() {
        text.push_str(&format!(", over=[{}]", stages.join(", ")));
    }
    text
}
