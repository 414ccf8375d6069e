//! Scalar functions with PostgreSQL's meaning where DataFusion's registry has another one, or none.
//!
//! The planner's calls of them begin with `tributary_`. Their second argument is a constant, so that its first
//! value stands for all.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::compute::{DatePart, date_part, regexp_match};
use arrow::datatypes::TimestampMicrosecondType;
use tributary_planner::plan::time_format::{self, Piece};

use super::Kernel;
use super::arithmetic::Message;

/// The kernel of a function of ours.
pub(super) fn kernel(name: &str) -> Option<Kernel> {
    Some(match name {
        "tributary_to_char" => Kernel::ToChar,
        "tributary_substring" => Kernel::Substring,
        _ => return None,
    })
}

/// `to_char(timestamp, format)`.
pub(super) fn to_char(times: &ArrayRef, formats: &ArrayRef) -> Result<ArrayRef, Message> {
    let Some(format) = constant(formats) else {
        return Ok(Arc::new(StringArray::new_null(times.len())));
    };
    let pieces = time_format::parse(format).ok_or_else(|| format!("the format \"{format}\" is not known"))?;
    // In UTC, whichever zone the type names.
    let local = times
        .as_primitive::<TimestampMicrosecondType>()
        .clone()
        .with_timezone_opt(None::<Arc<str>>);
    // Times of one unit are written alike, and neighbours mostly are: one of each run is taken apart and written.
    let unit = finest_unit_us(&pieces);
    let mut runs: Vec<i64> = Vec::new();
    let mut last: Option<i64> = None;
    for time in local.iter().flatten() {
        if last.replace(time.div_euclid(unit)) != Some(time.div_euclid(unit)) {
            runs.push(time);
        }
    }
    let runs = TimestampMicrosecondArray::from(runs);
    let written = pieces
        .iter()
        .map(|piece| Written::new(piece, &runs))
        .collect::<Result<Vec<_>, _>>()?;
    let mut texts = StringBuilder::with_capacity(local.len(), local.len() * format.len());
    let mut text = String::new();
    let mut run = 0;
    last = None;
    for time in &local {
        let Some(time) = time else {
            texts.append_null();
            continue;
        };
        if last.replace(time.div_euclid(unit)) != Some(time.div_euclid(unit)) {
            text.clear();
            written.iter().for_each(|piece| piece.write(run, &mut text));
            run += 1;
        }
        texts.append_value(&text);
    }
    Ok(Arc::new(texts.finish()))
}

/// The length in microseconds of the finest unit that a format shows, a day at most.
fn finest_unit_us(pieces: &[Piece]) -> i64 {
    const SECOND_US: i64 = 1_000_000;
    let unit = |piece: &Piece| match piece {
        Piece::Second => SECOND_US,
        Piece::Minute => 60 * SECOND_US,
        Piece::Hour => 3600 * SECOND_US,
        _ => 24 * 3600 * SECOND_US,
    };
    pieces.iter().map(unit).min().unwrap_or(24 * 3600 * SECOND_US)
}

/// A part of a format with its values.
enum Written<'a> {
    Number { values: Int32Array, is_year: bool },
    Text(&'a str),
}

impl<'a> Written<'a> {
    fn new(piece: &'a Piece, times: &dyn Array) -> Result<Self, Message> {
        let part = match piece {
            Piece::Year => DatePart::Year,
            Piece::Month => DatePart::Month,
            Piece::Day => DatePart::Day,
            Piece::Hour => DatePart::Hour,
            Piece::Minute => DatePart::Minute,
            Piece::Second => DatePart::Second,
            Piece::Text(text) => return Ok(Self::Text(text)),
        };
        let values = date_part(times, part).map_err(|error| error.to_string())?;
        Ok(Self::Number {
            values: values.as_primitive().clone(),
            is_year: *piece == Piece::Year,
        })
    }

