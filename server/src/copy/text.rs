//! COPY's text format: fields between delimiters, backslash escapes, `\N` for null, `\.` as the end.

use tributary_planner::parse::CopyOptions;

use super::{Fields, Line};
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;

pub(super) fn parse(
    text: &str,
    options: &CopyOptions,
    take: &mut impl FnMut(Line) -> SqlResult<()>,
) -> SqlResult<()> {
    let mut rest = text;
    let mut number = 0;
    while !rest.is_empty() {
        let (line, tail) = split_line(rest);
        rest = tail;
        number += 1;
        if line == "\\." {
            return Ok(());
        }
        if number == 1 && options.header {
            continue;
        }
        let fields = fields(line, options).map_err(|error| error.context(format!("line {number}")))?;
        take(Line { number, fields })?;
    }
    Ok(())
}

/// The first line, whose end may be escaped by a backslash, and what follows.
fn split_line(text: &str) -> (&str, &str) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'\n' => {
                let end = if at > 0 && bytes[at - 1] == b'\r' {
                    at - 1
                } else {
                    at
                };
                return (&text[..end], &text[at + 1..]);
            }
            _ => at += 1,
        }
    }
    (text.strip_suffix('\r').unwrap_or(text), "")
}

fn fields(line: &str, options: &CopyOptions) -> SqlResult<Fields> {
    let mut fields = Vec::new();
    let mut start = 0;
    let mut chars = line.char_indices();
    let mut push = |raw: &str| -> SqlResult<()> {
        // The null string is compared before escapes are undone.
        fields.push(if raw == options.null {
            None
        } else {
            Some(unescaped(raw)?)
        });
        Ok(())
    };
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if c == options.delimiter {
            push(&line[start..at])?;
            start = at + c.len_utf8();
        }
    }
    push(&line[start..])?;
    Ok(fields)
}

fn unescaped(raw: &str) -> SqlResult<String> {
    if !raw.contains('\\') {
        return Ok(raw.to_string());
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut chars = raw.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match chars.next() {
            None => bytes.push(b'\\'),
            Some('b') => bytes.push(8),
            Some('f') => bytes.push(12),
            Some('n') => bytes.push(b'\n'),
            Some('r') => bytes.push(b'\r'),
            Some('t') => bytes.push(b'\t'),
            Some('v') => bytes.push(11),
            Some(first @ '0'..='7') => {
                let mut value = first.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    let Some(digit) = chars.peek().and_then(|c| c.to_digit(8)) else {
                        break;
                    };
                    value = value * 8 + digit;
                    chars.next();
                }
                bytes.push(value as u8);
            }
            Some('x') if chars.peek().is_some_and(char::is_ascii_hexdigit) => {
                let mut value = 0;
                for _ in 0..2 {
                    let Some(digit) = chars.peek().and_then(|c| c.to_digit(16)) else {
                        break;
                    };
                    value = value * 16 + digit;
                    chars.next();
                }
                bytes.push(value as u8);
            }
            Some(other) => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(SqlError::new(
            sqlstate::CHARACTER_NOT_IN_REPERTOIRE,
            "an escape does not give valid text in encoding \"UTF8\"",
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tributary_planner::parse::CopyFormat;

    use super::*;

    fn options() -> CopyOptions {
        CopyOptions {
            format: CopyFormat::Text,
            header: false,
            delimiter: '\t',
            null: "\\N".into(),
            quote: '"',
            escape: '"',
        }
    }

    fn lines(text: &str, options: &CopyOptions) -> Vec<Fields> {
        let mut lines = Vec::new();
        parse(text, options, &mut |line| {
            lines.push(line.fields);
            Ok(())
        })
        .expect("valid input");
        lines
    }

    fn field(text: &str) -> Option<String> {
        Some(text.into())
    }

    #[test]
    fn escapes_nulls_and_the_end() {
        let text = "1\t\\N\ta\\tb\\nc\r\n2\t\t\\\\N\\x41\\101\n\\.\nignored\n";
        assert_eq!(
            lines(text, &options()),
            vec![
                vec![field("1"), None, field("a\tb\nc")],
                vec![field("2"), field(""), field("\\NAA")]
            ]
        );
    }

    #[test]
    fn an_escaped_end_of_line_belongs_to_the_field() {
        assert_eq!(
            lines("a\\\nb\tc", &options()),
            vec![vec![field("a\nb"), field("c")]]
        );
    }

    #[test]
    fn a_header_and_another_delimiter() {
        let options = CopyOptions {
            header: true,
            delimiter: '|',
            null: String::new(),
            ..options()
        };
        assert_eq!(lines("x|y\n1|\n", &options), vec![vec![field("1"), None]]);
    }

    proptest! {
        /// What a client escapes is read back.
        #[test]
        fn round_trip(values in proptest::collection::vec(proptest::option::of("[^\0]{0,6}"), 1..5)) {
            let escape = |text: &str| text
                .replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t");
            let line: Vec<String> = values.iter()
                .map(|value| value.as_deref().map_or("\\N".into(), escape)).collect();
            let line = line.join("\t") + "\n";
            prop_assert_eq!(lines(&line, &options()), vec![values]);
        }
    }
}
