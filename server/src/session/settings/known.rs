//! The settings there are: their names, defaults, and what values they take.
//!
//! One that changes nothing here takes only the values for which that is true.

use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;
use crate::pgwire::types::datetime::Zone;

/// What values a setting takes.
pub(super) enum Check {
    /// Any text.
    Any,
    /// One of these, compared without case; the first is the default's spelling.
    OneOf(&'static [&'static str]),
    /// A boolean, stored as `on` or `off`.
    Bool,
    /// An integer within bounds.
    Integer(i64, i64),
    /// A duration: a number of milliseconds, or with a unit.
    DurationMs,
    /// A time zone.
    Zone,
    /// Never set.
    ReadOnly,
}

/// A setting.
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) default: &'static str,
    pub(super) check: Check,
    /// Told to clients whenever it changes.
    pub(super) reported: bool,
    pub(super) description: &'static str,
}

const fn known(
    name: &'static str,
    default: &'static str,
    check: Check,
    reported: bool,
    description: &'static str,
) -> Known {
    Known {
        name,
        default,
        check,
        reported,
        description,
    }
}

/// The version reported to clients: the release whose catalogs and messages are followed.
pub const SERVER_VERSION: &str = "15.8";

/// All settings, by name.
pub(super) const KNOWN: &[Known] = &[
    known(
        "application_name",
        "",
        Check::Any,
        true,
        "Name of the client, for logs",
    ),
    known(
        "bytea_output",
        "hex",
        Check::OneOf(&["hex", "escape"]),
        false,
        "Form of bytea as text",
    ),
    known(
        "client_encoding",
        "UTF8",
        Check::OneOf(&["UTF8", "UTF-8", "unicode"]),
        true,
        "Encoding of the client",
    ),
    known(
        "client_min_messages",
        "notice",
        Check::OneOf(&[
            "debug5", "debug4", "debug3", "debug2", "debug1", "debug", "log", "info", "notice", "warning",
            "error",
        ]),
        false,
        "Least severity of notices",
    ),
    known(
        "DateStyle",
        "ISO, MDY",
        Check::OneOf(&["ISO, MDY", "ISO", "ISO,MDY", "MDY"]),
        true,
        "Form of dates as text",
    ),
    known(
        "default_table_access_method",
        "heap",
        Check::ReadOnly,
        false,
        "There is one",
    ),
    known(
        "default_transaction_isolation",
        "repeatable read",
        Check::OneOf(&[
            "repeatable read",
            "read committed",
            "read uncommitted",
            "serializable",
        ]),
        false,
        "Isolation of new transactions; all but serializable are snapshot isolation",
    ),
    known(
        "default_transaction_read_only",
        "off",
        Check::Bool,
        true,
        "Whether new transactions may only read",
    ),
    known(
        "extra_float_digits",
        "1",
        Check::Integer(-15, 3),
        false,
        "Floats are always written in full",
    ),
    known("geqo", "on", Check::Bool, false, "Without effect"),
    known(
        "idle_in_transaction_session_timeout",
        "0",
        Check::DurationMs,
        false,
        "Ends a connection that leaves a transaction open",
    ),
    known("in_hot_standby", "off", Check::ReadOnly, true, "Never"),
    known("integer_datetimes", "on", Check::ReadOnly, true, "Always"),
    known(
        "IntervalStyle",
        "postgres",
        Check::OneOf(&["postgres"]),
        true,
        "Form of intervals as text",
    ),
    known(
        "is_superuser",
        "on",
        Check::ReadOnly,
        true,
        "There are no roles yet",
    ),
    known("jit", "off", Check::Bool, false, "Without effect"),
    known(
        "lc_messages",
        "C",
        Check::OneOf(&["C", "en_US.UTF-8", "C.UTF-8", "POSIX"]),
        false,
        "Language of messages",
    ),
    known(
        "lock_timeout",
        "0",
        Check::DurationMs,
        false,
        "Without effect: nothing waits for locks",
    ),
    known(
        "max_identifier_length",
        "63",
        Check::ReadOnly,
        false,
        "Longest name",
    ),
    known("max_index_keys", "32", Check::ReadOnly, false, "Columns of a key"),
    known(
        "regional_reads",
        "global",
        Check::OneOf(&["global", "local"]),
        false,
        "global: a REGIONAL table shows the rows of all regions; local: those of this region",
    ),
    known("row_security", "on", Check::Bool, false, "Without effect"),
    known(
        "search_path",
        "\"$user\", public",
        Check::Any,
        false,
        "Schemas of unqualified names; there is one, public",
    ),
    known(
        "server_encoding",
        "UTF8",
        Check::ReadOnly,
        true,
        "Encoding of the server",
    ),
    known(
        "server_version",
        SERVER_VERSION,
        Check::ReadOnly,
        true,
        "The release followed",
    ),
    known(
        "server_version_num",
        "150008",
        Check::ReadOnly,
        false,
        "The same as a number",
    ),
    known("session_authorization", "", Check::ReadOnly, true, "The user"),
    known(
        "standard_conforming_strings",
        "on",
        Check::OneOf(&["on", "true", "1", "yes"]),
        true,
        "Backslashes in strings are ordinary",
    ),
    known(
        "statement_timeout",
        "0",
        Check::DurationMs,
        false,
        "Longest time of a statement; 0 for any",
    ),
    known(
        "synchronous_commit",
        "on",
        Check::OneOf(&["on", "local", "true"]),
        false,
        "A commit is durable in its region when it returns",
    ),
    known(
        "TimeZone",
        "UTC",
        Check::Zone,
        true,
        "Zone of timestamps with time zone",
    ),
    known(
        "transaction_isolation",
        "repeatable read",
        Check::ReadOnly,
        false,
        "Isolation of this transaction",
    ),
    known(
        "transaction_read_only",
        "off",
        Check::ReadOnly,
        false,
        "Whether this transaction may only read",
    ),
];

