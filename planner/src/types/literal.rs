//! Constants: from text to a typed [`Literal`], and back.

use std::fmt::Write;

use arrow::compute::kernels::cast_utils::{Parser, parse_interval_month_day_nano, string_to_datetime};
use arrow::datatypes::Date32Type;
use arrow_schema::{DataType, TimeUnit};
use chrono::{DateTime, Days, NaiveDate, Utc};

use super::SqlType;
use crate::error::{PlanError, PlanErrorKind};
use crate::plan::{Literal, LiteralValue};

impl SqlType {
    /// The constant of this type that a text means. `time_zone` (an IANA name) is that of a `timestamptz`
    /// written without one.
    ///
    /// # Errors
    /// `DatatypeMismatch` when the text is no value of the type, or is out of its range.
    pub fn literal(&self, text: &str, time_zone: &str) -> Result<Literal, PlanError> {
        let value = match self {
            SqlType::Bool => boolean(text).map(LiteralValue::Boolean),
            SqlType::Int2 => integer(text, i16::MIN.into(), i16::MAX.into()),
            SqlType::Int4 => integer(text, i32::MIN.into(), i32::MAX.into()),
            SqlType::Int8 => integer(text, i64::MIN.into(), i64::MAX.into()),
            SqlType::Float4 => text
                .trim()
                .parse::<f32>()
                .ok()
                .map(|value| float(f64::from(value))),
            SqlType::Float8 => text.trim().parse::<f64>().ok().map(float),
            SqlType::Numeric { precision, scale } => decimal(text.trim(), *precision, *scale),
            SqlType::Text | SqlType::Varchar(None) => Some(LiteralValue::Text(text.to_owned())),
            SqlType::Varchar(Some(length)) => {
                let fits = text.chars().count() <= usize::try_from(*length).unwrap_or(usize::MAX);
                fits.then(|| LiteralValue::Text(text.to_owned()))
            }
            SqlType::Date => Date32Type::parse(text.trim()).map(|days| LiteralValue::Integer(days.into())),
            SqlType::Timestamp => instant(text, "UTC"),
            SqlType::TimestampTz => instant(text, time_zone),
            SqlType::Interval => interval(text),
            SqlType::Uuid => uuid(text).map(LiteralValue::Bytes),
            SqlType::Bytea => bytea(text).map(LiteralValue::Bytes),
        };
        let value = value.ok_or_else(|| {
            let message = format!("invalid value for type {self}: \"{text}\"");
            PlanError::new(PlanErrorKind::DatatypeMismatch, message)
        })?;
        Ok(Literal {
            data_type: self.arrow(),
            value: Some(value),
        })
    }
}

/// A constant as text that [`SqlType::literal`] reads as the same constant; `None` for null.
pub(crate) fn literal_text(literal: &Literal) -> Option<String> {
    Some(match (literal.value.as_ref()?, &literal.data_type) {
        (LiteralValue::Boolean(value), _) => value.to_string(),
        (LiteralValue::Text(value), _) => value.clone(),
        (LiteralValue::Float(bits), _) => f64::from_bits(*bits).to_string(),
        (LiteralValue::Integer(value), DataType::Decimal128(_, scale)) => decimal_text(*value, *scale),
        (LiteralValue::Integer(value), DataType::Date32) => date_text(*value)?,
        (LiteralValue::Integer(value), DataType::Timestamp(unit, zone)) => {
            instant_text(*value, *unit, zone.is_some())?
        }
        (LiteralValue::Integer(value), _) => value.to_string(),
        (LiteralValue::Bytes(bytes), DataType::FixedSizeBinary(16)) => uuid_text(bytes),
        (LiteralValue::Bytes(bytes), _) => format!("\\x{}", hex(bytes)),
        (
            LiteralValue::Interval {
                months,
                days,
                nanoseconds,
            },
            _,
        ) => {
            format!("{months} months {days} days {nanoseconds} nanoseconds")
        }
    })
}

fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "on" | "1" => Some(true),
        "f" | "false" | "n" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn integer(text: &str, minimum: i128, maximum: i128) -> Option<LiteralValue> {
    let value: i128 = text.trim().parse().ok()?;
    (minimum..=maximum)
        .contains(&value)
        .then_some(LiteralValue::Integer(value))
}

fn float(value: f64) -> LiteralValue {
    LiteralValue::Float(value.to_bits())
}

/// `[-]digits[.digits][e[-]digits]`, rounded half away from zero at the scale, unscaled.
fn decimal(text: &str, precision: u8, scale: i8) -> Option<LiteralValue> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.len() + fraction.len() == 0 || !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return None;
    }
    if whole.len() + fraction.len() > 200 || exponent.abs() > 200 || fraction.contains('.') {
        return None;
    }
    let fraction_length = i32::try_from(fraction.len()).ok()?;
    // The value is `all digits * 10^(shift)` in units of the scale.
    let shift = exponent - fraction_length + i32::from(scale);
    let mut all = format!("{whole}{fraction}");
    let mut round_up = false;
    if shift >= 0 {
        all.extend(std::iter::repeat_n('0', usize::try_from(shift).ok()?));
    } else {
        let cut = usize::try_from(-shift).ok()?;
        let kept = all.len().saturating_sub(cut);
        round_up = all.len() >= cut && all[kept..].starts_with(|first: char| first >= '5');
        all.truncate(kept);
    }
    let digits = all.trim_start_matches('0');
    let unscaled = if digits.is_empty() {
        0
    } else {
        digits.parse::<i128>().ok()?
    } + i128::from(round_up);
    if unscaled >= 10_i128.checked_pow(u32::from(precision))? {
        return None;
    }
    Some(LiteralValue::Integer(if negative { -unscaled } else { unscaled }))
}

fn decimal_text(unscaled: i128, scale: i8) -> String {
    let sign = if unscaled < 0 { "-" } else { "" };
    let scale = usize::try_from(scale).unwrap_or(0);
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    if scale == 0 {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction}")
    }
}

fn date_text(days: i128) -> Option<String> {
    let epoch = NaiveDate::default();
    let distance = Days::new(u64::try_from(days.unsigned_abs()).ok()?);
    let date = if days < 0 {
        epoch.checked_sub_days(distance)
    } else {
        epoch.checked_add_days(distance)
    };
    Some(date?.format("%Y-%m-%d").to_string())
}

fn instant(text: &str, time_zone: &str) -> Option<LiteralValue> {
    let zone: chrono_tz::Tz = time_zone.parse().ok()?;
    let instant = string_to_datetime(&zone, text.trim()).ok()?;
    Some(LiteralValue::Integer(instant.timestamp_micros().into()))
}

fn instant_text(value: i128, unit: TimeUnit, zoned: bool) -> Option<String> {
    let value = i64::try_from(value).ok()?;
    let instant: DateTime<Utc> = match unit {
        TimeUnit::Second => DateTime::from_timestamp(value, 0)?,
        TimeUnit::Millisecond => DateTime::from_timestamp_millis(value)?,
        TimeUnit::Microsecond => DateTime::from_timestamp_micros(value)?,
        TimeUnit::Nanosecond => DateTime::from_timestamp_nanos(value),
    };
    let text = instant.format("%Y-%m-%d %H:%M:%S%.f").to_string();
    Some(if zoned { format!("{text}+00:00") } else { text })
}

fn interval(text: &str) -> Option<LiteralValue> {
    let value = parse_interval_month_day_nano(text).ok()?;
    Some(LiteralValue::Interval {
        months: value.months,
        days: value.days,
        nanoseconds: value.nanoseconds,
    })
}

/// 32 hexadecimal digits, with hyphens after any four and optional braces, as in PostgreSQL.
fn uuid(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    let text = text
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'))
        .unwrap_or(text);
    let groups: Vec<&str> = text.split('-').collect();
    if groups
        .iter()
        .any(|group| group.is_empty() || group.len() % 4 != 0)
    {
        return None;
    }
    let bytes = unhex(&groups.concat())?;
    (bytes.len() == 16).then_some(bytes)
}

