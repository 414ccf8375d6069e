//! From a type as written to a [`SqlType`], and back to a type for casts.
//!
//! Default-deny: what is not listed is refused with its name and the type to use instead.

use sqlparser::ast::{CharacterLength, DataType as AstType, ExactNumberInfo, TimezoneInfo};

use super::SqlType;
use crate::error::{PlanError, PlanErrorKind};

/// The longest `varchar(n)`, as in PostgreSQL.
const VARCHAR_LENGTH_MAX: u64 = 10_485_760;
/// The digits of a 128-bit decimal.
const NUMERIC_PRECISION_MAX: u64 = 38;

impl SqlType {
    /// The type that a written type names.
    ///
    /// # Errors
    /// `Unsupported` for every other type, `InvalidDefinition` for modifiers out of range.
    pub fn from_ast(written: &AstType) -> Result<SqlType, PlanError> {
        Ok(match written {
            AstType::Bool | AstType::Boolean => SqlType::Bool,
            AstType::SmallInt(None) | AstType::Int2(None) => SqlType::Int2,
            AstType::Int(None) | AstType::Integer(None) | AstType::Int4(None) => SqlType::Int4,
            AstType::BigInt(None) | AstType::Int8(None) => SqlType::Int8,
            AstType::Real | AstType::Float4 => SqlType::Float4,
            AstType::DoublePrecision | AstType::Float8 => SqlType::Float8,
            AstType::Float(info) => float(info)?,
            AstType::Numeric(info) | AstType::Decimal(info) | AstType::Dec(info) => numeric(info)?,
            AstType::Text | AstType::String(None) => SqlType::Text,
            AstType::Varchar(length) | AstType::CharacterVarying(length) | AstType::CharVarying(length) => {
                varchar(length.as_ref())?
            }
            AstType::Date => SqlType::Date,
            AstType::Timestamp(None | Some(6), zone) => match zone {
                TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => SqlType::Timestamp,
                TimezoneInfo::WithTimeZone | TimezoneInfo::Tz => SqlType::TimestampTz,
            },
            AstType::Interval {
                fields: None,
                precision: None | Some(6),
            } => SqlType::Interval,
            AstType::Uuid => SqlType::Uuid,
            AstType::Bytea => SqlType::Bytea,
            other => return Err(refused(other)),
        })
    }

    /// Whether the written type is `numeric` without precision, which deserves a notice.
    pub fn is_numeric_without_precision(written: &AstType) -> bool {
        matches!(
            written,
            AstType::Numeric(ExactNumberInfo::None)
                | AstType::Decimal(ExactNumberInfo::None)
                | AstType::Dec(ExactNumberInfo::None)
        )
    }

    /// The type as it stands in a CAST. `varchar(n)` becomes `varchar`: a cast would cut the text where an
    /// assignment has to refuse it, so the length is left to the check of the rows.
    pub fn to_ast(self) -> AstType {
        match self {
            SqlType::Bool => AstType::Boolean,
            SqlType::Int2 => AstType::SmallInt(None),
            SqlType::Int4 => AstType::Integer(None),
            SqlType::Int8 => AstType::BigInt(None),
            SqlType::Float4 => AstType::Real,
            SqlType::Float8 => AstType::DoublePrecision,
            SqlType::Numeric { precision, scale } => {
                AstType::Numeric(ExactNumberInfo::PrecisionAndScale(precision.into(), scale.into()))
            }
            SqlType::Text => AstType::Text,
            SqlType::Varchar(_) => AstType::Varchar(None),
            SqlType::Date => AstType::Date,
            SqlType::Timestamp => AstType::Timestamp(None, TimezoneInfo::None),
            SqlType::TimestampTz => AstType::Timestamp(None, TimezoneInfo::WithTimeZone),
            SqlType::Interval => AstType::Interval {
                fields: None,
                precision: None,
            },
            SqlType::Uuid => AstType::Uuid,
            SqlType::Bytea => AstType::Bytea,
        }
    }
}

fn float(info: &ExactNumberInfo) -> Result<SqlType, PlanError> {
    match info {
        ExactNumberInfo::None => Ok(SqlType::Float8),
        ExactNumberInfo::Precision(1..=24) => Ok(SqlType::Float4),
        ExactNumberInfo::Precision(25..=53) => Ok(SqlType::Float8),
        _ => Err(PlanError::new(
            PlanErrorKind::InvalidDefinition,
            "precision for type float must be between 1 and 53 bits",
        )),
    }
}

fn numeric(info: &ExactNumberInfo) -> Result<SqlType, PlanError> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => return Ok(SqlType::NUMERIC),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    if !(1..=NUMERIC_PRECISION_MAX).contains(&precision) {
        return Err(PlanError::unsupported(
            format_args!("numeric precision {precision}"),
            format!("Use a precision between 1 and {NUMERIC_PRECISION_MAX}."),
        ));
    }
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision), Ok(scale)) if scale >= 0 && i64::from(scale) <= i64::from(precision) => {
            Ok(SqlType::Numeric { precision, scale })
        }
        _ => Err(PlanError::unsupported(
            format_args!("numeric scale {scale} with precision {precision}"),
            "Use a scale between 0 and the precision.",
        )),
    }
}

