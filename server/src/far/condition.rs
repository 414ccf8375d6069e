//! Conditions that go along with a scan: from DataFusion's, and back on the other side.
//!
//! Values stand apart, as columns of an Arrow batch of one row. What has no place in this language is left out, which
//! only means more rows: the gateway checks every condition itself. A condition is a flat list in postfix order: what a
//! peer sends is decoded and read without recursion, however it nests.

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::{InList, Like};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use serde::{Deserialize, Serialize};

/// The deepest nesting of the expression that is built from a condition: the engine recurses into it.
const DEPTH_MAX: usize = 64;

/// The most steps of a condition.
const STEPS_MAX: usize = 4_096;

/// The most values that go along with a condition.
pub const VALUES_MAX: usize = 100_000;

/// A condition on the exposed columns of a table, in postfix order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition(Vec<Step>);

/// One step: a test of a column, or what joins the results before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    /// Column, comparison, value.
    Compare(u32, Comparison, u32),
    /// The column is null, or (`true`) is not.
    IsNull(u32, bool),
    /// The column is one of these values, or (`true`) none of them.
    OneOf(u32, Vec<u32>, bool),
    /// The column is like this pattern.
    Like(u32, u32),
    /// All of the last so many hold.
    All(u32),
    /// One of the last so many holds.
    Any(u32),
    /// The last does not hold.
    Not,
}

impl Condition {
    fn test(step: Step) -> Self {
        Self(vec![step])
    }

    fn all(parts: Vec<Self>) -> Option<Self> {
        Self::join(parts, Step::All)
    }

    fn any(parts: Vec<Self>) -> Option<Self> {
        Self::join(parts, Step::Any)
    }

    /// Parts of the same kind are taken into it, so that a long chain stays flat. `None` without any part.
    fn join(mut parts: Vec<Self>, kind: fn(u32) -> Step) -> Option<Self> {
        if parts.len() <= 1 {
            return parts.pop();
        }
        let mut steps = Vec::new();
        let mut number = 0;
        for Self(mut part) in parts {
            let within = match part.last() {
                Some(Step::All(within) | Step::Any(within)) if part.last() == Some(&kind(*within)) => {
                    Some(*within)
                }
                _ => None,
            };
            if within.is_some() {
                part.pop();
            }
            number += within.unwrap_or(1);
            match steps.is_empty() {
                true => steps = part,
                false => steps.append(&mut part),
            }
        }
        steps.push(kind(number));
        Some(Self(steps))
    }

    fn not(mut self) -> Self {
        self.0.push(Step::Not);
        self
    }
}

/// Comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// `=`
    Eq,
    /// `<>`
    NotEq,
    /// `<`
    Lt,
    /// `<=`
    LtEq,
    /// `>`
    Gt,
    /// `>=`
    GtEq,
}

/// Gathers conditions and their values.
pub struct Writer<'a> {
    schema: &'a Schema,
    values: Vec<ArrayRef>,
    steps: usize,
}

impl<'a> Writer<'a> {
    /// For a relation with these columns.
    pub fn new(schema: &'a Schema) -> Self {
        Self {
            schema,
            values: Vec::new(),
            steps: 0,
        }
    }

    /// What of the filters can go along.
    pub fn all(&mut self, filters: &[Expr]) -> Option<Condition> {
        let parts = filters.iter().filter_map(|filter| self.of_conjunct(filter));
        Condition::all(parts.collect())
    }

    /// The values, as a batch of one row; `None` without any.
    pub fn values(self) -> Option<RecordBatch> {
        if self.values.is_empty() {
            return None;
        }
        let field = |(number, value): (usize, &ArrayRef)| {
            Field::new(format!("v{number}"), value.data_type().clone(), true)
        };
        let fields: Vec<Field> = self.values.iter().enumerate().map(field).collect();
        RecordBatch::try_new(std::sync::Arc::new(Schema::new(fields)), self.values).ok()
    }

