//! COPY table [(columns)] FROM STDIN [options], in the new option syntax (`WITH (FORMAT csv, HEADER)`) and
//! the old (`WITH CSV HEADER DELIMITER AS ';'`).
//!
//! The data follow in messages of the protocol, never in the text.

use sqlparser::tokenizer::Token;

use super::statement::Statement;
use super::tokens::Tokens;
use crate::error::{PlanError, PlanErrorKind};

/// COPY … FROM STDIN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyStatement {
    /// The table, folded.
    pub table: String,
    /// The columns in the order of the data, folded; empty: all visible ones.
    pub columns: Vec<String>,
    /// How the data are written.
    pub options: CopyOptions,
}

/// How the data of a COPY are written; complete, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    /// The format.
    pub format: CopyFormat,
    /// Whether the first line is skipped.
    pub header: bool,
    /// Between fields.
    pub delimiter: char,
    /// The text that means null (csv: only where it is not quoted).
    pub null: String,
    /// Around csv fields.
    pub quote: char,
    /// Before a quote within a quoted csv field.
    pub escape: char,
}

/// The formats of COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    /// PostgreSQL's: tabs and backslashes.
    Text,
    /// Comma-separated values.
    Csv,
    /// PostgreSQL's binary format: no option but the format goes with it.
    Binary,
}

/// The options as given, each at most once.
#[derive(Default)]
struct Given {
    format: Option<CopyFormat>,
    header: Option<bool>,
    delimiter: Option<char>,
    null: Option<String>,
    quote: Option<char>,
    escape: Option<char>,
}

pub(super) fn parse(mut tokens: Tokens<'_>) -> Result<Statement, PlanError> {
    let position = tokens.position();
    tokens.expect(&["COPY"])?;
    if *tokens.peek() == Token::LParen {
        return Err(
            PlanError::unsupported("COPY (query) TO", "Use SELECT, or psql's \\g file.").at(position),
        );
    }
    let table = tokens.object_name()?;
    let columns = if *tokens.peek() == Token::LParen {
        tokens.name_list()?
    } else {
        Vec::new()
    };
    if tokens.peek_is(&["to"]) {
        return Err(PlanError::unsupported("COPY TO", "Use SELECT, or psql's \\g file.").at(position));
    }
    tokens.expect(&["FROM"])?;
    if !tokens.take(&["STDIN"]) {
        if matches!(tokens.peek(), Token::SingleQuotedString(_)) || tokens.peek_is(&["program"]) {
            let error = PlanError::unsupported("COPY from a file of the server", "Use psql's \\copy.");
            return Err(error.at(tokens.position()));
        }
        return Err(tokens.unexpected("STDIN"));
    }
    tokens.take(&["WITH"]);
    let mut given = Given::default();
    if tokens.take_token(&Token::LParen) {
        loop {
            new_option(&mut tokens, &mut given)?;
            if !tokens.take_token(&Token::Comma) {
                break;
            }
        }
        tokens.expect_token(&Token::RParen)?;
    } else {
        while *tokens.peek() != Token::EOF {
            old_option(&mut tokens, &mut given)?;
        }
    }
    tokens.end()?;
    let options = given.complete().map_err(|error| error.at(position))?;
    Ok(Statement::Copy(CopyStatement {
        table,
        columns,
        options,
    }))
}

/// One option within parentheses.
fn new_option(tokens: &mut Tokens<'_>, given: &mut Given) -> Result<(), PlanError> {
    let position = tokens.position();
    let name = super::fold(&tokens.identifier()?);
    let fresh = match name.as_str() {
        "format" => {
            let format = match tokens.peek() {
                Token::Word(_) => super::fold(&tokens.identifier()?),
                _ => tokens.string("a format")?,
            };
            given.format.replace(named_format(&format, position)?).is_none()
        }
        "header" => given.header.replace(boolean(tokens)?).is_none(),
        "delimiter" => given.delimiter.replace(character(tokens, "delimiter")?).is_none(),
        "null" => given.null.replace(tokens.string("a string")?).is_none(),
        "quote" => given.quote.replace(character(tokens, "quote")?).is_none(),
        "escape" => given.escape.replace(character(tokens, "escape")?).is_none(),
        "encoding" => return utf8_only(tokens),
        "freeze" => return boolean(tokens).map(drop),
        other => return Err(unknown_option(other, position)),
    };
    once(fresh, position)
}

/// One option of the old syntax: `CSV`, `HEADER`, `DELIMITER [AS] ';'` and so on.
fn old_option(tokens: &mut Tokens<'_>, given: &mut Given) -> Result<(), PlanError> {
    let position = tokens.position();
    let name = super::fold(&tokens.identifier()?);
    let takes_string = matches!(
        name.as_str(),
        "delimiter" | "delimiters" | "null" | "quote" | "escape"
    );
    if takes_string {
        tokens.take(&["AS"]);
    }
    let fresh = match name.as_str() {
        "csv" | "binary" => given.format.replace(named_format(&name, position)?).is_none(),
        "header" => given.header.replace(true).is_none(),
        "delimiter" | "delimiters" => given.delimiter.replace(character(tokens, "delimiter")?).is_none(),
        "null" => given.null.replace(tokens.string("a string")?).is_none(),
        "quote" => given.quote.replace(character(tokens, "quote")?).is_none(),
        "escape" => given.escape.replace(character(tokens, "escape")?).is_none(),
        "encoding" => return utf8_only(tokens),
        other => return Err(unknown_option(other, position)),
    };
    once(fresh, position)
}

