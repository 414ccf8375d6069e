//! From text or PostgreSQL's binary form to Arrow: one builder per column.
//!
//! Every refusal carries its SQLSTATE (22P02, 22003, 22007, 22008, 22P03) and the value, so that COPY and parameters
//! need only add where it stood. `varchar(n)` is not cut here: length is checked where rows are assigned.

use std::sync::Arc;

use datafusion::arrow::array::*;
use datafusion::arrow::datatypes::{IntervalMonthDayNano, IntervalMonthDayNanoType};
use tributary_planner::types::SqlType;

use super::calendar::{DAYS_1970_TO_2000, US_1970_TO_2000};
use super::datetime::{self, Zone};
use super::{interval, numeric};
use crate::error::{SqlError, SqlResult};
use crate::sqlstate;

/// Collects the values of one column.
pub struct ColumnBuilder {
    sql_type: SqlType,
    zone: Zone,
    values: Values,
}

enum Values {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Numeric(Decimal128Builder, u8, i8),
    Text(StringBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    TimestampTz(TimestampMicrosecondBuilder),
    Interval(PrimitiveBuilder<IntervalMonthDayNanoType>),
    Uuid(FixedSizeBinaryBuilder),
    Bytea(BinaryBuilder),
}

impl ColumnBuilder {
    /// An empty column; `zone` is where timestamps without a zone are read.
    pub fn new(sql_type: SqlType, zone: Zone) -> Self {
        let values = match sql_type {
            SqlType::Bool => Values::Bool(BooleanBuilder::new()),
            SqlType::Int2 => Values::Int2(Int16Builder::new()),
            SqlType::Int4 => Values::Int4(Int32Builder::new()),
            SqlType::Int8 => Values::Int8(Int64Builder::new()),
            SqlType::Float4 => Values::Float4(Float32Builder::new()),
            SqlType::Float8 => Values::Float8(Float64Builder::new()),
            SqlType::Numeric { precision, scale } => {
                let builder = Decimal128Builder::new().with_data_type(sql_type.arrow());
                Values::Numeric(builder, precision, scale)
            }
            SqlType::Text | SqlType::Varchar(_) => Values::Text(StringBuilder::new()),
            SqlType::Date => Values::Date(Date32Builder::new()),
            SqlType::Timestamp => Values::Timestamp(TimestampMicrosecondBuilder::new()),
            SqlType::TimestampTz => {
                Values::TimestampTz(TimestampMicrosecondBuilder::new().with_data_type(sql_type.arrow()))
            }
            SqlType::Interval => Values::Interval(PrimitiveBuilder::new()),
            SqlType::Uuid => Values::Uuid(FixedSizeBinaryBuilder::new(16)),
            SqlType::Bytea => Values::Bytea(BinaryBuilder::new()),
        };
        Self {
            sql_type,
            zone,
            values,
        }
    }

    /// Appends a null.
    pub fn append_null(&mut self) {
        match &mut self.values {
            Values::Bool(builder) => builder.append_null(),
            Values::Int2(builder) => builder.append_null(),
            Values::Int4(builder) => builder.append_null(),
            Values::Int8(builder) => builder.append_null(),
            Values::Float4(builder) => builder.append_null(),
            Values::Float8(builder) => builder.append_null(),
            Values::Numeric(builder, ..) => builder.append_null(),
            Values::Text(builder) => builder.append_null(),
            Values::Date(builder) => builder.append_null(),
            Values::Timestamp(builder) | Values::TimestampTz(builder) => builder.append_null(),
            Values::Interval(builder) => builder.append_null(),
            Values::Uuid(builder) => builder.append_null(),
            Values::Bytea(builder) => builder.append_null(),
        }
    }

