//! SHOW of settings.

use datafusion::sql::sqlparser::ast::Ident;

use super::super::{Outcome, Session};
use super::texts;
use crate::pgwire::error::SqlResult;

pub(crate) fn run(session: &mut Session, variable: &[Ident]) -> SqlResult<Outcome> {
    let words: Vec<String> = variable.iter().map(|ident| ident.value.clone()).collect();
    let settings = session.settings();
    let name = match words.join(" ").to_ascii_lowercase().as_str() {
        "all" => {
            let rows = settings
                .all()
                .map(|setting| {
                    vec![
                        setting.name.to_string(),
                        setting.value,
                        setting.description.to_string(),
                    ]
                })
                .collect();
            return texts(&["name", "setting", "description"], rows, "SHOW");
        }
        "time zone" => "TimeZone".to_string(),
        "transaction isolation level" => "transaction_isolation".to_string(),
        "session authorization" => "session_authorization".to_string(),
        _ => words.join("."),
    };
    let value = match (&session.transaction, name.as_str()) {
        (Some(transaction), "transaction_read_only") if transaction.is_read_only => "on".to_string(),
        _ => settings.get(&name)?,
    };
    texts(&[&name], vec![vec![value]], "SHOW")
}
