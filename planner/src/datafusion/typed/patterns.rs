//! `substring(text from pattern)` with a regular expression.
//!
//! PostgreSQL finds the longest match and the executor's library the first one that its rules lead to. They are the
//! same, for the match and for its one group, where a quantifier stands after a single character only and there
//! is no choice between branches; other expressions are refused.

use arrow_schema::DataType;

use super::{Typed, cast};
use crate::error::PlanError;
use crate::plan::{Expr, Literal};

/// The executor's function: the first group of the first match, or the match if there is no group.
const FUNCTION: &str = "tributary_substring";

/// `substring(text from pattern)`: null without a match.
///
/// # Errors
/// `Unsupported` for patterns that are not constant or beyond the common part.
pub fn substring(text: Typed, pattern: &Typed, zone: &str) -> Result<Typed, PlanError> {
    let written = pattern.as_text().ok_or_else(|| {
        PlanError::unsupported(
            "substring from a pattern that is not constant",
            "Write it as a quoted constant.",
        )
    })?;
    if !is_common(written) {
        return Err(PlanError::unsupported(
            format_args!("the regular expression '{written}' in a view"),
            "Use characters, ., [classes], one (group), and * + ? after single characters; or split_part().",
        ));
    }
    let text = cast::implicit(text, &DataType::Utf8, zone)?;
    // A dot stands for every character, also for the end of a line.
    let pattern = Literal::text(format!("(?s){written}"));
    let arguments = vec![text.expr, Expr::Literal(pattern)];
    Ok(Typed::new(
        Expr::Call {
            function: FUNCTION.to_owned(),
            arguments,
            returns: DataType::Utf8,
        },
        DataType::Utf8,
    ))
}

/// Whether both libraries agree on an expression.
fn is_common(pattern: &str) -> bool {
    let mut characters = pattern.chars().peekable();
    let (mut groups, mut depth, mut atoms) = (0, 0, 0);
    // Whether a quantifier may follow.
    let mut single = false;
    let mut first = true;
    while let Some(character) = characters.next() {
        match character {
            '(' if characters.peek() != Some(&'?') => {
                groups += 1;
                depth += 1;
                single = false;
            }
            ')' if depth > 0 => {
                depth -= 1;
                single = false;
            }
            '*' | '+' | '?' if single => single = false,
            '^' if first => single = false,
            '$' if characters.peek().is_none() => single = false,
            '[' => {
                if !class(&mut characters) {
                    return false;
                }
                atoms += 1;
                single = true;
            }
            '\\' => match characters.next() {
                Some(escaped) if escaped.is_ascii_punctuation() => {
                    atoms += 1;
                    single = true;
                }
                _ => return false,
            },
            '(' | ')' | '*' | '+' | '?' | '^' | '$' | '|' | '{' | '}' | ']' => return false,
            _ => {
                atoms += 1;
                single = true;
            }
        }
        first = false;
    }
    depth == 0 && groups <= 1 && atoms > 0 && !pattern.contains("()")
}

/// Reads a class of characters up to its end: plain characters and ranges of them.
fn class(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> bool {
    if characters.peek() == Some(&'^') {
        characters.next();
    }
    let (mut members, mut previous) = (0, '[');
    for member in characters.by_ref() {
        match member {
            ']' => return members > 0,
            // Set operations (&&, --, ~~) are of one library only; a single & is plain.
            '[' | '\\' | '~' | '^' => return false,
            '&' | '-' if previous == member => return false,
            _ => members += 1,
        }
        previous = member;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::is_common;

    #[test]
    fn expressions_on_which_libraries_differ_are_not_common() {
        for common in ["channel_id=([^&]*)", "^a+b?.*$", "[a-z]+", "\\.x", "a(b)c"] {
            assert!(is_common(common), "{common}");
        }
        for other in [
            "",
            "a|b",
            "(ab)*",
            "a*?",
            "a{2}",
            "(?i)a",
            "\\d",
            "[[:alpha:]]",
            "(a)(b)",
            "a**",
            "[]a]",
            "(",
            "a)",
            "***=a",
            "[a",
            "()",
            "x^",
        ] {
            assert!(!is_common(other), "{other}");
        }
    }
}
