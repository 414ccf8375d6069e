//! Constants read from text at planning time, as PostgreSQL's input functions read them.
//!
//! Stricter than PostgreSQL: only the ISO forms of dates and timestamps are read, so that nothing depends on a
//! `DateStyle`. What is not read is refused, never guessed.

use arrow_schema::DataType;
use chrono::{DateTime, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeZone};

use super::{is_integer, type_name};
use crate::error::{PlanError, PlanErrorKind};
use crate::plan::LiteralValue;

/// Reads `text` as a constant of a type; `zone` is the session's time zone.
///
/// # Errors
/// `DatatypeMismatch` when it is not one, `Unsupported` for types without constants.
pub fn parse(text: &str, data_type: &DataType, zone: &str) -> Result<LiteralValue, PlanError> {
    let trimmed = text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
    let value = match data_type {
        DataType::Utf8 => Some(LiteralValue::Text(text.to_owned())),
        DataType::Boolean => boolean(trimmed).map(LiteralValue::Boolean),
        integer if is_integer(integer) => whole(trimmed, integer).map(LiteralValue::Integer),
        DataType::Decimal128(precision, scale) => {
            decimal(trimmed, *precision, *scale).map(LiteralValue::Integer)
        }
        DataType::Float32 => float(trimmed, true).map(LiteralValue::Float),
        DataType::Float64 => float(trimmed, false).map(LiteralValue::Float),
        DataType::Date32 => date(trimmed).map(|day| LiteralValue::Integer(days(day))),
        DataType::Timestamp(_, None) => timestamp(trimmed).map(|at| LiteralValue::Integer(micros(at))),
        DataType::Timestamp(_, Some(_)) => timestamp_in_zone(trimmed, zone).map(LiteralValue::Integer),
        DataType::FixedSizeBinary(16) => uuid(trimmed).map(LiteralValue::Bytes),
        DataType::Binary => bytea(text).map(LiteralValue::Bytes),
        _ => {
            return Err(PlanError::unsupported(
                format_args!("a quoted constant of type {}", type_name(data_type)),
                "Write interval '1 day' for intervals.",
            ));
        }
    };
    value.ok_or_else(|| {
        let message = format!(
            "invalid input syntax for type {}: \"{text}\"",
            type_name(data_type)
        );
        let error = PlanError::new(PlanErrorKind::DatatypeMismatch, message);
        if super::is_instant(data_type) {
            error.with_hint("Use the form 2024-12-31 23:59:59.")
        } else {
            error
        }
    })
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "t" | "tr" | "tru" | "true" | "y" | "ye" | "yes" | "on" | "1" => Some(true),
        "f" | "fa" | "fal" | "fals" | "false" | "n" | "no" | "of" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn whole(text: &str, data_type: &DataType) -> Option<i128> {
    let value: i128 = text.parse().ok()?;
    fits_integer(value, data_type).then_some(value)
}

/// Whether a value is in the range of an integer type.
pub fn fits_integer(value: i128, data_type: &DataType) -> bool {
    match data_type {
        DataType::Int16 => i16::try_from(value).is_ok(),
        DataType::Int32 => i32::try_from(value).is_ok(),
        _ => i64::try_from(value).is_ok(),
    }
}

/// Reads a decimal and rounds it half away from zero to the scale; the result is unscaled.
fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (integral, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{integral}{fraction}");
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let unscaled: i128 = all
        .trim_start_matches('0')
        .parse()
        .or_else(|error| {
            if all.bytes().all(|byte| byte == b'0') {
                Ok(0)
            } else {
                Err(error)
            }
        })
        .ok()?;
    let shift = exponent
        .checked_add(i32::from(scale))?
        .checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let value = shifted(unscaled, shift)?;
    let value = if negative { -value } else { value };
    fits_decimal(value, precision).then_some(value)
}

/// `value * 10^shift`, rounded half away from zero.
pub fn shifted(value: i128, shift: i32) -> Option<i128> {
    let power = 10_i128.checked_pow(shift.unsigned_abs());
    if shift >= 0 {
        return if value == 0 {
            Some(0)
        } else {
            value.checked_mul(power?)
        };
    }
    let Some(power) = power else { return Some(0) };
    let quotient = value / power;
    let remainder = (value % power).unsigned_abs();
    let up = remainder >= power.unsigned_abs() - remainder;
    Some(if up { quotient + value.signum() } else { quotient })
}

/// Whether an unscaled value has at most so many digits.
pub fn fits_decimal(value: i128, precision: u8) -> bool {
    value.unsigned_abs() < 10_u128.pow(u32::from(precision))
}

fn float(text: &str, single: bool) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let value: f64 = match lower.as_str() {
        "nan" => f64::NAN,
        "inf" | "infinity" | "+infinity" => f64::INFINITY,
        "-inf" | "-infinity" => f64::NEG_INFINITY,
        _ if single => f64::from(lower.parse::<f32>().ok()?),
        _ => lower.parse().ok()?,
    };
    let spelled = lower.contains("inf") || lower.contains("nan");
    (spelled || value.is_finite()).then(|| value.to_bits())
}

