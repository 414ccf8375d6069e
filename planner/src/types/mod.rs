//! SQL types: the one table SQL <-> Arrow <-> PostgreSQL's OIDs.
//!
//! A column is declared with a [`SqlType`] and kept as [`SqlType::arrow`]. The way back, [`SqlType::from_arrow`],
//! is looser: an expression may come out of DataFusion in a neighbouring Arrow type (a timestamp in
//! nanoseconds, a text view); then it *is* of the SQL type returned, and whoever stores or sends it casts it to
//! `arrow()` first.
//!
//! Left out: arrays, json, time, char(n), user-defined types. `varchar(n)` shares Arrow's Utf8 with text, so its
//! length is checked by whoever writes rows, from the column's definition.

mod from_ast;
mod literal;

use std::fmt;
use std::sync::Arc;

use arrow_schema::{DataType, IntervalUnit, TimeUnit};
use serde::{Deserialize, Serialize};

pub(crate) use literal::literal_text;

/// A type a column can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SqlType {
    /// `boolean`.
    Bool,
    /// `smallint`.
    Int2,
    /// `integer`.
    Int4,
    /// `bigint`.
    Int8,
    /// `real`.
    Float4,
    /// `double precision`.
    Float8,
    /// `numeric(precision, scale)`.
    Numeric {
        /// Decimal digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point, 0 to `precision`.
        scale: i8,
    },
    /// `text`.
    Text,
    /// `varchar` or `varchar(n)`, n in characters.
    Varchar(Option<u32>),
    /// `date`.
    Date,
    /// `timestamp`, in microseconds.
    Timestamp,
    /// `timestamptz`, in microseconds since 1970 UTC.
    TimestampTz,
    /// `interval`.
    Interval,
    /// `uuid`.
    Uuid,
    /// `bytea`.
    Bytea,
}

impl SqlType {
    /// What `numeric` without precision means.
    pub const NUMERIC: SqlType = SqlType::Numeric {
        precision: 38,
        scale: 10,
    };

