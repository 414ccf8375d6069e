//! Session settings: those that drivers set or read, each with a check.
//!
//! A setting that changes nothing here is accepted only with the values for which that is true
//! (`standard_conforming_strings = off` is refused, not ignored). Unknown names give 42704. Names with a dot are the
//! client's own and keep any text, as in PostgreSQL.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;
use crate::pgwire::types::datetime::Zone;
use crate::pgwire::types::output::OutputStyle;

/// What values a setting takes.
enum Check {
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

struct Known {
    name: &'static str,
    default: &'static str,
    check: Check,
    /// Told to clients whenever it changes.
    reported: bool,
    description: &'static str,
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
const KNOWN: &[Known] = &[
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

/// The settings of one session.
#[derive(Clone, Debug)]
pub struct Settings {
    values: BTreeMap<String, String>,
    /// What RESET goes back to, where it differs from the default: the startup parameters.
    startup: BTreeMap<String, String>,
    zone: Zone,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            values: BTreeMap::new(),
            startup: BTreeMap::new(),
            zone: Zone::UTC,
        }
    }
}

/// A setting, for SHOW ALL and `pg_settings`.
pub struct Shown {
    /// Its name.
    pub name: &'static str,
    /// Its value now.
    pub value: String,
    /// Its default.
    pub default: &'static str,
    /// What it is.
    pub description: &'static str,
}

fn find(name: &str) -> Option<&'static Known> {
    let name = match name.to_ascii_lowercase().as_str() {
        "time zone" => "timezone".to_string(),
        other => other.to_string(),
    };
    KNOWN.iter().find(|known| known.name.eq_ignore_ascii_case(&name))
}

fn unknown(name: &str) -> SqlError {
    SqlError::new(
        sqlstate::UNDEFINED_OBJECT,
        format!("unrecognized configuration parameter \"{name}\""),
    )
    .hint("SHOW ALL lists the settings")
}

impl Settings {
    /// The value of a setting.
    pub fn get(&self, name: &str) -> SqlResult<String> {
        match find(name) {
            Some(known) => Ok(self.value_of(known)),
            None => self.values.get(name).cloned().ok_or_else(|| unknown(name)),
        }
    }