    fn write(&self, row: usize, text: &mut String) {
        match self {
            Self::Text(fixed) => text.push_str(fixed),
            Self::Number {
                values,
                is_year: false,
            } => {
                write!(text, "{:02}", values.value(row)).expect("a string takes all");
            }
            Self::Number {
                values,
                is_year: true,
            } => {
                // There is no year 0: it is written as 1 (BC), as PostgreSQL does.
                let year = i64::from(values.value(row));
                let year = if year <= 0 { 1 - year } else { year };
                write!(text, "{year:04}").expect("a string takes all");
            }
        }
    }
}

/// `substring(text from pattern)`: the first group of the first match, or the match if there is no group.
pub(super) fn substring(texts: &ArrayRef, patterns: &ArrayRef) -> Result<ArrayRef, Message> {
    let Some(pattern) = constant(patterns) else {
        return Ok(Arc::new(StringArray::new_null(texts.len())));
    };
    let pattern = StringArray::new_scalar(pattern);
    let matches = regexp_match(texts, &pattern, None).map_err(|error| error.to_string())?;
    let matches = matches.as_list::<i32>();
    let groups = matches.values().as_string::<i32>();
    let first = (0..matches.len()).map(|row| {
        let start = usize::try_from(matches.value_offsets()[row]).expect("offsets are not negative");
        let found = matches.is_valid(row) && matches.value_length(row) > 0 && groups.is_valid(start);
        found.then(|| groups.value(start))
    });
    Ok(Arc::new(first.collect::<StringArray>()))
}

fn constant(texts: &ArrayRef) -> Option<&str> {
    let texts = texts.as_string::<i32>();
    (!texts.is_empty() && texts.is_valid(0)).then(|| texts.value(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    #[test]
    fn a_timestamp_is_written_as_postgresql_does() {
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![
            Some(1_700_000_000_123_456),
            None,
            Some(-1),
            Some(253_402_300_800_000_000),
            Some(-62_198_755_200_000_000),
        ]));
        let format = texts(&[Some("YYYY-MM-DD HH24:MI:SS"); 5]);
        let expected = texts(&[
            Some("2023-11-14 22:13:20"),
            None,
            Some("1969-12-31 23:59:59"),
            Some("10000-01-01 00:00:00"),
            Some("0002-01-01 00:00:00"),
        ]);
        assert_eq!(to_char(&times, &format), Ok(expected));
    }

    #[test]
    fn the_group_of_the_first_match_is_found() {
        let urls = texts(&[
            Some("https://x/?q=1&channel_id=77&z"),
            Some("none"),
            None,
            Some("channel_id="),
        ]);
        let group = texts(&[Some("(?s)channel_id=([^&]*)"); 4]);
        let expected = texts(&[Some("77"), None, None, Some("")]);
        assert_eq!(substring(&urls, &group), Ok(expected));
        let whole = texts(&[Some("(?s)n.n"); 4]);
        let expected = texts(&[None, Some("non"), None, None]);
        assert_eq!(substring(&urls, &whole), Ok(expected));
    }

    #[test]
    fn times_are_written_by_their_own_units() {
        const DAY: i64 = 24 * 3600 * 1_000_000;
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![
            Some(0),
            Some(DAY - 1),
            None,
            Some(59_999_999),
            Some(-1),
            Some(-DAY),
            Some(19_782 * DAY + 43_200_000_000),
        ]));
        let written = |format: &str| -> Vec<Option<String>> {
            let formats: ArrayRef = Arc::new(StringArray::from(vec![format; times.len()]));
            let texts = to_char(&times, &formats).expect("a known format");
            texts
                .as_string::<i32>()
                .iter()
                .map(|text| text.map(str::to_owned))
                .collect()
        };
        let some = |texts: [&str; 6]| -> Vec<Option<String>> {
            let mut all: Vec<_> = texts.iter().map(|text| Some((*text).to_owned())).collect();
            all.insert(2, None);
            all
        };
        assert_eq!(
            written("YYYY-MM-DD"),
            some([
                "1970-01-01",
                "1970-01-01",
                "1970-01-01",
                "1969-12-31",
                "1969-12-31",
                "2024-02-29"
            ])
        );
        assert_eq!(
            written("HH24:MI:SS"),
            some([
                "00:00:00", "23:59:59", "00:00:59", "23:59:59", "00:00:00", "12:00:00"
            ])
        );
    }
}
