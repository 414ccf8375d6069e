//! Dates, timestamps and intervals as text, in ISO style, as PostgreSQL reads and writes them.
//!
//! Read: `2024-01-31`, `20240131`, `1/31/2024` (month first), with an optional time and zone (`Z`, `+02`, `+02:30`,
//! `UTC`, an IANA name) and `BC`. Left out: `now`, `today` and the like, `infinity`, names of months.

use std::fmt::Write;

use chrono::{Offset, TimeZone};

use super::calendar::{Civil, DAY_US, civil_of_days, days_of_civil};
use super::iso;
use crate::error::{SqlError, SqlResult};
use crate::sqlstate;

/// A session's time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// An IANA zone.
    Named(chrono_tz::Tz),
    /// Seconds east of Greenwich.
    Fixed(i32),
}

impl Zone {
    /// Universal time.
    pub const UTC: Zone = Zone::Named(chrono_tz::Tz::UTC);

    /// Parses an IANA name or an offset such as `+02` or `-03:30`.
    pub fn parse(text: &str) -> Option<Zone> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("utc")
            || text.eq_ignore_ascii_case("z")
            || text.eq_ignore_ascii_case("gmt")
        {
            return Some(Zone::UTC);
        }
        if let Some(offset) = parse_offset(text) {
            return Some(Zone::Fixed(offset));
        }
        let found = chrono_tz::TZ_VARIANTS
            .iter()
            .find(|zone| zone.name().eq_ignore_ascii_case(text));
        found.copied().map(Zone::Named)
    }

    /// Seconds east of Greenwich at a moment (microseconds since 1970).
    pub fn offset_at(&self, moment_us: i64) -> i32 {
        match self {
            Zone::Fixed(offset) => *offset,
            Zone::Named(zone) => match chrono::DateTime::from_timestamp_micros(moment_us) {
                Some(moment) => zone
                    .offset_from_utc_datetime(&moment.naive_utc())
                    .fix()
                    .local_minus_utc(),
                None => 0,
            },
        }
    }

    /// The moment at which clocks of the zone show a local time; of two, the earlier (standard) one; in a gap, the
    /// moment as if the clock had not been moved yet.
    pub fn moment_of_local(&self, local_us: i64) -> i64 {
        let before = i64::from(self.offset_at(local_us.saturating_sub(DAY_US)));
        let candidate = local_us.saturating_sub(before * 1_000_000);
        if i64::from(self.offset_at(candidate)) == before {
            return candidate;
        }
        let after = i64::from(self.offset_at(local_us.saturating_add(DAY_US)));
        let later = local_us.saturating_sub(after * 1_000_000);
        if i64::from(self.offset_at(later)) == after {
            later
        } else {
            candidate
        }
    }
}

fn parse_offset(text: &str) -> Option<i32> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits: String = text[1..].chars().filter(|c| *c != ':').collect();
    if digits.is_empty() || digits.len() > 6 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = |from: usize| {
        digits
            .get(from..from + 2)
            .and_then(|part| part.parse::<i32>().ok())
            .unwrap_or(0)
    };
    let hours = if digits.len() == 1 {
        digits.parse().ok()?
    } else {
        part(0)
    };
    let seconds = hours * 3600 + part(2) * 60 + part(4);
    (hours <= 15 && part(2) < 60 && part(4) < 60).then_some(sign * seconds)
}

/// Appends `YYYY-MM-DD`, with ` BC` where due.
pub fn write_date(days: i64, out: &mut String) {
    let date = civil_of_days(days);
    let _ = write_civil(date, out);
    if date.year <= 0 {
        out.push_str(" BC");
    }
}

fn write_civil(date: Civil, out: &mut String) -> std::fmt::Result {
    let year = if date.year <= 0 { 1 - date.year } else { date.year };
    write!(out, "{year:04}-{:02}-{:02}", date.month, date.day)
}

/// Appends a timestamp; with a zone, as local time with the offset.
pub fn write_timestamp(moment_us: i64, zone: Option<&Zone>, out: &mut String) {
    let offset = zone.map(|zone| zone.offset_at(moment_us));
    let local = moment_us.saturating_add(i64::from(offset.unwrap_or(0)) * 1_000_000);
    let date = civil_of_days(local.div_euclid(DAY_US));
    let _ = write_civil(date, out);
    out.push(' ');
    let _ = write_clock(local.rem_euclid(DAY_US), out);
    if let Some(offset) = offset {
        let absolute = offset.unsigned_abs();
        let _ = write!(
            out,
            "{}{:02}",
            if offset < 0 { '-' } else { '+' },
            absolute / 3600
        );
        if !absolute.is_multiple_of(3600) {
            let _ = write!(out, ":{:02}", absolute % 3600 / 60);
        }
        if !absolute.is_multiple_of(60) {
            let _ = write!(out, ":{:02}", absolute % 60);
        }
    }
    if date.year <= 0 {
        out.push_str(" BC");
    }
}

