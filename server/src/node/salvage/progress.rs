//! Which portions of a superseded log were taken over: lines in its PENDING file.
//!
//! A line is written after its portion is durable in the new log, so at most one portion is done again.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use tributary_storage::ObjectId;

use super::super::aside::PENDING;

/// How many portions of each table are done.
pub(super) struct Progress {
    done: BTreeMap<ObjectId, usize>,
    file: File,
}

impl Progress {
    /// What the directory's file says; lines of another kind are for people.
    pub(super) fn read(path: &Path) -> io::Result<Progress> {
        let path = path.join(PENDING);
        let text = std::fs::read_to_string(&path)?;
        let done = text.lines().filter_map(portions).collect();
        let mut file = OpenOptions::new().append(true).open(path)?;
        if !text.is_empty() && !text.ends_with('\n') {
            writeln!(file)?;
        }
        Ok(Progress { done, file })
    }

    /// Whether a portion of a table is done.
    pub(super) fn is_done(&self, table: ObjectId, portion: usize) -> bool {
        self.done.get(&table).is_some_and(|done| portion < *done)
    }

    /// Notes that a portion, and all before it, are done.
    pub(super) fn done(&mut self, table: ObjectId, portion: usize) -> io::Result<()> {
        writeln!(self.file, "table {} portions {}", table.0, portion + 1)?;
        self.done.insert(table, portion + 1);
        Ok(())
    }
}

fn portions(line: &str) -> Option<(ObjectId, usize)> {
    let (table, portions) = line.strip_prefix("table ")?.split_once(" portions ")?;
    Some((ObjectId(table.parse().ok()?), portions.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_known_after_an_interruption_and_a_torn_line_is_not_believed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pending = dir.path().join(PENDING);
        std::fs::write(&pending, "its rows are to be taken over yet\n").expect("it is writable");
        let mut progress = Progress::read(dir.path()).expect("it is there");
        assert!(!progress.is_done(ObjectId(7), 0));
        progress.done(ObjectId(7), 0).expect("it is writable");
        progress.done(ObjectId(7), 1).expect("it is writable");
        let mut text = std::fs::read_to_string(&pending).expect("it is there");
        text.push_str("table 9 por");
        std::fs::write(&pending, text).expect("it is writable");
        let mut again = Progress::read(dir.path()).expect("it is there");
        assert!(again.is_done(ObjectId(7), 1) && !again.is_done(ObjectId(7), 2));
        assert!(!again.is_done(ObjectId(9), 0));
        again.done(ObjectId(9), 0).expect("it is writable");
        let last = Progress::read(dir.path()).expect("it is there");
        assert!(last.is_done(ObjectId(9), 0));
    }
}
