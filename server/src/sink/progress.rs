//! How far a sink is, as a small file that is replaced as one: `DATA/sinks/ID`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tributary_storage::ObjectId;

/// What a sink has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The position at which its newest segment ends; the next one begins there.
    pub written: u64,
    /// The position up to which there is nothing more to write; at least `written`.
    pub settled: u64,
    /// A segment that is complete and about to get its name. Whether it has got it is found out by looking.
    pub pending: Option<Pending>,
    /// Segments written so far.
    pub segments: u64,
    /// Rows written so far.
    pub rows: u64,
    /// Bytes written so far.
    pub bytes: u64,
}

/// A segment between its completion and its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Where it ends.
    pub to: u64,
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
}

impl Progress {
    /// The progress once a segment has its name.
    pub fn after(&self, segment: &Pending) -> Progress {
        Progress {
            written: segment.to,
            settled: segment.to,
            pending: None,
            segments: self.segments + 1,
            rows: self.rows + segment.rows,
            bytes: self.bytes + segment.bytes,
        }
    }

    /// Positions from which the sink may have to go on.
    pub fn positions(&self) -> impl Iterator<Item = u64> {
        [
            Some(self.settled),
            self.pending.as_ref().map(|pending| pending.to),
        ]
        .into_iter()
        .flatten()
    }
}

/// The directory of these files.
#[derive(Clone, Debug)]
pub struct Records(PathBuf);

impl Records {
    /// In this directory, which is made when the first record is.
    pub fn new(directory: PathBuf) -> Records {
        Records(directory)
    }

    /// All records. One that cannot be read is left out with a warning: its sink begins with a snapshot.
    ///
    /// # Errors
    /// When the directory exists and cannot be listed.
    pub fn load(&self) -> io::Result<BTreeMap<ObjectId, Progress>> {
        let mut records = BTreeMap::new();
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(records),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(id) = name.and_then(|name| name.parse().ok()) else {
                continue;
            };
            match fs::read(&path)
                .map_err(|error| error.to_string())
                .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string()))
            {
                Ok(progress) => drop(records.insert(ObjectId(id), progress)),
                Err(reason) => {
                    tracing::warn!(path = %path.display(), reason, "a sink's progress cannot be read");
                }
            }
        }
        Ok(records)
    }

    /// Replaces a sink's record; it is durable when this returns.
    ///
    /// # Errors
    /// What the system says; the old record is there then.
    pub fn save(&self, sink: ObjectId, progress: &Progress) -> Result<(), String> {
        let path = self.0.join(sink.0.to_string());
        let write = || {
            fs::create_dir_all(&self.0)?;
            let unfinished = path.with_extension("unfinished");
            let mut file = File::create(&unfinished)?;
            file.write_all(&serde_json::to_vec(progress)?)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            sync_directory(&self.0)
        };
        write().map_err(|error: io::Error| format!("{}: {error}", path.display()))
    }

    /// Removes a sink's record, if there is one.
    pub fn remove(&self, sink: ObjectId) {
        let path = self.0.join(sink.0.to_string());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a dropped sink's progress stays");
            }
            _ => {}
        }
    }
}

/// Makes the names in a directory durable.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
