//! `TUMBLE`, `HOP` and `SESSION` in FROM of a query that is run once.
//!
//! ```text
//!   HOP(t, at, slide, size)  =  t ─▶ all columns, windows(at) as a list ─▶ a row per entry ─▶ its bounds as columns
//!   SESSION(t, at, k, gap)   =  t ─▶ the time before, by k ─▶ number of those so far that ended there ─▶ least and
//!                                    greatest time by k and number
//! ```
//! The planner reads the call, as it does for views; what becomes of it here are DataFusion's own operators around one
//! function, so that projections and conditions go through them. The windows of a time are the executor's.

use std::hash::Hash;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, ListArray, PrimitiveArray, StructArray,
};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Fields, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{Column, UnnestOptions};
use datafusion::error::{DataFusionError, Result};
use datafusion::functions::core::expr_fn::get_field;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::functions_window::expr_fn::lag;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{
    AggregateUDF, ColumnarValue, Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility, WindowFrame, WindowFunctionDefinition, lit, when,
};
use datafusion::sql::sqlparser::ast::{self, TableFactor};
use tributary_executor::windows_of;
use tributary_planner::datafusion::{WindowFunctions, WindowKind, Windows};
use tributary_planner::parse::{Statement, parse, windowed_relations};

use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate::{DATATYPE_MISMATCH, DATETIME_OVERFLOW};

/// Makes the relations that window functions read known to DataFusion, which looks up what stands in FROM by its name and
/// not what is an argument: each is named once more in a WITH query that nothing reads.
pub fn name_relations(query: &mut ast::Query) -> SqlResult<()> {
    let named = windowed_relations(query).into_iter().enumerate();
    let named: Vec<String> = named
        .map(|(number, name)| format!("tributary_windowed_{number} AS (SELECT 1 FROM {name})"))
        .collect();
    if named.is_empty() {
        return Ok(());
    }
    let text = format!("WITH {} SELECT 1", named.join(", "));
    let parsed = parse(&text)?.pop().map(|parsed| parsed.statement);
    let Some(Statement::Sql(statement)) = parsed else {
        return Err(SqlError::internal("a WITH query was lost"));
    };
    if let ast::Statement::Query(with) = *statement
        && let Some(mut with) = with.with
    {
        if let Some(own) = query.with.take() {
            with.recursive = own.recursive;
            with.cte_tables.extend(own.cte_tables);
        }
        query.with = Some(with);
    }
    Ok(())
}

/// The column that holds a row's windows until each has a row of its own.
const WINDOWS_COLUMN: &str = "tributary_windows";
const START: &str = "window_start";
const END: &str = "window_end";

/// Plans the window functions in FROM.
#[derive(Debug)]
pub struct QueryWindows;

impl RelationPlanner for QueryWindows {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let planned = match WindowFunctions.plan_relation(relation, context)? {
            RelationPlanning::Planned(planned) => planned,
            original @ RelationPlanning::Original(_) => return Ok(original),
        };
        let PlannedRelation { plan, alias } = *planned;
        let plan = match &plan {
            LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<Windows>() {
                Some(windows) => expanded(windows)?,
                None => plan,
            },
            _ => plan,
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(
            plan, alias,
        ))))
    }
}

fn expanded(windows: &Windows) -> Result<LogicalPlan> {
    let schema = windows.input.schema();
    let (qualifier, field) = schema.qualified_field(windows.column);
    let DataType::Timestamp(TimeUnit::Microsecond, _) = field.data_type() else {
        let message = format!(
            "windows of time are made of a timestamp, and \"{}\" is none",
            field.name()
        );
        return Err(external(SqlError::new(DATATYPE_MISMATCH, message)));
    };
    let time = Expr::Column(Column::from((qualifier, field)));
    let (slide_us, size_us) = match &windows.kind {
        WindowKind::Sliding { slide_us, size_us } => (*slide_us, *size_us),
        WindowKind::Session { partition, gap_us } => {
            return sessionized(&windows.input, time, partition, *gap_us);
        }
    };
    let own = || schema.iter().map(|column| Expr::Column(Column::from(column)));
    let function = ScalarUDF::from(WindowsOf {
        slide_us,
        size_us,
        signature: Signature::any(1, Volatility::Immutable),
    });
    let list = function.call(vec![time]).alias(WINDOWS_COLUMN);
    let bound = |name: &str| {
        let bound = get_field(Expr::Column(Column::from_name(WINDOWS_COLUMN)), name);
        bound.alias_qualified(qualifier.cloned(), name)
    };
    LogicalPlanBuilder::from(windows.input.clone())
        .project(own().chain([list]))?
        .unnest_column_with_options(
            Column::from_name(WINDOWS_COLUMN),
            UnnestOptions::new().with_preserve_nulls(false),
        )?
        .project(own().chain([bound(START), bound(END)]))?
        .build()
}

