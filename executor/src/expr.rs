//! Scalar expressions over whole batches. The only file of this crate that names DataFusion.
//!
//! [`plan::Expr`](tributary_planner::plan::Expr) is compiled to DataFusion's physical expressions; where those
//! mean something else than PostgreSQL, a [`KernelExpr`] with a kernel of our own stands in their place.
//!
//! A batch with one bad row fails as a whole, without saying which row it was. So a failing batch is halved
//! until the rows that fail *alone* are known; all others are computed in as large pieces as possible. Whether
//! a row fails alone does not depend on its neighbours, which is what makes errors retractable.
//!
//! Left out: coercion (the planner has inserted every cast) and functions beyond DataFusion's registries and ours.

mod arithmetic;
mod cast;
mod functions;
mod text;

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{concat, prep_null_mask_filter};
use arrow::datatypes::{DataType, IntervalMonthDayNano, Schema, SchemaRef, TimeUnit};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_expr::{ColumnarValue, Operator};
use datafusion_physical_expr::expressions::{
    BinaryExpr, CaseExpr, Column, IsNullExpr, LikeExpr, Literal as LiteralExpr, NegativeExpr, NotExpr,
    in_list,
};
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use tributary_planner::plan::{BinaryOp, Expr, Literal, LiteralValue};

use crate::columns::{downcast, schema_of};
use crate::error::{ExecutorError, Result};
use arithmetic::Message;

type Compiled = Arc<dyn PhysicalExpr>;

/// Expressions over one input, ready to run.
#[derive(Debug)]
pub struct Evaluator {
    expressions: Vec<Compiled>,
    types: Vec<DataType>,
}

/// The result of evaluating a batch.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// One column per expression, with one value per row that did *not* fail, in row order.
    pub columns: Vec<ArrayRef>,
    /// The rows that failed, ascending, and why.
    pub failed: Vec<(u32, String)>,
}

impl Evaluated {
    /// For each of `rows` rows whether it was computed; `None` when all were.
    pub fn computed(&self, rows: usize) -> Option<BooleanArray> {
        if self.failed.is_empty() {
            return None;
        }
        let mut computed = vec![true; rows];
        self.failed
            .iter()
            .for_each(|(row, _)| computed[*row as usize] = false);
        Some(BooleanArray::from(computed))
    }
}

impl Evaluator {
    /// Compiles expressions over an input with columns of the given types.
    ///
    /// # Errors
    /// [`ExecutorError::Unsupported`] names what cannot be computed; [`ExecutorError::Plan`] says where types
    /// do not fit.
    pub fn compile(expressions: &[Expr], input_types: &[DataType]) -> Result<Self> {
        let compiler = Compiler {
            schema: schema_of(input_types),
        };
        let expressions: Vec<Compiled> = expressions
            .iter()
            .map(|e| compiler.compile(e))
            .collect::<Result<_>>()?;
        let types = expressions
            .iter()
            .map(|e| compiler.type_of(e))
            .collect::<Result<_>>()?;
        Ok(Self { expressions, types })
    }

    /// The types of the results.
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// Evaluates all expressions over a batch. A row fails when any expression fails on it.
    pub fn evaluate(&self, rows: &RecordBatch) -> Evaluated {
        let mut pieces = Vec::new();
        let mut failed = Vec::new();
        if rows.num_rows() > 0 {
            self.evaluate_range(rows, 0, &mut pieces, &mut failed);
        }
        let columns = (0..self.types.len())
            .map(|column| self.join_pieces(column, &pieces))
            .collect();
        Evaluated { columns, failed }
    }

    /// For each row whether the first expression, a condition, is true; and the rows on which it failed, for which
    /// it counts as not true.
    pub(crate) fn holds(&self, rows: &RecordBatch) -> (BooleanArray, Vec<(u32, String)>) {
        let evaluated = self.evaluate(rows);
        let condition = downcast::<BooleanArray>(&evaluated.columns[0]);
        let condition = match condition.nulls() {
            Some(_) => prep_null_mask_filter(condition),
            None => condition.clone(),
        };
        if evaluated.failed.is_empty() {
            return (condition, evaluated.failed);
        }
        let mut verdicts = condition.values().iter();
        let mut failed = evaluated.failed.iter().map(|(row, _)| *row).peekable();
        let holds = (0..rows.num_rows() as u32).map(|row| {
            failed.next_if_eq(&row).is_none() && verdicts.next().expect("one verdict per computed row")
        });
        (BooleanArray::from(holds.collect::<Vec<bool>>()), evaluated.failed)
    }

