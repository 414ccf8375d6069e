//! The names of segments.
//!
//! ```text
//!   orders_out.us.1.00000000000000000170.changes-from-00000000000000000120.ndjson
//!   sink       │  │ └ the position at which it ends: names sort in the order of writing
//!              │  └ the region's incarnation                └ where it begins: the end of the one before
//!              └ region
//!   orders_out.us.1.00000000000000000120.snapshot.ndjson      all rows: what came before is not to be added to it
//! ```

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// All rows of the view; nothing is known of what was written before.
    Snapshot,
    /// What changed since this position, at which the segment before ended.
    ChangesFrom(u64),
}

/// The part of the names that all segments of a sink in a region begin with.
pub fn prefix(sink: &str, region: &str, incarnation: u32) -> String {
    format!("{}.{}.{incarnation}.", plain(sink), plain(region))
}

/// A segment's name.
pub fn name(prefix: &str, content: Content, to: u64, extension: &str) -> String {
    match content {
        Content::Snapshot => format!("{prefix}{to:020}.snapshot.{extension}"),
        Content::ChangesFrom(from) => format!("{prefix}{to:020}.changes-from-{from:020}.{extension}"),
    }
}

/// Where the segment of this name ends, if it is one of the sink's.
pub fn end_of(prefix: &str, name: &str) -> Option<u64> {
    name.strip_prefix(prefix)?.split('.').next()?.parse().ok()
}

/// The name under which a segment is written.
pub fn unfinished(name: &str) -> String {
    format!(".{name}.unfinished")
}

/// Whether a segment of the sink was written under this name.
pub fn is_unfinished(prefix: &str, name: &str) -> bool {
    let inner = name
        .strip_prefix('.')
        .and_then(|name| name.strip_suffix(".unfinished"));
    inner.is_some_and(|inner| end_of(prefix, inner).is_some())
}

/// A name without characters that mean something in paths or between the parts of a name.
fn plain(name: &str) -> String {
    let mut plain = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => plain.push(char::from(byte)),
            other => plain.push_str(&format!("%{other:02X}")),
        }
    }
    plain
}
