//! What the readers of text and csv give, without types and tables; and the slow readers that they must agree with.

use proptest::prelude::*;
use tributary_planner::parse::{CopyFormat, CopyOptions};

use super::{Fields, csv, text};
use crate::error::{SqlError, SqlResult};

/// The lines of an input with their fields.
#[derive(Debug, Default, PartialEq)]
struct Lines(Vec<(usize, Vec<Option<String>>)>);

impl Fields for Lines {
    fn begin(&mut self, line: usize) {
        self.0.push((line, Vec::new()));
    }

    fn text(&mut self, field: Option<&str>) {
        let (_, fields) = self.0.last_mut().expect("a row has begun");
        fields.push(field.map(str::to_owned));
    }

    fn end(&mut self) -> SqlResult<()> {
        Ok(())
    }
}

fn options(format: CopyFormat) -> CopyOptions {
    let is_text = format == CopyFormat::Text;
    CopyOptions {
        format,
        header: false,
        delimiter: if is_text { '\t' } else { ',' },
        null: if is_text { "\\N".into() } else { String::new() },
        quote: '"',
        escape: '"',
    }
}

fn read(input: &str, options: &CopyOptions) -> Result<Lines, SqlError> {
    let mut lines = Lines::default();
    match options.format {
        CopyFormat::Text => text::read(input, options, &mut lines)?,
        _ => csv::read(input, options, &mut lines)?,
    }
    Ok(lines)
}

fn lines(input: &str, options: &CopyOptions) -> Vec<(usize, Vec<Option<String>>)> {
    read(input, options).expect("valid input").0
}

fn field(text: &str) -> Option<String> {
    Some(text.into())
}

#[test]
fn text_escapes_nulls_and_the_end() {
    let input = "1\t\\N\ta\\tb\\nc\r\n2\t\t\\\\N\\x41\\101\n\\.\nignored\n";
    assert_eq!(
        lines(input, &options(CopyFormat::Text)),
        vec![
            (1, vec![field("1"), None, field("a\tb\nc")]),
            (2, vec![field("2"), field(""), field("\\NAA")])
        ]
    );
}

#[test]
fn in_text_an_escaped_end_of_line_belongs_to_the_field() {
    assert_eq!(
        lines("a\\\nb\tc", &options(CopyFormat::Text)),
        vec![(1, vec![field("a\nb"), field("c")])]
    );
}

#[test]
fn text_with_a_header_and_another_delimiter() {
    let options = CopyOptions {
        header: true,
        delimiter: '|',
        null: String::new(),
        ..options(CopyFormat::Text)
    };
    assert_eq!(
        lines("x|y\n1|\n\n", &options),
        vec![(2, vec![field("1"), None]), (3, vec![None])]
    );
}

#[test]
fn text_escapes_that_are_no_text_are_refused() {
    for input in ["a\\377", "a\\0b", "\\xC3"] {
        let error = read(input, &options(CopyFormat::Text)).expect_err(input);
        assert_eq!((error.state, error.context.as_deref()), ("22021", Some("line 1")));
    }
}

#[test]
fn csv_quotes_nulls_and_line_numbers() {
    let input = "a,b\r\n1,\"x, \"\"y\"\"\nz\"\n,\"\"\n\"q\"r,\"s\"\r\n\\.\n";
    let options = CopyOptions {
        header: true,
        ..options(CopyFormat::Csv)
    };
    assert_eq!(
        lines(input, &options),
        vec![
            (2, vec![field("1"), field("x, \"y\"\nz")]),
            (4, vec![None, field("")]),
            (5, vec![field("qr"), field("s")])
        ]
    );
}

#[test]
fn in_csv_an_open_quote_is_an_error() {
    let error = read("1,\"x\n2\n", &options(CopyFormat::Csv)).expect_err("open");
    assert_eq!((error.state, error.context.as_deref()), ("22P04", Some("line 1")));
}

/// csv as a machine of three states, a character at a time.
fn slow_csv(input: &str) -> Option<Vec<Vec<Option<String>>>> {
    let mut rows = Vec::new();
    let mut rest = input;
    while !rest.is_empty() && !rest.starts_with("\\.\n") && !rest.starts_with("\\.\r") && rest != "\\." {
        let mut row = Vec::new();
        loop {
            let (mut value, mut was_quoted, mut is_quoted) = (String::new(), false, false);
            let mut chars = rest.char_indices().peekable();
            let (consumed, is_last) = loop {
                let Some((at, c)) = chars.next() else {
                    if is_quoted {
                        return None;
                    }
                    break (rest.len(), true);
                };
                match c {
                    '"' if is_quoted && matches!(chars.peek(), Some((_, '"'))) => {
                        chars.next();
                        value.push('"');
                    }
                    '"' => {
                        was_quoted = true;
                        is_quoted = !is_quoted;
                    }
                    ',' if !is_quoted => break (at + 1, false),
                    '\n' if !is_quoted => break (at + 1, true),
                    '\r' if !is_quoted && matches!(chars.peek(), Some((_, '\n')) | None) => {}
                    other => value.push(other),
                }
            };
            rest = &rest[consumed..];
            row.push((was_quoted || !value.is_empty()).then_some(value));
            if is_last {
                break;
            }
        }
        rows.push(row);
    }
    Some(rows)
}

proptest! {
    /// What a client escapes is read back.
    #[test]
    fn text_round_trip(values in proptest::collection::vec(proptest::option::of("[^\0]{0,6}"), 1..5)) {
        let escape = |text: &str| text
            .replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t");
        let line: Vec<String> = values.iter()
            .map(|value| value.as_deref().map_or("\\N".into(), escape)).collect();
        let line = line.join("\t") + "\n";
        prop_assert_eq!(lines(&line, &options(CopyFormat::Text)), vec![(1, values)]);
    }

    #[test]
    fn csv_round_trip(values in proptest::collection::vec(proptest::option::of("[^\0]{0,6}"), 2..5)) {
        let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let line: Vec<String> = values.iter()
            .map(|value| value.as_deref().map_or(String::new(), quote)).collect();
        prop_assert_eq!(lines(&(line.join(",") + "\n"), &options(CopyFormat::Csv)), vec![(1, values)]);
    }

    /// Whatever is written, the reader of pieces sees what the slow one sees.
    #[test]
    fn csv_is_read_as_the_slow_reader_reads_it(input in "[a\u{e9}\",\r\n\\\\.]{0,24}") {
        let fast = read(&input, &options(CopyFormat::Csv)).ok()
            .map(|lines| lines.0.into_iter().map(|(_, fields)| fields).collect::<Vec<_>>());
        prop_assert_eq!(fast, slow_csv(&input));
    }

    #[test]
    fn any_text_is_survived(input in "[a\u{e9}\t\r\n\\\\.0x7N]{0,24}") {
        let _ = read(&input, &options(CopyFormat::Text));
    }
}
