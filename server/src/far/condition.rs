//! Conditions that go along with a scan: from DataFusion's, and back on the other side.
//!
//! Values stand apart, as columns of an Arrow batch of one row. What has no place in this language is left out, which
//! only means more rows: the gateway checks every condition itself.

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::{InList, Like};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use serde::{Deserialize, Serialize};

/// The deepest nesting that is read from a peer.
const DEPTH_MAX: usize = 64;

/// A condition on the exposed columns of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Column, comparison, value.
    Compare(u32, Comparison, u32),
    /// The column is null, or (`true`) is not.
    IsNull(u32, bool),
    /// The column is one of these values, or (`true`) none of them.
    OneOf(u32, Vec<u32>, bool),
    /// The column is like this pattern.
    Like(u32, u32),
    /// All of them hold.
    All(Vec<Condition>),
    /// One of them holds.
    Any(Vec<Condition>),
    /// It does not hold.
    Not(Box<Condition>),
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
}

impl<'a> Writer<'a> {
    /// For a relation with these columns.
    pub fn new(schema: &'a Schema) -> Self {
        Self {
            schema,
            values: Vec::new(),
        }
    }

    /// What of the filters can go along.
    pub fn all(&mut self, filters: &[Expr]) -> Option<Condition> {
        let conditions: Vec<Condition> = filters
            .iter()
            .filter_map(|filter| self.of_conjunct(filter))
            .collect();
        (!conditions.is_empty()).then_some(Condition::All(conditions))
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
                let parts: Vec<Condition> = [left, right]
                    .into_iter()
                    .filter_map(|part| self.of_conjunct(part))
                    .collect();
                (!parts.is_empty()).then_some(Condition::All(parts))
            }
            other => self.of(other),
        }
    }

    /// The whole condition, or nothing.
    fn of(&mut self, expr: &Expr) -> Option<Condition> {
        Some(match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
                Operator::And => Condition::All(vec![self.of(left)?, self.of(right)?]),
                Operator::Or => Condition::Any(vec![self.of(left)?, self.of(right)?]),
                op => match (&**left, &**right) {
                    (Expr::Column(column), Expr::Literal(value, _)) => {
                        Condition::Compare(self.column(column)?, comparison(*op)?, self.value(column, value)?)
                    }
                    (Expr::Literal(value, _), Expr::Column(column)) => Condition::Compare(
                        self.column(column)?,
                        comparison(op.swap()?)?,
                        self.value(column, value)?,
                    ),
                    _ => return None,
                },
            },
            Expr::IsNull(input) => Condition::IsNull(self.column_of(input)?, false),
            Expr::IsNotNull(input) => Condition::IsNull(self.column_of(input)?, true),
            Expr::Not(input) => Condition::Not(Box::new(self.of(input)?)),
            Expr::Between(between) => {
                let Expr::Column(column) = &*between.expr else {
                    return None;
                };
                let bound = |writer: &mut Self, comparison, bound: &Expr| {
                    let Expr::Literal(value, _) = bound else {
                        return None;
                    };
                    Some(Condition::Compare(
                        writer.column(column)?,
                        comparison,
                        writer.value(column, value)?,
                    ))
                };
                let low = bound(self, Comparison::GtEq, &between.low)?;
                let within = Condition::All(vec![low, bound(self, Comparison::LtEq, &between.high)?]);
                match between.negated {
                    true => Condition::Not(Box::new(within)),
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
                Condition::OneOf(self.column(column)?, values, *negated)
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
                let like = Condition::Like(self.column(column)?, self.value(column, pattern)?);
                match negated {
                    true => Condition::Not(Box::new(like)),
                    false => like,
                }
            }
            _ => return None,
        })
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

/// A condition that a peer sent, as DataFusion's, on a relation with these columns. `None` when it names what is not there.
pub fn read(condition: &Condition, schema: &Schema, values: Option<&RecordBatch>) -> Option<Expr> {
    read_at(condition, schema, values, 0)
}

fn read_at(
    condition: &Condition,
    schema: &Schema,
    values: Option<&RecordBatch>,
    depth: usize,
) -> Option<Expr> {
    if depth > DEPTH_MAX {
        return None;
    }
    let column = |place: u32| {
        let field = schema.fields().get(usize::try_from(place).ok()?)?;
        Some(Expr::Column(Column::new_unqualified(field.name())))
    };
    let value = |of: u32, number: u32| {
        let field = schema.fields().get(usize::try_from(of).ok()?)?;
        let column = values?.columns().get(usize::try_from(number).ok()?)?;
        (column.data_type() == field.data_type() && column.len() == 1).then_some(())?;
        let value = ScalarValue::try_from_array(column, 0).ok()?;
        Some(Expr::Literal(value, None))
    };
    let all = |parts: &[Condition], op: Operator| {
        let parts = parts.iter().map(|part| read_at(part, schema, values, depth + 1));
        let parts = parts.collect::<Option<Vec<Expr>>>()?;
        let join =
            |left: Expr, right: Expr| Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)));
        parts.into_iter().reduce(join)
    };
    Some(match condition {
        Condition::Compare(of, comparison, number) => {
            let op = match comparison {
                Comparison::Eq => Operator::Eq,
                Comparison::NotEq => Operator::NotEq,
                Comparison::Lt => Operator::Lt,
                Comparison::LtEq => Operator::LtEq,
                Comparison::Gt => Operator::Gt,
                Comparison::GtEq => Operator::GtEq,
            };
            Expr::BinaryExpr(BinaryExpr::new(
                Box::new(column(*of)?),
                op,
                Box::new(value(*of, *number)?),
            ))
        }
        Condition::IsNull(of, false) => Expr::IsNull(Box::new(column(*of)?)),
        Condition::IsNull(of, true) => Expr::IsNotNull(Box::new(column(*of)?)),
        Condition::OneOf(of, numbers, negated) => {
            let list = numbers.iter().map(|number| value(*of, *number));
            Expr::InList(InList::new(
                Box::new(column(*of)?),
                list.collect::<Option<_>>()?,
                *negated,
            ))
        }
        Condition::Like(of, number) => Expr::Like(Like::new(
            false,
            Box::new(column(*of)?),
            Box::new(value(*of, *number)?),
            None,
            false,
        )),
        Condition::All(parts) => all(parts, Operator::And)?,
        Condition::Any(parts) => all(parts, Operator::Or)?,
        Condition::Not(inner) => Expr::Not(Box::new(read_at(inner, schema, values, depth + 1)?)),
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
        for bad in [
            Condition::IsNull(7, false),
            Condition::Compare(0, Comparison::Eq, 0),
            Condition::OneOf(0, vec![3], false),
            Condition::All(Vec::new()),
        ] {
            assert!(read(&bad, &schema, None).is_none(), "{bad:?}");
        }
        let deep = (0..100).fold(Condition::IsNull(0, false), |inner, _| {
            Condition::Not(Box::new(inner))
        });
        assert!(read(&deep, &schema, None).is_none());
    }
}
