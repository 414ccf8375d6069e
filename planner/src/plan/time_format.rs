//! The format of `to_char(timestamp, format)`: one rule for the planner, which checks, and for the executor, which
//! writes.
//!
//! Patterns are `YYYY MM DD HH24 MI SS`, in any case; what is no letter stands for itself, and so does what is
//! quoted. PostgreSQL's other patterns, its modifiers and its escapes are not known here.

/// A part of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The year, of at least four digits.
    Year,
    /// The month, of two digits.
    Month,
    /// The day of the month, of two digits.
    Day,
    /// The hour from 00 to 23.
    Hour,
    /// The minute, of two digits.
    Minute,
    /// The second, of two digits.
    Second,
    /// Text that stands for itself.
    Text(String),
}

/// The patterns. PostgreSQL takes the longest that fits: the others that begin alike are refused below.
const PATTERNS: [(&str, Piece); 6] = [
    ("YYYY", Piece::Year),
    ("MM", Piece::Month),
    ("DD", Piece::Day),
    ("HH24", Piece::Hour),
    ("MI", Piece::Minute),
    ("SS", Piece::Second),
];

/// PostgreSQL's patterns that begin with one of ours, and its suffixes.
const OTHERS: [&str; 4] = ["DDD", "SSSS", "TH", "SP"];

/// The parts of a format; `None` if it has a pattern that is not known.
pub fn parse(format: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = format;
    while let Some(first) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (text, after) = quoted.split_once('"')?;
            if text.contains('\\') {
                return None;
            }
            push(&mut pieces, text);
            rest = after;
        } else if first.is_ascii_alphabetic() {
            if OTHERS.iter().any(|other| begins(rest, other)) {
                return None;
            }
            let (pattern, piece) = PATTERNS.iter().find(|(pattern, _)| begins(rest, pattern))?;
            pieces.push(piece.clone());
            rest = &rest[pattern.len()..];
        } else if first == '\\' {
            return None;
        } else {
            push(&mut pieces, &rest[..first.len_utf8()]);
            rest = &rest[first.len_utf8()..];
        }
    }
    Some(pieces)
}

fn begins(text: &str, pattern: &str) -> bool {
    text.get(..pattern.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(pattern))
}

fn push(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        Some(Piece::Text(last)) => last.push_str(text),
        _ => pieces.push(Piece::Text(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_known_and_others_are_not() {
        let text = |text: &str| Piece::Text(text.to_owned());
        assert_eq!(
            parse("YYYY-MM-dd"),
            Some(vec![Piece::Year, text("-"), Piece::Month, text("-"), Piece::Day])
        );
        assert_eq!(
            parse("HH24:MI\"h MM\" SS"),
            Some(vec![
                Piece::Hour,
                text(":"),
                Piece::Minute,
                text("h MM "),
                Piece::Second
            ])
        );
        assert_eq!(parse("MMDD"), Some(vec![Piece::Month, Piece::Day]));
        for unknown in [
            "YY", "YYYYY", "Mon", "DDD", "SSSS", "HH:MI", "DDth", "FMDD", "a", "\"open", "\\", "T",
        ] {
            assert_eq!(parse(unknown), None, "{unknown}");
        }
    }
}