    /// Of a conjunction any part may go.
    fn of_conjunct(&mut self, expr: &Expr) -> Option<Condition> {
        match expr {
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: Operator::And,
                right,
            }) => {
                let parts = [left, right].into_iter();
                Condition::all(parts.filter_map(|part| self.of_conjunct(part)).collect())
            }
            other => self.of_whole(other),
        }
    }

    /// A conjunct that has its place and stays within the limits of the other side; or nothing, and no value of it.
    fn of_whole(&mut self, expr: &Expr) -> Option<Condition> {
        let (values, steps) = (self.values.len(), self.steps);
        let condition = self.of(expr).filter(|condition| {
            self.steps += condition.0.len() + 1;
            self.steps < STEPS_MAX && self.values.len() <= VALUES_MAX && depth(condition).is_some()
        });
        if condition.is_none() {
            self.values.truncate(values);
            self.steps = steps;
        }
        condition
    }

    /// The whole condition, or nothing.
    fn of(&mut self, expr: &Expr) -> Option<Condition> {
        Some(match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
                Operator::And => Condition::all(vec![self.of(left)?, self.of(right)?])?,
                Operator::Or => Condition::any(vec![self.of(left)?, self.of(right)?])?,
                op => match (&**left, &**right) {
                    (Expr::Column(column), Expr::Literal(value, _)) => {
                        self.compare(column, comparison(*op)?, value)?
                    }
                    (Expr::Literal(value, _), Expr::Column(column)) => {
                        self.compare(column, comparison(op.swap()?)?, value)?
                    }
                    _ => return None,
                },
            },
            Expr::IsNull(input) => Condition::test(Step::IsNull(self.column_of(input)?, false)),
            Expr::IsNotNull(input) => Condition::test(Step::IsNull(self.column_of(input)?, true)),
            Expr::Not(input) => self.of(input)?.not(),
            Expr::Between(between) => {
                let Expr::Column(column) = &*between.expr else {
                    return None;
                };
                let (Expr::Literal(low, _), Expr::Literal(high, _)) = (&*between.low, &*between.high) else {
                    return None;
                };
                let from = self.compare(column, Comparison::GtEq, low)?;
                let within = Condition::all(vec![from, self.compare(column, Comparison::LtEq, high)?])?;
                match between.negated {
                    true => within.not(),
                    false => within,
                }
            }
            Expr::InList(InList { expr, list, negated }) => {
                let Expr::Column(column) = &**expr else {
                    return None;
                };
                let values = list.iter().map(|item| match item {
                    Expr::Literal(value, _) => self.value(column, value),
                    _ => None,
                });
                let values = values.collect::<Option<Vec<u32>>>()?;
                Condition::test(Step::OneOf(self.column(column)?, values, *negated))
            }
            Expr::Like(Like {
                negated,
                expr,
                pattern,
                escape_char: None,
                case_insensitive: false,
            }) => {
                let (Expr::Column(column), Expr::Literal(pattern, _)) = (&**expr, &**pattern) else {
                    return None;
                };
                let like = Step::Like(self.column(column)?, self.value(column, pattern)?);
                let like = Condition::test(like);
                match negated {
                    true => like.not(),
                    false => like,
                }
            }
            _ => return None,
        })
    }

    fn compare(&mut self, column: &Column, comparison: Comparison, value: &ScalarValue) -> Option<Condition> {
        let (place, value) = (self.column(column)?, self.value(column, value)?);
        Some(Condition::test(Step::Compare(place, comparison, value)))
    }

    fn column(&self, column: &Column) -> Option<u32> {
        let place = self.schema.index_of(&column.name).ok()?;
        u32::try_from(place).ok()
    }

    fn column_of(&self, expr: &Expr) -> Option<u32> {
        match expr {
            Expr::Column(column) => self.column(column),
            _ => None,
        }
    }

    /// A value of the column's very type.
    fn value(&mut self, column: &Column, value: &ScalarValue) -> Option<u32> {
        let field = self.schema.field_with_name(&column.name).ok()?;
        if *field.data_type() != value.data_type() {
            return None;
        }
        self.values.push(value.to_array_of_size(1).ok()?);
        u32::try_from(self.values.len() - 1).ok()
    }
}

fn comparison(op: Operator) -> Option<Comparison> {
    Some(match op {
        Operator::Eq => Comparison::Eq,
        Operator::NotEq => Comparison::NotEq,
        Operator::Lt => Comparison::Lt,
        Operator::LtEq => Comparison::LtEq,
        Operator::Gt => Comparison::Gt,
        Operator::GtEq => Comparison::GtEq,
        _ => return None,
    })
}

