//! Joins that go along with an aggregate: rows of an owner with a side that the gateway sends ([`super::side`]).
//!
//! ```text
//!   the side (hashed) ──┐
//!                       ⋈ ─▶ columns of both
//!   rows ───────────────┘
//! ```
//!
//! The rows of all regions are a disjoint union, and each region has the whole side. So a join goes along where each
//! row of its answer belongs to one row of the table: inner joins, joins that keep rows without a match, semi- and
//! anti-joins that give rows of the table. A join that keeps rows of the side does not: a region cannot know what
//! matches elsewhere.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::{JoinSide, JoinType, NullEquality};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::utils::{ColumnIndex, JoinFilter, build_join_schema};
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use serde::{Deserialize, Serialize};

use super::expression::{Expression, Reader, Writer};
use super::partial::PARTS_MAX;

/// A join of rows with a side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The side's number.
    side: u32,
    kind: Kind,
    /// What must be equal: of the side, of the rows.
    on: Vec<(Expression, Expression)>,
    /// Whether null equals null.
    nulls_equal: bool,
    /// What must hold besides.
    condition: Option<Condition>,
    /// The columns of the answer.
    columns: Vec<Source>,
}

/// Which rows a join gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    /// Pairs.
    Inner,
    /// Pairs, and rows without a match beside nulls.
    Outer,
    /// Rows with a match, once.
    Semi,
    /// Rows without a match.
    Anti,
}

/// A condition over some columns of both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Condition {
    columns: Vec<Source>,
    holds: Expression,
}

/// Where a column comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Source {
    Side(u32),
    Row(u32),
}

impl Kind {
    /// What a join is where the rows are on this side of it; `None` for what does not go along.
    fn of(join_type: JoinType, rows: JoinSide) -> Option<Self> {
        match (join_type, rows) {
            (JoinType::Inner, _) => Some(Kind::Inner),
            (JoinType::Left, JoinSide::Left) | (JoinType::Right, JoinSide::Right) => Some(Kind::Outer),
            (JoinType::LeftSemi, JoinSide::Left) | (JoinType::RightSemi, JoinSide::Right) => Some(Kind::Semi),
            (JoinType::LeftAnti, JoinSide::Left) | (JoinType::RightAnti, JoinSide::Right) => Some(Kind::Anti),
            _ => None,
        }
    }

    /// The join with the side on the left and the rows on the right.
    fn join_type(self) -> JoinType {
        match self {
            Kind::Inner => JoinType::Inner,
            Kind::Outer => JoinType::Right,
            Kind::Semi => JoinType::RightSemi,
            Kind::Anti => JoinType::RightAnti,
        }
    }
}

impl Source {
    fn of(column: &ColumnIndex, rows: JoinSide) -> Option<Self> {
        let index = u32::try_from(column.index).ok()?;
        match column.side {
            JoinSide::None => None,
            side if side == rows => Some(Source::Row(index)),
            _ => Some(Source::Side(index)),
        }
    }

    /// The column with the side on the left, if it is there.
    fn column(self, side: &Schema, rows: &Schema) -> Option<ColumnIndex> {
        let (index, side, schema) = match self {
            Source::Side(index) => (index, JoinSide::Left, side),
            Source::Row(index) => (index, JoinSide::Right, rows),
        };
        let index = usize::try_from(index).ok()?;
        (index < schema.fields().len()).then_some(ColumnIndex { index, side })
    }
}

impl Join {
    /// A join of a plan as what goes along, if the other side reads the very same.
    pub fn of(join: &HashJoinExec, rows: JoinSide, side: usize, writer: &mut Writer) -> Option<Self> {
        if join.fetch().is_some() || join.null_aware {
            return None;
        }
        let (left, right) = (join.left().schema(), join.right().schema());
        let mut on = Vec::new();
        for (of_left, of_right) in join.on() {
            let (of_left, of_right) = (writer.write(of_left, &left)?, writer.write(of_right, &right)?);
            on.push(match rows {
                JoinSide::Left => (of_right, of_left),
                _ => (of_left, of_right),
            });
        }
        let (_, all) = build_join_schema(&left, &right, join.join_type());
        let columns: Vec<Option<Source>> = match &join.projection {
            None => all.iter().map(|column| Source::of(column, rows)).collect(),
            Some(shown) => shown
                .iter()
                .map(|place| Source::of(all.get(*place)?, rows))
                .collect(),
        };
        Some(Self {
            side: u32::try_from(side).ok()?,
            kind: Kind::of(*join.join_type(), rows)?,
            on,
            nulls_equal: join.null_equality() == NullEquality::NullEqualsNull,
            condition: match join.filter() {
                None => None,
                Some(filter) => Some(Condition {
                    columns: filter
                        .column_indices()
                        .iter()
                        .map(|column| Source::of(column, rows))
                        .collect::<Option<_>>()?,
                    holds: writer.write(filter.expression(), filter.schema())?,
                }),
            },
            columns: columns.into_iter().collect::<Option<_>>()?,
        })
    }

    /// The join over a region's rows; `None` when it makes no sense.
    pub fn over(
        &self,
        sides: &[Arc<dyn ExecutionPlan>],
        rows: Arc<dyn ExecutionPlan>,
        reader: &mut Reader,
    ) -> Option<HashJoinExec> {
        if self.on.len() > PARTS_MAX || self.columns.len() > PARTS_MAX {
            return None;
        }
        let side = Arc::clone(sides.get(usize::try_from(self.side).ok()?)?);
        let (of_side, of_rows) = (side.schema(), rows.schema());
        let mut on = Vec::new();
        for (left, right) in &self.on {
            let (left, right) = (reader.read(left, &of_side)?, reader.read(right, &of_rows)?);
            if left.data_type(&of_side).ok()? != right.data_type(&of_rows).ok()? {
                return None;
            }
            on.push((left, right));
        }
        let filter = match &self.condition {
            None => None,
            Some(condition) => Some(condition.over(&of_side, &of_rows, reader)?),
        };
        let (_, all) = build_join_schema(&of_side, &of_rows, &self.kind.join_type());
        let columns = self.columns.iter().map(|source| {
            let column = source.column(&of_side, &of_rows)?;
            all.iter().position(|known| *known == column)
        });
        let equality = match self.nulls_equal {
            true => NullEquality::NullEqualsNull,
            false => NullEquality::NullEqualsNothing,
        };
        let (join_type, mode) = (self.kind.join_type(), PartitionMode::CollectLeft);
        let columns = Some(columns.collect::<Option<Vec<usize>>>()?);
        HashJoinExec::try_new(side, rows, on, filter, &join_type, columns, mode, equality, false).ok()
    }
}

impl Condition {
    fn over(&self, side: &SchemaRef, rows: &SchemaRef, reader: &mut Reader) -> Option<JoinFilter> {
        if self.columns.len() > PARTS_MAX {
            return None;
        }
        let columns = self.columns.iter().map(|source| source.column(side, rows));
        let columns = columns.collect::<Option<Vec<ColumnIndex>>>()?;
        let field = |column: &ColumnIndex| match column.side {
            JoinSide::Left => side.field(column.index).clone(),
            _ => rows.field(column.index).clone(),
        };
        let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
        let holds = reader.read(&self.holds, &schema)?;
        let is_condition = holds.data_type(&schema).ok()? == DataType::Boolean;
        is_condition.then(|| JoinFilter::new(holds, columns, schema))
    }
}
