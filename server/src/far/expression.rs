//! Expressions that go along with an aggregate: from DataFusion's, and back on the other side.
//!
//! Unlike a [`super::condition`], which may be left out, an expression decides the answer. So whoever writes one reads it
//! back and compares ([`Writer::write`]): what does not come out the same is not sent. Like a condition it is a flat list
//! in postfix order, decoded without recursion, and its constants stand apart, as columns of an Arrow batch of one row.
//! Functions go by name, and only those of a fixed list ([`super::functions`]).

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{ArrayRef, RecordBatch, new_null_array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::common::config::ConfigOptions;
use datafusion::common::format::DEFAULT_CAST_OPTIONS;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal,
    NegativeExpr, NotExpr, in_list,
};
use datafusion::physical_plan::PhysicalExpr;
use serde::{Deserialize, Serialize};

use super::functions;

/// The deepest nesting: the engine recurses into it.
const DEPTH_MAX: usize = 64;
/// The most steps of all expressions of a request.
const STEPS_MAX: usize = 4_096;
/// The most constants of a request.
const VALUES_MAX: usize = 4_096;

/// An expression over the columns of its input, in postfix order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expression(Vec<Step>);

/// One step: a column or constant, or what is made of the results before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    /// The column at this place.
    Column(u32),
    /// This constant.
    Value(u32),
    /// The operator at this place of [`OPERATORS`].
    Binary(u8),
    Not,
    Negative,
    /// It is null, or (`true`) is not.
    IsNull(bool),
    /// To the type of this constant; null (`true`) where there is none.
    Cast(u32, bool),
    /// Negated, without regard to case.
    Like(bool, bool),
    /// The first is one of so many, or (`true`) none of them.
    OneOf(u32, bool),
    /// With a base, so many pairs, with an ELSE.
    Case(bool, u32, bool),
    /// A function of so many arguments.
    Call(String, u32),
}

/// Operators by number. Both sides have the same list: see [`super::partial::engine`].
const OPERATORS: [Operator; 26] = [
    Operator::Eq,
    Operator::NotEq,
    Operator::Lt,
    Operator::LtEq,
    Operator::Gt,
    Operator::GtEq,
    Operator::Plus,
    Operator::Minus,
    Operator::Multiply,
    Operator::Divide,
    Operator::Modulo,
    Operator::And,
    Operator::Or,
    Operator::IsDistinctFrom,
    Operator::IsNotDistinctFrom,
    Operator::RegexMatch,
    Operator::RegexIMatch,
    Operator::RegexNotMatch,
    Operator::RegexNotIMatch,
    Operator::BitwiseAnd,
    Operator::BitwiseOr,
    Operator::BitwiseXor,
    Operator::BitwiseShiftRight,
    Operator::BitwiseShiftLeft,
    Operator::StringConcat,
    Operator::LikeMatch,
];

/// What both sides read expressions with.
pub struct Reader {
    values: Vec<ScalarValue>,
    config: Arc<ConfigOptions>,
    steps_left: usize,
}

impl Reader {
    /// For a request with these constants; `None` when they are no batch of one row.
    pub fn new(values: Option<&RecordBatch>, config: Arc<ConfigOptions>) -> Option<Self> {
        let values = match values {
            None => Vec::new(),
            Some(values) if values.num_rows() == 1 && values.num_columns() <= VALUES_MAX => {
                let values = values.columns().iter();
                values
                    .map(|column| ScalarValue::try_from_array(column, 0).ok())
                    .collect::<Option<_>>()?
            }
            Some(_) => return None,
        };
        Some(Self {
            values,
            config,
            steps_left: STEPS_MAX,
        })
    }

    /// An expression over these columns. `None` when it names what is not there, has no result, no type, or exceeds the
    /// limits.
    pub fn read(&mut self, expression: &Expression, schema: &SchemaRef) -> Option<Arc<dyn PhysicalExpr>> {
        self.steps_left = self.steps_left.checked_sub(expression.0.len())?;
        let mut results = Results(Vec::new());
        for step in &expression.0 {
            let (result, depth) = self.step(step, &mut results, schema)?;
            if depth > DEPTH_MAX {
                return None;
            }
            result.data_type(schema).ok()?;
            results.0.push((result, depth));
        }
        let (result, _) = results.0.pop()?;
        results.0.is_empty().then_some(result)
    }