/// A condition that a peer sent, as DataFusion's, on a relation with these columns. `None` when it names what is not
/// there, has no result, or exceeds the limits.
pub fn read(condition: &Condition, schema: &Schema, values: Option<&RecordBatch>) -> Option<Expr> {
    depth(condition)?;
    let mut results: Vec<Expr> = Vec::new();
    for step in &condition.0 {
        let result = match step {
            Step::All(number) => balanced(&taken(&mut results, *number)?, Operator::And)?,
            Step::Any(number) => balanced(&taken(&mut results, *number)?, Operator::Or)?,
            Step::Not => Expr::Not(Box::new(results.pop()?)),
            test => tested(test, schema, values)?,
        };
        results.push(result);
    }
    results.pop().filter(|_| results.is_empty())
}

/// How deep the expression nests that [`read`] makes of it; `None` above the limits, or when steps do not fit together.
fn depth(condition: &Condition) -> Option<usize> {
    if condition.0.len() > STEPS_MAX {
        return None;
    }
    let mut depths: Vec<usize> = Vec::new();
    for step in &condition.0 {
        let depth = match step {
            Step::All(number) | Step::Any(number) => {
                let parts = taken(&mut depths, *number)?;
                let levels = parts.len().next_power_of_two().ilog2();
                parts.into_iter().max()? + usize::try_from(levels).ok()?
            }
            Step::Not => depths.pop()? + 1,
            Step::Compare(..) | Step::IsNull(..) | Step::OneOf(..) | Step::Like(..) => 1,
        };
        if depth > DEPTH_MAX {
            return None;
        }
        depths.push(depth);
    }
    depths.pop().filter(|_| depths.is_empty())
}

/// The last so many.
fn taken<T>(results: &mut Vec<T>, number: u32) -> Option<Vec<T>> {
    let from = results.len().checked_sub(usize::try_from(number).ok()?)?;
    Some(results.split_off(from))
}

/// Joined as a tree of the least depth: the engine recurses into it.
fn balanced(parts: &[Expr], op: Operator) -> Option<Expr> {
    match parts {
        [] => None,
        [part] => Some(part.clone()),
        parts => {
            let (left, right) = parts.split_at(parts.len().div_ceil(2));
            let (left, right) = (balanced(left, op)?, balanced(right, op)?);
            Some(Expr::BinaryExpr(BinaryExpr::new(
                Box::new(left),
                op,
                Box::new(right),
            )))
        }
    }
}

