//! Sinks: what carries a view's changes out of the cluster.
//!
//! Each region writes the changes of its own result, which are those of every region's once the regions agree; the
//! option `region` leaves that to one of them.

use tributary_storage::ObjectId;

use super::{Catalog, ObjectKind, REGION_PLACEHOLDER, SinkDef};

/// The connector of sinks that count rows and forget them.
pub const BLACKHOLE_CONNECTOR: &str = "blackhole";
/// The column that says whether a row came or went.
pub const SINK_OP: &str = "tributary_op";
/// The column that says at which position of its region's log a change was there.
pub const SINK_POSITION: &str = "tributary_position";
/// Milliseconds between two segments of a sink, unless said otherwise.
pub const SINK_INTERVAL_MS_DEFAULT: u64 = 1000;

impl SinkDef {
    /// An option's text.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    /// Whether the region of this name writes.
    pub fn is_written_in(&self, region: &str) -> bool {
        self.option("region").is_none_or(|only| only == region)
    }

    /// The directory into which the region of this name writes.
    pub fn path_in(&self, region: &str) -> Option<String> {
        self.option("path")
            .map(|path| path.replace(REGION_PLACEHOLDER, region))
    }
}

impl Catalog {
    /// The sink with this id.
    pub fn sink(&self, id: ObjectId) -> Option<&SinkDef> {
        match &self.by_id(id)?.kind {
            ObjectKind::Sink(def) => Some(def),
            _ => None,
        }
    }
}