    /// The Arrow type in which columns of this type are kept.
    pub fn arrow(&self) -> DataType {
        match self {
            SqlType::Bool => DataType::Boolean,
            SqlType::Int2 => DataType::Int16,
            SqlType::Int4 => DataType::Int32,
            SqlType::Int8 => DataType::Int64,
            SqlType::Float4 => DataType::Float32,
            SqlType::Float8 => DataType::Float64,
            SqlType::Numeric { precision, scale } => DataType::Decimal128(*precision, *scale),
            SqlType::Text | SqlType::Varchar(_) => DataType::Utf8,
            SqlType::Date => DataType::Date32,
            SqlType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            SqlType::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))),
            SqlType::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            SqlType::Uuid => DataType::FixedSizeBinary(16),
            SqlType::Bytea => DataType::Binary,
        }
    }

    /// The SQL type of values of an Arrow type, `None` if there is none. The Arrow type may differ from the
    /// result's [`SqlType::arrow`]: see the module's header. A bare NULL is text, as in PostgreSQL.
    pub fn from_arrow(data_type: &DataType) -> Option<SqlType> {
        Some(match data_type {
            DataType::Boolean => SqlType::Bool,
            DataType::Int8 | DataType::UInt8 | DataType::Int16 => SqlType::Int2,
            DataType::UInt16 | DataType::Int32 => SqlType::Int4,
            DataType::UInt32 | DataType::Int64 => SqlType::Int8,
            DataType::UInt64 => SqlType::Numeric {
                precision: 20,
                scale: 0,
            },
            DataType::Float16 | DataType::Float32 => SqlType::Float4,
            DataType::Float64 => SqlType::Float8,
            DataType::Decimal128(precision, scale) if *scale >= 0 => SqlType::Numeric {
                precision: *precision,
                scale: *scale,
            },
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => SqlType::Text,
            DataType::Date32 | DataType::Date64 => SqlType::Date,
            DataType::Timestamp(_, None) => SqlType::Timestamp,
            DataType::Timestamp(_, Some(_)) => SqlType::TimestampTz,
            DataType::Interval(_) => SqlType::Interval,
            DataType::FixedSizeBinary(16) => SqlType::Uuid,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => SqlType::Bytea,
            _ => return None,
        })
    }

    /// PostgreSQL's OID of the type.
    pub fn oid(&self) -> u32 {
        match self {
            SqlType::Bool => 16,
            SqlType::Bytea => 17,
            SqlType::Int8 => 20,
            SqlType::Int2 => 21,
            SqlType::Int4 => 23,
            SqlType::Text => 25,
            SqlType::Float4 => 700,
            SqlType::Float8 => 701,
            SqlType::Varchar(_) => 1043,
            SqlType::Date => 1082,
            SqlType::Timestamp => 1114,
            SqlType::TimestampTz => 1184,
            SqlType::Interval => 1186,
            SqlType::Numeric { .. } => 1700,
            SqlType::Uuid => 2950,
        }
    }

    /// The type with this OID, in its form without modifier.
    pub fn from_oid(oid: u32) -> Option<SqlType> {
        Self::ALL.into_iter().find(|sql_type| sql_type.oid() == oid)
    }

    /// Every type once, without modifiers.
    pub const ALL: [SqlType; 15] = [
        SqlType::Bool,
        SqlType::Int2,
        SqlType::Int4,
        SqlType::Int8,
        SqlType::Float4,
        SqlType::Float8,
        SqlType::NUMERIC,
        SqlType::Text,
        SqlType::Varchar(None),
        SqlType::Date,
        SqlType::Timestamp,
        SqlType::TimestampTz,
        SqlType::Interval,
        SqlType::Uuid,
        SqlType::Bytea,
    ];

    /// PostgreSQL's type modifier (`atttypmod`), -1 for none.
    pub fn typmod(&self) -> i32 {
        match self {
            SqlType::Varchar(Some(length)) => i32::try_from(*length).map_or(-1, |length| length + 4),
            SqlType::Numeric { precision, scale } => {
                ((i32::from(*precision) << 16) | (i32::from(*scale) & 0x7ff)) + 4
            }
            _ => -1,
        }
    }

    /// The size PostgreSQL tells clients (`typlen`): bytes, or -1 for variable length.
    pub fn length(&self) -> i16 {
        match self {
            SqlType::Bool => 1,
            SqlType::Int2 => 2,
            SqlType::Int4 | SqlType::Float4 | SqlType::Date => 4,
            SqlType::Int8 | SqlType::Float8 | SqlType::Timestamp | SqlType::TimestampTz => 8,
            SqlType::Interval | SqlType::Uuid => 16,
            SqlType::Numeric { .. } | SqlType::Text | SqlType::Varchar(_) | SqlType::Bytea => -1,
        }
    }

    /// The internal name (`typname`).
    pub fn catalog_name(&self) -> &'static str {
        match self {
            SqlType::Bool => "bool",
            SqlType::Int2 => "int2",
            SqlType::Int4 => "int4",
            SqlType::Int8 => "int8",
            SqlType::Float4 => "float4",
            SqlType::Float8 => "float8",
            SqlType::Numeric { .. } => "numeric",
            SqlType::Text => "text",
            SqlType::Varchar(_) => "varchar",
            SqlType::Date => "date",
            SqlType::Timestamp => "timestamp",
            SqlType::TimestampTz => "timestamptz",
            SqlType::Interval => "interval",
            SqlType::Uuid => "uuid",
            SqlType::Bytea => "bytea",
        }
    }

    /// The name with modifier that `format_type` prints.
    pub fn name(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SqlType::Bool => "boolean",
            SqlType::Int2 => "smallint",
            SqlType::Int4 => "integer",
            SqlType::Int8 => "bigint",
            SqlType::Float4 => "real",
            SqlType::Float8 => "double precision",
            SqlType::Numeric { precision, scale } => return write!(f, "numeric({precision},{scale})"),
            SqlType::Varchar(None) => "character varying",
            SqlType::Varchar(Some(length)) => return write!(f, "character varying({length})"),
            SqlType::Timestamp => "timestamp without time zone",
            SqlType::TimestampTz => "timestamp with time zone",
            other => other.catalog_name(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrow_round_trips() {
        for sql_type in SqlType::ALL {
            let expected = if sql_type == SqlType::Varchar(None) {
                SqlType::Text
            } else {
                sql_type
            };
            assert_eq!(
                SqlType::from_arrow(&sql_type.arrow()),
                Some(expected),
                "{sql_type}"
            );
        }
    }

    #[test]
    fn oids_are_distinct() {
        for sql_type in SqlType::ALL {
            assert_eq!(SqlType::from_oid(sql_type.oid()), Some(sql_type));
        }
        assert_eq!(SqlType::from_oid(3802), None);
    }

    #[test]
    fn modifiers_are_those_of_postgres() {
        assert_eq!(SqlType::Varchar(Some(20)).typmod(), 24);
        assert_eq!(
            SqlType::Numeric {
                precision: 10,
                scale: 2
            }
            .typmod(),
            655_366
        );
        assert_eq!(
            SqlType::Numeric {
                precision: 10,
                scale: 2
            }
            .name(),
            "numeric(10,2)"
        );
        assert_eq!(SqlType::Text.typmod(), -1);
    }
}