fn tested(test: &Step, schema: &Schema, values: Option<&RecordBatch>) -> Option<Expr> {
    let column = |place: u32| {
        let field = schema.fields().get(usize::try_from(place).ok()?)?;
        Some(Box::new(Expr::Column(Column::new_unqualified(field.name()))))
    };
    let value = |of: u32, number: u32| {
        let field = schema.fields().get(usize::try_from(of).ok()?)?;
        let column = values?.columns().get(usize::try_from(number).ok()?)?;
        (column.data_type() == field.data_type() && column.len() == 1).then_some(())?;
        let value = ScalarValue::try_from_array(column, 0).ok()?;
        Some(Expr::Literal(value, None))
    };
    Some(match test {
        Step::Compare(of, comparison, number) => {
            let op = match comparison {
                Comparison::Eq => Operator::Eq,
                Comparison::NotEq => Operator::NotEq,
                Comparison::Lt => Operator::Lt,
                Comparison::LtEq => Operator::LtEq,
                Comparison::Gt => Operator::Gt,
                Comparison::GtEq => Operator::GtEq,
            };
            Expr::BinaryExpr(BinaryExpr::new(column(*of)?, op, Box::new(value(*of, *number)?)))
        }
        Step::IsNull(of, false) => Expr::IsNull(column(*of)?),
        Step::IsNull(of, true) => Expr::IsNotNull(column(*of)?),
        Step::OneOf(of, numbers, negated) => {
            let list = numbers.iter().map(|number| value(*of, *number));
            Expr::InList(InList::new(column(*of)?, list.collect::<Option<_>>()?, *negated))
        }
        Step::Like(of, number) => {
            let pattern = Box::new(value(*of, *number)?);
            Expr::Like(Like::new(false, column(*of)?, pattern, None, false))
        }
        Step::All(_) | Step::Any(_) | Step::Not => return None,
    })
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::DataType;
    use datafusion::logical_expr::{col, lit};

    use super::*;

    fn schema() -> Schema {
        Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8, true),
        ])
    }

    fn through(filters: &[Expr]) -> Option<String> {
        let schema = schema();
        let mut writer = Writer::new(&schema);
        let condition = writer.all(filters)?;
        let values = writer.values();
        Some(
            read(&condition, &schema, values.as_ref())
                .expect("just written")
                .to_string(),
        )
    }

    #[test]
    fn what_goes_along_means_the_same_on_the_other_side() {
        for (filter, expected) in [
            (col("id").eq(lit(5_i64)), "id = Int64(5)"),
            (lit(5_i64).lt(col("id")), "id > Int64(5)"),
            (
                col("id").between(lit(1_i64), lit(2_i64)),
                "id >= Int64(1) AND id <= Int64(2)",
            ),
            (
                col("name").is_null().or(col("id").gt(lit(9_i64))),
                "name IS NULL OR id > Int64(9)",
            ),
            (col("name").like(lit("a%")), "name LIKE Utf8(\"a%\")"),
            (
                col("id").in_list(vec![lit(1_i64), lit(2_i64)], true),
                "id NOT IN ([Int64(1), Int64(2)])",
            ),
        ] {
            assert_eq!(through(&[filter]).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_has_no_place_is_left_out_and_never_changes_the_rest() {
        let strange = (col("id") + lit(1_i64)).eq(lit(2_i64));
        assert_eq!(through(std::slice::from_ref(&strange)), None);
        let half = strange.clone().and(col("id").gt(lit(1_i64)));
        assert_eq!(through(&[half]).as_deref(), Some("id > Int64(1)"));
        assert_eq!(
            through(&[strange.or(col("id").gt(lit(1_i64)))]),
            None,
            "of a disjunction no part may go alone"
        );
        assert_eq!(
            through(&[col("id").eq(lit(5_i32))]),
            None,
            "a value of another type"
        );
    }

    #[test]
    fn conditions_from_outside_are_checked() {
        let schema = schema();
        let is_null = || Step::IsNull(0, false);
        for bad in [
            vec![],
            vec![Step::IsNull(7, false)],
            vec![Step::Compare(0, Comparison::Eq, 0)],
            vec![Step::OneOf(0, vec![3], false)],
            vec![Step::All(0)],
            vec![is_null(), Step::Any(2)],
            vec![is_null(), Step::All(u32::MAX)],
            vec![is_null(), is_null()],
            vec![Step::Not],
        ] {
            let bad = Condition(bad);
            assert!(read(&bad, &schema, None).is_none(), "{bad:?}");
        }
    }

    /// From bytes, as a peer sends them: nothing recurses as deep as it is told to.
    #[test]
    fn a_condition_from_outside_that_nests_without_end_is_refused() {
        let schema = schema();
        for nesting in [DEPTH_MAX, STEPS_MAX, 4_000_000] {
            let mut steps = vec![Step::IsNull(0, false)];
            steps.resize(nesting + 1, Step::Not);
            let bytes = postcard::to_allocvec(&Condition(steps)).expect("plain data");
            let decoded: Condition = postcard::from_bytes(&bytes).expect("well formed");
            assert!(read(&decoded, &schema, None).is_none(), "{nesting}");
        }
    }

    #[test]
    fn a_long_chain_goes_along_whole() {
        let is = |number: i64| col("id").eq(lit(number));
        let chain = |last: i64| (1..last).map(is).fold(is(0), Expr::or);
        let read = through(&[chain(1_000)]).expect("it goes along");
        assert_eq!(read.matches(" OR ").count(), 999);
        assert!(read.contains("id = Int64(999)"));
    }

    #[test]
    fn what_exceeds_the_limits_stays_behind_alone() {
        let every = (0..=VALUES_MAX).map(|_| lit(1_i64)).collect();
        let filters = [col("id").in_list(every, false), col("id").gt(lit(1_i64))];
        assert_eq!(through(&filters).as_deref(), Some("id > Int64(1)"));
        let nested = (0..DEPTH_MAX).fold(col("id").is_null(), |inner, _| Expr::Not(Box::new(inner)));
        assert_eq!(
            through(&[nested, col("id").gt(lit(1_i64))]).as_deref(),
            Some("id > Int64(1)")
        );
    }
}