/// Appends `HH:MM:SS[.ffffff]` of a non-negative number of microseconds.
pub fn write_clock(us: i64, out: &mut String) -> std::fmt::Result {
    let seconds = us / 1_000_000;
    write!(
        out,
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )?;
    let fraction = us % 1_000_000;
    if fraction != 0 {
        let digits = format!("{fraction:06}");
        write!(out, ".{}", digits.trim_end_matches('0'))?;
    }
    Ok(())
}

/// Parses a date to days since 1970. A time of day behind it is ignored, as in PostgreSQL.
pub fn parse_date(text: &str) -> SqlResult<i32> {
    let (local, _) = parse_moment(text, "date")?;
    i32::try_from(local.div_euclid(DAY_US)).map_err(|_| out_of_range(text, "date"))
}

/// Parses a timestamp without zone: a zone in the text is ignored, as in PostgreSQL.
pub fn parse_timestamp(text: &str) -> SqlResult<i64> {
    parse_moment(text, "timestamp").map(|(local, _)| local)
}

/// Parses a timestamp with zone; text without one is taken in the session's.
pub fn parse_timestamptz(text: &str, session: &Zone) -> SqlResult<i64> {
    let (local, zone) = parse_moment(text, "timestamp with time zone")?;
    Ok(zone.as_ref().unwrap_or(session).moment_of_local(local))
}

fn out_of_range(text: &str, what: &str) -> SqlError {
    SqlError::new(
        sqlstate::DATETIME_OVERFLOW,
        format!("{what} out of range: \"{text}\""),
    )
}

fn parse_moment(text: &str, what: &str) -> SqlResult<(i64, Option<Zone>)> {
    match iso::moment(text) {
        Some((local, offset)) => Ok((local, offset.map(Zone::Fixed))),
        None => parse_moment_in_any_form(text, what),
    }
}

pub(super) fn parse_moment_in_any_form(text: &str, what: &str) -> SqlResult<(i64, Option<Zone>)> {
    let wrong = || {
        SqlError::new(
            sqlstate::INVALID_DATETIME,
            format!("invalid input syntax for type {what}: \"{text}\""),
        )
    };
    let mut rest = text.trim();
    if rest.eq_ignore_ascii_case("epoch") {
        return Ok((0, Some(Zone::UTC)));
    }
    if ["infinity", "-infinity", "+infinity"]
        .iter()
        .any(|word| rest.eq_ignore_ascii_case(word))
    {
        return Err(SqlError::unsupported(format!("{what} \"{rest}\" is not supported")).hint("use NULL"));
    }
    let is_bc = rest.len() >= 3
        && rest.is_char_boundary(rest.len() - 3)
        && rest[rest.len() - 3..].eq_ignore_ascii_case(" bc");
    if is_bc {
        rest = rest[..rest.len() - 3].trim_end();
    }
    let date_end = rest.find([' ', 'T', 't']).unwrap_or(rest.len());
    let (date, clock) = (
        &rest[..date_end],
        rest.get(date_end + 1..).unwrap_or("").trim_start(),
    );
    let mut civil = split_date(date).ok_or_else(wrong)?;
    if is_bc {
        civil.year = 1 - civil.year;
    }
    let days = days_of_civil(civil).ok_or_else(|| {
        SqlError::new(
            sqlstate::DATETIME_OVERFLOW,
            format!("date/time field value out of range: \"{text}\""),
        )
    })?;
    let (time_us, zone) = parse_clock_and_zone(clock).ok_or_else(wrong)?;
    let local = days.checked_mul(DAY_US).and_then(|us| us.checked_add(time_us));
    Ok((local.ok_or_else(|| out_of_range(text, what))?, zone))
}

fn split_date(text: &str) -> Option<Civil> {
    let number = |part: &str| -> Option<i64> {
        (!part.is_empty() && part.len() <= 6 && part.bytes().all(|b| b.is_ascii_digit()))
            .then(|| part.parse().ok())?
    };
    let small = |part: &str| number(part).and_then(|value| u32::try_from(value).ok());
    if text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Civil {
            year: number(&text[..4])?,
            month: small(&text[4..6])?,
            day: small(&text[6..])?,
        });
    }
    let parts: Vec<&str> = text.split(['-', '/']).collect();
    let [first, second, third] = parts[..] else {
        return None;
    };
    match (text.contains('/'), first.len() >= 3) {
        (true, false) => Some(Civil {
            year: number(third)?,
            month: small(first)?,
            day: small(second)?,
        }),
        (_, true) => Some(Civil {
            year: number(first)?,
            month: small(second)?,
            day: small(third)?,
        }),
        _ => None,
    }
}

