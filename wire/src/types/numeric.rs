//! Decimals as text and in PostgreSQL's binary form, over 128-bit unscaled values.
//!
//! Left out: NaN and infinities, which `Decimal128` cannot hold; they are refused on the way in.

use bytes::{BufMut, BytesMut};

use crate::error::{SqlError, SqlResult};
use crate::sqlstate;

/// Appends `value * 10^-scale` as text.
pub fn write_text(value: i128, scale: i8, out: &mut impl std::fmt::Write) -> std::fmt::Result {
    let digits = value.unsigned_abs().to_string();
    if value < 0 {
        out.write_char('-')?;
    }
    if scale <= 0 {
        out.write_str(&digits)?;
        if value != 0 {
            (0..-i32::from(scale)).try_for_each(|_| out.write_char('0'))?;
        }
        return Ok(());
    }
    let scale = scale as usize;
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    write!(out, "{whole}.{fraction}")
}

/// Parses text as a decimal of this precision and scale: rounds half away from zero, refuses what does not fit.
pub fn parse(text: &str, precision: u8, scale: i8) -> SqlResult<i128> {
    let trimmed = text.trim();
    let wrong = || {
        SqlError::new(
            sqlstate::INVALID_TEXT,
            format!("invalid input syntax for type numeric: \"{text}\""),
        )
    };
    let (negative, unsigned) = match trimmed.as_bytes().first() {
        Some(b'-') => (true, &trimmed[1..]),
        Some(b'+') => (false, &trimmed[1..]),
        _ => (false, trimmed),
    };
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (
            &unsigned[..at],
            unsigned[at + 1..].parse::<i32>().map_err(|_| wrong())?,
        ),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !is_digits(whole) || !is_digits(fraction) {
        return Err(match unsigned.to_ascii_lowercase().as_str() {
            "nan" | "inf" | "infinity" => {
                SqlError::unsupported(format!("numeric value \"{trimmed}\" is not supported"))
                    .hint("use double precision for NaN and infinities")
            }
            _ => wrong(),
        });
    }
    let digits: Vec<u8> = whole
        .bytes()
        .chain(fraction.bytes())
        .map(|byte| byte - b'0')
        .collect();
    // The position of the decimal point within `digits`, and the number of digits kept.
    let point = whole.len() as i64 + i64::from(exponent);
    let kept = point + i64::from(scale);
    let overflow = || overflow(precision, scale);
    let mut value: i128 = 0;
    let mut significant = false;
    for index in 0..kept.max(0) {
        let digit = usize::try_from(index)
            .ok()
            .and_then(|index| digits.get(index))
            .copied()
            .unwrap_or(0);
        significant |= digit != 0;
        if !significant {
            if index as usize >= digits.len() {
                break;
            }
            continue;
        }
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(i128::from(digit)))
            .ok_or_else(overflow)?;
    }
    if kept >= 0
        && usize::try_from(kept)
            .ok()
            .and_then(|kept| digits.get(kept))
            .is_some_and(|&digit| digit >= 5)
    {
        value = value.checked_add(1).ok_or_else(overflow)?;
    }
    if value >= 10i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX) {
        return Err(overflow());
    }
    Ok(if negative { -value } else { value })
}

/// The error of a value with too many digits.
pub fn overflow(precision: u8, scale: i8) -> SqlError {
    SqlError::new(sqlstate::NUMERIC_OUT_OF_RANGE, "numeric field overflow").detail(format!(
        "A field with precision {precision}, scale {scale} must round to an absolute value less than 10^{}.",
        i32::from(precision) - i32::from(scale)
    ))
}

/// Appends PostgreSQL's binary form: base-10000 digits, weight, sign, display scale.
pub fn write_binary(value: i128, scale: i8, out: &mut BytesMut) {
    let display_scale = scale.max(0) as usize;
    let mut text = value.unsigned_abs().to_string();
    if scale < 0 && value != 0 {
        text.extend(std::iter::repeat_n('0', usize::from(scale.unsigned_abs())));
    }
    let padded = format!("{text:0>width$}", width = display_scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - display_scale);
    let whole = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
    let fraction = format!("{fraction}{}", "0".repeat((4 - fraction.len() % 4) % 4));
    let group = |text: &str| -> Vec<i16> {
        text.as_bytes()
            .chunks(4)
            .map(|chunk| {
                chunk
                    .iter()
                    .fold(0i16, |sum, byte| sum * 10 + i16::from(byte - b'0'))
            })
            .collect()
    };
    let mut groups = group(&whole);
    let mut weight = groups.len() as i16 - 1;
    groups.extend(group(&fraction));
    let leading = groups.iter().take_while(|&&digit| digit == 0).count();
    groups.drain(..leading);
    weight -= leading as i16;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    out.put_i16(groups.len() as i16);
    out.put_i16(weight);
    out.put_u16(if value < 0 { 0x4000 } else { 0 });
    out.put_i16(display_scale as i16);
    for digit in groups {
        out.put_i16(digit);
    }
}

