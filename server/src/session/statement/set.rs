//! SET and RESET.

use datafusion::sql::sqlparser::ast::{
    ContextModifier, Expr, ObjectName, Reset, ResetStatement, Set, TransactionAccessMode,
    TransactionIsolationLevel, TransactionMode, UnaryOperator, Value,
};

use super::super::{Outcome, Session};
use crate::pgwire::error::{SqlError, SqlResult};

pub(crate) async fn run(session: &mut Session, set: &Set) -> SqlResult<Outcome> {
    match set {
        Set::SingleAssignment {
            scope,
            variable,
            values,
            ..
        } => {
            refuse_local(scope.as_ref())?;
            assign(session, &name(variable), values)?;
        }
        Set::SetTimeZone { local, value } => {
            refuse_local(local.then_some(&ContextModifier::Local))?;
            assign(session, "TimeZone", std::slice::from_ref(value))?;
        }
        Set::SetNames { charset_name, .. } => apply(session, "client_encoding", &charset_name.value)?,
        Set::SetNamesDefault {} => drop(session.reset_setting("client_encoding")?),
        Set::SetTransaction {
            modes,
            snapshot: None,
            session: for_session,
        } => {
            transaction_modes(session, modes, *for_session)?;
        }
        Set::SetTransaction { .. } => {
            return Err(SqlError::unsupported("SET TRANSACTION SNAPSHOT is not supported"));
        }
        Set::SetRole { .. } | Set::SetSessionAuthorization(_) => {
            return Err(SqlError::unsupported("there are no roles yet"));
        }
        _ => return Err(SqlError::unsupported("this form of SET is not supported").hint("SET name = value")),
    }
    Ok(Outcome::Done("SET".into()))
}

pub(crate) fn reset(session: &mut Session, statement: &ResetStatement) -> SqlResult<Outcome> {
    match &statement.reset {
        Reset::ALL => session.reset_all_settings(),
        Reset::ConfigurationParameter(variable) => session.reset_setting(&name(variable))?,
    }
    Ok(Outcome::Done("RESET".into()))
}

fn refuse_local(scope: Option<&ContextModifier>) -> SqlResult<()> {
    match scope {
        Some(ContextModifier::Local) => Err(SqlError::unsupported("SET LOCAL is not supported")
            .hint("SET before the transaction and RESET after it")),
        _ => Ok(()),
    }
}

fn name(variable: &ObjectName) -> String {
    let parts: Vec<String> = variable
        .0
        .iter()
        .filter_map(|part| part.as_ident())
        .map(|ident| ident.value.clone())
        .collect();
    parts.join(".")
}

fn assign(session: &mut Session, name: &str, values: &[Expr]) -> SqlResult<()> {
    let texts = values.iter().map(text).collect::<SqlResult<Vec<String>>>()?;
    let value = texts.join(", ");
    if value.eq_ignore_ascii_case("default") || (name == "TimeZone" && value.eq_ignore_ascii_case("local")) {
        return session.reset_setting(name);
    }
    apply(session, name, &value)
}

fn apply(session: &mut Session, name: &str, value: &str) -> SqlResult<()> {
    if name.eq_ignore_ascii_case("transaction_isolation") {
        return match value.to_ascii_lowercase().as_str() {
            "repeatable read" | "read committed" | "read uncommitted" => Ok(()),
            _ => Err(serializable()),
        };
    }
    let mut settings = session
        .settings
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let changed = settings.set(name, value)?;
    drop(settings);
    session.reported.extend(changed);
    Ok(())
}

fn text(value: &Expr) -> SqlResult<String> {
    match value {
        Expr::Identifier(ident) => Ok(ident.value.clone()),
        Expr::CompoundIdentifier(parts) => Ok(parts
            .iter()
            .map(|part| part.value.as_str())
            .collect::<Vec<_>>()
            .join(".")),
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text)
            | Value::DoubleQuotedString(text)
            | Value::EscapedStringLiteral(text) => Ok(text.clone()),
            Value::Number(number, _) => Ok(number.clone()),
            Value::Boolean(flag) => Ok(if *flag { "on" } else { "off" }.into()),
            other => Ok(other.to_string()),
        },
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => Ok(format!("-{}", text(expr)?)),
        other => Err(
            SqlError::unsupported(format!("a setting cannot be set to {other}")).hint("SET name = 'value'"),
        ),
    }
}

fn serializable() -> SqlError {
    SqlError::unsupported("isolation level SERIALIZABLE is not supported")
        .hint("use REPEATABLE READ: transactions have snapshot isolation")
}

/// SET TRANSACTION and SET SESSION CHARACTERISTICS AS TRANSACTION.
fn transaction_modes(session: &mut Session, modes: &[TransactionMode], for_session: bool) -> SqlResult<()> {
    for mode in modes {
        match mode {
            TransactionMode::IsolationLevel(TransactionIsolationLevel::Serializable) => {
                return Err(serializable());
            }
            TransactionMode::IsolationLevel(_) => {}
            TransactionMode::AccessMode(access) => {
                let is_read_only = *access == TransactionAccessMode::ReadOnly;
                if for_session {
                    let value = if is_read_only { "on" } else { "off" };
                    apply(session, "default_transaction_read_only", value)?;
                } else if let Some(transaction) = &mut session.transaction {
                    transaction.is_read_only = is_read_only;
                }
            }
        }
    }
    Ok(())
}

impl Session {
    fn reset_setting(&mut self, name: &str) -> SqlResult<()> {
        let changed = self
            .settings
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .reset(name)?;
        self.reported.extend(changed);
        Ok(())
    }

    pub(super) fn reset_all_settings(&mut self) {
        let changed = self
            .settings
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .reset_all();
        self.reported.extend(changed);
    }
}