    fn evaluate_range(
        &self,
        rows: &RecordBatch,
        first: u32,
        pieces: &mut Vec<Vec<ArrayRef>>,
        failed: &mut Vec<(u32, String)>,
    ) {
        match self.evaluate_whole(rows) {
            Ok(columns) => pieces.push(columns),
            Err(message) if rows.num_rows() == 1 => failed.push((first, message)),
            Err(_) => {
                let half = rows.num_rows() / 2;
                self.evaluate_range(&rows.slice(0, half), first, pieces, failed);
                let rest = rows.slice(half, rows.num_rows() - half);
                self.evaluate_range(&rest, first + half as u32, pieces, failed);
            }
        }
    }

    fn evaluate_whole(&self, rows: &RecordBatch) -> std::result::Result<Vec<ArrayRef>, Message> {
        let evaluate = |(expression, data_type): (&Compiled, &DataType)| {
            let column = expression
                .evaluate(rows)
                .and_then(|value| value.into_array(rows.num_rows()));
            let column = column.map_err(message_of)?;
            assert_eq!(
                column.data_type(),
                data_type,
                "an expression yields the type it was compiled to"
            );
            Ok(column)
        };
        self.expressions.iter().zip(&self.types).map(evaluate).collect()
    }

    fn join_pieces(&self, column: usize, pieces: &[Vec<ArrayRef>]) -> ArrayRef {
        match pieces {
            [] => arrow::array::new_empty_array(&self.types[column]),
            [only] => only[column].clone(),
            _ => {
                let parts: Vec<&dyn arrow::array::Array> =
                    pieces.iter().map(|piece| piece[column].as_ref()).collect();
                concat(&parts).expect("pieces of one expression have its type")
            }
        }
    }
}

/// Compiles and evaluates one expression over one batch.
///
/// # Errors
/// As [`Evaluator::compile`].
pub fn evaluate(expression: &Expr, rows: &RecordBatch) -> Result<Evaluated> {
    let types = crate::columns::types_of(&rows.schema());
    Ok(Evaluator::compile(std::slice::from_ref(expression), &types)?.evaluate(rows))
}

struct Compiler {
    schema: SchemaRef,
}

impl Compiler {
    fn compile(&self, expression: &Expr) -> Result<Compiled> {
        Ok(match expression {
            Expr::Column(index) => {
                if *index >= self.schema.fields().len() {
                    return Err(ExecutorError::Plan(format!("there is no column {index}")));
                }
                Arc::new(Column::new(self.schema.field(*index).name(), *index))
            }
            Expr::Literal(literal) => Arc::new(LiteralExpr::new(scalar(literal)?)),
            Expr::Binary { op, left, right } => {
                self.binary(*op, self.compile(left)?, self.compile(right)?)?
            }
            Expr::Not(input) => Arc::new(NotExpr::new(self.compile(input)?)),
            Expr::Negate(input) => self.negate(self.compile(input)?)?,
            Expr::IsNull(input) => Arc::new(IsNullExpr::new(self.compile(input)?)),
            Expr::Case { branches, otherwise } => self.case(branches, otherwise.as_deref())?,
            Expr::Cast { input, to } => self.cast(self.compile(input)?, to)?,
            Expr::Like {
                input,
                pattern,
                negated,
                case_insensitive,
            } => Arc::new(LikeExpr::new(
                *negated,
                *case_insensitive,
                self.compile(input)?,
                self.compile(pattern)?,
            )),
            Expr::InList { input, list, negated } => self.in_list(input, list, *negated)?,
            Expr::Call {
                function,
                arguments,
                returns,
            } => self.call(function, arguments, returns)?,
        })
    }

    fn type_of(&self, expression: &Compiled) -> Result<DataType> {
        expression.data_type(&self.schema).map_err(plan_error)
    }