/// Reads the binary form as text (which [`parse`] then fits to a type).
pub fn binary_to_text(bytes: &[u8]) -> SqlResult<String> {
    let wrong = || SqlError::new(sqlstate::INVALID_BINARY, "invalid binary form of a numeric");
    if bytes.len() < 8 || !bytes.len().is_multiple_of(2) {
        return Err(wrong());
    }
    let word = |index: usize| i16::from_be_bytes([bytes[2 * index], bytes[2 * index + 1]]);
    let (count, weight, sign, display_scale) = (word(0), word(1), word(2) as u16, word(3));
    if count < 0 || bytes.len() != 8 + 2 * count as usize || display_scale < 0 {
        return Err(wrong());
    }
    if sign != 0 && sign != 0x4000 {
        return Err(SqlError::unsupported(
            "numeric NaN and infinities are not supported",
        ));
    }
    let digit = |position: i32| -> SqlResult<i16> {
        let index = i32::from(weight) - position;
        let digit = if (0..i32::from(count)).contains(&index) {
            word(4 + index as usize)
        } else {
            0
        };
        if (0..10_000).contains(&digit) {
            Ok(digit)
        } else {
            Err(wrong())
        }
    };
    let mut text = String::from(if sign == 0 { "" } else { "-" });
    if weight < 0 {
        text.push('0');
    }
    for position in (0..=i32::from(weight)).rev() {
        text.push_str(&format!("{:04}", digit(position)?));
    }
    if i32::from(weight) + 1 < i32::from(count) || display_scale > 0 {
        text.push('.');
        // As many groups as there are, whatever scale is announced: rounding is the target type's business.
        let last = (i32::from(weight) + 1 - i32::from(count)).min(-1);
        for position in (last..=-1).rev() {
            text.push_str(&format!("{:04}", digit(position)?));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: i128, scale: i8) -> String {
        let mut out = String::new();
        write_text(value, scale, &mut out).expect("a String takes everything");
        out
    }

    #[test]
    fn text_has_the_scale() {
        assert_eq!(text(-5, 2), "-0.05");
        assert_eq!(text(1234, 0), "1234");
        assert_eq!(text(1230, 1), "123.0");
        assert_eq!(text(12, -2), "1200");
    }

    #[test]
    fn parsing_rounds_half_away_and_checks() {
        assert_eq!(parse("1.005", 10, 2).expect("fits"), 101);
        assert_eq!(parse("-1.005", 10, 2).expect("fits"), -101);
        assert_eq!(parse("1e3", 10, 0).expect("fits"), 1000);
        assert_eq!(parse("12e-3", 10, 2).expect("fits"), 1);
        assert_eq!(parse(".5", 10, 0).expect("fits"), 1);
        assert_eq!(parse("0e999999999", 10, 2).expect("fits"), 0);
        assert_eq!(parse("1000", 5, 2).expect_err("too large").state, "22003");
        assert_eq!(parse("1e999999999", 5, 2).expect_err("too large").state, "22003");
        for bad in ["", ".", "1x", "1e", "--1", "1.2.3"] {
            assert_eq!(parse(bad, 10, 2).expect_err(bad).state, "22P02");
        }
    }

    proptest! {
        #[test]
        fn binary_round_trip(value in -10i128.pow(37)..10i128.pow(37), scale in 0i8..38) {
            let mut out = BytesMut::new();
            write_binary(value, scale, &mut out);
            let back = binary_to_text(&out).expect("own bytes");
            prop_assert_eq!(parse(&back, 38, scale).expect("fits"), value);
        }

        #[test]
        fn text_round_trip(value in -10i128.pow(37)..10i128.pow(37), scale in 0i8..38) {
            prop_assert_eq!(parse(&text(value, scale), 38, scale).expect("fits"), value);
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = binary_to_text(&bytes);
        }
    }
}
