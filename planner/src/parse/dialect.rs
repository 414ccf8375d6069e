//! PostgreSQL's dialect with a bound on the parser's work.
//!
//! sqlparser tries alternatives and goes back where one fails. Nested tries multiply: with PostgreSQL's dialect
//! each level of `f(f(f(…)))` is parsed twice, once as the name of a named argument, and an error inside
//! of `cast(cast(cast(…` once more per level; some sixty characters then keep a thread busy for minutes. Here names of
//! arguments are plain identifiers, which removes the first case, and what remains is counted: every
//! operand takes from a budget that is proportional to the text, and the parser ends when it is used up.
//!
//! Everything else is delegated. Methods that [`PostgreSqlDialect`] does not override keep their default,
//! so that an upgrade of sqlparser has to be compared with the list below.

use std::any::TypeId;
use std::cell::Cell;

use sqlparser::ast::Expr;
use sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};

/// Operands parsed per token, at most. A statement without tries needs less than one.
const OPERANDS_PER_TOKEN_MAX: usize = 8;
/// Operands that a statement of any length may take.
const OPERANDS_MIN: usize = 20_000;

/// The dialect for one statement.
#[derive(Debug)]
pub(super) struct BoundedDialect {
    postgres: PostgreSqlDialect,
    /// Operands that may still be parsed.
    budget: Cell<usize>,
}

impl BoundedDialect {
    /// For a statement of so many tokens.
    pub(super) fn new(tokens: usize) -> Self {
        let budget = OPERANDS_MIN.saturating_add(tokens.saturating_mul(OPERANDS_PER_TOKEN_MAX));
        Self {
            postgres: PostgreSqlDialect {},
            budget: Cell::new(budget),
        }
    }
}

macro_rules! delegate {
    ($($method:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $method(&self $(, $argument: $type)*) -> $result {
            self.postgres.$method($($argument),*)
        })*
    };
}

impl Dialect for BoundedDialect {
    fn dialect(&self) -> TypeId {
        self.postgres.dialect()
    }

    fn parse_prefix(&self, _parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        match self.budget.get().checked_sub(1) {
            Some(rest) => {
                self.budget.set(rest);
                None
            }
            None => Some(Err(ParserError::RecursionLimitExceeded)),
        }
    }

    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        false
    }

    delegate! {
        identifier_quote_style(identifier: &str) -> Option<char>;
        is_delimited_identifier_start(character: char) -> bool;
        is_identifier_start(character: char) -> bool;
        is_identifier_part(character: char) -> bool;
        is_custom_operator_part(character: char) -> bool;
        is_reserved_for_identifier(keyword: Keyword) -> bool;
        get_next_precedence(parser: &Parser<'_>) -> Option<Result<u8, ParserError>>;
        prec_value(precedence: Precedence) -> u8;
        supports_unicode_string_literal() -> bool;
        supports_filter_during_aggregation() -> bool;
        supports_group_by_expr() -> bool;
        allow_extract_custom() -> bool;
        allow_extract_single_quotes() -> bool;
        supports_create_index_with_clause() -> bool;
        supports_explain_with_utility_options() -> bool;
        supports_listen_notify() -> bool;
        supports_factorial_operator() -> bool;
        supports_bitwise_shift_operators() -> bool;
        supports_comment_on() -> bool;
        supports_load_extension() -> bool;
        supports_named_fn_args_with_colon_operator() -> bool;
        supports_empty_projections() -> bool;
        supports_nested_comments() -> bool;
        supports_string_escape_constant() -> bool;
        supports_numeric_literal_underscores() -> bool;
        supports_array_typedef_with_brackets() -> bool;
        supports_geometric_types() -> bool;
        supports_set_names() -> bool;
        supports_alter_column_type_using() -> bool;
        supports_notnull_operator() -> bool;
        supports_interval_options() -> bool;
        supports_insert_table_alias() -> bool;
        supports_create_table_like_parenthesized() -> bool;
        supports_select_wildcard_with_alias() -> bool;
        supports_comma_separated_trim() -> bool;
        supports_xml_expressions() -> bool;
        supports_comment_optimizer_hint() -> bool;
    }
}