    fn binary(&self, op: BinaryOp, left: Compiled, right: Compiled) -> Result<Compiled> {
        let (left_type, right_type) = (self.type_of(&left)?, self.type_of(&right)?);
        let is_arithmetic = matches!(
            op,
            BinaryOp::Add | BinaryOp::Subtract | BinaryOp::Multiply | BinaryOp::Divide | BinaryOp::Modulo
        );
        let intervals = [&left_type, &right_type]
            .iter()
            .any(|t| matches!(t, DataType::Interval(_)));
        if !is_arithmetic && intervals {
            return Err(ExecutorError::Unsupported("comparison of intervals".to_string()));
        }
        let plain = BinaryExpr::new(left.clone(), operator(op), right.clone()).with_fail_on_overflow(true);
        let returns = plain.data_type(&self.schema).map_err(plan_error)?;
        if !is_arithmetic {
            return Ok(Arc::new(plain));
        }
        let kernel = match (&left_type, &right_type) {
            (DataType::Float32, DataType::Float32) | (DataType::Float64, DataType::Float64) => {
                if op == BinaryOp::Modulo {
                    return Err(ExecutorError::Unsupported("% of floats".to_string()));
                }
                Kernel::FloatArithmetic(op)
            }
            (DataType::Decimal128(..), DataType::Decimal128(..)) if op == BinaryOp::Divide => {
                Kernel::DecimalDivide
            }
            (DataType::Decimal128(..), DataType::Decimal128(..)) => {
                return Ok(KernelExpr::build(
                    Kernel::DecimalInRange,
                    vec![Arc::new(plain)],
                    returns,
                ));
            }
            (l, r) if l == r && l.is_integer() && op == BinaryOp::Modulo => Kernel::IntegerModulo,
            (l, r) if l.is_numeric() && l != r && r.is_numeric() => {
                return Err(ExecutorError::Plan(format!("{l} and {r} are not of one type")));
            }
            _ => return Ok(Arc::new(plain)),
        };
        Ok(KernelExpr::build(kernel, vec![left, right], returns))
    }

    /// DataFusion's negation wraps integers, so theirs is a checked subtraction from zero.
    fn negate(&self, input: Compiled) -> Result<Compiled> {
        let data_type = self.type_of(&input)?;
        match data_type {
            DataType::Int16 | DataType::Int32 | DataType::Int64 => {
                let zero = ScalarValue::new_zero(&data_type).map_err(plan_error)?;
                self.binary(BinaryOp::Subtract, Arc::new(LiteralExpr::new(zero)), input)
            }
            DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) => {
                Ok(Arc::new(NegativeExpr::new(input)))
            }
            other => Err(ExecutorError::Unsupported(format!("negation of {other}"))),
        }
    }

    fn case(&self, branches: &[(Expr, Expr)], otherwise: Option<&Expr>) -> Result<Compiled> {
        let compiled = branches
            .iter()
            .map(|(when, then)| Ok((self.compile(when)?, self.compile(then)?)));
        let otherwise = otherwise.map(|expression| self.compile(expression)).transpose()?;
        let case =
            CaseExpr::try_new(None, compiled.collect::<Result<_>>()?, otherwise).map_err(plan_error)?;
        Ok(Arc::new(case))
    }

    fn cast(&self, input: Compiled, to: &DataType) -> Result<Compiled> {
        let from = self.type_of(&input)?;
        if from == *to {
            return Ok(input);
        }
        if !cast::supports(&from, to) {
            return Err(ExecutorError::Unsupported(format!("cast from {from} to {to}")));
        }
        Ok(KernelExpr::build(Kernel::Cast, vec![input], to.clone()))
    }

    /// Floats are compared one by one, since only DataFusion's comparisons know that -0.0 is 0.0.
    fn in_list(&self, input: &Expr, list: &[Expr], negated: bool) -> Result<Compiled> {
        let compiled = self.compile(input)?;
        let candidates = list.iter().map(|e| self.compile(e)).collect::<Result<Vec<_>>>()?;
        let data_type = self.type_of(&compiled)?;
        if matches!(data_type, DataType::Interval(_)) {
            return Err(ExecutorError::Unsupported("comparison of intervals".to_string()));
        }
        if !data_type.is_floating() {
            return in_list(compiled, candidates, &negated, &self.schema).map_err(plan_error);
        }
        let never: Compiled = Arc::new(LiteralExpr::new(ScalarValue::Boolean(Some(false))));
        let any = candidates.into_iter().try_fold(never, |any, candidate| {
            self.binary(
                BinaryOp::Or,
                any,
                self.binary(BinaryOp::Equal, compiled.clone(), candidate)?,
            )
        })?;
        Ok(if negated { Arc::new(NotExpr::new(any)) } else { any })
    }

    fn call(&self, name: &str, arguments: &[Expr], returns: &DataType) -> Result<Compiled> {
        if let Some(kernel) = functions::kernel(name) {
            let arguments = arguments.iter().map(|argument| self.compile(argument));
            return Ok(KernelExpr::build(
                kernel,
                arguments.collect::<Result<_>>()?,
                returns.clone(),
            ));
        }
        let function = datafusion_functions::all_default_functions()
            .into_iter()
            .find(|f| f.name() == name || f.aliases().iter().any(|alias| alias == name))
            .ok_or_else(|| ExecutorError::Unsupported(format!("function {name}")))?;
        let arguments = arguments
            .iter()
            .map(|e| self.compile(e))
            .collect::<Result<Vec<_>>>()?;
        let options = Arc::new(ConfigOptions::default());
        let call =
            ScalarFunctionExpr::try_new(function, arguments, &self.schema, options).map_err(plan_error)?;
        // Some functions return text as views or integers of another width; SQL's types are what the plan says.
        let call: Compiled = Arc::new(call);
        let returned = self.type_of(&call)?;
        if !cast::same_class(&returned, returns) {
            return Err(ExecutorError::Plan(format!(
                "function {name} returns {returned}, the plan says {returns}"
            )));
        }
        self.cast(call, returns)
    }
}

