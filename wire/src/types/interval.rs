//! Intervals as text: PostgreSQL's own style out; its style and ISO 8601 durations in.

use std::fmt::Write;

use super::datetime::{fraction_us, write_clock};
use crate::error::{SqlError, SqlResult};
use crate::sqlstate;

/// Months, days and microseconds, kept apart as PostgreSQL keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    /// Months.
    pub months: i32,
    /// Days.
    pub days: i32,
    /// Microseconds.
    pub us: i64,
}

/// Appends the interval, for example `1 year 2 mons -3 days +04:05:06.7`.
pub fn write(interval: Interval, out: &mut String) {
    let start = out.len();
    let mut was_negative = false;
    let mut part = |value: i64, unit: &str, out: &mut String| {
        if value == 0 {
            return;
        }
        let space = if out.len() > start { " " } else { "" };
        let sign = if was_negative && value > 0 { "+" } else { "" };
        let plural = if value == 1 { "" } else { "s" };
        let _ = write!(out, "{space}{sign}{value} {unit}{plural}");
        was_negative = value < 0;
    };
    part(i64::from(interval.months / 12), "year", out);
    part(i64::from(interval.months % 12), "mon", out);
    part(i64::from(interval.days), "day", out);
    if interval.us != 0 || out.len() == start {
        if out.len() > start {
            out.push(' ');
        }
        if interval.us < 0 {
            out.push('-');
        } else if was_negative {
            out.push('+');
        }
        // The absolute value of the smallest number does not fit; it is 292 thousand years either way.
        let _ = write_clock(interval.us.checked_abs().unwrap_or(i64::MAX), out);
    }
}

/// Parses an interval.
pub fn parse(text: &str) -> SqlResult<Interval> {
    let trimmed = text.trim();
    let parsed = match trimmed.strip_prefix(['P', 'p']) {
        Some(iso) => parse_iso(iso),
        None => parse_verbose(trimmed),
    };
    match parsed {
        Ok(Some(interval)) => Ok(interval),
        Ok(None) => Err(SqlError::new(
            sqlstate::INVALID_DATETIME,
            format!("invalid input syntax for type interval: \"{text}\""),
        )),
        Err(Overflow) => Err(SqlError::new(
            sqlstate::DATETIME_OVERFLOW,
            format!("interval out of range: \"{text}\""),
        )),
    }
}

struct Overflow;
type Parsed<T> = Result<Option<T>, Overflow>;

/// A number with up to six digits of fraction, in millionths.
fn number(text: &str) -> Parsed<i128> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || !whole.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    if whole.len() > 18 {
        return Err(Overflow);
    }
    let Some(fraction) = fraction_us(fraction) else {
        return Ok(None);
    };
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| Overflow)?
    };
    let value = whole * 1_000_000 + i128::from(fraction);
    Ok(Some(if negative { -value } else { value }))
}

#[derive(Default)]
struct Sum {
    months: i128,
    days: i128,
    us: i128,
}

impl Sum {
    /// Adds `millionths` of a unit; a fraction of a month or day spills downwards as in PostgreSQL.
    fn add(&mut self, millionths: i128, unit: &str) -> bool {
        const M: i128 = 1_000_000;
        let months = |sum: &mut Sum, value: i128| {
            sum.months += value / M;
            let days = value % M * 30;
            sum.days += days / M;
            sum.us += days % M * 86_400;
        };
        match unit {
            "microsecond" | "us" | "usec" => self.us += millionths / M,
            "millisecond" | "ms" | "msec" => self.us += millionths / 1000,
            "second" | "s" | "sec" => self.us += millionths,
            "minute" | "m" | "min" => self.us += millionths * 60,
            "hour" | "h" | "hr" => self.us += millionths * 3600,
            "day" | "d" => {
                self.days += millionths / M;
                self.us += millionths % M * 86_400;
            }
            "week" | "w" => {
                let days = millionths * 7;
                self.days += days / M;
                self.us += days % M * 86_400;
            }
            "month" | "mon" => months(self, millionths),
            "year" | "y" | "yr" => self.months += millionths * 12 / M,
            "decade" => self.months += millionths * 120 / M,
            "century" => self.months += millionths * 1200 / M,
            _ => return false,
        }
        true
    }

    fn finish(self, negate: bool) -> Parsed<Interval> {
        let sign = if negate { -1 } else { 1 };
        Ok(Some(Interval {
            months: i32::try_from(self.months * sign).map_err(|_| Overflow)?,
            days: i32::try_from(self.days * sign).map_err(|_| Overflow)?,
            us: i64::try_from(self.us * sign).map_err(|_| Overflow)?,
        }))
    }
}

