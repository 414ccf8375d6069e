//! CREATE SOURCE [IF NOT EXISTS] name [(columns)] WITH (option = value, …).

use std::collections::BTreeMap;

use sqlparser::tokenizer::Token;

use super::statement::Statement;
use super::tokens::Tokens;
use crate::error::{PlanError, PlanErrorKind};

/// CREATE SOURCE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSource {
    /// Its name, folded.
    pub name: String,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// The text between the parentheses of a column list, if there is one.
    pub columns: Option<String>,
    /// Options by lower-case name; values as text.
    pub options: BTreeMap<String, String>,
}

impl CreateSource {
    /// The statement as text that parses to it again.
    pub fn to_sql(&self) -> String {
        let if_not_exists = if self.if_not_exists { "IF NOT EXISTS " } else { "" };
        let columns = self
            .columns
            .as_ref()
            .map_or_else(String::new, |columns| format!(" ({columns})"));
        let options: Vec<String> = self
            .options
            .iter()
            .map(|(name, value)| {
                // A dot stands between the parts of a name.
                let name: Vec<String> = name.split('.').map(quote).collect();
                format!("{} = '{}'", name.join("."), value.replace('\'', "''"))
            })
            .collect();
        format!(
            "CREATE SOURCE {if_not_exists}{}{columns} WITH ({})",
            quote(&self.name),
            options.join(", ")
        )
    }
}

/// A name between quotes.
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) fn parse(mut tokens: Tokens<'_>) -> Result<Statement, PlanError> {
    tokens.expect(&["CREATE", "SOURCE"])?;
    let if_not_exists = tokens.take(&["IF", "NOT", "EXISTS"]);
    let name = tokens.object_name()?;
    let columns = column_list(&mut tokens)?;
    let options = options(&mut tokens)?;
    tokens.end()?;
    Ok(Statement::CreateSource(CreateSource {
        name,
        if_not_exists,
        columns,
        options,
    }))
}

/// `WITH (option = value, …)`: values by lower-case names.
pub(super) fn options(tokens: &mut Tokens<'_>) -> Result<BTreeMap<String, String>, PlanError> {
    tokens.expect(&["WITH"])?;
    option_list(tokens)
}

/// `(option = value, …)`: values by lower-case names.
pub(super) fn option_list(tokens: &mut Tokens<'_>) -> Result<BTreeMap<String, String>, PlanError> {
    tokens.expect_token(&Token::LParen)?;
    let mut options = BTreeMap::new();
    loop {
        let position = tokens.position();
        let option = option_name(tokens)?;
        tokens.expect_token(&Token::Eq)?;
        if options.insert(option.clone(), option_value(tokens)?).is_some() {
            let message = format!("option \"{option}\" is given twice");
            return Err(PlanError::new(PlanErrorKind::Syntax, message).at(position));
        }
        if !tokens.take_token(&Token::Comma) {
            break;
        }
    }
    tokens.expect_token(&Token::RParen)?;
    Ok(options)
}

fn column_list(tokens: &mut Tokens<'_>) -> Result<Option<String>, PlanError> {
    if !tokens.take_token(&Token::LParen) {
        return Ok(None);
    }
    let mut columns = String::new();
    let mut depth = 1;
    loop {
        let token = match tokens.peek() {
            Token::EOF => return Err(tokens.unexpected("\")\"")),
            _ => tokens.next(),
        };
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Ok(Some(columns));
        }
        if !columns.is_empty() {
            columns.push(' ');
        }
        columns.push_str(&token.to_string());
    }
}

/// `name` or `name.part`.
fn option_name(tokens: &mut Tokens<'_>) -> Result<String, PlanError> {
    let mut name = super::fold(&tokens.identifier()?);
    while tokens.take_token(&Token::Period) {
        name.push('.');
        name.push_str(&super::fold(&tokens.identifier()?));
    }
    Ok(name)
}

/// A string, a number or a word.
fn option_value(tokens: &mut Tokens<'_>) -> Result<String, PlanError> {
    let negative = tokens.take_token(&Token::Minus);
    match tokens.peek() {
        Token::Number(..) => match tokens.next() {
            Token::Number(number, _) if negative => Ok(format!("-{number}")),
            Token::Number(number, _) => Ok(number),
            _ => Err(PlanError::internal("a token changed between peek and next")),
        },
        _ if negative => Err(tokens.unexpected("a number")),
        Token::Word(_) => Ok(super::fold(&tokens.identifier()?)),
        _ => tokens.string("a value"),
    }
}