/// What a [`KernelExpr`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    Cast,
    FloatArithmetic(BinaryOp),
    DecimalDivide,
    DecimalInRange,
    IntegerModulo,
    Substring,
    ToChar,
}

/// A physical expression whose computation is ours.
#[derive(Debug, PartialEq, Eq)]
struct KernelExpr {
    kernel: Kernel,
    arguments: Vec<Compiled>,
    returns: DataType,
}

impl KernelExpr {
    fn build(kernel: Kernel, arguments: Vec<Compiled>, returns: DataType) -> Compiled {
        Arc::new(Self {
            kernel,
            arguments,
            returns,
        })
    }

    fn apply(&self, columns: &[ArrayRef]) -> std::result::Result<ArrayRef, Message> {
        match self.kernel {
            Kernel::Cast => cast::cast_column(&columns[0], &self.returns),
            Kernel::FloatArithmetic(op) => arithmetic::float_arithmetic(op, &columns[0], &columns[1]),
            Kernel::DecimalDivide => arithmetic::decimal_divide(&columns[0], &columns[1], &self.returns),
            Kernel::DecimalInRange => arithmetic::decimal_in_range(&columns[0]),
            Kernel::IntegerModulo => arithmetic::integer_modulo(&columns[0], &columns[1]),
            Kernel::Substring => functions::substring(&columns[0], &columns[1]),
            Kernel::ToChar => functions::to_char(&columns[0], &columns[1]),
        }
    }
}

impl std::hash::Hash for KernelExpr {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.arguments.hash(state);
        self.returns.hash(state);
    }
}

impl fmt::Display for KernelExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({:?}) as {}", self.kernel, self.arguments, self.returns)
    }
}

impl PhysicalExpr for KernelExpr {
    fn data_type(&self, _input: &Schema) -> datafusion_common::Result<DataType> {
        Ok(self.returns.clone())
    }

    fn nullable(&self, _input: &Schema) -> datafusion_common::Result<bool> {
        Ok(true)
    }

