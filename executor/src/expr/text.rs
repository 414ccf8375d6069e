//! Values from text and to text, as PostgreSQL reads and writes them.
//!
//! Reading is strict: what is not wholly a value of the type is an error. Surrounding white space is allowed,
//! as in PostgreSQL. Dates and times are read in ISO form only.

use std::fmt::Write as _;

use arrow::temporal_conversions::timestamp_us_to_datetime;

use super::arithmetic::Message;

fn invalid(kind: &str, input: &str) -> Message {
    format!("invalid input syntax for type {kind}: \"{input}\"")
}

/// An integer; the range is checked by the caller's narrower type.
pub(crate) fn parse_integer(input: &str, kind: &str) -> Result<i64, Message> {
    let trimmed = input.trim();
    let digits = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(invalid(kind, input));
    }
    trimmed
        .parse()
        .map_err(|_| format!("value \"{input}\" is out of range for type {kind}"))
}

/// A float; what overflows or vanishes is an error.
pub(crate) fn parse_float(input: &str, kind: &str) -> Result<f64, Message> {
    let trimmed = input.trim();
    let value: f64 = trimmed.parse().map_err(|_| invalid(kind, input))?;
    let has_digit = trimmed.bytes().any(|b| b.is_ascii_digit());
    let mantissa = trimmed.split(['e', 'E']).next().unwrap_or_default();
    let vanished = value == 0.0 && mantissa.bytes().any(|b| (b'1'..=b'9').contains(&b));
    if (value.is_infinite() && has_digit) || vanished {
        return Err(format!("\"{input}\" is out of range for type {kind}"));
    }
    Ok(value)
}

/// A boolean, in full or as an unambiguous beginning.
pub(crate) fn parse_bool(input: &str) -> Result<bool, Message> {
    let word = input.trim().to_ascii_lowercase();
    let begins = |full: &str, least: usize| word.len() >= least && full.starts_with(&word);
    if begins("true", 1) || begins("yes", 1) || word == "on" || word == "1" {
        Ok(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || word == "0" {
        Ok(false)
    } else {
        Err(invalid("boolean", input))
    }
}

/// A decimal at `scale`, rounded half away from zero; unscaled.
pub(crate) fn parse_decimal(input: &str, scale: i8) -> Result<i128, Message> {
    let trimmed = input.trim();
    let (mantissa, exponent) = match trimmed.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (
            mantissa,
            exponent.parse::<i32>().map_err(|_| invalid("numeric", input))?,
        ),
        None => (trimmed, 0),
    };
    let unsigned = mantissa.strip_prefix(['+', '-']).unwrap_or(mantissa);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(invalid("numeric", input));
    }
    let too_large = || "numeric field overflow".to_string();
    // Digits that stand before the point of the scaled value; the next one decides the rounding.
    let kept = i64::try_from(whole.len()).map_err(|_| too_large())? + i64::from(exponent) + i64::from(scale);
    let digits = digits.as_bytes();
    let mut value: i128 = 0;
    let significant = digits.iter().position(|b| *b != b'0').unwrap_or(digits.len()) as i64;
    if significant < digits.len() as i64 && kept - significant > 39 {
        return Err(too_large());
    }
    for position in significant.min(kept.max(0))..kept {
        let digit = digits.get(position as usize).map_or(0, |b| i128::from(b - b'0'));
        value = value
            .checked_mul(10)
            .and_then(|v| v.checked_add(digit))
            .ok_or_else(too_large)?;
        if value == 0 && position >= digits.len() as i64 {
            break;
        }
    }
    if usize::try_from(kept).is_ok_and(|k| digits.get(k).is_some_and(|b| *b >= b'5')) {
        value = value.checked_add(1).ok_or_else(too_large)?;
    }
    Ok(if mantissa.starts_with('-') { -value } else { value })
}

/// A uuid: 32 hexadecimal digits, hyphens after any group of four, braces allowed.
pub(crate) fn parse_uuid(input: &str) -> Result<[u8; 16], Message> {
    let trimmed = input.trim();
    let inner = trimmed
        .strip_prefix('{')
        .and_then(|t| t.strip_suffix('}'))
        .unwrap_or(trimmed);
    let mut digits = Vec::with_capacity(32);
    for character in inner.chars() {
        match character.to_digit(16) {
            Some(digit) => digits.push(digit as u8),
            None if character == '-' && !digits.is_empty() && digits.len() % 4 == 0 && digits.len() < 32 => {}
            None => return Err(invalid("uuid", input)),
        }
    }
    if digits.len() != 32 || inner.contains("--") || inner.ends_with('-') {
        return Err(invalid("uuid", input));
    }
    let mut uuid = [0; 16];
    uuid.iter_mut()
        .zip(digits.chunks_exact(2))
        .for_each(|(byte, pair)| *byte = pair[0] << 4 | pair[1]);
    Ok(uuid)
}

/// Bytes in hexadecimal form, `\x…`.
pub(crate) fn parse_bytes(input: &str) -> Result<Vec<u8>, Message> {
    let error = || invalid("bytea", input);
    let Some(digits) = input.strip_prefix("\\x") else {
        // Without the prefix, text without a backslash stands for its own bytes.
        return if input.contains('\\') {
            Err(error())
        } else {
            Ok(input.as_bytes().to_vec())
        };
    };
    if !digits.is_ascii() || digits.len() % 2 != 0 {
        return Err(error());
    }
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).map_err(|_| error()))
        .collect()
}