fn varchar(length: Option<&CharacterLength>) -> Result<SqlType, PlanError> {
    match length {
        None => Ok(SqlType::Varchar(None)),
        Some(CharacterLength::IntegerLength { length, unit: None })
            if (1..=VARCHAR_LENGTH_MAX).contains(length) =>
        {
            Ok(SqlType::Varchar(u32::try_from(*length).ok()))
        }
        Some(_) => Err(PlanError::new(
            PlanErrorKind::InvalidDefinition,
            format!("length for type varchar must be between 1 and {VARCHAR_LENGTH_MAX}"),
        )
        .with_hint("Use text for strings of any length.")),
    }
}

/// The refusal of a type, with the type to use instead.
fn refused(written: &AstType) -> PlanError {
    let name = written.to_string().to_lowercase();
    let alternative = match written {
        AstType::Custom(..) if name.ends_with("serial") || name.starts_with("serial") => {
            return PlanError::unsupported(
                format_args!("type {name}"),
                "Sequences do not work across regions. Use uuid DEFAULT gen_random_uuid().",
            );
        }
        AstType::JSON | AstType::JSONB => "text",
        AstType::Char(_) | AstType::Character(_) | AstType::Nvarchar(_) => "varchar or text",
        AstType::Clob(_) | AstType::FixedString(_) | AstType::String(_) => "text",
        AstType::TinyInt(_) => "smallint",
        AstType::SmallInt(_) | AstType::Int2(_) => "smallint without a width",
        AstType::Int(_) | AstType::Integer(_) | AstType::Int4(_) | AstType::MediumInt(_) => "integer",
        AstType::BigInt(_) | AstType::Int8(_) => "bigint without a width",
        AstType::Double(_) | AstType::Float64 => "double precision",
        AstType::Blob(_) | AstType::Binary(_) | AstType::Varbinary(_) | AstType::Bytes(_) => "bytea",
        AstType::Timestamp(..) | AstType::Datetime(_) => "timestamp or timestamptz, in microseconds",
        AstType::Time(..) => "interval, or timestamp",
        AstType::Interval { .. } => "interval without fields",
        AstType::Array(_) => "a table of its own with a row per element",
        _ => {
            return PlanError::unsupported(
                format_args!("type {name}"),
                "Supported types: boolean, smallint, integer, bigint, real, double precision, numeric, text, \
                 varchar, date, timestamp, timestamptz, interval, uuid, bytea.",
            );
        }
    };
    PlanError::unsupported(format_args!("type {name}"), format!("Use {alternative}."))
}

#[cfg(test)]
mod tests {
    use sqlparser::dialect::PostgreSqlDialect;
    use sqlparser::parser::Parser;

    use super::*;

    fn parsed(text: &str) -> Result<SqlType, PlanError> {
        let mut parser = Parser::new(&PostgreSqlDialect {})
            .try_with_sql(text)
            .expect("it tokenizes");
        SqlType::from_ast(&parser.parse_data_type().expect("it is a type"))
    }

    #[test]
    fn aliases_name_their_types() {
        for (text, expected) in [
            ("bool", SqlType::Bool),
            ("int", SqlType::Int4),
            ("int8", SqlType::Int8),
            ("smallint", SqlType::Int2),
            ("float", SqlType::Float8),
            ("float(24)", SqlType::Float4),
            ("double precision", SqlType::Float8),
            (
                "decimal(10,2)",
                SqlType::Numeric {
                    precision: 10,
                    scale: 2,
                },
            ),
            (
                "numeric(5)",
                SqlType::Numeric {
                    precision: 5,
                    scale: 0,
                },
            ),
            ("numeric", SqlType::NUMERIC),
            ("string", SqlType::Text),
            ("character varying(8)", SqlType::Varchar(Some(8))),
            ("char varying", SqlType::Varchar(None)),
            ("timestamp with time zone", SqlType::TimestampTz),
            ("timestamptz", SqlType::TimestampTz),
            ("timestamp without time zone", SqlType::Timestamp),
            ("interval", SqlType::Interval),
            ("uuid", SqlType::Uuid),
            ("bytea", SqlType::Bytea),
        ] {
            assert_eq!(parsed(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn casts_name_the_same_type() {
        for sql_type in SqlType::ALL {
            assert_eq!(SqlType::from_ast(&sql_type.to_ast()), Ok(sql_type));
        }
    }

    #[test]
    fn other_types_are_refused_with_an_alternative() {
        for (text, hint) in [
            ("serial", "gen_random_uuid"),
            ("bigserial", "gen_random_uuid"),
            ("jsonb", "Use text."),
            ("char(3)", "varchar"),
            ("int(11)", "integer"),
            ("timestamp(3)", "microseconds"),
            ("int[]", "a table of its own"),
            ("money", "Supported types"),
            ("numeric(50,2)", "between 1 and 38"),
            ("numeric(5,-2)", "between 0 and the precision"),
        ] {
            let error = parsed(text).expect_err(text);
            assert_eq!(error.kind, PlanErrorKind::Unsupported, "{text}");
            assert!(
                error.hint.as_deref().is_some_and(|given| given.contains(hint)),
                "{text}: {error}"
            );
        }
    }
}
