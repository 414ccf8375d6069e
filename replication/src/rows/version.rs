//! One version of a row: as it is held, as it arrives, and which of two had seen the other.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, AsArray, BinaryArray, BooleanArray, RecordBatch};
use arrow::datatypes::Int16Type;
use tributary_storage::OriginId;

use super::{CONTEXT_BYTES_MAX, RowVersion};
use crate::error::{ReplicationError, Result};
use crate::frontier::Epoch;
use crate::hlc::Hlc;
use crate::section::{boolean, int64, stamps};

/// For each origin the newest dot of a row.
pub(super) type Context = BTreeMap<OriginId, u64>;

/// The version of a row that is held, and where it stands.
pub(super) struct Held<'a> {
    pub(super) columns: &'a [ArrayRef],
    pub(super) row: usize,
    pub(super) version: RowVersion,
    pub(super) hlc: Hlc,
    pub(super) context: &'a [u8],
}

impl Held<'_> {
    pub(super) fn order(&self) -> (Hlc, OriginId) {
        (self.hlc, self.version.origin)
    }

    pub(super) fn context(&self) -> Context {
        postcard::from_bytes(self.context).expect("stored contexts were checked")
    }
}

/// The versions in a section.
pub(super) struct Arriving {
    pub(super) versions: Vec<ArrivingVersion>,
    pub(super) deleted: BooleanArray,
}

pub(super) struct ArrivingVersion {
    pub(super) version: RowVersion,
    pub(super) hlc: Hlc,
    pub(super) context: Context,
}

impl ArrivingVersion {
    pub(super) fn order(&self) -> (Hlc, OriginId) {
        (self.hlc, self.version.origin)
    }
}

impl Arriving {
    /// Reads the hidden columns of a section whose columns were checked; the table has `width` of its own.
    pub(super) fn read(what: &str, origin: OriginId, rows: &RecordBatch, width: usize) -> Result<Self> {
        let stamps = stamps(what, rows.column(width))?;
        let hlcs = int64(rows.column(width + 1));
        let deleted = boolean(rows.column(width + 2)).clone();
        let contexts: &BinaryArray = rows.column(width + 3).as_binary();
        let siblings = rows.column(width + 4).as_primitive::<Int16Type>();
        let mut versions = Vec::with_capacity(rows.num_rows());
        for (row, stamp) in stamps.into_iter().enumerate() {
            let hlc = Hlc::from_i64(hlcs.value(row)).ok_or_else(|| {
                ReplicationError::corrupt(what, format!("{} is not a time", hlcs.value(row)))
            })?;
            if siblings.value(row) != 0 {
                return Err(ReplicationError::corrupt(what, "siblings are not in use yet"));
            }
            let context = read_context(what, contexts.value(row))?;
            let version = RowVersion {
                origin,
                stamp,
                deleted: deleted.value(row),
            };
            versions.push(ArrivingVersion {
                version,
                hlc,
                context,
            });
        }
        Ok(Self { versions, deleted })
    }
}

pub(super) fn see(context: &mut Context, origin: OriginId, stamp: Epoch) {
    let newest = context.entry(origin).or_default();
    *newest = (*newest).max(stamp.0);
}

pub(super) fn seen(context: &Context, version: RowVersion) -> bool {
    context
        .get(&version.origin)
        .is_some_and(|newest| *newest >= version.stamp.0)
}

pub(super) fn context_bytes(context: &Context) -> Vec<u8> {
    postcard::to_stdvec(context).expect("a map of numbers serializes")
}

/// Reads a context. It must be in the one form in which it is written: regions compare it byte by byte.
fn read_context(what: &str, bytes: &[u8]) -> Result<Context> {
    if bytes.len() > CONTEXT_BYTES_MAX {
        return Err(ReplicationError::corrupt(
            what,
            format!("a row context of {} bytes", bytes.len()),
        ));
    }
    let context: Context = postcard::from_bytes(bytes)
        .map_err(|error| ReplicationError::corrupt(what, format!("row context: {error}")))?;
    if context_bytes(&context) != bytes {
        return Err(ReplicationError::corrupt(
            what,
            "a row context is not in its normal form",
        ));
    }
    Ok(context)
}
