//! The one form in which nearly all timestamps arrive, read without allocating: `2024-01-31[ 12:34:56[.789][+02[:30]]]`.
//! Everything else, and everything wrong, is left to `datetime`, which knows all forms and their errors.

use super::calendar::{Civil, DAY_US, days_of_civil};

/// Local microseconds since 1970, and seconds east of Greenwich if the text says so; `None` when it is not of this form.
pub(super) fn moment(text: &str) -> Option<(i64, Option<i32>)> {
    let (date, rest) = text.as_bytes().split_at_checked(10)?;
    let civil = Civil {
        year: i64::from(two(date, 0)?) * 100 + i64::from(two(date, 2)?),
        month: two(date, 5)?,
        day: two(date, 8)?,
    };
    if date[4] != b'-' || date[7] != b'-' {
        return None;
    }
    let day_us = days_of_civil(civil)? * DAY_US;
    if rest.is_empty() {
        return Some((day_us, None));
    }
    if !matches!(rest[0], b' ' | b'T') || *rest.get(3)? != b':' || *rest.get(6)? != b':' {
        return None;
    }
    let (hours, minutes, seconds) = (two(rest, 1)?, two(rest, 4)?, two(rest, 7)?);
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let mut us = i64::from((hours * 60 + minutes) * 60 + seconds) * 1_000_000;
    let mut zone = &rest[9..];
    if let Some(fraction) = zone.strip_prefix(b".") {
        let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=6).contains(&length) {
            return None;
        }
        let (digits, behind) = fraction.split_at(length);
        let value = digits
            .iter()
            .fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
        us += value * 10i64.pow(6 - length as u32);
        zone = behind;
    }
    Some((day_us + us, offset(zone)?))
}

/// `Some(None)` without an offset, `None` when it is of another form.
fn offset(text: &[u8]) -> Option<Option<i32>> {
    let Some((sign, rest)) = text.split_first() else {
        return Some(None);
    };
    let sign = match sign {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let minutes = match rest.len() {
        2 => 0,
        5 if rest[2] == b':' => two(rest, 3)?,
        _ => return None,
    };
    let hours = two(rest, 0)?;
    (hours <= 15 && minutes < 60).then(|| Some(sign * (hours * 3600 + minutes * 60) as i32))
}

/// The number of two digits.
fn two(text: &[u8], at: usize) -> Option<u32> {
    let digit = |at: usize| {
        text.get(at)
            .filter(|byte| byte.is_ascii_digit())
            .map(|byte| u32::from(byte - b'0'))
    };
    Some(digit(at)? * 10 + digit(at + 1)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::datetime::parse_moment_in_any_form;
    use super::*;

    proptest! {
        /// What is read here is what the reader of all forms reads.
        #[test]
        fn any_form_agrees(
            text in "[0-9]{4}-[01][0-9]-[0-3][0-9]([ T][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,7})?([+-][01][0-9](:[0-6][0-9])?|Z)?)?"
        ) {
            if let Some((local_us, offset)) = moment(&text) {
                let (expected, zone) = parse_moment_in_any_form(&text, "timestamp").expect("it is of that form");
                let moment = 0;
                prop_assert_eq!((local_us, offset), (expected, zone.map(|zone| zone.offset_at(moment))));
            }
        }

        #[test]
        fn any_text_is_survived(text in "\\PC{0,30}") {
            let _ = moment(&text);
        }
    }

    #[test]
    fn the_usual_forms_are_read() {
        for (text, expected) in [
            ("1970-01-02", (DAY_US, None)),
            ("1970-01-01 00:00:01", (1_000_000, None)),
            ("1970-01-01T00:00:00.25+00", (250_000, Some(0))),
            ("1970-01-01 00:00:00-03:30", (0, Some(-12_600))),
        ] {
            assert_eq!(moment(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "1970-13-01",
            "1970-01-01 ",
            "1970-01-01 24:00:00",
            "1970-01-01 00:00:00.1234567",
            "19700101",
        ] {
            assert_eq!(moment(text), None, "{text}");
        }
    }
}
