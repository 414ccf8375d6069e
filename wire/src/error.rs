//! The error a client sees: an SQLSTATE, a message, and where there is something to do, a hint.
//!
//! Every layer of the server below the protocol returns [`SqlError`]; `sqlstate.rs` is the only place that
//! chooses codes for errors of other crates. Notices have the same shape and another message type.

use std::fmt;

/// A five-character code of the SQL standard or of PostgreSQL.
pub type SqlState = &'static str;

/// An error (or notice) as the protocol carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// The code.
    pub state: SqlState,
    /// One line in lower case, without a full stop.
    pub message: String,
    /// More about the particular case.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// 1-based character position in the statement.
    pub position: Option<usize>,
    /// Where it happened, for example `COPY t, line 3, column a`.
    pub context: Option<String>,
    /// The connection ends after this error.
    pub fatal: bool,
}

/// The result of anything a statement does.
pub type SqlResult<T> = Result<T, SqlError>;

impl SqlError {
    /// An error with a code and a message.
    pub fn new(state: SqlState, message: impl Into<String>) -> Self {
        Self {
            state,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            context: None,
            fatal: false,
        }
    }

    /// `0A000`: understood, but not supported.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(super::sqlstate::FEATURE_NOT_SUPPORTED, message)
    }

    /// `08P01`: the client broke the protocol.
    pub fn protocol(message: impl Into<String>) -> Self {
        Self::new(super::sqlstate::PROTOCOL_VIOLATION, message)
    }

    /// `XX000`: a defect of the server.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(super::sqlstate::INTERNAL_ERROR, message)
    }

    /// Adds a hint.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a detail.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds where it happened.
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into());
        self
    }

    /// Adds a position (1-based, in characters).
    pub fn at(mut self, position: Option<usize>) -> Self {
        self.position = position;
        self
    }

    /// Makes the error end the connection.
    pub fn fatal(mut self) -> Self {
        self.fatal = true;
        self
    }

    /// The fields of an ErrorResponse or NoticeResponse of the given severity.
    pub fn fields(&self, severity: &str) -> Vec<(u8, String)> {
        // A NUL would end the field early and shift everything after it.
        let clean = |text: &str| text.replace('\0', "");
        let mut fields = vec![
            (b'S', severity.to_string()),
            (b'V', severity.to_string()),
            (b'C', self.state.to_string()),
            (b'M', clean(&self.message)),
        ];
        let optional = [(b'D', &self.detail), (b'H', &self.hint), (b'W', &self.context)];
        for (code, value) in optional {
            if let Some(value) = value {
                fields.push((code, clean(value)));
            }
        }
        if let Some(position) = self.position {
            fields.push((b'P', position.to_string()));
        }
        fields
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.state)
    }
}

impl std::error::Error for SqlError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_carry_everything_and_no_nul() {
        let error = SqlError::new("22012", "division\0 by zero")
            .hint("divide by more")
            .at(Some(7));
        let fields = error.fields("ERROR");
        assert!(fields.contains(&(b'M', "division by zero".to_string())));
        assert!(fields.contains(&(b'C', "22012".to_string())));
        assert!(fields.contains(&(b'P', "7".to_string())));
        assert!(fields.contains(&(b'H', "divide by more".to_string())));
    }
}
