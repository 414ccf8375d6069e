//! Which files a pattern means, in the order of their names, and a digest of those that were read.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::in_file;

/// Bytes at either end of a file that enter the digest.
const SAMPLE_BYTES: u64 = 4096;

/// The files that a pattern means, sorted by name. `*` and `?` may stand in the last part of the path.
pub fn list(pattern: &str) -> Result<Vec<PathBuf>, String> {
    let path = Path::new(pattern);
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| format!("path {pattern} names no file"))?;
    if !name.contains(['*', '?']) {
        return match path.is_file() {
            true => Ok(vec![path.to_owned()]),
            false => Ok(Vec::new()),
        };
    }
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    let entries = std::fs::read_dir(directory)
        .map_err(|error| format!("directory {}: {error}", directory.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| format!("directory {}: {error}", directory.display()))?;
        let matches = entry
            .file_name()
            .to_str()
            .is_some_and(|found| is_match(name.as_bytes(), found.as_bytes()));
        if matches && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a name fits a pattern of `*` (any bytes) and `?` (one byte).
fn is_match(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            is_match(rest, name)
                || name
                    .split_first()
                    .is_some_and(|(_, tail)| is_match(pattern, tail))
        }
        (Some((b'?', rest)), Some((_, tail))) => is_match(rest, tail),
        (Some((expected, rest)), Some((found, tail))) => expected == found && is_match(rest, tail),
        _ => false,
    }
}

/// A digest of files in order (FNV-1a): names, sizes, and the bytes at both ends, where formats keep what
/// describes the rest. A copy of a file elsewhere in time is the same file; one that was rewritten is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fold(u64);

impl Fold {
    /// The digest of no files.
    pub fn new() -> Fold {
        Fold(0xcbf2_9ce4_8422_2325)
    }

    /// The digest, as it stands in the log.
    pub fn mark(self) -> u64 {
        self.0
    }

    /// Takes one more file in.
    pub fn add(&mut self, path: &Path) -> Result<(), String> {
        let fail = |error| in_file(path, error);
        let mut file = File::open(path).map_err(fail)?;
        let size = file.metadata().map_err(fail)?.len();
        self.bytes(path.as_os_str().as_encoded_bytes());
        self.bytes(&size.to_le_bytes());
        let mut sample = Vec::new();
        (&mut file)
            .take(SAMPLE_BYTES)
            .read_to_end(&mut sample)
            .map_err(fail)?;
        file.seek(SeekFrom::Start(size.saturating_sub(SAMPLE_BYTES)))
            .map_err(fail)?;
        file.take(SAMPLE_BYTES).read_to_end(&mut sample).map_err(fail)?;
        self.bytes(&sample);
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let fits = |pattern: &str, name: &str| is_match(pattern.as_bytes(), name.as_bytes());
        assert!(fits("*.csv", "a.csv") && fits("a*b?c", "a-b-bxc") && fits("*", ""));
        assert!(!fits("*.csv", "a.csv.gz") && !fits("?", "") && !fits("a", "ab"));
    }
}