    fn step(&self, step: &Step, results: &mut Results, schema: &SchemaRef) -> Option<Result> {
        let mut one = |make: &dyn Fn(Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr>| {
            let (input, depth) = results.0.pop()?;
            Some((make(input), depth + 1))
        };
        match step {
            Step::Column(place) => {
                let place = usize::try_from(*place).ok()?;
                let field = schema.fields().get(place)?;
                Some((Arc::new(Column::new(field.name(), place)), 1))
            }
            Step::Value(number) => {
                let value = self.value(*number)?.clone();
                Some((Arc::new(Literal::new(value)), 1))
            }
            Step::Not => one(&|input| Arc::new(NotExpr::new(input))),
            Step::Negative => one(&|input| Arc::new(NegativeExpr::new(input))),
            Step::IsNull(false) => one(&|input| Arc::new(IsNullExpr::new(input))),
            Step::IsNull(true) => one(&|input| Arc::new(IsNotNullExpr::new(input))),
            Step::Cast(number, safe) => {
                let to = self.value(*number)?.data_type();
                let mut options = DEFAULT_CAST_OPTIONS;
                options.safe = *safe;
                one(&|input| Arc::new(CastExpr::new(input, to.clone(), Some(options.clone()))))
            }
            Step::Binary(number) => {
                let op = *OPERATORS.get(usize::from(*number))?;
                let (mut sides, depth) = results.taken(2)?;
                let (right, left) = (sides.pop()?, sides.pop()?);
                Some((Arc::new(BinaryExpr::new(left, op, right)), depth))
            }
            Step::Like(negated, case_insensitive) => {
                let (mut sides, depth) = results.taken(2)?;
                let (pattern, input) = (sides.pop()?, sides.pop()?);
                let like = LikeExpr::new(*negated, *case_insensitive, input, pattern);
                Some((Arc::new(like), depth))
            }
            Step::OneOf(items, negated) => {
                let (mut inputs, depth) = results.taken(items.checked_add(1)?)?;
                let input = inputs.remove(0);
                Some((in_list(input, inputs, negated, schema).ok()?, depth))
            }
            Step::Case(has_base, pairs, has_else) => {
                let (base, otherwise) = (u32::from(*has_base), u32::from(*has_else));
                let number = pairs.checked_mul(2)?.checked_add(base + otherwise)?;
                let (mut inputs, depth) = results.taken(number)?;
                let otherwise = has_else.then(|| inputs.pop()).flatten();
                let base = has_base.then(|| inputs.remove(0));
                let pairs = inputs.chunks_exact(2);
                let pairs = pairs.map(|pair| (Arc::clone(&pair[0]), Arc::clone(&pair[1])));
                let case = CaseExpr::try_new(base, pairs.collect(), otherwise).ok()?;
                Some((Arc::new(case), depth))
            }
            Step::Call(name, arguments) => {
                let (arguments, depth) = results.taken(*arguments)?;
                let types = arguments.iter().map(|argument| argument.data_type(schema).ok());
                let function = functions::scalar(name, &types.collect::<Option<Vec<_>>>()?)?;
                let config = Arc::clone(&self.config);
                let call = ScalarFunctionExpr::try_new(function, arguments, schema, config).ok()?;
                Some((Arc::new(call), depth))
            }
        }
    }

    fn value(&self, number: u32) -> Option<&ScalarValue> {
        self.values.get(usize::try_from(number).ok()?)
    }
}

type Result = (Arc<dyn PhysicalExpr>, usize);

/// Expressions that wait for what is made of them, with their depth.
struct Results(Vec<Result>);

impl Results {
    /// The last so many, and how deep it is what is made of them.
    fn taken(&mut self, number: u32) -> Option<(Vec<Arc<dyn PhysicalExpr>>, usize)> {
        let from = self.0.len().checked_sub(usize::try_from(number).ok()?)?;
        let taken = self.0.split_off(from);
        let depth = taken.iter().map(|(_, depth)| *depth).max().unwrap_or(0) + 1;
        Some((taken.into_iter().map(|(result, _)| result).collect(), depth))
    }
}

/// Gathers expressions and their constants.
pub struct Writer {
    values: Vec<ArrayRef>,
    config: Arc<ConfigOptions>,
}

impl Writer {
    /// With the options that the statement's functions were planned with.
    pub fn new(config: Arc<ConfigOptions>) -> Self {
        Self {
            values: Vec::new(),
            config,
        }
    }

