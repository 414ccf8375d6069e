//! Scalar expressions of a view, in a closed form of our own.
//!
//! Every expression is fully typed: the planner has inserted all casts, so an executor never coerces. Functions
//! stand by name; the names that may occur are those of the planner's list of functions known to agree with
//! PostgreSQL.

use arrow_schema::{DataType, IntervalUnit};
use serde::{Deserialize, Serialize};

/// A scalar expression over the columns of one input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Expr {
    /// The input's column at this index.
    Column(usize),
    /// A constant.
    Literal(Literal),
    /// A binary operator. Both sides have the types that the operator needs.
    Binary {
        /// The operator.
        op: BinaryOp,
        /// Left operand.
        left: Box<Expr>,
        /// Right operand.
        right: Box<Expr>,
    },
    /// Logical negation in three-valued logic.
    Not(Box<Expr>),
    /// Arithmetic negation; overflow is an error.
    Negate(Box<Expr>),
    /// `IS NULL`; never null itself.
    IsNull(Box<Expr>),
    /// `CASE WHEN … THEN … ELSE … END`; an absent `otherwise` is null.
    Case {
        /// Conditions and results, tried in order.
        branches: Vec<(Expr, Expr)>,
        /// The result when no condition is true.
        otherwise: Option<Box<Expr>>,
    },
    /// A cast with PostgreSQL's meaning; a value that does not fit is an error.
    Cast {
        /// What is cast.
        input: Box<Expr>,
        /// The target type.
        to: DataType,
    },
    /// `[NOT] LIKE`, or `ILIKE` when `case_insensitive`.
    Like {
        /// The text.
        input: Box<Expr>,
        /// The pattern.
        pattern: Box<Expr>,
        /// Whether the result is negated.
        negated: bool,
        /// Whether case is ignored.
        case_insensitive: bool,
    },
    /// `[NOT] IN (list)`.
    InList {
        /// The value looked for.
        input: Box<Expr>,
        /// The candidates.
        list: Vec<Expr>,
        /// Whether the result is negated.
        negated: bool,
    },
    /// A scalar function by name.
    Call {
        /// The function's name in DataFusion's registry, for example `date_trunc`.
        function: String,
        /// Its arguments.
        arguments: Vec<Expr>,
        /// The type of its result.
        returns: DataType,
    },
}

/// Binary operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum BinaryOp {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
    IsDistinctFrom,
    IsNotDistinctFrom,
    Concat,
}

/// A typed constant; `value: None` is a typed null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Literal {
    /// The type.
    pub data_type: DataType,
    /// The value, in the widest form of its class.
    pub value: Option<LiteralValue>,
}

/// The value of a constant. Which variant goes with which type: `Integer` with all integers, decimals
/// (unscaled), dates (days), times and timestamps (units since the epoch); the others are evident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LiteralValue {
    /// Boolean.
    Boolean(bool),
    /// Any integer-backed type.
    Integer(i128),
    /// Floats, as the bits of an `f64`, so that plans compare and hash.
    Float(u64),
    /// Text.
    Text(String),
    /// `Binary` and `FixedSizeBinary` (uuid).
    Bytes(Vec<u8>),
    /// Months, days and nanoseconds.
    Interval {
        /// Months.
        months: i32,
        /// Days.
        days: i32,
        /// Nanoseconds.
        nanoseconds: i64,
    },
}

impl Literal {
    /// A boolean constant.
    pub fn boolean(value: bool) -> Self {
        Self {
            data_type: DataType::Boolean,
            value: Some(LiteralValue::Boolean(value)),
        }
    }

    /// An `int8` constant.
    pub fn int64(value: i64) -> Self {
        Self {
            data_type: DataType::Int64,
            value: Some(LiteralValue::Integer(i128::from(value))),
        }
    }

    /// A text constant.
    pub fn text(value: impl Into<String>) -> Self {
        Self {
            data_type: DataType::Utf8,
            value: Some(LiteralValue::Text(value.into())),
        }
    }

    /// A typed null.
    pub fn null(data_type: DataType) -> Self {
        Self {
            data_type,
            value: None,
        }
    }
}

/// The Arrow type in which intervals are kept.
pub const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
