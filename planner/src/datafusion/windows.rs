//! `TUMBLE(relation, time, size)`, `HOP(relation, time, slide, size)` and `SESSION(relation, time, key, …, gap)` in
//! FROM: windows of time.
//!
//! The front end plans the arguments of functions in FROM against no columns at all, so these are planned here:
//! the relation as if it stood in FROM by itself, columns against that relation's. The plan is a [`Windows`] node, which
//! the conversion turns into [`crate::plan::Node::Hop`] or [`crate::plan::Node::Session`].

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow_schema::Field;
use datafusion_common::{DFSchema, DFSchemaRef, DataFusionError, Result, ScalarValue};
use datafusion_expr::logical_plan::{Extension, LogicalPlan};
use datafusion_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion_expr::{Expr, UserDefinedLogicalNodeCore};
use sqlparser::ast::{Expr as SqlExpr, FunctionArg, FunctionArgExpr, TableFactor};

use super::hidden;
use crate::error::{PlanError, PlanErrorKind};
use crate::parse::{argument_relation, table_factor, window_function};

/// A row is in at most so many windows.
const WINDOWS_PER_ROW_MAX: i64 = 1000;

/// Each row of the input once per window that its time is in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Windows {
    /// The input.
    pub input: LogicalPlan,
    /// The time column of the input.
    pub column: usize,
    /// What makes a window.
    pub kind: WindowKind,
    schema: DFSchemaRef,
}

/// What makes a window; lengths are in microseconds, and positive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WindowKind {
    /// Begins at a multiple of the slide.
    Sliding {
        /// From the start of a window to that of the next.
        slide_us: i64,
        /// The length of a window.
        size_us: i64,
    },
    /// Rows of which each is less than the gap after the one before it.
    Session {
        /// The columns by which rows are apart.
        partition: Vec<usize>,
        /// The gap.
        gap_us: i64,
    },
}

impl Windows {
    fn new(input: LogicalPlan, column: usize, kind: WindowKind) -> Result<Self> {
        let (qualifier, time) = input.schema().qualified_field(column);
        let bound = |name: &str| {
            let field = Field::new(name, time.data_type().clone(), true);
            (qualifier.cloned(), Arc::new(field))
        };
        let own = input
            .schema()
            .iter()
            .map(|(qualifier, field)| (qualifier.cloned(), field.clone()));
        let fields = own.chain([bound("window_start"), bound("window_end")]).collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(Self {
            input,
            column,
            kind,
            schema,
        })
    }
}

impl PartialOrd for Windows {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.column, &self.kind).cmp(&(other.column, &other.kind)) {
            Ordering::Equal => self.input.partial_cmp(&other.input),
            order => Some(order),
        }
    }
}

impl UserDefinedLogicalNodeCore for Windows {
    fn name(&self) -> &'static str {
        "Windows"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let column = self.column;
        match &self.kind {
            WindowKind::Sliding { slide_us, size_us } => {
                write!(f, "Windows: {size_us} us every {slide_us} us of column {column}")
            }
            WindowKind::Session { partition, gap_us } => {
                write!(
                    f,
                    "Sessions: {gap_us} us apart of column {column} by {partition:?}"
                )
            }
        }
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let input = inputs.pop().unwrap_or_else(|| self.input.clone());
        Self::new(input, self.column, self.kind.clone())
    }
}

/// Plans the window functions in FROM.
#[derive(Debug)]
pub struct WindowFunctions;

impl RelationPlanner for WindowFunctions {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let Some((function, arguments)) = window_function(&relation) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let plan = plan(function, arguments, context)?;
        let TableFactor::Table { alias, .. } = relation else {
            unreachable!("a window function is written as a table with arguments");
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(
            plan, alias,
        ))))
    }
}