fn date(text: &str) -> Option<NaiveDate> {
    let bytes = text.as_bytes();
    let shaped = bytes.len() == 10 && bytes[4] == b'-' && bytes[7] == b'-';
    shaped.then(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok())?
}

fn days(day: NaiveDate) -> i128 {
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).expect("a date");
    i128::from(day.signed_duration_since(epoch).num_days())
}

fn micros(at: NaiveDateTime) -> i128 {
    i128::from(at.and_utc().timestamp_micros())
}

fn timestamp(text: &str) -> Option<NaiveDateTime> {
    if text.len() == 10 {
        return Some(date(text)?.and_time(NaiveTime::MIN));
    }
    let day = date(text.get(..10)?)?;
    let rest = text.get(10..)?;
    let time = rest.strip_prefix('T').or_else(|| rest.strip_prefix(' '))?;
    let seconds = time.split_once('.').map_or(time, |(seconds, _)| seconds);
    let digits = time.split_once('.').map_or("", |(_, digits)| digits);
    if digits.len() > 6 {
        return None;
    }
    let format = if seconds.len() == 5 {
        "%H:%M"
    } else {
        "%H:%M:%S%.f"
    };
    // Chrono reads 23:59:60 as a leap second; PostgreSQL as the next minute. Nobody means either.
    if seconds.ends_with(":60") {
        return None;
    }
    Some(day.and_time(NaiveTime::parse_from_str(time, format).ok()?))
}

/// A timestamp with an offset, or local to the zone; microseconds since 1970 UTC.
fn timestamp_in_zone(text: &str, zone: &str) -> Option<i128> {
    if let Some(utc) = text.strip_suffix(['Z', 'z']) {
        return timestamp(utc.trim_end()).map(micros);
    }
    let time = text.get(10..).unwrap_or("");
    if let Some(sign) = time.rfind(['+', '-']) {
        let at = timestamp(text[..10 + sign].trim_end())?;
        let offset = offset_seconds(&time[sign..])?;
        return Some(micros(at) - i128::from(offset) * 1_000_000);
    }
    let local = timestamp(text)?;
    let zone: chrono_tz::Tz = zone.parse().ok()?;
    match zone.from_local_datetime(&local) {
        LocalResult::Single(at) => Some(utc_micros(&at)),
        // PostgreSQL takes standard time, the later instant, when a clock goes back; a time that a clock skips
        // is refused.
        LocalResult::Ambiguous(_, later) => Some(utc_micros(&later)),
        LocalResult::None => None,
    }
}

fn utc_micros<Z: TimeZone>(at: &DateTime<Z>) -> i128 {
    i128::from(at.timestamp_micros())
}