    /// The expression over these columns, if the other side reads the very same; otherwise nothing.
    pub fn write(&mut self, expr: &Arc<dyn PhysicalExpr>, schema: &SchemaRef) -> Option<Expression> {
        let mut steps = Vec::new();
        self.steps(expr, &mut steps, 0)?;
        let expression = Expression(steps);
        let mut reader = Reader::new(self.values().as_ref(), Arc::clone(&self.config))?;
        let read = reader.read(&expression, schema)?;
        (nameless(&read)? == nameless(expr)?).then_some(expression)
    }

    /// The constants, as a batch of one row; `None` without any.
    pub fn values(&self) -> Option<RecordBatch> {
        if self.values.is_empty() {
            return None;
        }
        let field = |(number, value): (usize, &ArrayRef)| {
            Field::new(format!("v{number}"), value.data_type().clone(), true)
        };
        let fields: Vec<Field> = self.values.iter().enumerate().map(field).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), self.values.clone()).ok()
    }

    fn steps(&mut self, expr: &Arc<dyn PhysicalExpr>, steps: &mut Vec<Step>, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX || steps.len() > STEPS_MAX {
            return None;
        }
        let step = if let Some(column) = expr.downcast_ref::<Column>() {
            Step::Column(u32::try_from(column.index()).ok()?)
        } else if let Some(literal) = expr.downcast_ref::<Literal>() {
            Step::Value(self.keep(literal.value().to_array_of_size(1).ok()?)?)
        } else if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
            let number = OPERATORS.iter().position(|op| op == binary.op())?;
            Step::Binary(u8::try_from(number).ok()?)
        } else if expr.is::<NotExpr>() {
            Step::Not
        } else if expr.is::<NegativeExpr>() {
            Step::Negative
        } else if expr.is::<IsNullExpr>() {
            Step::IsNull(false)
        } else if expr.is::<IsNotNullExpr>() {
            Step::IsNull(true)
        } else if let Some(cast) = expr.downcast_ref::<CastExpr>() {
            Step::Cast(self.keep_type(cast.cast_type())?, cast.cast_options().safe)
        } else if let Some(like) = expr.downcast_ref::<LikeExpr>() {
            Step::Like(like.negated(), like.case_insensitive())
        } else if let Some(list) = expr.downcast_ref::<InListExpr>() {
            Step::OneOf(u32::try_from(list.list().len()).ok()?, list.negated())
        } else if let Some(case) = expr.downcast_ref::<CaseExpr>() {
            let pairs = u32::try_from(case.when_then_expr().len()).ok()?;
            Step::Case(case.expr().is_some(), pairs, case.else_expr().is_some())
        } else if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
            Step::Call(
                call.fun().name().to_owned(),
                u32::try_from(call.args().len()).ok()?,
            )
        } else {
            return None;
        };
        for input in expr.children() {
            self.steps(input, steps, depth + 1)?;
        }
        steps.push(step);
        Some(())
    }

    fn keep(&mut self, value: ArrayRef) -> Option<u32> {
        if self.values.len() == VALUES_MAX {
            return None;
        }
        self.values.push(value);
        u32::try_from(self.values.len() - 1).ok()
    }

    /// A type goes along as that of a constant: there is a bound on how deep those nest that come from outside.
    fn keep_type(&mut self, data_type: &DataType) -> Option<u32> {
        self.keep(new_null_array(data_type, 1))
    }
}

