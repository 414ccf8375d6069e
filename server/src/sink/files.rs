//! Segments as files of a directory.
//!
//! ```text
//!   .NAME.unfinished ─▶ fsync ─▶ directory fsync ─▶ record: pending NAME ─▶ rename ─▶ directory fsync ─▶ record: written
//! ```
//! Whoever reads the directory sees complete segments only, and may take them away as they come. After a crash a
//! pending segment has got its name exactly if its unfinished file is gone.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use tributary_storage::Delta;

use super::format::{Format, Writer, file_schema, rows};
use super::progress::{Pending, sync_directory};
use super::segment::{Content, end_of, is_unfinished, name, prefix, unfinished};

/// Where the segments of one sink go.
#[derive(Clone, Debug)]
pub struct Directory {
    /// The directory, which has to exist.
    pub path: PathBuf,
    /// The sink's name.
    pub sink: String,
    /// The region's name.
    pub region: String,
    /// How segments are written.
    pub format: Format,
}

impl Directory {
    /// Writes a segment under its unfinished name; complete and durable when this returns.
    pub fn write(
        &self,
        incarnation: u32,
        content: Content,
        to: u64,
        schema: &SchemaRef,
        changes: impl Iterator<Item = Delta>,
    ) -> Result<Pending, String> {
        let prefix = prefix(&self.sink, &self.region, incarnation);
        let name = name(&prefix, content, to, self.format.extension());
        let path = self.path.join(unfinished(&name));
        let write = || -> Result<(u64, u64), String> {
            let file = File::create(&path).map_err(said)?;
            let schema = file_schema(schema);
            let mut writer = Writer::new(self.format, file, &schema)?;
            let mut count = 0;
            for delta in changes {
                let rows = rows(&schema, &delta, to)?;
                count += rows.num_rows() as u64;
                writer.write(&rows)?;
            }
            let bytes = writer.finish()?;
            sync_directory(&self.path).map_err(said)?;
            Ok((count, bytes))
        };
        match write() {
            Ok((rows, bytes)) => Ok(Pending {
                to,
                name,
                rows,
                bytes,
            }),
            Err(reason) => {
                // What was written is of no use, and its space may be what is missing.
                let _ = fs::remove_file(&path);
                Err(format!("{}: {reason}", path.display()))
            }
        }
    }

    /// Gives a segment its name.
    pub fn publish(&self, segment: &Pending) -> Result<(), String> {
        let path = self.path.join(&segment.name);
        fs::rename(self.path.join(unfinished(&segment.name)), &path)
            .and_then(|()| sync_directory(&self.path))
            .map_err(|error| format!("{}: {}", path.display(), said(error)))
    }

    /// Whether a pending segment has got its name.
    pub fn was_published(&self, segment: &Pending) -> Result<bool, String> {
        let exists = |path: &Path| {
            path.try_exists()
                .map_err(|error| format!("{}: {}", path.display(), said(error)))
        };
        // Without its unfinished file it was named, and taken away by whoever reads segments.
        if !exists(&self.path.join(&segment.name))? && exists(&self.path.join(unfinished(&segment.name)))? {
            return Ok(false);
        }
        sync_directory(&self.path)
            .map(|()| true)
            .map_err(|error| format!("{}: {}", self.path.display(), said(error)))
    }

    /// Removes what is there of a segment that did not get its name.
    pub fn discard(&self, segment: &Pending) {
        let path = self.path.join(unfinished(&segment.name));
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "an unfinished segment stays");
        }
    }

    /// Removes what a crash has left unfinished, but for a pending segment.
    ///
    /// Refuses a directory in which segments of later positions are: those of another cluster, or of this region
    /// before its data directory was replaced by an older copy.
    pub fn tidy(&self, incarnation: u32, position: u64, pending: Option<&Pending>) -> Result<(), String> {
        let fail = |error| format!("{}: {}", self.path.display(), said(error));
        let prefix = prefix(&self.sink, &self.region, incarnation);
        for entry in fs::read_dir(&self.path).map_err(fail)? {
            let name = entry.map_err(fail)?.file_name();
            let Some(name) = name.to_str() else {
                continue;
            };
            let is_pending = |pending: &Pending| unfinished(&pending.name) == name;
            if is_unfinished(&prefix, name) && !pending.is_some_and(is_pending) {
                fs::remove_file(self.path.join(name)).map_err(fail)?;
                continue;
            }
            let end = end_of(&prefix, name);
            if end.is_some_and(|end| end > position) {
                return Err(format!(
                    "{}: a segment of a later position than this region's {position} is there already; create the \
                     sink with another path",
                    self.path.join(name).display()
                ));
            }
        }
        Ok(())
    }
}

/// An error of the system, in words that say what to do where the system does not.
fn said(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("{error}; the directory has to exist in this region"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("{error}; the sink goes on when there is space")
        }
        _ => error.to_string(),
    }
}