fn plan(
    function: &str,
    arguments: &[FunctionArg],
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let arguments: Option<Vec<&SqlExpr>> = arguments.iter().map(plain).collect();
    let (relation, time, rest) = match (function, arguments.as_deref()) {
        ("tumble", Some([relation, time, rest @ ..])) if rest.len() == 1 => (relation, time, rest),
        ("hop", Some([relation, time, rest @ ..])) if rest.len() == 2 => (relation, time, rest),
        ("session", Some([relation, time, rest @ ..])) if !rest.is_empty() => (relation, time, rest),
        _ => return Err(own(wrong_arguments(function))),
    };
    let input = context.plan(relation_factor(function, relation)?)?;
    let column = column_of(function, time, &input, context)?;
    let (before, last) = (&rest[..rest.len() - 1], rest[rest.len() - 1]);
    let length_us = micros(function, last, context)?;
    let kind = if function == "session" {
        let mut partition = Vec::with_capacity(before.len());
        for key in before {
            partition.push(column_of(function, key, &input, context)?);
        }
        let gap_us = length_us;
        WindowKind::Session { partition, gap_us }
    } else {
        let slide_us = match before.first() {
            Some(slide) => micros(function, slide, context)?,
            None => length_us,
        };
        let size_us = length_us;
        WindowKind::Sliding { slide_us, size_us }
    };
    if let WindowKind::Sliding { slide_us, size_us } = kind
        && size_us.div_euclid(slide_us) > WINDOWS_PER_ROW_MAX
    {
        let error = PlanError::unsupported(
            format_args!("{function}() with more than {WINDOWS_PER_ROW_MAX} windows per row"),
            "Let the windows slide by a larger interval.",
        );
        return Err(own(error));
    }
    let node = Windows::new(input, column, kind)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

/// The column of the input that an argument names.
fn column_of(
    function: &str,
    argument: &SqlExpr,
    input: &LogicalPlan,
    context: &mut dyn RelationPlannerContext,
) -> Result<usize> {
    match context.sql_to_expr(argument.clone(), input.schema())? {
        Expr::Column(column) => input.schema().index_of_column(&column),
        _ => Err(own(PlanError::unsupported(
            format_args!("{function}() by anything but a column"),
            "Compute it in a view, and name its column.",
        ))),
    }
}

/// The microseconds of an argument that is an interval.
fn micros(function: &str, length: &SqlExpr, context: &mut dyn RelationPlannerContext) -> Result<i64> {
    let length = context.sql_to_expr(length.clone(), &DFSchema::empty())?;
    micros_of(&length).ok_or_else(|| own(wrong_interval(function)))
}

fn plain(argument: &FunctionArg) -> Option<&SqlExpr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

/// The relation that a function reads, as if it stood in FROM.
fn relation_factor(function: &str, relation: &SqlExpr) -> Result<TableFactor> {
    let Some(name) = argument_relation(relation) else {
        return Err(own(PlanError::unsupported(
            format_args!("{function}() of anything but a relation's name"),
            "Make the query a view, or name it by WITH.",
        )));
    };
    // The time column may be qualified by the name as written, without the mark.
    let alias = match name.0.as_slice() {
        [part] => part
            .as_ident()
            .and_then(|ident| hidden::alias_of_marked(&ident.value)),
        _ => None,
    };
    Ok(table_factor(name, alias))
}

/// The microseconds of a constant interval: positive and without months, whose lengths differ.
fn micros_of(interval: &Expr) -> Option<i64> {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = interval else {
        return None;
    };
    if interval.months != 0 || interval.nanoseconds % 1000 != 0 {
        return None;
    }
    let days = i64::from(interval.days).checked_mul(24 * 60 * 60 * 1_000_000)?;
    days.checked_add(interval.nanoseconds / 1000)
        .filter(|micros| *micros > 0)
}

fn wrong_arguments(function: &str) -> PlanError {
    let usage = match function {
        "hop" => "Write HOP(relation, time column, slide, size).",
        "session" => "Write SESSION(relation, time column, key column, gap), with any number of key columns.",
        _ => "Write TUMBLE(relation, time column, size).",
    };
    let message = format!("wrong arguments for {function}()");
    PlanError::new(PlanErrorKind::UndefinedFunction, message).with_hint(usage)
}

fn wrong_interval(function: &str) -> PlanError {
    PlanError::unsupported(
        format_args!("{function}() with an interval that is not constant, not positive or has months"),
        "Write it as INTERVAL '10' SECOND.",
    )
}

fn own(error: PlanError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