fn uuid_text(bytes: &[u8]) -> String {
    let mut text = hex(bytes);
    for at in [20, 16, 12, 8] {
        if text.is_char_boundary(at) {
            text.insert(at, '-');
        }
    }
    text
}

/// `\x` and hexadecimal digits, or the bytes of plain text.
fn bytea(text: &str) -> Option<Vec<u8>> {
    match text.strip_prefix("\\x") {
        Some(digits) => unhex(digits),
        None if text.contains('\\') => None,
        None => Some(text.as_bytes().to_vec()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
            text
        })
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    digits
        .chunks(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for (sql_type, text) in [
            (SqlType::Bool, "true"),
            (SqlType::Int2, "-32768"),
            (SqlType::Float8, "-0.1"),
            (SqlType::Float8, "NaN"),
            (
                SqlType::Numeric {
                    precision: 10,
                    scale: 2,
                },
                "-0.05",
            ),
            (
                SqlType::Numeric {
                    precision: 10,
                    scale: 0,
                },
                "12",
            ),
            (SqlType::Text, "it's"),
            (SqlType::Date, "1969-12-31"),
            (SqlType::Timestamp, "2024-02-29 12:00:00.000001"),
            (SqlType::TimestampTz, "2024-02-29 12:00:00+00:00"),
            (SqlType::Interval, "1 months -2 days 3000000000 nanoseconds"),
            (SqlType::Uuid, "00112233-4455-6677-8899-aabbccddeeff"),
            (SqlType::Bytea, "\\x00ff"),
        ] {
            let literal = sql_type.literal(text, "UTC").expect(text);
            assert_eq!(literal_text(&literal).as_deref(), Some(text), "{sql_type}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for (sql_type, text) in [
            (SqlType::Int2, "32768"),
            (SqlType::Int4, "1.5"),
            (
                SqlType::Numeric {
                    precision: 3,
                    scale: 1,
                },
                "99.95",
            ),
            (
                SqlType::Numeric {
                    precision: 3,
                    scale: 1,
                },
                ".",
            ),
            (
                SqlType::Numeric {
                    precision: 3,
                    scale: 1,
                },
                "1.2.3",
            ),
            (SqlType::Varchar(Some(2)), "äöü"),
            (SqlType::Date, "2024-02-30"),
            (SqlType::Uuid, "0011"),
            (SqlType::Uuid, "00112233-4455-6677-8899-aabbccddeefé"),
            (SqlType::Bytea, "\\xf"),
            (SqlType::Interval, "tomorrow"),
        ] {
            let error = sql_type.literal(text, "UTC").expect_err(text);
            assert_eq!(error.kind, PlanErrorKind::DatatypeMismatch);
        }
    }

    #[test]
    fn decimals_round_half_away_from_zero() {
        let decimal = |text| match (SqlType::Numeric {
            precision: 8,
            scale: 2,
        })
        .literal(text, "UTC")
        {
            Ok(Literal {
                value: Some(LiteralValue::Integer(value)),
                ..
            }) => Some(value),
            _ => None,
        };
        assert_eq!(decimal("1.005"), Some(101));
        assert_eq!(decimal("-1.005"), Some(-101));
        assert_eq!(decimal("0.004"), Some(0));
        assert_eq!(decimal(".5"), Some(50));
        assert_eq!(decimal("12e1"), Some(12_000));
        assert_eq!(decimal("5e-3"), Some(1));
        assert_eq!(decimal("1e-9"), Some(0));
    }

    #[test]
    fn the_time_zone_applies_where_none_is_written() {
        let micros = |text| {
            SqlType::TimestampTz
                .literal(text, "Europe/Berlin")
                .expect(text)
                .value
        };
        assert_eq!(micros("1970-01-01 01:00:00"), Some(LiteralValue::Integer(0)));
        assert_eq!(
            micros("1970-01-01 01:00:00Z"),
            Some(LiteralValue::Integer(3_600_000_000))
        );
    }
}
