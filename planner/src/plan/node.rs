//! Relational operators of a view, over leaves of two kinds.

use arrow_schema::DataType;
use serde::{Deserialize, Serialize};

use super::expr::Expr;

/// A relational operator tree. `Leaf` is [`super::Scan`] below merge boundaries and [`super::GlobalLeaf`]
/// above them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Node<Leaf> {
    /// What the tree reads.
    Leaf(Leaf),
    /// Rows for which the predicate is true.
    Filter {
        /// The input.
        input: Box<Node<Leaf>>,
        /// A boolean expression over the input.
        predicate: Expr,
    },
    /// One output column per expression.
    Project {
        /// The input.
        input: Box<Node<Leaf>>,
        /// Expressions over the input.
        expressions: Vec<Expr>,
        /// The types of the expressions.
        types: Vec<DataType>,
    },
    /// Equality join. Output columns: left's, then right's. Null keys match nothing, unless `null_safe`.
    Join {
        /// Inner or left outer.
        kind: JoinKind,
        /// Left input (the preserved side of a left join).
        left: Box<Node<Leaf>>,
        /// Right input.
        right: Box<Node<Leaf>>,
        /// Pairs of (left column, right column) that must be equal. Never empty: a join without an equality
        /// is refused at CREATE, or has a constant key column on both sides (cross join).
        on: Vec<(usize, usize)>,
        /// A further condition over the joined columns.
        filter: Option<Expr>,
        /// Keys compare with `IS NOT DISTINCT FROM`: null matches null.
        #[serde(default)]
        null_safe: bool,
    },
    /// Bag union; all inputs have the same column types.
    Union {
        /// The inputs; at least one.
        inputs: Vec<Node<Leaf>>,
    },
    /// Grouping with aggregates, over global rows only. Output columns: keys, then one per aggregate.
    /// Without keys there is exactly one output row.
    Aggregate {
        /// The input.
        input: Box<Node<Leaf>>,
        /// Columns of the input that form the key.
        keys: Vec<usize>,
        /// The aggregates.
        aggregates: Vec<AggregateCall>,
    },
    /// Distinct rows.
    Distinct {
        /// The input.
        input: Box<Node<Leaf>>,
    },
    /// The first rows of each partition in an order. Ties beyond `keys` are broken by all columns, ascending,
    /// so that the result is a function of the input's contents.
    TopK {
        /// The input.
        input: Box<Node<Leaf>>,
        /// Columns of the input by which rows are apart (null equals null); none: the whole relation.
        #[serde(default)]
        partition: Vec<usize>,
        /// The order.
        keys: Vec<SortKey>,
        /// Rows skipped (global only; a local top-k has 0 and keeps `skip + fetch`).
        skip: usize,
        /// Rows kept.
        fetch: usize,
        /// Whether an Int64 column is appended: the row's number in its partition, from 1, skipped rows
        /// counted (`row_number()`).
        #[serde(default)]
        rank: bool,
    },
    /// Windows of time: each row once per window that contains it, with the window's bounds appended as two
    /// columns (`window_start`, `window_end`) of the time column's type.
    ///
    /// Windows are half-open, begin at multiples of the slide since 1970 and are `size_us` long. A row whose
    /// time is null is in no window. `TUMBLE` is a slide that equals the size.
    Hop {
        /// The input.
        input: Box<Node<Leaf>>,
        /// The time column: a timestamp in microseconds, with or without zone.
        column: usize,
        /// From the start of a window to that of the next, in microseconds; positive.
        slide_us: i64,
        /// The length of a window, in microseconds; positive.
        size_us: i64,
    },
    /// Session windows: each row once, with the bounds of its session appended as two columns (`window_start`,
    /// `window_end`) of the time column's type.
    ///
    /// A session is a run of rows of one partition, of which each is less than the gap after the one before it. It
    /// starts with its first row and ends the gap after its last. A row whose time is null is in none.
    Session {
        /// The input.
        input: Box<Node<Leaf>>,
        /// Columns of the input by which rows are apart (null equals null); none: the whole relation.
        partition: Vec<usize>,
        /// The time column: a timestamp in microseconds, with or without zone.
        column: usize,
        /// The gap, in microseconds; positive.
        gap_us: i64,
    },
}

/// Join kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinKind {
    /// Matching pairs.
    Inner,
    /// Matching pairs, and left rows without a match with nulls on the right.
    Left,
}

/// One key of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SortKey {
    /// Column of the input.
    pub column: usize,
    /// Descending order.
    pub descending: bool,
    /// Nulls before all values.
    pub nulls_first: bool,
}

/// One aggregate over columns of its input. The planner has projected arguments and filters into columns and
/// cast arguments to the types listed at [`AggregateFunction`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AggregateCall {
    /// What is computed.
    pub function: AggregateFunction,
    /// The argument's column; `None` only for `count(*)`.
    pub argument: Option<usize>,
    /// A boolean column; only rows where it is true count (`FILTER (WHERE …)`).
    pub filter: Option<usize>,
    /// The argument's type (`Null` for `count(*)`).
    pub input_type: DataType,
    /// The result's type.
    pub output_type: DataType,
}

/// Aggregates that merge.
///
/// | function | argument | result |
/// |---|---|---|
/// | Count | any | Int64 |
/// | Sum | Int16, Int32 | Int64 (overflow is an error) |
/// | Sum | Int64 | Decimal128(38, 0) |
/// | Sum | Decimal128(p, s) | Decimal128(38, s) |
/// | Sum | Float32, Float64 | same as the argument, exact and order-independent |
/// | Avg | Int16/32/64 | Decimal128(38, 16) |
/// | Avg | Decimal128(p, s) | Decimal128(38, max(s, 16)) |
/// | Avg | Float32, Float64 | Float64 |
/// | Min, Max | any ordered type | the argument's |
///
/// Averages of integers and decimals are rounded half away from zero at the result's scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum AggregateFunction {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    BoolAnd,
    BoolOr,
}
