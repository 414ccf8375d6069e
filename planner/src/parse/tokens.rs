//! The tokens of one statement, and a cursor over them for the parsers of our own.
//!
//! A statement is mostly read by hand up to where a query or a column list begins; from there on sqlparser
//! reads the rest.

use sqlparser::ast::Ident;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Word};

use super::dialect::BoundedDialect;
use super::position::{Offsets, position};
use crate::error::{PlanError, PlanErrorKind};

/// sqlparser's own bound on recursion. Ours is checked before and is lower, so this one is met only by what is
/// nested in a way that tokens do not show.
const RECURSION_MAX: usize = 6_000;

/// The tokens of one statement.
pub(super) struct Tokens<'a> {
    sql: &'a str,
    /// The offset and location of the statement's first byte.
    start: (usize, Location),
    /// All tokens, white space included.
    tokens: Vec<TokenWithSpan>,
    /// The next token; never white space.
    at: usize,
}

impl<'a> Tokens<'a> {
    /// `tokens` are those of a statement that starts at byte `start` of `sql`; the first is no white space.
    pub(super) fn new(sql: &'a str, start: usize, tokens: Vec<TokenWithSpan>) -> Self {
        let location = tokens
            .first()
            .map_or(Location { line: 1, column: 1 }, |token| token.span.start);
        Self {
            sql,
            start: (start, location),
            tokens,
            at: 0,
        }
    }

    /// The next token, `EOF` after the last.
    pub(super) fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::EOF, |token| &token.token)
    }

    /// The next word if it is not quoted.
    pub(super) fn peek_word(&self) -> Option<&Word> {
        self.peek_words().next()
    }

    /// The run of unquoted words that begins with the next token.
    pub(super) fn peek_words(&self) -> impl Iterator<Item = &Word> {
        let rest = self.tokens[self.at.min(self.tokens.len())..].iter();
        rest.filter(|token| !matches!(token.token, Token::Whitespace(_)))
            .map_while(|token| match &token.token {
                Token::Word(word) if word.quote_style.is_none() => Some(word),
                _ => None,
            })
    }

    /// Whether the next tokens are these words, in any case.
    pub(super) fn peek_is(&self, words: &[&str]) -> bool {
        let mut next = self.peek_words();
        words.iter().all(|word| {
            next.next()
                .is_some_and(|next| next.value.eq_ignore_ascii_case(word))
        })
    }

    /// Takes the next token.
    pub(super) fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        while matches!(self.peek(), Token::Whitespace(_)) {
            self.at += 1;
        }
        token
    }

    /// Takes these words if they are next.
    pub(super) fn take(&mut self, words: &[&str]) -> bool {
        let taken = self.peek_is(words);
        if taken {
            words.iter().for_each(|_| drop(self.next()));
        }
        taken
    }

    /// Takes a token if it is next.
    pub(super) fn take_token(&mut self, token: &Token) -> bool {
        let taken = self.peek() == token;
        if taken {
            self.next();
        }
        taken
    }

    /// Takes these words.
    pub(super) fn expect(&mut self, words: &[&str]) -> Result<(), PlanError> {
        if self.take(words) {
            Ok(())
        } else {
            Err(self.unexpected(&words.join(" ")))
        }
    }

    /// Takes this token.
    pub(super) fn expect_token(&mut self, token: &Token) -> Result<(), PlanError> {
        if self.take_token(token) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("\"{token}\"")))
        }
    }

    /// Takes an identifier.
    pub(super) fn identifier(&mut self) -> Result<Ident, PlanError> {
        match self.peek() {
            Token::Word(_) => match self.next() {
                Token::Word(word) => Ok(Ident {
                    value: word.value,
                    quote_style: word.quote_style,
                    span: Span::empty(),
                }),
                _ => Err(PlanError::internal("a token changed between peek and next")),
            },
            _ => Err(self.unexpected("a name")),
        }
    }

    /// Takes the name of an object of schema `public`, folded.
    pub(super) fn object_name(&mut self) -> Result<String, PlanError> {
        let mut parts = vec![self.identifier()?];
        while self.take_token(&Token::Period) {
            parts.push(self.identifier()?);
        }
        super::public_name(&parts.into())
    }

    /// Takes a string.
    pub(super) fn string(&mut self, what: &str) -> Result<String, PlanError> {
        match self.peek() {
            Token::SingleQuotedString(_) | Token::EscapedStringLiteral(_) | Token::DollarQuotedString(_) => {
                match self.next() {
                    Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => Ok(text),
                    Token::DollarQuotedString(text) => Ok(text.value),
                    _ => Err(PlanError::internal("a token changed between peek and next")),
                }
            }
            _ => Err(self.unexpected(what)),
        }
    }

    /// Takes names separated by commas in parentheses, folded.
    pub(super) fn name_list(&mut self) -> Result<Vec<String>, PlanError> {
        self.expect_token(&Token::LParen)?;
        let mut names = vec![super::fold(&self.identifier()?)];
        while self.take_token(&Token::Comma) {
            names.push(super::fold(&self.identifier()?));
        }
        self.expect_token(&Token::RParen)?;
        Ok(names)
    }

    /// Nothing may follow.
    pub(super) fn end(&self) -> Result<(), PlanError> {
        if *self.peek() == Token::EOF {
            Ok(())
        } else {
            Err(self.unexpected("the end of the statement"))
        }
    }

    /// Cuts the statement before the first token outside of brackets for which `found` holds.
    pub(super) fn split_at(&mut self, mut found: impl FnMut(&Token) -> bool) -> Option<Tokens<'a>> {
        let mut depth = 0_usize;
        for index in self.at..self.tokens.len() {
            match &self.tokens[index].token {
                Token::LParen | Token::LBracket => depth += 1,
                Token::RParen | Token::RBracket => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && found(&self.tokens[index].token) {
                let rest = self.tokens.split_off(index);
                return Some(Tokens {
                    sql: self.sql,
                    start: self.start,
                    tokens: rest,
                    at: 0,
                });
            }
        }
        None
    }

    /// The text from the next token to the statement's end.
    pub(super) fn rest_text(&self) -> &'a str {
        let (Some(first), Some(last)) = (self.tokens.get(self.at), self.tokens.last()) else {
            return "";
        };
        let mut offsets = Offsets::starting_at(self.sql, self.start.0, self.start.1);
        let start = offsets.of(first.span.start);
        &self.sql[start..offsets.of(last.span.end)]
    }

    /// Lets sqlparser read all tokens that are left; it has to use up all of them.
    pub(super) fn parse_rest<T>(
        mut self,
        parse: impl FnOnce(&mut Parser<'_>) -> Result<T, ParserError>,
    ) -> Result<T, PlanError> {
        let sql = self.sql;
        let tokens = self.tokens.split_off(self.at.min(self.tokens.len()));
        let dialect = BoundedDialect::new(tokens.len());
        let mut parser = Parser::new(&dialect)
            .with_recursion_limit(RECURSION_MAX)
            .with_tokens_with_locations(tokens);
        let parsed = parse(&mut parser).and_then(|parsed| match parser.peek_token_ref().token {
            Token::EOF => Ok(parsed),
            _ => parser.expected_ref("the end of the statement", parser.peek_token_ref()),
        });
        parsed.map_err(|error| from_sqlparser(sql, error))
    }

    /// A syntax error at the next token.
    pub(super) fn unexpected(&self, expected: &str) -> PlanError {
        match self.tokens.get(self.at) {
            None => syntax_at_end(expected, self.sql),
            Some(found) => syntax(
                &found.token.to_string(),
                expected,
                position(self.sql, found.span.start),
            ),
        }
    }

    /// The position of the next token.
    pub(super) fn position(&self) -> usize {
        let end = || self.sql.chars().count() + 1;
        self.tokens
            .get(self.at)
            .map_or_else(end, |token| position(self.sql, token.span.start))
    }

    /// The leading keyword, `NoKeyword` if there is none.
    pub(super) fn leading(&self) -> Keyword {
        self.peek_word().map_or(Keyword::NoKeyword, |word| word.keyword)
    }
}