/// The time before a row's, and the number of sessions that ended before it.
const EARLIER_COLUMN: &str = "tributary_earlier";
const SESSION_COLUMN: &str = "tributary_session";

fn sessionized(input: &LogicalPlan, time: Expr, partition: &[usize], gap_us: i64) -> Result<LogicalPlan> {
    let schema = input.schema();
    let own = || schema.iter().map(|column| Expr::Column(Column::from(column)));
    let relation = match &time {
        Expr::Column(column) => column.relation.clone(),
        _ => None,
    };
    let end = ScalarUDF::from(SessionEnd {
        gap_us,
        signature: Signature::any(1, Volatility::Immutable),
    });
    let column = |name: &str| Expr::Column(Column::from_name(name));
    let all: Vec<Expr> = own().collect();
    let keys: Vec<Expr> = partition.iter().map(|key| all[*key].clone()).collect();
    let by_time = || vec![time.clone().sort(true, false)];
    let earlier = lag(time.clone(), Some(1), None)
        .partition_by(keys.clone())
        .order_by(by_time())
        .build()?;
    let begins = when(
        end.call(vec![column(EARLIER_COLUMN)]).gt(time.clone()),
        lit(0_i64),
    )
    .otherwise(lit(1_i64))?;
    let number = over(sum_udaf(), begins)
        .partition_by(keys.clone())
        .order_by(by_time())
        .window_frame(WindowFrame::new(Some(false)))
        .build()?;
    let of_session = || keys.iter().cloned().chain([column(SESSION_COLUMN)]).collect();
    let start = over(min_udaf(), time.clone())
        .partition_by(of_session())
        .build()?;
    let last = over(max_udaf(), time.clone())
        .partition_by(of_session())
        .build()?;
    LogicalPlanBuilder::from(input.clone())
        .filter(time.is_not_null())?
        .window([earlier.alias(EARLIER_COLUMN)])?
        .window([number.alias(SESSION_COLUMN)])?
        .window([start.alias(START), last.alias(END)])?
        .project(own().chain([
            column(START).alias_qualified(relation.clone(), START),
            end.call(vec![column(END)]).alias_qualified(relation, END),
        ]))?
        .build()
}

/// An aggregate as a window function.
fn over(aggregate: Arc<AggregateUDF>, argument: Expr) -> Expr {
    let function = WindowFunctionDefinition::AggregateUDF(aggregate);
    Expr::from(WindowFunction::new(function, vec![argument]))
}

/// The end of a session whose last row has this time.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SessionEnd {
    gap_us: i64,
    signature: Signature,
}

impl ScalarUDFImpl for SessionEnd {
    fn name(&self) -> &str {
        "session_end"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let time = args.args[0].to_array(args.number_rows)?;
        let ends: PrimitiveArray<TimestampMicrosecondType> = time
            .as_primitive::<TimestampMicrosecondType>()
            .try_unary(|time| time.checked_add(self.gap_us).ok_or_else(out_of_range))?;
        let zone = match time.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        Ok(ColumnarValue::Array(Arc::new(ends.with_timezone_opt(zone))))
    }
}

fn out_of_range() -> DataFusionError {
    external(SqlError::new(DATETIME_OVERFLOW, "timestamp out of range"))
}

fn external(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The windows of a time, as a list of their bounds; of no time, none.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowsOf {
    slide_us: i64,
    size_us: i64,
    signature: Signature,
}

fn bounds(time: &DataType) -> Fields {
    Fields::from(vec![
        Field::new(START, time.clone(), true),
        Field::new(END, time.clone(), true),
    ])
}

impl ScalarUDFImpl for WindowsOf {
    fn name(&self) -> &str {
        "windows"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let entry = DataType::Struct(bounds(&arguments[0]));
        Ok(DataType::List(Arc::new(Field::new_list_field(entry, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let time = args.args[0].to_array(args.number_rows)?;
        let times = time.as_primitive::<TimestampMicrosecondType>();
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        let mut lengths = Vec::with_capacity(times.len());
        for row in 0..times.len() {
            let before = starts.len();
            if times.is_valid(row) {
                let windows =
                    windows_of(times.value(row), self.slide_us, self.size_us).ok_or_else(out_of_range)?;
                for (start, end) in windows {
                    starts.push(start);
                    ends.push(end);
                }
            }
            lengths.push(starts.len() - before);
        }
        let column =
            |values: Vec<i64>| -> Result<ArrayRef> { Ok(cast(&Int64Array::from(values), time.data_type())?) };
        let fields = bounds(time.data_type());
        let entries = StructArray::new(fields.clone(), vec![column(starts)?, column(ends)?], None);
        let entry = Arc::new(Field::new_list_field(DataType::Struct(fields), true));
        let offsets = OffsetBuffer::from_lengths(lengths);
        let valid: Option<NullBuffer> = times.nulls().cloned();
        Ok(ColumnarValue::Array(Arc::new(ListArray::new(
            entry,
            offsets,
            Arc::new(entries),
            valid,
        ))))
    }
}
