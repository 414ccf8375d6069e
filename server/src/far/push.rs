//! Moves the first half of an aggregate to the regions that own the rows: a rule of the physical optimizer.
//!
//! ```text
//!   AggregateExec: Final                    AggregateExec: Final
//!     AggregateExec: Partial        ─▶        UnionExec
//!       filters, projections                    AggregateExec: Partial, filters, projections: this region's rows
//!         FarExec: rows                         FarExec: states, computed by the owners
//! ```
//!
//! The halves are those that DataFusion makes of every aggregate over several partitions, so the answer is what it would
//! be without the rule. Only what goes along whole is moved: plain groups, aggregates of [`super::functions`] without
//! DISTINCT or ORDER BY, expressions that the other side reads as the very same. Everything else (a join, a limit or a
//! window below the aggregate, GROUPING SETS, functions that are not listed) stays at the gateway, over rows.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::streaming::StreamingTableExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, InputOrderMode, PhysicalExpr, ReplaceChildrenOptions,
};
use tributary_replication::bundle::encode_rows;

use super::expression::Writer;
use super::functions;
use super::partial::{Call, PartialRequest, Stage};
use super::request::Request;
use super::scan::{FarExec, FarPartition, FarParts};

/// The rule's name.
pub const NAME: &str = "push_aggregates_to_owners";

/// The rule that joins both halves of an aggregate where there is one partition; after it there is nothing to move.
const JOINS_HALVES: &str = "CombinePartialFinalAggregate";

type Rule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// The rules with this one in its place.
pub fn with_rule(rules: &[Rule]) -> Vec<Rule> {
    let mut rules = rules.to_vec();
    let place = rules.iter().position(|rule| rule.name() == JOINS_HALVES);
    rules.insert(place.unwrap_or(rules.len()), Arc::new(PushAggregates));
    rules
}

#[derive(Debug)]
struct PushAggregates;

impl PhysicalOptimizerRule for PushAggregates {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let pushed = plan.transform_up(|plan| {
            Ok(match pushed(&plan, config) {
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
fn pushed(plan: &Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Option<Arc<dyn ExecutionPlan>> {
    let aggregate = plan.downcast_ref::<AggregateExec>()?;
    let (path, scan) = scan_below(aggregate)?;
    let parts = scan.parts();
    let (requests, text) = requests(aggregate, &path, parts, config)?;
    let schema = aggregate.schema();
    let states = parts.far.iter().zip(requests).map(|(part, request)| {
        let (region, reads) = (part.region.clone(), Arc::clone(&part.reads));
        let request = Request::States(Box::new(request));
        Arc::new(FarPartition::new(region, Arc::clone(&schema), reads, request))
    });
    let states: Vec<Arc<FarPartition>> = states.collect();
    let far: Arc<dyn ExecutionPlan> = Arc::new(FarExec::new(
        FarParts {
            schema,
            own: None,
            far: states.clone(),
            scans: parts.scans.clone(),
            text,
        },
        None,
    ));
    let all = match &parts.own {
        None => far,
        Some(own) => {
            let own = vec![Arc::clone(own)];
            let own = StreamingTableExec::try_new(Arc::clone(&parts.schema), own, None, [], false, None);
            let mut near: Arc<dyn ExecutionPlan> = Arc::new(own.ok()?);
            for above in path.into_iter().rev().chain([plan]) {
                let anew = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
                near = Arc::clone(above).replace_children(vec![near], anew).ok()?;
            }
            UnionExec::try_new(vec![near, far]).ok()?
        }
    };
    // Last: from here on the scans of rows are not opened.
    parts.scans.upgrade()?.replace(&parts.far, &states);
    Some(all)
}

/// The scan of other regions that a partial aggregation reads, and what is between, from the top.
fn scan_below(aggregate: &AggregateExec) -> Option<(Vec<&Arc<dyn ExecutionPlan>>, &FarExec)> {
    let is_plain = *aggregate.mode() == AggregateMode::Partial
        && aggregate.group_expr().is_single()
        && *aggregate.input_order_mode() == InputOrderMode::Linear;
    if !is_plain {
        return None;
    }
    let mut path = Vec::new();
    let mut below = aggregate.input();
    loop {
        if let Some(scan) = below.downcast_ref::<FarExec>() {
            let is_rows = |part: &Arc<FarPartition>| match &part.request {
                Request::Rows(scan) => scan.rows_max.is_none(),
                Request::States(_) => false,
            };
            let parts = scan.parts();
            let is_whole = scan.fetch().is_none() && parts.far.iter().all(is_rows);
            return (is_whole && !parts.far.is_empty()).then_some((path, scan));
        }
        let is_passed =
            below.is::<FilterExec>() || below.is::<ProjectionExec>() || below.is::<CooperativeExec>();
        if !is_passed || below.fetch().is_some() {
            return None;
        }
        path.push(below);
        let [next] = below.children()[..] else {
            return None;
        };
        below = next;
    }
}

/// What each owner is asked, and what EXPLAIN says of it.
fn requests(
    aggregate: &AggregateExec,
    path: &[&Arc<dyn ExecutionPlan>],
    parts: &FarParts,
    config: &ConfigOptions,
) -> Option<(Vec<PartialRequest>, String)> {
    let config = Arc::new(config.clone());
    let mut writer = Writer::new(Arc::clone(&config));
    let (mut stages, mut shown) = (Vec::new(), Vec::new());
    for plan in path.iter().rev() {
        stages_of(plan, &mut writer, &mut stages, &mut shown)?;
    }
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
    };
    let requests: Vec<PartialRequest> = parts.far.iter().map(request).collect();
    let is_same = |request: &PartialRequest| {
        let planned = request.over(
            Arc::new(EmptyExec::new(Arc::clone(&parts.schema))),
            Arc::clone(&config),
        );
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

fn stages_of(
    plan: &Arc<dyn ExecutionPlan>,
    writer: &mut Writer,
    stages: &mut Vec<Stage>,
    shown: &mut Vec<String>,
) -> Option<()> {
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        let schema = filter.input().schema();
        shown.push(format!("filter {}", filter.predicate()));
        stages.push(Stage::Filter(writer.write(filter.predicate(), &schema)?));
        if let Some(projection) = filter.projection() {
            let column = |place: &usize| -> Arc<dyn PhysicalExpr> {
                Arc::new(Column::new(schema.field(*place).name(), *place))
            };
            let columns = projection
                .iter()
                .map(|place| writer.write(&column(place), &schema));
            stages.push(Stage::Project(columns.collect::<Option<_>>()?));
        }
    } else if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let schema = projection.input().schema();
        let columns = projection.expr().iter();
        shown.extend(
            columns
                .clone()
                .map(|column| format!("{} as {}", column.expr, column.alias)),
        );
        let columns = columns.map(|column| writer.write(&column.expr, &schema));
        stages.push(Stage::Project(columns.collect::<Option<_>>()?));
    }
    Some(())
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