fn syntax(found: &str, expected: &str, position: usize) -> PlanError {
    let message = format!("syntax error at or near \"{found}\": expected {expected}");
    PlanError::new(PlanErrorKind::Syntax, message).at(position)
}

fn syntax_at_end(expected: &str, sql: &str) -> PlanError {
    let message = format!("syntax error at end of input: expected {expected}");
    PlanError::new(PlanErrorKind::Syntax, message).at(sql.chars().count() + 1)
}

/// sqlparser's errors are texts that end in ` at Line: 1, Column: 8`, most of them of the form
/// `Expected: <what>, found: <token>`.
fn from_sqlparser(sql: &str, error: ParserError) -> PlanError {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        ParserError::RecursionLimitExceeded => {
            let message = "the statement is nested too deeply, or malformed deep inside";
            return PlanError::new(PlanErrorKind::TooDeep, message);
        }
    };
    let (message, location) = split_location(&message);
    let found = message
        .strip_prefix("Expected: ")
        .and_then(|message| message.rsplit_once(", found: "));
    match (found, location) {
        (Some((expected, "EOF")), _) => syntax_at_end(expected, sql),
        (Some((expected, found)), Some(location)) => syntax(found, expected, position(sql, location)),
        (None, Some(location)) => {
            PlanError::new(PlanErrorKind::Syntax, lower_first(message)).at(position(sql, location))
        }
        (_, None) => PlanError::new(PlanErrorKind::Syntax, lower_first(message)),
    }
}

fn split_location(message: &str) -> (&str, Option<Location>) {
    let location = || {
        let (before, location) = message.rsplit_once(" at Line: ")?;
        let (line, column) = location.split_once(", Column: ")?;
        Some((
            before,
            Location {
                line: line.parse().ok()?,
                column: column.trim().parse().ok()?,
            },
        ))
    };
    match location() {
        Some((before, location)) => (before, Some(location)),
        None => (message, None),
    }
}

/// A message in PostgreSQL's manner.
pub(super) fn lower_first(message: &str) -> String {
    let mut characters = message.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => "syntax error".to_owned(),
    }
}
