//! Putting a log that counts no more aside, with its state, so that a crash at any moment leaves a directory that opens.
//!
//! ```text
//!   PENDING in superseded-N ─▶ MOVING ─▶ renames, in any number of tries ─▶ MOVING goes
//!        (synced)             (synced)
//! ```
//! A start that finds MOVING finishes the move before it reads anything.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::data_dir::{DataDirError, SUPERSEDED};

/// In a directory that was put aside: its rows are to be taken over yet.
pub(super) const PENDING: &str = "PENDING";
/// In the data directory: which incarnation is being put aside.
const MOVING: &str = "MOVING";
/// What moves.
const PARTS: [&str; 4] = ["sinks", "spill", "state", "log"];

/// In place of an incarnation: the log had not joined.
pub(super) const NOT_JOINED: u32 = 0;

/// Moves a log with its state out of the way; [`super::salvage`] takes its rows over later. An earlier one that had not
/// joined either makes room: nothing in it was its own.
pub(super) fn put(path: &Path, incarnation: u32) -> Result<(), DataDirError> {
    let to = path.join(format!("{SUPERSEDED}{incarnation}"));
    if incarnation == NOT_JOINED && to.exists() {
        std::fs::remove_dir_all(&to).map_err(at(&to))?;
    }
    std::fs::create_dir_all(&to).map_err(at(&to))?;
    write_synced(&to.join(PENDING), "its rows are to be taken over yet\n")?;
    sync_dir(&to)?;
    write_synced(&path.join(MOVING), &incarnation.to_string())?;
    sync_dir(path)?;
    finish(path)
}

/// Finishes a move that has begun, if there is one.
pub(super) fn finish(path: &Path) -> Result<(), DataDirError> {
    let moving = path.join(MOVING);
    let incarnation = match std::fs::read_to_string(&moving) {
        Ok(text) => text.trim().parse::<u32>(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at(&moving)(error)),
    };
    // One that cannot be read was not synced, and nothing had moved before it was.
    if let Ok(incarnation) = incarnation {
        let to = path.join(format!("{SUPERSEDED}{incarnation}"));
        for name in PARTS {
            let from = path.join(name);
            if from.exists() {
                std::fs::rename(&from, to.join(name)).map_err(at(&from))?;
            }
        }
        sync_dir(&to)?;
        sync_dir(path)?;
        tracing::warn!(to = %to.display(), "the superseded log was put aside");
    }
    std::fs::remove_file(&moving).map_err(at(&moving))?;
    sync_dir(path)
}

fn write_synced(path: &Path, text: &str) -> Result<(), DataDirError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(at(path))
}

fn sync_dir(path: &Path) -> Result<(), DataDirError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(at(path))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path: PathBuf = path.to_owned();
    move |source| DataDirError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory_with(parts: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for part in parts {
            std::fs::create_dir(dir.path().join(part)).expect("it is new");
        }
        dir
    }

    #[test]
    fn a_move_that_was_interrupted_after_any_part_is_finished() {
        for moved in 0..=PARTS.len() {
            let dir = directory_with(&PARTS);
            let to = dir.path().join("superseded-3");
            std::fs::create_dir(&to).expect("it is new");
            std::fs::write(to.join(PENDING), "").expect("it is writable");
            std::fs::write(dir.path().join(MOVING), "3").expect("it is writable");
            for part in &PARTS[..moved] {
                std::fs::rename(dir.path().join(part), to.join(part)).expect("it moves");
            }
            finish(dir.path()).expect("it is finished");
            for part in PARTS {
                assert!(
                    !dir.path().join(part).exists() && to.join(part).exists(),
                    "{part}"
                );
            }
            assert!(!dir.path().join(MOVING).exists());
            finish(dir.path()).expect("there is nothing to do");
        }
    }

    #[test]
    fn a_move_that_had_not_begun_moves_nothing() {
        let dir = directory_with(&["log", "state"]);
        std::fs::write(dir.path().join(MOVING), "").expect("it is writable");
        finish(dir.path()).expect("nothing is wrong");
        assert!(dir.path().join("log").exists() && !dir.path().join(MOVING).exists());
        put(dir.path(), 4).expect("it moves");
        let to = dir.path().join("superseded-4");
        assert!(to.join("log").exists() && to.join("state").exists() && to.join(PENDING).exists());
    }
}
