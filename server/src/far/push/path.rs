//! What is between an aggregate and the scan of other regions below it: filters, projections, and joins with sides that
//! can go along.

use std::sync::Arc;

use datafusion::common::JoinSide;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, PhysicalExpr, ReplaceChildrenOptions,
};

use super::super::expression::Writer;
use super::super::join::Join;
use super::super::partial::Stage;
use super::super::request::Request;
use super::super::scan::{FarExec, FarPartition};
use super::super::side::{SIDES_MAX, Side, reads_far};

/// See the module's documentation.
pub(super) struct Path<'a> {
    /// From the top.
    nodes: Vec<Node<'a>>,
    pub(super) scan: &'a FarExec,
    pub(super) sides: Vec<Arc<Side>>,
}

struct Node<'a> {
    plan: &'a Arc<dyn ExecutionPlan>,
    /// Of a join on which side of it the rows are, and the number of the other.
    join: Option<(&'a HashJoinExec, JoinSide, usize)>,
}

impl<'a> Path<'a> {
    /// From an aggregation down to rows of other regions, if nothing else is between.
    pub(super) fn below(aggregate: &'a AggregateExec, joins: bool) -> Option<Self> {
        let (mut nodes, mut sides) = (Vec::new(), Vec::new());
        let mut below = aggregate.input();
        loop {
            if let Some(scan) = below.downcast_ref::<FarExec>() {
                return is_whole(scan, !sides.is_empty()).then_some(Self { nodes, scan, sides });
            }
            let (plan, mut join) = (below, None);
            below = match below.downcast_ref::<HashJoinExec>() {
                Some(hash_join) if joins && sides.len() < SIDES_MAX => {
                    let (rows, input, side) = divided(hash_join)?;
                    join = Some((hash_join, rows, sides.len()));
                    sides.push(Side::of(side)?);
                    input
                }
                Some(_) => return None,
                None => passed(below)?,
            };
            nodes.push(Node { plan, join });
        }
    }

    /// What is done with the rows, from the bottom, and what EXPLAIN says of it.
    pub(super) fn stages(&self, writer: &mut Writer) -> Option<(Vec<Stage>, Vec<String>)> {
        let (mut stages, mut shown) = (Vec::new(), Vec::new());
        for node in self.nodes.iter().rev() {
            match node.join {
                None => stages_of(node.plan, writer, &mut stages, &mut shown)?,
                Some((join, rows, number)) => {
                    stages.push(Stage::Join(Join::of(join, rows, number, writer)?));
                    shown.push(join_text(join, &self.sides[number]));
                }
            }
        }
        Some((stages, shown))
    }

    /// The same over this region's rows.
    pub(super) fn over(&self, own: Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
        let mut plan = own;
        for node in self.nodes.iter().rev() {
            let inputs = match node.join {
                None => vec![plan],
                Some((_, JoinSide::Left, number)) => vec![plan, self.sides[number].leaf()?],
                Some((_, _, number)) => vec![self.sides[number].leaf()?, plan],
            };
            plan = replaced(node.plan, inputs)?;
        }
        Some(plan)
    }
}

/// A node over other inputs.
pub(super) fn replaced(
    plan: &Arc<dyn ExecutionPlan>,
    inputs: Vec<Arc<dyn ExecutionPlan>>,
) -> Option<Arc<dyn ExecutionPlan>> {
    let anew = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    Arc::clone(plan).replace_children(inputs, anew).ok()
}

/// Whether a scan is of all rows that its conditions leave, and of so many that it pays to send a side there.
fn is_whole(scan: &FarExec, has_sides: bool) -> bool {
    let is_rows = |part: &Arc<FarPartition>| match &part.request {
        Request::Rows(scan) => scan.rows_max.is_none(),
        Request::States(_) => false,
    };
    let parts = scan.parts();
    let is_wanted = !has_sides || !parts.is_lookup;
    is_wanted && scan.fetch().is_none() && !parts.far.is_empty() && parts.far.iter().all(is_rows)
}

/// Where the rows are, and the inputs of a join: that with the rows, and the other.
type Divided<'a> = (JoinSide, &'a Arc<dyn ExecutionPlan>, &'a Arc<dyn ExecutionPlan>);

/// The inputs of a join of which one reads other regions.
fn divided(join: &HashJoinExec) -> Option<Divided<'_>> {
    let (left, right) = (join.left(), join.right());
    match (reads_far(left), reads_far(right)) {
        (true, false) => Some((JoinSide::Left, left, right)),
        (false, true) => Some((JoinSide::Right, right, left)),
        _ => None,
    }
}

/// What a node reads that goes along, or is of no consequence there.
fn passed(plan: &Arc<dyn ExecutionPlan>) -> Option<&Arc<dyn ExecutionPlan>> {
    let is_passed = plan.is::<FilterExec>()
        || plan.is::<ProjectionExec>()
        || plan.is::<CooperativeExec>()
        || plan.is::<CoalescePartitionsExec>();
    if !is_passed || plan.fetch().is_some() {
        return None;
    }
    match plan.children()[..] {
        [input] => Some(input),
        _ => None,
    }
}

fn join_text(join: &HashJoinExec, side: &Side) -> String {
    let keys = join.on().iter().map(|(left, right)| format!("{left} = {right}"));
    let mut text = format!(
        "{} join on {}",
        join.join_type(),
        keys.collect::<Vec<_>>().join(" and ")
    );
    if let Some(filter) = join.filter() {
        text.push_str(&format!(" and {}", filter.expression()));
    }
    text.push_str(&format!(" with rows sent there [{}]", side.text()));
    text
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
