//! COPY's text format: fields between delimiters, backslash escapes, `\N` for null, `\.` as the end.

use tributary_planner::parse::CopyOptions;

use super::Fields;
use crate::error::{SqlError, SqlResult};
use crate::sqlstate;

/// Gives each row to `rows`.
pub(super) fn read(text: &str, options: &CopyOptions, rows: &mut impl Fields) -> SqlResult<()> {
    let mut reader = Reader {
        text,
        at: 0,
        delimiter: options.delimiter as u8,
        null: &options.null,
        unescaped: Vec::new(),
    };
    let mut line = 0;
    while reader.at < text.len() && !reader.is_end_marker() {
        line += 1;
        if line == 1 && options.header {
            while !reader.field().is_last {}
            continue;
        }
        rows.begin(line);
        loop {
            let field = reader.field();
            let value = reader
                .value(&field)
                .map_err(|error| error.context(format!("line {line}")))?;
            rows.text(value);
            if field.is_last {
                break;
            }
        }
        rows.end()?;
    }
    Ok(())
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// An ASCII character, so that text may be cut beside it.
    delimiter: u8,
    null: &'a str,
    /// The last field with escapes, without them.
    unescaped: Vec<u8>,
}

/// A field as it is written.
struct Raw<'a> {
    text: &'a str,
    has_escapes: bool,
    /// The line ends behind it.
    is_last: bool,
}

impl<'a> Reader<'a> {
    /// `\.` alone on a line ends the data, as psql sends it.
    fn is_end_marker(&self) -> bool {
        let Some(rest) = self.text.as_bytes()[self.at..].strip_prefix(b"\\.") else {
            return false;
        };
        matches!(rest, [] | [b'\n', ..] | [b'\r'] | [b'\r', b'\n', ..])
    }

    /// The next field. The end of a line may be escaped by a backslash, and belongs to the field then.
    #[inline]
    fn field(&mut self) -> Raw<'a> {
        let (bytes, start, delimiter) = (self.text.as_bytes(), self.at, self.delimiter);
        let (mut at, mut has_escapes) = (start, false);
        let is_last = loop {
            // All that ends a field, and the backslash, is among these.
            let Some(length) = bytes[at..]
                .iter()
                .position(|&byte| byte == delimiter || byte == b'\n' || byte == b'\\')
            else {
                at = bytes.len();
                break true;
            };
            at += length;
            match bytes[at] {
                b'\\' => {
                    has_escapes = true;
                    at = (at + 2).min(bytes.len());
                }
                byte => break byte == b'\n',
            }
        };
        self.at = (at + 1).min(bytes.len());
        let mut text = &self.text[start..at];
        if is_last {
            text = text.strip_suffix('\r').unwrap_or(text);
        }
        Raw {
            text,
            has_escapes,
            is_last,
        }
    }

    /// What a field means; `None` is null. The null string is compared before escapes are undone.
    #[inline]
    fn value<'b>(&'b mut self, field: &Raw<'b>) -> SqlResult<Option<&'b str>> {
        if field.text == self.null {
            return Ok(None);
        }
        if !field.has_escapes {
            return Ok(Some(field.text));
        }
        self.unescaped.clear();
        unescape(field.text, &mut self.unescaped);
        match std::str::from_utf8(&self.unescaped) {
            Ok(text) if !text.contains('\0') => Ok(Some(text)),
            _ => Err(SqlError::new(
                sqlstate::CHARACTER_NOT_IN_REPERTOIRE,
                "an escape does not give valid text in encoding \"UTF8\"",
            )),
        }
    }
}

fn unescape(raw: &str, bytes: &mut Vec<u8>) {
    let mut rest = raw.as_bytes();
    while let Some(escape) = rest.iter().position(|byte| *byte == b'\\') {
        bytes.extend_from_slice(&rest[..escape]);
        rest = &rest[escape + 1..];
        let Some((&first, after)) = rest.split_first() else {
            bytes.push(b'\\');
            return;
        };
        rest = after;
        match first {
            b'b' => bytes.push(8),
            b'f' => bytes.push(12),
            b'n' => bytes.push(b'\n'),
            b'r' => bytes.push(b'\r'),
            b't' => bytes.push(b'\t'),
            b'v' => bytes.push(11),
            b'0'..=b'7' => bytes.push(digits(&mut rest, first - b'0', 8)),
            b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => {
                bytes.push(digits(&mut rest, 0, 16));
            }
            other => bytes.push(other),
        }
    }
    bytes.extend_from_slice(rest);
}

/// Takes up to two more digits of a byte.
fn digits(rest: &mut &[u8], first: u8, radix: u32) -> u8 {
    let mut value = u32::from(first);
    for _ in 0..2 {
        let digit = rest.first().and_then(|&byte| char::from(byte).to_digit(radix));
        let Some(digit) = digit else { break };
        value = value * radix + digit;
        *rest = &rest[1..];
    }
    value as u8
}