    /// Whether a boolean setting that is off by default is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.set_text(name) == Some("on")
    }

    /// What a setting was set to, by its exact name; `None`: it has its default.
    fn set_text(&self, name: &str) -> Option<&str> {
        let set = self.values.get(name).or_else(|| self.startup.get(name));
        set.map(String::as_str)
    }

    fn value_of(&self, known: &Known) -> String {
        self.set_text(known.name).unwrap_or(known.default).to_string()
    }

    /// Sets a setting; returns its name as reported, when clients follow it.
    pub fn set(&mut self, name: &str, value: &str) -> SqlResult<Option<&'static str>> {
        let Some(known) = find(name) else {
            if !name.contains('.') {
                return Err(unknown(name));
            }
            self.values.insert(name.to_string(), value.to_string());
            return Ok(None);
        };
        let value = check(known, value)?;
        if matches!(known.check, Check::Zone) {
            self.zone = Zone::parse(&value).unwrap_or(Zone::UTC);
        }
        self.values.insert(known.name.to_string(), value);
        Ok(known.reported.then_some(known.name))
    }

    /// Takes a parameter of the startup message: what RESET goes back to. Unknown ones are refused.
    pub fn start_with(&mut self, name: &str, value: &str) -> SqlResult<()> {
        self.set(name, value)?;
        if let Some(known) = find(name)
            && let Some(value) = self.values.remove(known.name)
        {
            self.startup.insert(known.name.to_string(), value);
        }
        Ok(())
    }

    /// Fixes the values that only the server sets.
    pub fn fix(&mut self, name: &'static str, value: &str) {
        self.startup.insert(name.to_string(), value.to_string());
    }

    /// Goes back to the value at the session's start; returns the name when clients follow it.
    pub fn reset(&mut self, name: &str) -> SqlResult<Option<&'static str>> {
        let Some(known) = find(name) else {
            return self
                .values
                .remove(name)
                .map(|_| None)
                .ok_or_else(|| unknown(name));
        };
        if matches!(known.check, Check::ReadOnly) {
            return Err(read_only(known));
        }
        self.values.remove(known.name);
        self.refresh_zone();
        Ok(known.reported.then_some(known.name))
    }

    /// Goes back to all values at the session's start; returns the names that clients follow.
    pub fn reset_all(&mut self) -> Vec<&'static str> {
        let changed = std::mem::take(&mut self.values);
        self.refresh_zone();
        changed
            .keys()
            .filter_map(|name| find(name))
            .filter(|known| known.reported)
            .map(|known| known.name)
            .collect()
    }

    fn refresh_zone(&mut self) {
        let name = self.get("TimeZone").unwrap_or_default();
        self.zone = Zone::parse(&name).unwrap_or(Zone::UTC);
    }

    /// All settings with what clients follow first asked for at startup.
    pub fn reported(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        KNOWN
            .iter()
            .filter(|known| known.reported)
            .map(|known| (known.name, self.value_of(known)))
    }

    /// All settings.
    pub fn all(&self) -> impl Iterator<Item = Shown> + '_ {
        KNOWN.iter().map(|known| Shown {
            name: known.name,
            value: self.value_of(known),
            default: known.default,
            description: known.description,
        })
    }

    /// The session's time zone.
    pub fn zone(&self) -> Zone {
        self.zone
    }

    /// How results are written.
    pub fn output_style(&self) -> OutputStyle {
        let bytea_hex = self.get("bytea_output").is_ok_and(|form| form == "hex");
        OutputStyle {
            zone: self.zone,
            bytea_hex,
        }
    }

    /// The longest time a statement may take.
    pub fn statement_timeout(&self) -> Option<Duration> {
        self.duration("statement_timeout")
    }

    /// The longest time a transaction may be left open without a statement.
    pub fn idle_in_transaction_timeout(&self) -> Option<Duration> {
        self.duration("idle_in_transaction_session_timeout")
    }

    fn duration(&self, name: &str) -> Option<Duration> {
        // By default there is no limit.
        let ms: u64 = self.set_text(name)?.parse().ok()?;
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    /// Whether reading only this region's rows was asked for.
    pub fn reads_local(&self) -> bool {
        self.get("regional_reads").is_ok_and(|value| value == "local")
    }
}

fn read_only(known: &Known) -> SqlError {
    SqlError::new(
        sqlstate::CANT_CHANGE_NOW,
        format!("parameter \"{}\" cannot be changed", known.name),
    )
}

fn check(known: &Known, value: &str) -> SqlResult<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked() {
        let mut settings = Settings::default();
        assert_eq!(settings.set("statement_timeout", "2s").expect("a duration"), None);
        assert_eq!(settings.statement_timeout(), Some(Duration::from_secs(2)));
        assert_eq!(settings.set("nope", "1").expect_err("unknown").state, "42704");
        assert_eq!(
            settings
                .set("standard_conforming_strings", "off")
                .expect_err("no")
                .state,
            "22023"
        );
        assert_eq!(
            settings.set("server_version", "16").expect_err("fixed").state,
            "55P02"
        );
        assert_eq!(
            settings
                .set("client_encoding", "latin1")
                .expect_err("utf8 only")
                .state,
            "22023"
        );
        assert_eq!(
            settings.set("client_encoding", "'utf-8'").expect("an alias"),
            Some("client_encoding")
        );
        assert_eq!(settings.get("client_encoding").expect("known"), "UTF8");
    }

    #[test]
    fn reset_goes_back_to_the_start_of_the_session() {
        let mut settings = Settings::default();
        settings.start_with("TimeZone", "Europe/Berlin").expect("a zone");
        settings.set("timezone", "Asia/Tokyo").expect("a zone");
        assert_eq!(settings.get("TIMEZONE").expect("known"), "Asia/Tokyo");
        assert_eq!(settings.reset("timezone").expect("known"), Some("TimeZone"));
        assert_eq!(settings.zone(), Zone::parse("Europe/Berlin").expect("a zone"));
    }

    #[test]
    fn settings_of_the_client_keep_any_text() {
        let mut settings = Settings::default();
        settings.set("app.user", "7").expect("own");
        assert_eq!(settings.get("app.user").expect("own"), "7");
        assert_eq!(settings.get("app.other").expect_err("never set").state, "42704");
    }
}