fn once(fresh: bool, position: usize) -> Result<(), PlanError> {
    if fresh {
        Ok(())
    } else {
        Err(invalid("conflicting or redundant options").at(position))
    }
}

fn invalid(message: impl Into<String>) -> PlanError {
    PlanError::new(PlanErrorKind::Syntax, message)
}

fn unknown_option(name: &str, position: usize) -> PlanError {
    match name {
        "force_quote" | "force_not_null" | "force_null" | "force" | "on_error" | "default"
        | "log_verbosity" => PlanError::unsupported(
            format_args!("COPY option {}", name.to_uppercase()),
            "Supported: FORMAT, HEADER, DELIMITER, NULL, QUOTE, ESCAPE.",
        ),
        _ => invalid(format!("option \"{name}\" not recognized"))
            .with_hint("Supported: FORMAT, HEADER, DELIMITER, NULL, QUOTE, ESCAPE."),
    }
    .at(position)
}

fn named_format(name: &str, position: usize) -> Result<CopyFormat, PlanError> {
    match name {
        "text" => Ok(CopyFormat::Text),
        "csv" => Ok(CopyFormat::Csv),
        "binary" => Ok(CopyFormat::Binary),
        other => Err(invalid(format!("COPY format \"{other}\" not recognized"))
            .with_hint("Use text, csv or binary.")
            .at(position)),
    }
}

/// A boolean option's value; without one it is true.
fn boolean(tokens: &mut Tokens<'_>) -> Result<bool, PlanError> {
    if matches!(tokens.peek(), Token::Comma | Token::RParen) {
        return Ok(true);
    }
    for (word, value) in [("true", true), ("on", true), ("false", false), ("off", false)] {
        if tokens.take(&[word]) {
            return Ok(value);
        }
    }
    match tokens.peek() {
        Token::Number(number, _) if number == "1" || number == "0" => {
            let value = number == "1";
            tokens.next();
            Ok(value)
        }
        _ => Err(tokens.unexpected("true or false")),
    }
}

/// A string of one character of one byte, as in PostgreSQL.
fn character(tokens: &mut Tokens<'_>, option: &str) -> Result<char, PlanError> {
    let position = tokens.position();
    let text = tokens.string("a string")?;
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(character), None) if character.is_ascii() && !matches!(character, '\n' | '\r' | '\0') => {
            Ok(character)
        }
        _ => Err(invalid(format!("COPY {option} must be a single one-byte character")).at(position)),
    }
}

fn utf8_only(tokens: &mut Tokens<'_>) -> Result<(), PlanError> {
    let position = tokens.position();
    let encoding = tokens.string("an encoding")?;
    if matches!(
        encoding.to_lowercase().replace('-', "").as_str(),
        "utf8" | "unicode"
    ) {
        return Ok(());
    }
    Err(
        PlanError::unsupported(format_args!("encoding {encoding}"), "Convert the data to UTF-8.")
            .at(position),
    )
}

impl Given {
    /// Fills in defaults and checks what goes together.
    fn complete(self) -> Result<CopyOptions, PlanError> {
        let format = self.format.unwrap_or(CopyFormat::Text);
        let csv = format == CopyFormat::Csv;
        for (given, name) in [(self.quote.is_some(), "QUOTE"), (self.escape.is_some(), "ESCAPE")] {
            if given && !csv {
                return Err(invalid(format!("COPY {name} requires CSV mode")));
            }
        }
        if format == CopyFormat::Binary {
            let given = [
                (self.delimiter.is_some(), "DELIMITER"),
                (self.null.is_some(), "NULL"),
                (self.header == Some(true), "HEADER"),
            ];
            if let Some((_, name)) = given.into_iter().find(|(given, _)| *given) {
                return Err(invalid(format!("cannot specify {name} in BINARY mode")));
            }
        }
        let delimiter = self.delimiter.unwrap_or(if csv { ',' } else { '\t' });
        let null = self
            .null
            .unwrap_or_else(|| if csv { String::new() } else { "\\N".to_owned() });
        let quote = self.quote.unwrap_or('"');
        if csv && delimiter == quote {
            return Err(invalid("COPY delimiter and quote must be different"));
        }
        if !csv && "\\.abcdefghijklmnopqrstuvwxyz0123456789".contains(delimiter) {
            return Err(invalid(format!("COPY delimiter cannot be \"{delimiter}\"")));
        }
        if null.contains(delimiter) || (csv && null.contains(quote)) {
            return Err(invalid(
                "the NULL text of COPY must not contain the delimiter or the quote",
            ));
        }
        if null.contains(['\n', '\r']) {
            return Err(invalid(
                "COPY null representation cannot use newline or carriage return",
            ));
        }
        let header = self.header.unwrap_or(false);
        Ok(CopyOptions {
            format,
            header,
            delimiter,
            null,
            quote,
            escape: self.escape.unwrap_or(quote),
        })
    }
}
