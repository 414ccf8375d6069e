//! COPY's csv format: quoted fields may hold delimiters and line ends; an unquoted null string is null.

use tributary_planner::parse::CopyOptions;

use super::Fields;
use crate::error::{SqlError, SqlResult};
use crate::sqlstate;

/// Gives each row to `rows`.
pub(super) fn read(text: &str, options: &CopyOptions, rows: &mut impl Fields) -> SqlResult<()> {
    let mut reader = Reader {
        text,
        at: 0,
        line: 0,
        delimiter: options.delimiter as u8,
        quote: options.quote as u8,
        escape: options.escape as u8,
        value: Vec::new(),
    };
    while reader.at < text.len() && !reader.is_end_marker() {
        reader.line += 1;
        let line = reader.line;
        let is_header = line == 1 && options.header;
        if !is_header {
            rows.begin(line);
        }
        loop {
            let field = reader
                .field()
                .map_err(|error| error.context(format!("line {line}")))?;
            if !is_header {
                let value = reader.value(&field);
                let is_null = !field.was_quoted && value == options.null;
                rows.text((!is_null).then_some(value));
            }
            if field.is_last {
                break;
            }
        }
        if !is_header {
            rows.end()?;
        }
    }
    Ok(())
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Lines read so far; a quoted line end counts.
    line: usize,
    // ASCII characters, so that text may be cut beside them.
    delimiter: u8,
    quote: u8,
    escape: u8,
    /// The last field that is not a piece of the text.
    value: Vec<u8>,
}

struct Field<'a> {
    /// The value; `None`: it is in the reader.
    piece: Option<&'a str>,
    was_quoted: bool,
    /// The line ends behind it.
    is_last: bool,
}

impl<'a> Reader<'a> {
    /// `\.` alone on a line ends the data, as psql sends it.
    fn is_end_marker(&self) -> bool {
        self.text[self.at..]
            .strip_prefix("\\.")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['\n', '\r']))
    }

    fn value<'b>(&'b self, field: &Field<'b>) -> &'b str {
        match field.piece {
            Some(piece) => piece,
            None => std::str::from_utf8(&self.value).expect("text that is cut beside ASCII stays text"),
        }
    }

    /// One field: a piece of the text if it is written without quotes, or within one pair of them.
    #[inline]
    fn field(&mut self) -> SqlResult<Field<'a>> {
        let (bytes, start) = (self.text.as_bytes(), self.at);
        let (delimiter, quote) = (self.delimiter, self.quote);
        let length = bytes[start..]
            .iter()
            .position(|&byte| byte == delimiter || byte == b'\n' || byte == quote);
        let end = length.map_or(bytes.len(), |length| start + length);
        if bytes.get(end) != Some(&quote) {
            let is_last = bytes.get(end) != Some(&delimiter);
            self.at = (end + 1).min(bytes.len());
            let piece = &self.text[start..end];
            let piece = if is_last {
                piece.strip_suffix('\r').unwrap_or(piece)
            } else {
                piece
            };
            return Ok(Field {
                piece: Some(piece),
                was_quoted: false,
                is_last,
            });
        }
        if end == start
            && let Some(field) = self.plainly_quoted()
        {
            return Ok(field);
        }
        self.quoted()
    }

    /// A field that is one quoted piece without anything to undo.
    fn plainly_quoted(&mut self) -> Option<Field<'a>> {
        let (bytes, start) = (self.text.as_bytes(), self.at + 1);
        let (quote, escape) = (self.quote, self.escape);
        let length = bytes[start..]
            .iter()
            .position(|&byte| byte == quote || byte == escape || byte == b'\n')?;
        let end = start + length;
        if bytes[end] != quote {
            return None;
        }
        let (behind, is_last) = match &bytes[end + 1..] {
            [] => (0, true),
            [b'\n', ..] => (1, true),
            [b'\r', b'\n', ..] => (2, true),
            [next, ..] if *next == self.delimiter => (1, false),
            _ => return None,
        };
        self.at = end + 1 + behind;
        Some(Field {
            piece: Some(&self.text[start..end]),
            was_quoted: true,
            is_last,
        })
    }

    /// Any field, byte by byte.
    fn quoted(&mut self) -> SqlResult<Field<'a>> {
        let bytes = self.text.as_bytes();
        self.value.clear();
        let (mut was_quoted, mut is_quoted) = (false, false);
        let is_last = loop {
            let Some(&byte) = bytes.get(self.at) else {
                if is_quoted {
                    return Err(SqlError::new(
                        sqlstate::BAD_COPY_FORMAT,
                        "unterminated CSV quoted field",
                    ));
                }
                break true;
            };
            self.at += 1;
            let next = bytes.get(self.at).copied();
            if is_quoted {
                let escapes = next.filter(|next| *next == self.quote || *next == self.escape);
                match escapes {
                    Some(escaped) if byte == self.escape => {
                        self.value.push(escaped);
                        self.at += 1;
                    }
                    _ if byte == self.quote => is_quoted = false,
                    _ => {
                        self.line += usize::from(byte == b'\n');
                        self.value.push(byte);
                    }
                }
            } else if byte == self.delimiter {
                break false;
            } else if byte == b'\n' {
                break true;
            } else if byte == b'\r' && matches!(next, Some(b'\n') | None) {
                continue;
            } else if byte == self.quote {
                is_quoted = true;
                was_quoted = true;
            } else {
                self.value.push(byte);
            }
        };
        Ok(Field {
            piece: None,
            was_quoted,
            is_last,
        })
    }
}
