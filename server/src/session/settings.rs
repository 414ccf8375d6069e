//! Session settings: those that drivers set or read, each with a check.
//!
//! A setting that changes nothing here is accepted only with the values for which that is true
//! (`standard_conforming_strings = off` is refused, not ignored). Unknown names give 42704. Names with a dot are the
//! client's own and keep any text, as in PostgreSQL.

mod known;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::pgwire::error::{SqlError, SqlResult};
use crate::pgwire::sqlstate;
use crate::pgwire::types::datetime::Zone;
use crate::pgwire::types::output::OutputStyle;
pub use known::SERVER_VERSION;
use known::{Check, KNOWN, Known, check, find, read_only};

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

    /// What was set, and can be set in another session.
    pub fn chosen(&self) -> Vec<(String, String)> {
        let names = self.startup.keys().chain(self.values.keys());
        let names: BTreeSet<&String> = names
            .filter(|name| find(name).is_none_or(|known| !matches!(known.check, Check::ReadOnly)))
            .collect();
        let value = |name: &String| Some((name.clone(), self.set_text(name)?.to_owned()));
        names.into_iter().filter_map(value).collect()
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
    fn what_is_chosen_can_be_set_elsewhere() {
        let mut settings = Settings::default();
        settings.fix("server_version", "15.8");
        settings.start_with("TimeZone", "Europe/Berlin").expect("a zone");
        settings.set("timezone", "Asia/Tokyo").expect("a zone");
        settings.set("app.user", "o'7").expect("own");
        let chosen = settings.chosen();
        let names: Vec<&str> = chosen.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["TimeZone", "app.user"]);
        let mut other = Settings::default();
        for (name, value) in &chosen {
            other.set(name, value).expect("as it was");
        }
        assert_eq!(other.get("TimeZone").expect("known"), "Asia/Tokyo");
        assert_eq!(other.get("app.user").expect("own"), "o'7");
        assert_eq!(other.zone(), settings.zone());
    }

    #[test]
    fn settings_of_the_client_keep_any_text() {
        let mut settings = Settings::default();
        settings.set("app.user", "7").expect("own");
        assert_eq!(settings.get("app.user").expect("own"), "7");
        assert_eq!(settings.get("app.other").expect_err("never set").state, "42704");
    }
}