    /// Appends a value given as text; nothing is appended on an error.
    pub fn append_text(&mut self, text: &str) -> SqlResult<()> {
        let sql_type = self.sql_type;
        match &mut self.values {
            Values::Bool(builder) => builder.append_value(parse_bool(text)?),
            Values::Int2(builder) => builder.append_value(parse_integer(text, sql_type)?),
            Values::Int4(builder) => builder.append_value(parse_integer(text, sql_type)?),
            Values::Int8(builder) => builder.append_value(parse_integer(text, sql_type)?),
            Values::Float4(builder) => {
                let value: f32 = parse_float(text, sql_type)?;
                builder.append_value(value);
            }
            Values::Float8(builder) => {
                let value: f64 = parse_float(text, sql_type)?;
                builder.append_value(value);
            }
            Values::Numeric(builder, precision, scale) => {
                builder.append_value(numeric::parse(text, *precision, *scale)?)
            }
            Values::Text(builder) => builder.append_value(text),
            Values::Date(builder) => builder.append_value(datetime::parse_date(text)?),
            Values::Timestamp(builder) => builder.append_value(datetime::parse_timestamp(text)?),
            Values::TimestampTz(builder) => {
                builder.append_value(datetime::parse_timestamptz(text, &self.zone)?)
            }
            Values::Interval(builder) => builder.append_value(to_arrow_interval(interval::parse(text)?)?),
            Values::Uuid(builder) => builder
                .append_value(parse_uuid(text)?)
                .expect("a uuid has the builder's 16 bytes"),
            Values::Bytea(builder) => builder.append_value(parse_bytea(text)?),
        }
        Ok(())
    }

    /// Appends a value given in PostgreSQL's binary form; nothing is appended on an error.
    pub fn append_binary(&mut self, bytes: &[u8]) -> SqlResult<()> {
        match &mut self.values {
            Values::Bool(builder) => builder.append_value(exact::<1>(bytes)?[0] != 0),
            Values::Int2(builder) => builder.append_value(i16::from_be_bytes(exact(bytes)?)),
            Values::Int4(builder) => builder.append_value(i32::from_be_bytes(exact(bytes)?)),
            Values::Int8(builder) => builder.append_value(i64::from_be_bytes(exact(bytes)?)),
            Values::Float4(builder) => builder.append_value(f32::from_be_bytes(exact(bytes)?)),
            Values::Float8(builder) => builder.append_value(f64::from_be_bytes(exact(bytes)?)),
            Values::Numeric(builder, precision, scale) => {
                let text = numeric::binary_to_text(bytes)?;
                builder.append_value(numeric::parse(&text, *precision, *scale)?);
            }
            Values::Text(builder) => builder.append_value(utf8(bytes)?),
            Values::Date(builder) => {
                let days = i32::from_be_bytes(exact(bytes)?).checked_add(DAYS_1970_TO_2000);
                builder.append_value(days.ok_or_else(out_of_range)?);
            }
            Values::Timestamp(builder) | Values::TimestampTz(builder) => {
                let us = i64::from_be_bytes(exact(bytes)?).checked_add(US_1970_TO_2000);
                builder.append_value(us.ok_or_else(out_of_range)?);
            }
            Values::Interval(builder) => {
                let bytes: [u8; 16] = exact(bytes)?;
                let (us, rest) = bytes.split_at(8);
                let value = interval::Interval {
                    us: i64::from_be_bytes(exact(us)?),
                    days: i32::from_be_bytes(exact(&rest[..4])?),
                    months: i32::from_be_bytes(exact(&rest[4..])?),
                };
                builder.append_value(to_arrow_interval(value)?);
            }
            Values::Uuid(builder) => builder
                .append_value(exact::<16>(bytes)?)
                .expect("a uuid has the builder's 16 bytes"),
            Values::Bytea(builder) => builder.append_value(bytes),
        }
        Ok(())
    }

