//! Texts with the values of parameters in them, for whoever has to be sent a whole statement.
//!
//! sqlparser prints a syntax tree without knowing how its strings were written, and guesses: a text with two quotes in a row,
//! or one after a backslash, comes out as another. So nothing is printed that a client wrote. Its text stays as it is, and
//! only constants of our own take the place of `$1`, `$2`, ….

use std::borrow::Cow;

use sqlparser::ast::{Expr, Value};
use sqlparser::tokenizer::Token;

use super::position::Offsets;
use super::{Parsed, tokenize};
use crate::error::{PlanError, PlanErrorKind};

impl Parsed {
    /// The text with [`Parsed::parameters`] in it: parsed, it is this statement again.
    ///
    /// # Errors
    /// `Internal` for a parameter without a value, or with one that is no constant or a cast of one.
    pub fn bound_text(&self) -> Result<Cow<'_, str>, PlanError> {
        if self.parameters.is_empty() {
            return Ok(Cow::Borrowed(&self.text));
        }
        let mut offsets = Offsets::new(&self.text);
        let mut bound = String::with_capacity(self.text.len());
        let mut copied = 0;
        for token in tokenize(&self.text)? {
            let Token::Placeholder(name) = &token.token else {
                continue;
            };
            let number: Option<usize> = name.strip_prefix('$').and_then(|digits| digits.parse().ok());
            let value = number.and_then(|number| self.parameters.get(number.checked_sub(1)?));
            let value = value.ok_or_else(|| internal(format!("{name} has no value")))?;
            bound.push_str(&self.text[copied..offsets.of(token.span.start)]);
            // A quote means something else right after some words.
            bound.push(' ');
            push_constant(value, &mut bound)?;
            bound.push(' ');
            copied = offsets.of(token.span.end);
        }
        bound.push_str(&self.text[copied..]);
        Ok(Cow::Owned(bound))
    }
}

fn push_constant(value: &Expr, text: &mut String) -> Result<(), PlanError> {
    match value {
        Expr::Cast { expr, data_type, .. } => {
            text.push_str("CAST(");
            push_constant(expr, text)?;
            text.push_str(&format!(" AS {data_type})"));
        }
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(string) => push_quoted(string, text),
            // A minus would be an operator of its own.
            Value::Number(number, _) if number.starts_with('-') => push_quoted(number, text),
            number @ Value::Number(..) => text.push_str(&number.to_string()),
            Value::Boolean(true) => text.push_str("true"),
            Value::Boolean(false) => text.push_str("false"),
            Value::Null => text.push_str("NULL"),
            other => return Err(internal(format!("a parameter is {other}"))),
        },
        other => return Err(internal(format!("a parameter is {other}"))),
    }
    Ok(())
}

fn push_quoted(string: &str, text: &mut String) {
    text.push('\'');
    text.push_str(&string.replace('\'', "''"));
    text.push('\'');
}

fn internal(message: String) -> PlanError {
    PlanError::new(PlanErrorKind::Internal, message)
}