/// The expression without the names of columns, which are of no consequence, and without the options of its functions:
/// those that go along read none.
fn nameless(expr: &Arc<dyn PhysicalExpr>) -> Option<Arc<dyn PhysicalExpr>> {
    static NO_OPTIONS: LazyLock<Arc<ConfigOptions>> = LazyLock::new(Arc::default);
    let named = Arc::clone(expr).transform_up(|expr| {
        if let Some(column) = expr.downcast_ref::<Column>() {
            return Ok(Transformed::yes(Arc::new(Column::new("", column.index())) as _));
        }
        let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() else {
            return Ok(Transformed::no(expr));
        };
        let (function, arguments) = (Arc::new(call.fun().clone()), call.args().to_vec());
        let field = call.return_field(&Schema::empty())?;
        let options = Arc::clone(&NO_OPTIONS);
        let plain = ScalarFunctionExpr::new(call.name(), function, arguments, field, options);
        Ok(Transformed::yes(Arc::new(plain) as _))
    });
    named.ok().map(|named| named.data)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::Int32Array;

    use super::*;

    fn schema() -> SchemaRef {
        let fields = vec![
            Field::new("id", DataType::Int32, false),
            Field::new("name", DataType::Utf8, true),
        ];
        Arc::new(Schema::new(fields))
    }

    fn is_read(steps: Vec<Step>) -> bool {
        let one: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        let values = RecordBatch::try_from_iter([("v0", one)]).expect("one row");
        let reader = Reader::new(Some(&values), Arc::default());
        let mut reader = reader.expect("a batch of one row");
        reader.read(&Expression(steps), &schema()).is_some()
    }

    #[test]
    fn expressions_from_outside_are_checked() {
        let upper = |number| Step::Call("upper".to_owned(), number);
        assert!(is_read(vec![Step::Column(0), Step::Value(0), Step::Binary(0)]));
        assert!(is_read(vec![Step::Column(1), upper(1)]));
        for bad in [
            vec![],
            vec![Step::Column(2)],
            vec![Step::Value(1)],
            vec![Step::Not],
            vec![Step::Column(0), Step::Binary(0)],
            vec![Step::Column(0), Step::Column(0)],
            vec![Step::Column(0), Step::Column(0), Step::Binary(200)],
            vec![Step::Column(0), Step::Cast(7, false)],
            vec![Step::Column(0), Step::OneOf(u32::MAX, false)],
            vec![Step::Column(0), Step::OneOf(1, false)],
            vec![Step::Column(0), Step::Case(true, u32::MAX, true)],
            vec![Step::Column(0), Step::Case(true, 0, false)],
            vec![Step::Column(1), upper(0)],
            vec![Step::Column(0), Step::Call("pg_sleep".to_owned(), 1)],
            vec![Step::Call("random".to_owned(), 0)],
            vec![
                Step::Column(0),
                Step::Column(1),
                Step::Call("integer_add".to_owned(), 2),
            ],
        ] {
            assert!(!is_read(bad.clone()), "{bad:?}");
        }
    }

    /// From bytes, as a peer sends them: nothing recurses as deep as it is told to.
    #[test]
    fn an_expression_from_outside_that_nests_without_end_is_refused() {
        for nesting in [DEPTH_MAX, STEPS_MAX, 4_000_000] {
            let mut steps = vec![Step::Column(0)];
            steps.resize(nesting + 1, Step::IsNull(false));
            let bytes = postcard::to_allocvec(&Expression(steps)).expect("plain data");
            let decoded: Expression = postcard::from_bytes(&bytes).expect("well formed");
            assert!(!is_read(decoded.0), "{nesting}");
        }
    }

    #[test]
    fn too_many_constants_stay_here() {
        let mut writer = Writer::new(Arc::default());
        let list =
            (0..=VALUES_MAX).map(|number| Arc::new(Literal::new(ScalarValue::from(number as i32))) as _);
        let id: Arc<dyn PhysicalExpr> = Arc::new(Column::new("id", 0));
        let among = in_list(id, list.collect(), &false, &schema()).expect("types agree");
        assert!(writer.write(&among, &schema()).is_none());
    }
}