/// The setting of a name, written in any way.
pub(super) fn find(name: &str) -> Option<&'static Known> {
    let name = match name.to_ascii_lowercase().as_str() {
        "time zone" => "timezone".to_string(),
        other => other.to_string(),
    };
    KNOWN.iter().find(|known| known.name.eq_ignore_ascii_case(&name))
}

/// The error of who sets what is never set.
pub(super) fn read_only(known: &Known) -> SqlError {
    SqlError::new(
        sqlstate::CANT_CHANGE_NOW,
        format!("parameter \"{}\" cannot be changed", known.name),
    )
}

/// A value as it is kept.
///
/// # Errors
/// 22023 for one that the setting does not take, 55P02 for a setting that is never set.
pub(super) fn check(known: &Known, value: &str) -> SqlResult<String> {
    let wrong = |hint: Option<String>| {
        let message = format!("invalid value for parameter \"{}\": \"{value}\"", known.name);
        SqlError {
            hint,
            ..SqlError::new(sqlstate::INVALID_PARAMETER_VALUE, message)
        }
    };
    match &known.check {
        Check::Any => Ok(value.to_string()),
        Check::ReadOnly => Err(read_only(known)),
        Check::OneOf(values) => {
            let squeezed = |text: &str| text.to_ascii_lowercase().replace([' ', '\''], "");
            let found = values.iter().find(|allowed| squeezed(allowed) == squeezed(value));
            let found =
                found.ok_or_else(|| wrong(Some(format!("available values: {}", values.join(", ")))))?;
            // Spellings of the one value that has an effect are stored as that value.
            let is_alias = matches!(
                known.name,
                "client_encoding" | "DateStyle" | "standard_conforming_strings"
            );
            Ok(if is_alias {
                known.default.to_string()
            } else {
                found.to_string()
            })
        }
        Check::Bool => match value.to_ascii_lowercase().as_str() {
            "on" | "true" | "1" | "yes" | "t" => Ok("on".into()),
            "off" | "false" | "0" | "no" | "f" => Ok("off".into()),
            _ => Err(wrong(Some("on or off".into()))),
        },
        Check::Integer(least, most) => match value.trim().parse::<i64>() {
            Ok(number) if (*least..=*most).contains(&number) => Ok(number.to_string()),
            _ => Err(wrong(Some(format!("an integer from {least} to {most}")))),
        },
        Check::DurationMs => parse_duration_ms(value)
            .map(|ms| ms.to_string())
            .ok_or_else(|| wrong(Some("valid units are ms, s, min, h and d".into()))),
        Check::Zone => {
            let text = value.trim_matches('\'');
            Zone::parse(text)
                .map(|_| text.to_string())
                .ok_or_else(|| wrong(Some("an IANA name or an offset".into())))
        }
    }
}

fn parse_duration_ms(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit).filter(|ms| *ms <= i32::MAX as u64)
}
