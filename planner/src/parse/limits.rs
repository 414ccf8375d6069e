//! Limits on a statement's text, checked before it is parsed.
//!
//! Parsers, planners and the trees they build recurse, so depth has to be bounded before the first of them
//! runs. Two numbers are bounded per statement: the nesting of brackets, CASE and runs of prefix operators
//! ([`NESTING_MAX`]), and an upper bound of the depth of the tree that the parser will build ([`DEPTH_MAX`]).
//! The second sums nesting with the operators of a flat chain, since `1+1+1+…` is parsed into a tree as deep as
//! the chain is long, and with set operations and joins, which nest to the left in the same way.
//!
//! Items that stand side by side (rows of VALUES, elements of IN, arguments, branches of CASE) do not add up:
//! a comma starts a new chain.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::position::position;
use crate::error::{PlanError, PlanErrorKind};

/// The longest text, in bytes.
pub const TEXT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most tokens of a text, white space and comments left out.
pub const TOKENS_MAX: usize = 200_000;
/// The deepest nesting of brackets, CASE and prefix operators.
pub const NESTING_MAX: usize = 500;
/// The deepest tree, in terms of a flat chain, summed along nesting. Copying a tree takes up to 5 kB of stack for each
/// in unoptimised code (1.3 kB in optimised): together less than 6 MB.
pub const DEPTH_MAX: usize = 1_000;

/// The stack that a subquery takes, in terms of a chain.
const SUBQUERY_TERMS: usize = 20;
/// The stack that brackets in a FROM clause take, in terms of a chain.
const FROM_BRACKET_TERMS: usize = 6;
/// The stack that a set operation takes, in terms of a chain.
const SET_OPERATION_TERMS: usize = 4;
/// The stack that CASE takes, in terms of a chain.
const CASE_TERMS: usize = 3;
/// The stack that parsing INTERVAL takes, in terms of a chain.
const INTERVAL_TERMS: usize = 5;
/// The most words in a statement that begin another statement within it. Parsing one takes 12 kB of stack.
const INNER_STATEMENTS_MAX: usize = 32;

/// The most pieces that [`pieces`] may count; above it the text is not even cut into tokens, which take a
/// hundred bytes each. A piece is at least a third of a token.
const PIECES_MAX: usize = 4 * TOKENS_MAX;

/// Checks the bare text.
///
/// # Errors
/// `TooLong`.
pub(super) fn check_text(sql: &str) -> Result<(), PlanError> {
    if sql.len() > TEXT_BYTES_MAX {
        let message = format!(
            "the statement has {} bytes, the limit is {TEXT_BYTES_MAX}",
            sql.len()
        );
        return Err(too_long(message));
    }
    if pieces(sql) > PIECES_MAX {
        return Err(too_many_tokens());
    }
    Ok(())
}

/// Checks all tokens of a text.
///
/// # Errors
/// `TooLong`, `TooDeep`.
pub(super) fn check_tokens(sql: &str, tokens: &[TokenWithSpan]) -> Result<(), PlanError> {
    let significant = tokens
        .iter()
        .filter(|token| !matches!(token.token, Token::Whitespace(_)));
    let mut depth = Depth::default();
    for (count, token) in significant.enumerate() {
        if count >= TOKENS_MAX {
            return Err(too_many_tokens());
        }
        depth
            .token(&token.token)
            .map_err(|error| error.at(position(sql, token.span.start)))?;
    }
    Ok(())
}

fn too_long(message: String) -> PlanError {
    PlanError::new(PlanErrorKind::TooLong, message)
        .with_hint("Use COPY for many rows, or several statements in a transaction.")
}

fn too_many_tokens() -> PlanError {
    too_long(format!("the statement has more than {TOKENS_MAX} tokens"))
}

fn too_deep(message: String) -> PlanError {
    PlanError::new(PlanErrorKind::TooDeep, message)
        .with_hint("Write long OR chains as IN (…), or put the values into a table and join it.")
}

