//! A view's rows, from its changes: what is compared with the expected rows.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

use chrono::DateTime;

/// Rows as text, and how often each is there.
#[derive(Default)]
pub struct View(BTreeMap<Vec<String>, i64>);

impl View {
    /// Adds a change.
    pub fn add(&mut self, row: Vec<String>, weight: i64) {
        let count = self.0.entry(row).or_insert(0);
        *count += weight;
    }

    /// Writes the rows as csv with every value quoted.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = String::new();
        for (row, count) in &self.0 {
            assert!(*count >= 0, "a row is there {count} times: {row:?}");
            let values: Vec<String> = row
                .iter()
                .map(|value| format!("\"{}\"", value.replace('"', "\"\"")))
                .collect();
            for _ in 0..*count {
                writeln!(text, "{}", values.join(",")).expect("text grows");
            }
        }
        fs::write(path, text)
    }
}

/// A time as SQL writes it.
pub fn timestamp(ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(ms).expect("events are of this century");
    time.format("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

/// The day of a number of days since 1970.
pub fn day(days: i64) -> String {
    let time = DateTime::from_timestamp(days * 86_400, 0).expect("events are of this century");
    time.format("%Y-%m-%d").to_string()
}
