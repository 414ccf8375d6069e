//! COPY's csv format: quoted fields may hold delimiters and line ends; an unquoted null string is null.

use tributary_planner::parse::CopyOptions;

use super::Line;
use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;

pub(super) fn parse(
    text: &str,
    options: &CopyOptions,
    take: &mut impl FnMut(Line) -> SqlResult<()>,
) -> SqlResult<()> {
    let mut reader = Reader {
        rest: text,
        options,
        line: 0,
    };
    while let Some(line) = reader.next_line()? {
        if !(line.number == 1 && options.header) {
            take(line)?;
        }
    }
    Ok(())
}

struct Reader<'a> {
    rest: &'a str,
    options: &'a CopyOptions,
    /// Lines read so far; a quoted line end counts.
    line: usize,
}

impl Reader<'_> {
    fn next_line(&mut self) -> SqlResult<Option<Line>> {
        if self.rest.is_empty() || self.is_end_marker() {
            return Ok(None);
        }
        self.line += 1;
        let number = self.line;
        let mut fields = Vec::new();
        loop {
            let (field, is_last) = self.field(number)?;
            fields.push(field);
            if is_last {
                return Ok(Some(Line { number, fields }));
            }
        }
    }

    /// `\.` alone on a line ends the data, as psql sends it.
    fn is_end_marker(&self) -> bool {
        self.rest
            .strip_prefix("\\.")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['\n', '\r']))
    }

    /// One field, and whether the line ends after it.
    fn field(&mut self, number: usize) -> SqlResult<(Option<String>, bool)> {
        let mut value = String::new();
        let mut was_quoted = false;
        let mut is_quoted = false;
        let mut chars = self.rest.char_indices().peekable();
        let (consumed, is_last) = loop {
            let Some((at, c)) = chars.next() else {
                if is_quoted {
                    return Err(
                        SqlError::new(sqlstate::BAD_COPY_FORMAT, "unterminated CSV quoted field")
                            .context(format!("line {number}")),
                    );
                }
                break (self.rest.len(), true);
            };
            if is_quoted {
                let next = chars.peek().map(|(_, next)| *next);
                let escapes =
                    next.is_some_and(|next| next == self.options.quote || next == self.options.escape);
                if c == self.options.escape && escapes {
                    value.extend(next);
                    chars.next();
                } else if c == self.options.quote {
                    is_quoted = false;
                } else {
                    self.line += usize::from(c == '\n');
                    value.push(c);
                }
            } else if c == self.options.delimiter {
                break (at + c.len_utf8(), false);
            } else if c == '\n' {
                break (at + 1, true);
            } else if c == '\r' && matches!(chars.peek(), Some((_, '\n')) | None) {
                continue;
            } else if c == self.options.quote {
                is_quoted = true;
                was_quoted = true;
            } else {
                value.push(c);
            }
        };
        self.rest = &self.rest[consumed..];
        let is_null = !was_quoted && value == self.options.null;
        Ok(((!is_null).then_some(value), is_last))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tributary_planner::parse::CopyFormat;

    use super::super::Fields;
    use super::*;

    fn options() -> CopyOptions {
        CopyOptions {
            format: CopyFormat::Csv,
            header: false,
            delimiter: ',',
            null: String::new(),
            quote: '"',
            escape: '"',
        }
    }

    fn lines(text: &str, options: &CopyOptions) -> SqlResult<Vec<(usize, Fields)>> {
        let mut lines = Vec::new();
        parse(text, options, &mut |line| {
            lines.push((line.number, line.fields));
            Ok(())
        })?;
        Ok(lines)
    }

    fn field(text: &str) -> Option<String> {
        Some(text.into())
    }

    #[test]
    fn quotes_nulls_and_line_numbers() {
        let text = "a,b\r\n1,\"x, \"\"y\"\"\nz\"\n,\"\"\n\\.\n";
        let options = CopyOptions {
            header: true,
            ..options()
        };
        assert_eq!(
            lines(text, &options).expect("valid"),
            vec![
                (2, vec![field("1"), field("x, \"y\"\nz")]),
                (4, vec![None, field("")])
            ]
        );
    }

    #[test]
    fn an_open_quote_is_an_error() {
        let error = lines("1,\"x\n2\n", &options()).expect_err("open");
        assert_eq!((error.state, error.context.as_deref()), ("22P04", Some("line 1")));
    }

    proptest! {
        #[test]
        fn round_trip(values in proptest::collection::vec(proptest::option::of("[^\0]{0,6}"), 2..5)) {
            let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
            let line: Vec<String> = values.iter()
                .map(|value| value.as_deref().map_or(String::new(), quote)).collect();
            let read = lines(&(line.join(",") + "\n"), &options()).expect("valid");
            prop_assert_eq!(read, vec![(1, values)]);
        }
    }
}