    fn evaluate(&self, batch: &RecordBatch) -> datafusion_common::Result<ColumnarValue> {
        let values: Vec<ColumnarValue> = self
            .arguments
            .iter()
            .map(|a| a.evaluate(batch))
            .collect::<datafusion_common::Result<_>>()?;
        let constant = values
            .iter()
            .all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { batch.num_rows() };
        let columns: Vec<ArrayRef> = values
            .into_iter()
            .map(|v| v.into_array(rows))
            .collect::<datafusion_common::Result<_>>()?;
        let computed = self.apply(&columns).map_err(DataFusionError::Execution)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&computed, 0)?),
            false => ColumnarValue::Array(computed),
        })
    }

    fn children(&self) -> Vec<&Compiled> {
        self.arguments.iter().collect()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Compiled>) -> datafusion_common::Result<Compiled> {
        Ok(Self::build(self.kernel, children, self.returns.clone()))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn operator(op: BinaryOp) -> Operator {
    match op {
        BinaryOp::Add => Operator::Plus,
        BinaryOp::Subtract => Operator::Minus,
        BinaryOp::Multiply => Operator::Multiply,
        BinaryOp::Divide => Operator::Divide,
        BinaryOp::Modulo => Operator::Modulo,
        BinaryOp::Equal => Operator::Eq,
        BinaryOp::NotEqual => Operator::NotEq,
        BinaryOp::Less => Operator::Lt,
        BinaryOp::LessOrEqual => Operator::LtEq,
        BinaryOp::Greater => Operator::Gt,
        BinaryOp::GreaterOrEqual => Operator::GtEq,
        BinaryOp::And => Operator::And,
        BinaryOp::Or => Operator::Or,
        BinaryOp::IsDistinctFrom => Operator::IsDistinctFrom,
        BinaryOp::IsNotDistinctFrom => Operator::IsNotDistinctFrom,
        BinaryOp::Concat => Operator::StringConcat,
    }
}

fn scalar(literal: &Literal) -> Result<ScalarValue> {
    let Some(value) = &literal.value else {
        return ScalarValue::try_from(&literal.data_type).map_err(plan_error);
    };
    let misfit = || ExecutorError::Plan(format!("{value:?} is no literal of type {}", literal.data_type));
    Ok(match (&literal.data_type, value) {
        (DataType::Boolean, LiteralValue::Boolean(v)) => ScalarValue::Boolean(Some(*v)),
        (DataType::Int16, LiteralValue::Integer(v)) => {
            ScalarValue::Int16(Some((*v).try_into().map_err(|_| misfit())?))
        }
        (DataType::Int32, LiteralValue::Integer(v)) => {
            ScalarValue::Int32(Some((*v).try_into().map_err(|_| misfit())?))
        }
        (DataType::Int64, LiteralValue::Integer(v)) => {
            ScalarValue::Int64(Some((*v).try_into().map_err(|_| misfit())?))
        }
        (DataType::Decimal128(p, s), LiteralValue::Integer(v)) => ScalarValue::Decimal128(Some(*v), *p, *s),
        (DataType::Date32, LiteralValue::Integer(v)) => {
            ScalarValue::Date32(Some((*v).try_into().map_err(|_| misfit())?))
        }
        (DataType::Timestamp(TimeUnit::Microsecond, zone), LiteralValue::Integer(v)) => {
            ScalarValue::TimestampMicrosecond(Some((*v).try_into().map_err(|_| misfit())?), zone.clone())
        }
        (DataType::Float64, LiteralValue::Float(bits)) => ScalarValue::Float64(Some(f64::from_bits(*bits))),
        (DataType::Float32, LiteralValue::Float(bits)) => {
            ScalarValue::Float32(Some(f64::from_bits(*bits) as f32))
        }
        (DataType::Utf8, LiteralValue::Text(v)) => ScalarValue::Utf8(Some(v.clone())),
        (DataType::Binary, LiteralValue::Bytes(v)) => ScalarValue::Binary(Some(v.clone())),
        (DataType::FixedSizeBinary(size), LiteralValue::Bytes(v))
            if usize::try_from(*size) == Ok(v.len()) =>
        {
            ScalarValue::FixedSizeBinary(*size, Some(v.clone()))
        }
        (
            DataType::Interval(_),
            LiteralValue::Interval {
                months,
                days,
                nanoseconds,
            },
        ) => ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(*months, *days, *nanoseconds))),
        _ => return Err(misfit()),
    })
}

fn plan_error(error: DataFusionError) -> ExecutorError {
    ExecutorError::Plan(error.strip_backtrace())
}

/// Why a row failed, in PostgreSQL's words where there are some.
fn message_of(error: DataFusionError) -> Message {
    match error {
        DataFusionError::ArrowError(error, _) => arithmetic::text(*error),
        DataFusionError::Execution(message) => message,
        DataFusionError::Context(_, inner) => message_of(*inner),
        other => other.strip_backtrace(),
    }
}

#[cfg(test)]
mod tests;