fn parse_clock_and_zone(text: &str) -> Option<(i64, Option<Zone>)> {
    if text.is_empty() {
        return Some((0, None));
    }
    let clock_end = text
        .find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.'))
        .unwrap_or(text.len());
    let zone_text = text[clock_end..].trim();
    let zone = if zone_text.is_empty() {
        None
    } else {
        Some(Zone::parse(zone_text)?)
    };
    Some((parse_clock(&text[..clock_end])?, zone))
}

/// Parses `HH:MM[:SS[.f]]` to microseconds.
pub fn parse_clock(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let hours: i64 = digits(parts.next()?, 2)?;
    let minutes: i64 = digits(parts.next()?, 2)?;
    let (seconds, fraction) = match parts.next() {
        None => (0, 0),
        Some(part) => {
            let (whole, fraction) = part.split_once('.').unwrap_or((part, ""));
            (digits(whole, 2)?, fraction_us(fraction)?)
        }
    };
    let is_valid = parts.next().is_none() && minutes < 60 && seconds <= 60;
    let us = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + fraction;
    (is_valid && us <= DAY_US).then_some(us)
}

fn digits(text: &str, length_max: usize) -> Option<i64> {
    let is_number = !text.is_empty() && text.len() <= length_max && text.bytes().all(|b| b.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// The microseconds of the digits behind a decimal point, rounded.
pub fn fraction_us(text: &str) -> Option<i64> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let head: String = text.chars().chain(std::iter::repeat('0')).take(6).collect();
    let round_up = text.as_bytes().get(6).is_some_and(|digit| *digit >= b'5');
    head.parse::<i64>().ok().map(|us| us + i64::from(round_up))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(us: i64, zone: Option<&Zone>) -> String {
        let mut out = String::new();
        write_timestamp(us, zone, &mut out);
        out
    }

    #[test]
    fn dates_and_timestamps() {
        assert_eq!(parse_date("2024-02-29").expect("a date"), 19_782);
        assert_eq!(parse_date("20240229").expect("a date"), 19_782);
        assert_eq!(parse_date("2/29/2024").expect("a date"), 19_782);
        assert_eq!(parse_date("2023-02-29").expect_err("no such day").state, "22008");
        assert_eq!(parse_date("yesterday?").expect_err("no date").state, "22007");
        let us = parse_timestamp("2024-02-29 12:34:56.789").expect("a timestamp");
        assert_eq!(shown(us, None), "2024-02-29 12:34:56.789");
        assert_eq!(
            shown(parse_timestamp("0044-03-15 BC").expect("a timestamp"), None),
            "0044-03-15 00:00:00 BC"
        );
    }

    #[test]
    fn zones_shift() {
        let berlin = Zone::parse("Europe/Berlin").expect("a zone");
        let us = parse_timestamptz("2024-07-01 12:00:00", &berlin).expect("a timestamp");
        assert_eq!(shown(us, Some(&Zone::UTC)), "2024-07-01 10:00:00+00");
        assert_eq!(shown(us, Some(&berlin)), "2024-07-01 12:00:00+02");
        let india = parse_timestamptz("2024-07-01T12:00:00+05:30", &berlin).expect("a timestamp");
        assert_eq!(
            shown(india, Some(&Zone::Fixed(-12_600))),
            "2024-07-01 03:00:00-03:30"
        );
        assert!(Zone::parse("Mars/Olympus").is_none());
    }

    proptest! {
        #[test]
        fn round_trip(us in -60_000_000_000_000_000i64..250_000_000_000_000_000) {
            prop_assert_eq!(parse_timestamp(&shown(us, None)).expect("own text"), us);
            prop_assert_eq!(parse_timestamptz(&shown(us, Some(&Zone::UTC)), &Zone::UTC).expect("own text"), us);
        }

        #[test]
        fn any_text_is_survived(text in "\\PC{0,24}") {
            let _ = parse_timestamp(&text);
            let _ = parse_date(&text);
            let _ = Zone::parse(&text);
        }

        #[test]
        fn any_moment_is_written(us in any::<i64>()) {
            let _ = shown(us, Some(&Zone::UTC));
        }
    }
}