/// A cheap estimate of the number of tokens: words, quoted strings and single other characters, without runs of
/// white space and comments' insides.
fn pieces(sql: &str) -> usize {
    let bytes = sql.as_bytes();
    let (mut at, mut count) = (0, 0);
    while at < bytes.len() {
        count += 1;
        let first = bytes[at];
        at += 1;
        let in_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
        match first {
            quote @ (b'\'' | b'"') => {
                while at < bytes.len() && bytes[at] != quote {
                    at += 1;
                }
                at += 1;
            }
            b'$' => {
                let tag = bytes[at..].iter().position(|&byte| !in_word(byte)).unwrap_or(0);
                if bytes.get(at + tag) == Some(&b'$') {
                    let delimiter = &sql[at - 1..=at + tag];
                    at += tag + 1;
                    at = sql[at..]
                        .find(delimiter)
                        .map_or(bytes.len(), |end| at + end + delimiter.len());
                }
            }
            b'-' if bytes.get(at) == Some(&b'-') => {
                at = sql[at..].find('\n').map_or(bytes.len(), |end| at + end);
            }
            space if space.is_ascii_whitespace() => {
                while at < bytes.len() && bytes[at].is_ascii_whitespace() {
                    at += 1;
                }
            }
            byte if in_word(byte) => {
                while at < bytes.len() && in_word(bytes[at]) {
                    at += 1;
                }
            }
            _ => {}
        }
    }
    count
}

/// What an opened bracket (or the statement itself) holds so far.
#[derive(Default)]
struct Frame {
    /// Opened by CASE, so closed by END.
    case: bool,
    /// Between FROM and the next clause, where a comma is a join.
    in_from: bool,
    /// Operators of the expression being read.
    terms: usize,
    /// Joins of the FROM clause being read.
    joins: usize,
    /// Set operations.
    set_operations: usize,
    /// Holds a query, or nothing but brackets that do.
    query: bool,
    /// Stands for a table in FROM.
    table: bool,
    /// Something was read in it.
    begun: bool,
    /// The deepest bracket within the expression being read.
    inner: usize,
    /// The deepest expression finished in this frame.
    deepest: usize,
}

impl Frame {
    fn weight(&self) -> usize {
        let own = match self {
            Frame { case: true, .. } => CASE_TERMS,
            Frame { query: true, .. } => SUBQUERY_TERMS,
            Frame { table: true, .. } => FROM_BRACKET_TERMS,
            _ => 1,
        };
        let deepest = self.deepest.max(self.terms + self.joins + self.inner);
        deepest + self.set_operations * SET_OPERATION_TERMS + own
    }

    /// A new expression begins beside the one just read.
    fn next_expression(&mut self) {
        self.deepest = self.deepest.max(self.terms + self.joins + self.inner);
        self.terms = 0;
        self.inner = 0;
    }
}

/// Bounds the depth of what the parser will build, token by token.
#[derive(Default)]
struct Depth {
    outer: Vec<Frame>,
    frame: Frame,
    /// Prefix operators in a row.
    prefixes: usize,
    /// Statements that hold statements.
    statements: usize,
}

impl Depth {
    fn token(&mut self, token: &Token) -> Result<(), PlanError> {
        let mut prefix = 0;
        match token {
            Token::SemiColon => *self = Depth::default(),
            Token::LParen | Token::LBracket | Token::LBrace => self.open(false),
            Token::RParen | Token::RBracket | Token::RBrace => self.close(),
            Token::Comma => {
                if self.frame.in_from {
                    self.frame.joins += 1;
                }
                self.frame.next_expression();
            }
            Token::Word(word) if word.quote_style.is_none() => prefix = self.keyword(word.keyword),
            Token::Word(_) | Token::Period | Token::EOF | Token::Placeholder(_) | Token::Number(..) => {}
            token if is_string(token) => {}
            _ => {
                self.frame.terms += 1;
                prefix = 1;
            }
        }
        self.frame.begun |= !opens(token);
        self.prefixes = if prefix > 0 { self.prefixes + prefix } else { 0 };
        let nesting = self.outer.len() + self.prefixes;
        if nesting > NESTING_MAX || self.statements > INNER_STATEMENTS_MAX {
            return Err(too_deep(format!(
                "the statement is nested more than {NESTING_MAX} levels deep"
            )));
        }
        if self.frame.weight() > DEPTH_MAX {
            let message =
                format!("an expression has more than {DEPTH_MAX} terms, or queries are nested too deeply");
            return Err(too_deep(message));
        }
        Ok(())
    }