    /// The column.
    pub fn finish(mut self) -> ArrayRef {
        match &mut self.values {
            Values::Bool(builder) => Arc::new(builder.finish()),
            Values::Int2(builder) => Arc::new(builder.finish()),
            Values::Int4(builder) => Arc::new(builder.finish()),
            Values::Int8(builder) => Arc::new(builder.finish()),
            Values::Float4(builder) => Arc::new(builder.finish()),
            Values::Float8(builder) => Arc::new(builder.finish()),
            Values::Numeric(builder, ..) => Arc::new(builder.finish()),
            Values::Text(builder) => Arc::new(builder.finish()),
            Values::Date(builder) => Arc::new(builder.finish()),
            Values::Timestamp(builder) | Values::TimestampTz(builder) => Arc::new(builder.finish()),
            Values::Interval(builder) => Arc::new(builder.finish()),
            Values::Uuid(builder) => Arc::new(builder.finish()),
            Values::Bytea(builder) => Arc::new(builder.finish()),
        }
    }
}

fn exact<const N: usize>(bytes: &[u8]) -> SqlResult<[u8; N]> {
    bytes.try_into().map_err(|_| {
        SqlError::new(
            sqlstate::INVALID_BINARY,
            format!("a binary value of {N} bytes has {} bytes", bytes.len()),
        )
    })
}

fn out_of_range() -> SqlError {
    SqlError::new(sqlstate::DATETIME_OVERFLOW, "date or timestamp out of range")
}

/// Bytes of the client as text.
pub fn utf8(bytes: &[u8]) -> SqlResult<&str> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let bad = bytes[error.valid_up_to()];
        SqlError::new(
            sqlstate::CHARACTER_NOT_IN_REPERTOIRE,
            format!("invalid byte sequence for encoding \"UTF8\": 0x{bad:02x}"),
        )
    })?;
    match text.contains('\0') {
        true => Err(SqlError::new(
            sqlstate::CHARACTER_NOT_IN_REPERTOIRE,
            "invalid byte sequence for encoding \"UTF8\": 0x00",
        )),
        false => Ok(text),
    }
}

fn wrong(text: &str, sql_type: impl std::fmt::Display) -> SqlError {
    let shown: String = text.chars().take(200).collect();
    SqlError::new(
        sqlstate::INVALID_TEXT,
        format!("invalid input syntax for type {sql_type}: \"{shown}\""),
    )
}

fn parse_bool(text: &str) -> SqlResult<bool> {
    let word = text.trim().to_ascii_lowercase();
    let abbreviates = |full: &str, least: usize| word.len() >= least && full.starts_with(&word);
    match word.as_str() {
        "1" => Ok(true),
        "0" => Ok(false),
        _ if abbreviates("true", 1) || abbreviates("yes", 1) || abbreviates("on", 2) => Ok(true),
        _ if abbreviates("false", 1) || abbreviates("no", 1) || abbreviates("off", 2) => Ok(false),
        _ => Err(wrong(text, "boolean")),
    }
}

fn parse_integer<T: TryFrom<i128>>(text: &str, sql_type: SqlType) -> SqlResult<T> {
    if let Some(value) = short_integer(text.as_bytes()).and_then(|value| T::try_from(i128::from(value)).ok())
    {
        return Ok(value);
    }
    let trimmed = text.trim();
    let digits = trimmed.strip_prefix(['-', '+']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong(text, sql_type));
    }
    let value = trimmed
        .parse::<i128>()
        .ok()
        .and_then(|value| T::try_from(value).ok());
    value.ok_or_else(|| {
        SqlError::new(
            sqlstate::NUMERIC_OUT_OF_RANGE,
            format!("value \"{trimmed}\" is out of range for type {sql_type}"),
        )
    })
}

/// An integer of so few digits that none can overflow, as most are written.
#[inline]
fn short_integer(text: &[u8]) -> Option<i64> {
    const DIGITS_MAX: usize = 18;
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        digits => (1, digits),
    };
    if digits.is_empty() || digits.len() > DIGITS_MAX {
        return None;
    }
    let mut value = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(sign * value)
}

/// Floats that can be parsed; overflow to infinity is an error unless infinity was written.
trait Float: std::str::FromStr {
    fn is_infinite(&self) -> bool;
}

impl Float for f32 {
    fn is_infinite(&self) -> bool {
        f32::is_infinite(*self)
    }
}

impl Float for f64 {
    fn is_infinite(&self) -> bool {
        f64::is_infinite(*self)
    }
}