/// A timestamp's text without its offset: `timestamp without time zone` ignores one.
pub(crate) fn without_offset(input: &str) -> &str {
    let trimmed = input.trim();
    let Some((date_end, _)) = trimmed.char_indices().nth(10) else {
        return trimmed;
    };
    match trimmed[date_end..].find(['+', '-', 'Z', 'z']) {
        Some(offset) => trimmed[..date_end + offset].trim_end(),
        None => trimmed,
    }
}

/// A float in its shortest form that reads back the same, in PostgreSQL's notation. `fixed_digits` is the
/// largest number of integer digits written without an exponent: 15 for float8, 6 for float4.
pub(crate) fn format_float(value: f64, shortest: &str, fixed_digits: i32) -> String {
    if value.is_nan() {
        return "NaN".to_string();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_string();
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0" } else { "0" }.to_string();
    }
    // `shortest` is Rust's `{:e}`, for example `-1.25e-7`: the shortest digits with the exponent apart.
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    if !(-4..fixed_digits).contains(&exponent) {
        let direction = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{mantissa}e{direction}{:02}", exponent.abs());
    }
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat((-exponent - 1) as usize));
    }
    let point = exponent as usize + 1;
    if digits.len() <= point {
        format!("{sign}{digits}{}", "0".repeat(point - digits.len()))
    } else {
        format!("{sign}{}.{}", &digits[..point], &digits[point..])
    }
}

/// A decimal with all digits of its scale.
pub(crate) fn format_decimal(value: i128, scale: i8) -> String {
    let digits = value.unsigned_abs().to_string();
    let sign = if value < 0 { "-" } else { "" };
    let Ok(scale) = usize::try_from(scale) else {
        return format!("{sign}{digits}{}", "0".repeat(usize::from(scale.unsigned_abs())));
    };
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// A timestamp in microseconds since the epoch; `utc` appends the offset of a timestamptz shown in UTC.
pub(crate) fn format_timestamp(microseconds: i64, utc: bool) -> Result<String, Message> {
    let moment = timestamp_us_to_datetime(microseconds).ok_or("timestamp out of range")?;
    let mut text = moment.format("%Y-%m-%d %H:%M:%S").to_string();
    let fraction = microseconds.rem_euclid(1_000_000);
    if fraction != 0 {
        text.push('.');
        text.push_str(format!("{fraction:06}").trim_end_matches('0'));
    }
    if utc {
        text.push_str("+00");
    }
    Ok(text)
}

/// Bytes as `\x…`.
pub(crate) fn format_bytes(bytes: &[u8]) -> String {
    bytes.iter().fold("\\x".to_string(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}

/// A uuid in its canonical form.
pub(crate) fn format_uuid(bytes: &[u8]) -> String {
    let hex = format_bytes(bytes);
    let hex = &hex[2..];
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_strictly() {
        assert_eq!(parse_integer(" -42 ", "integer"), Ok(-42));
        for bad in ["", "1.5", "4 2", "x", "+-1", "1e3"] {
            assert!(parse_integer(bad, "integer").is_err(), "{bad}");
        }
        assert!(
            parse_integer("9223372036854775808", "bigint")
                .expect_err("too large")
                .contains("out of range")
        );
        assert_eq!(parse_float("1e3", "double precision"), Ok(1000.0));
        assert!(parse_float("1e400", "double precision").is_err());
        assert!(parse_float("1e-400", "double precision").is_err());
        assert!(
            parse_float("-Infinity", "double precision")
                .expect("reads")
                .is_infinite()
        );
    }

    #[test]
    fn decimals_round_half_away_from_zero() {
        for (input, scale, expected) in [
            ("1.005", 2, 101),
            ("-1.005", 2, -101),
            ("1.0049", 2, 100),
            ("0.5", 0, 1),
            ("0.04", 1, 0),
            ("0.05", 1, 1),
            ("0.005", 1, 0),
            ("12e2", 1, 12000),
            ("12e-3", 2, 1),
            ("15e-3", 2, 2),
            (".5", 1, 5),
            ("7.", 1, 70),
            ("0e999", 0, 0),
            ("000000000000000000000000000000000000000000000000001", 2, 100),
            ("1e-999", 2, 0),
        ] {
            assert_eq!(parse_decimal(input, scale), Ok(expected), "{input} at {scale}");
        }
        for bad in ["", ".", "1e", "abc", "1.2.3", "1e99"] {
            assert!(parse_decimal(bad, 2).is_err(), "{bad}");
        }
    }

    #[test]
    fn floats_are_written_as_postgres_writes_them() {
        for (value, expected) in [
            (1.0, "1"),
            (-0.0, "-0"),
            (0.1, "0.1"),
            (1234567.5, "1234567.5"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-12.25, "-12.25"),
        ] {
            assert_eq!(format_float(value, &format!("{value:e}"), 15), expected);
        }
    }

    #[test]
    fn other_types() {
        assert_eq!(parse_bool(" TRU "), Ok(true));
        assert_eq!(parse_bool("of"), Ok(false));
        assert!(parse_bool("o").is_err());
        let uuid = parse_uuid("{a0eebc99-9c0b4ef8-bb6d6bb9bd380a11}").expect("reads");
        assert_eq!(format_uuid(&uuid), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
        assert!(parse_uuid("a0eebc99").is_err());
        assert_eq!(format_bytes(&parse_bytes("\\x00ff").expect("reads")), "\\x00ff");
        assert_eq!(format_decimal(-5, 2), "-0.05");
        assert_eq!(
            format_timestamp(1_500_000, true),
            Ok("1970-01-01 00:00:01.5+00".to_string())
        );
        assert_eq!(without_offset("2024-01-01 10:00:00+02"), "2024-01-01 10:00:00");
    }
}