fn singular(unit: &str) -> String {
    let lower = unit.to_ascii_lowercase();
    match lower.as_str() {
        "centuries" => "century".into(),
        "s" | "ms" | "us" => lower,
        other => other.strip_suffix('s').unwrap_or(other).to_string(),
    }
}

fn parse_verbose(text: &str) -> Parsed<Interval> {
    let text = text.strip_prefix('@').unwrap_or(text);
    let mut sum = Sum::default();
    let mut words = words(text).into_iter().peekable();
    if words.peek().is_none() {
        return Ok(None);
    }
    let mut negate = false;
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case("ago") {
            negate = true;
            if words.peek().is_some() {
                return Ok(None);
            }
        } else if word.contains(':') {
            let Some(us) = clock(&word)? else { return Ok(None) };
            sum.us += us;
        } else {
            let Some(value) = number(&word)? else {
                return Ok(None);
            };
            match words.peek() {
                None => sum.us += value,
                Some(unit) => {
                    let unit = singular(unit);
                    words.next();
                    if !sum.add(value, &unit) {
                        return Ok(None);
                    }
                }
            }
        }
    }
    sum.finish(negate)
}

/// Splits at blanks and between a number and its unit (`3days`).
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for chunk in text.split_whitespace() {
        let is_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | ':' | '+' | '-');
        match chunk.find(|c: char| !is_number(c)) {
            Some(at) if at > 0 => {
                words.push(chunk[..at].to_string());
                words.push(chunk[at..].to_string());
            }
            _ => words.push(chunk.to_string()),
        }
    }
    words
}

/// `[-]HH:MM[:SS[.f]]` with any number of hours.
fn clock(text: &str) -> Parsed<i128> {
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let mut us: i128 = 0;
    for (index, part) in rest.split(':').enumerate() {
        if part.starts_with(['+', '-']) || index > 2 || (index < 2 && part.contains('.')) {
            return Ok(None);
        }
        let Some(value) = number(part)? else {
            return Ok(None);
        };
        us += value * [3600, 60, 1][index];
    }
    Ok(Some(if negative { -us } else { us }))
}

fn parse_iso(text: &str) -> Parsed<Interval> {
    let mut sum = Sum::default();
    let mut in_time = false;
    let mut pending = String::new();
    if text.is_empty() {
        return Ok(None);
    }
    for c in text.chars() {
        match c {
            'T' | 't' if pending.is_empty() && !in_time => in_time = true,
            '0'..='9' | '.' | '+' | '-' => pending.push(c),
            _ => {
                let unit = match (c.to_ascii_uppercase(), in_time) {
                    ('Y', false) => "year",
                    ('M', false) => "month",
                    ('W', false) => "week",
                    ('D', false) => "day",
                    ('H', true) => "hour",
                    ('M', true) => "minute",
                    ('S', true) => "second",
                    _ => return Ok(None),
                };
                let Some(value) = number(&pending)? else {
                    return Ok(None);
                };
                pending.clear();
                sum.add(value, unit);
            }
        }
    }
    if pending.is_empty() {
        sum.finish(false)
    } else {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(interval: Interval) -> String {
        let mut out = String::new();
        write(interval, &mut out);
        out
    }

    #[test]
    fn styles() {
        let read = |text: &str| shown(parse(text).expect(text));
        assert_eq!(
            read("1 year 2 months 3 days 04:05:06.7"),
            "1 year 2 mons 3 days 04:05:06.7"
        );
        assert_eq!(read("P1Y2M3DT4H5M6.7S"), "1 year 2 mons 3 days 04:05:06.7");
        assert_eq!(read("90 min"), "01:30:00");
        assert_eq!(read("1.5 days"), "1 day 12:00:00");
        assert_eq!(read("3days ago"), "-3 days");
        assert_eq!(read("-1 day +02:00:00"), "-1 days +02:00:00");
        assert_eq!(read("5"), "00:00:05");
        assert_eq!(read("0"), "00:00:00");
        assert_eq!(parse("1 parsec").expect_err("no unit").state, "22007");
        assert_eq!(parse("99999999999 years").expect_err("too long").state, "22008");
    }

    proptest! {
        #[test]
        fn round_trip(months in -1_000_000i32..1_000_000, days in -1_000_000i32..1_000_000, us in -1i64 << 60..1i64 << 60) {
            let interval = Interval { months, days, us };
            prop_assert_eq!(parse(&shown(interval)).expect("own text"), interval);
        }

        #[test]
        fn any_text_is_survived(text in "\\PC{0,24}") {
            let _ = parse(&text);
        }
    }
}