fn offset_seconds(text: &str) -> Option<i32> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let digits: String = text[1..].chars().filter(|c| *c != ':').collect();
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || !matches!(digits.len(), 2 | 4) {
        return None;
    }
    let hours: i32 = digits[..2].parse().ok()?;
    let minutes: i32 = if digits.len() == 4 {
        digits[2..].parse().ok()?
    } else {
        0
    };
    (hours <= 15 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Reads a uuid: 32 hexadecimal digits, hyphens after groups of four allowed, braces around it allowed.
fn uuid(text: &str) -> Option<Vec<u8>> {
    let text = text
        .strip_prefix('{')
        .map_or(Some(text), |rest| rest.strip_suffix('}'))?;
    let mut digits = String::with_capacity(32);
    let mut hyphen_allowed = false;
    for c in text.chars() {
        if c == '-' && hyphen_allowed {
            hyphen_allowed = false;
        } else if c.is_ascii_hexdigit() {
            digits.push(c);
            hyphen_allowed = digits.len().is_multiple_of(4) && digits.len() < 32;
        } else {
            return None;
        }
    }
    if digits.len() == 32 { hex(&digits) } else { None }
}

fn bytea(text: &str) -> Option<Vec<u8>> {
    hex(text.strip_prefix("\\x")?)
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{TIMESTAMP, timestamptz};
    use super::*;

    fn integer(text: &str, data_type: &DataType) -> Option<i128> {
        match parse(text, data_type, "Europe/Berlin") {
            Ok(LiteralValue::Integer(value)) => Some(value),
            _ => None,
        }
    }

    #[test]
    fn decimals_round_half_away_from_zero() {
        let cents = DataType::Decimal128(5, 2);
        for (text, expected) in [
            ("1.005", Some(101)),
            ("-1.005", Some(-101)),
            ("1.0049", Some(100)),
            ("1e2", Some(10_000)),
            (".5", Some(50)),
            ("0", Some(0)),
            ("0.000", Some(0)),
            ("1e-9", Some(0)),
            ("1000", None),
            ("999.995", None),
            ("1.2.3", None),
            ("", None),
        ] {
            assert_eq!(integer(text, &cents), expected, "{text}");
        }
    }

    #[test]
    fn timestamps_are_read_in_their_zone() {
        let noon = 12 * 3_600_000_000_i128;
        assert_eq!(integer("1970-01-01 12:00", &TIMESTAMP), Some(noon));
        assert_eq!(integer("1970-01-01T12:00:00.5", &TIMESTAMP), Some(noon + 500_000));
        assert_eq!(
            integer("1970-01-01 12:00:00", &timestamptz()),
            Some(noon - 3_600_000_000)
        );
        assert_eq!(
            integer("1970-01-01 12:00:00+02", &timestamptz()),
            Some(noon - 7_200_000_000)
        );
        assert_eq!(
            integer("1970-01-01 12:00:00-02:30", &timestamptz()),
            Some(noon + 9_000_000_000)
        );
        assert_eq!(integer("1970-01-01 12:00:00Z", &timestamptz()), Some(noon));
        assert_eq!(
            integer("2024-03-31 02:30:00", &timestamptz()),
            None,
            "skipped by the clock"
        );
        assert_eq!(
            integer("2024-10-27 02:30:00", &timestamptz()),
            Some(1_729_992_600_000_000)
        );
        assert_eq!(integer("1970-01-02", &DataType::Date32), Some(1));
        assert_eq!(integer("70-1-2", &DataType::Date32), None);
    }

    #[test]
    fn uuids_and_bytes_are_hexadecimal() {
        let uuid = DataType::FixedSizeBinary(16);
        let bytes = LiteralValue::Bytes(vec![0xa0; 16]);
        assert_eq!(
            parse("a0a0a0a0-a0a0-a0a0-a0a0-A0A0A0A0A0A0", &uuid, "UTC"),
            Ok(bytes.clone())
        );
        assert_eq!(
            parse("{a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0}", &uuid, "UTC"),
            Ok(bytes)
        );
        assert!(parse("a0a0a0a0", &uuid, "UTC").is_err());
        assert_eq!(
            parse("\\x01ff", &DataType::Binary, "UTC"),
            Ok(LiteralValue::Bytes(vec![1, 255]))
        );
        assert!(parse("abc", &DataType::Binary, "UTC").is_err());
    }
}