    /// Returns how much deeper the keyword nests what follows it, if it can be a prefix operator.
    fn keyword(&mut self, keyword: Keyword) -> usize {
        match keyword {
            Keyword::CASE => self.open(true),
            Keyword::END if self.frame.case => self.close(),
            Keyword::WHEN | Keyword::THEN | Keyword::ELSE | Keyword::ON | Keyword::USING => {
                self.frame.next_expression();
            }
            Keyword::FROM => {
                self.frame.next_expression();
                self.frame.in_from = true;
            }
            Keyword::SELECT | Keyword::VALUES => {
                self.frame.query = true;
                self.frame.next_expression();
                self.frame.joins = 0;
                self.frame.in_from = false;
            }
            Keyword::WHERE
            | Keyword::GROUP
            | Keyword::HAVING
            | Keyword::ORDER
            | Keyword::LIMIT
            | Keyword::SET
            | Keyword::RETURNING => {
                self.frame.next_expression();
                self.frame.in_from = false;
            }
            Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT => self.frame.set_operations += 1,
            Keyword::JOIN | Keyword::APPLY => {
                self.frame.next_expression();
                self.frame.joins += 1;
            }
            Keyword::EXPLAIN | Keyword::DESCRIBE | Keyword::PREPARE => self.statements += 1,
            Keyword::NOT | Keyword::PRIOR | Keyword::ANY | Keyword::ALL => {
                self.frame.terms += 1;
                return 1;
            }
            Keyword::INTERVAL => {
                self.frame.terms += INTERVAL_TERMS;
                return INTERVAL_TERMS;
            }
            Keyword::AND
            | Keyword::OR
            | Keyword::XOR
            | Keyword::IS
            | Keyword::NOTNULL
            | Keyword::LIKE
            | Keyword::ILIKE
            | Keyword::SIMILAR
            | Keyword::REGEXP
            | Keyword::RLIKE
            | Keyword::BETWEEN
            | Keyword::IN
            | Keyword::COLLATE
            | Keyword::AT
            | Keyword::DIV
            | Keyword::OVERLAPS
            | Keyword::OPERATOR
            | Keyword::MEMBER => self.frame.terms += 1,
            _ => {}
        }
        0
    }

    fn open(&mut self, case: bool) {
        let table = self.frame.in_from || (self.frame.table && !self.frame.begun);
        let frame = Frame {
            case,
            table,
            ..Frame::default()
        };
        self.outer.push(std::mem::replace(&mut self.frame, frame));
    }

    /// Closes the innermost frame; one bracket too many is the parser's to refuse.
    fn close(&mut self) {
        if let Some(outer) = self.outer.pop() {
            let closed = std::mem::replace(&mut self.frame, outer);
            self.frame.inner = self.frame.inner.max(closed.weight());
            self.frame.query |= closed.query && !self.frame.begun;
        }
    }
}

/// A bracket opened is no content of the frame that it opens.
fn opens(token: &Token) -> bool {
    match token {
        Token::LParen | Token::LBracket | Token::LBrace => true,
        Token::Word(word) => word.quote_style.is_none() && word.keyword == Keyword::CASE,
        _ => false,
    }
}

fn is_string(token: &Token) -> bool {
    matches!(
        token,
        Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::SingleQuotedByteStringLiteral(_)
    )
}