fn parse_float<T: Float>(text: &str, sql_type: SqlType) -> SqlResult<T> {
    let trimmed = text.trim();
    let value: T = trimmed.parse().map_err(|_| wrong(text, sql_type))?;
    if value.is_infinite() && trimmed.bytes().any(|byte| byte.is_ascii_digit()) {
        let message = format!("\"{trimmed}\" is out of range for type {sql_type}");
        return Err(SqlError::new(sqlstate::NUMERIC_OUT_OF_RANGE, message));
    }
    Ok(value)
}

fn to_arrow_interval(value: interval::Interval) -> SqlResult<IntervalMonthDayNano> {
    let nanoseconds = value.us.checked_mul(1000).ok_or_else(|| {
        SqlError::new(sqlstate::DATETIME_OVERFLOW, "interval out of range")
            .hint("292 years of seconds are the most")
    })?;
    Ok(IntervalMonthDayNano::new(value.months, value.days, nanoseconds))
}

fn parse_uuid(text: &str) -> SqlResult<[u8; 16]> {
    let trimmed = text.trim();
    let inner = trimmed
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .unwrap_or(trimmed);
    let digits: Vec<u8> = inner.bytes().filter(|byte| *byte != b'-').collect();
    let bytes = decode_hex(&digits).filter(|bytes| bytes.len() == 16);
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| wrong(text, "uuid"))
}

fn decode_hex(digits: &[u8]) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    digits
        .chunks(2)
        .map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?))
        .collect()
}

/// Hex (`\x…`) or escape form.
fn parse_bytea(text: &str) -> SqlResult<Vec<u8>> {
    let bytes = text.as_bytes();
    if let Some(hex) = bytes.strip_prefix(b"\\x") {
        let digits: Vec<u8> = hex
            .iter()
            .copied()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        return decode_hex(&digits).ok_or_else(|| wrong(text, "bytea"));
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match tail {
            [b'\\', after @ ..] => {
                out.push(b'\\');
                rest = after;
            }
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => return Err(wrong(text, "bytea")),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(sql_type: SqlType, text: &str) -> &'static str {
        let mut builder = ColumnBuilder::new(sql_type, Zone::UTC);
        builder.append_text(text).expect_err(text).state
    }

    #[test]
    fn refusals_have_their_states() {
        assert_eq!(error(SqlType::Int2, "40000"), "22003");
        assert_eq!(error(SqlType::Int4, "4x"), "22P02");
        assert_eq!(
            error(SqlType::Int8, "99999999999999999999999999999999999999999999"),
            "22003"
        );
        assert_eq!(error(SqlType::Float8, "1e999"), "22003");
        assert_eq!(error(SqlType::Bool, "maybe"), "22P02");
        assert_eq!(error(SqlType::Uuid, "1234"), "22P02");
        assert_eq!(error(SqlType::Bytea, "\\xabc"), "22P02");
        assert_eq!(error(SqlType::Date, "2024-13-01"), "22008");
    }

    #[test]
    fn abbreviations_of_booleans() {
        for (text, expected) in [
            ("t", true),
            ("TRUE", true),
            ("on", true),
            ("of", false),
            ("n", false),
            ("0", false),
        ] {
            assert_eq!(parse_bool(text).expect(text), expected, "{text}");
        }
        assert!(parse_bool("o").is_err(), "o may be on or off");
    }

    #[test]
    fn bytea_forms() {
        assert_eq!(parse_bytea("\\x00ff").expect("hex"), vec![0, 255]);
        assert_eq!(parse_bytea("a\\\\b\\001").expect("escape"), b"a\\b\x01");
    }

    proptest! {
        #[test]
        fn any_input_is_survived(text in "\\PC{0,20}", bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            for sql_type in SqlType::ALL {
                let mut builder = ColumnBuilder::new(sql_type, Zone::UTC);
                let appended = usize::from(builder.append_text(&text).is_ok())
                    + usize::from(builder.append_binary(&bytes).is_ok());
                prop_assert_eq!(builder.finish().len(), appended);
            }
        }
    }
}
