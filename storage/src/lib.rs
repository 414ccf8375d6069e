//! State and durability, without SQL and without async.
//!
//! Everything above moves *batches*: a [`Delta`] of weighted Arrow rows goes into a [`Trace`], a batch of
//! keys is looked up in one. What must survive a crash goes through three narrow doors: the [`Log`] (records
//! in order, one sync for many), a [`Kv`] (families of bytes), and a [`checkpoint`] (runs of traces made
//! live by one synced manifest). There is no operation on a single row on a hot path.
//!
//! Left out on purpose: clocks, threads, SQL types, and any knowledge of regions.

pub mod checkpoint;
pub mod delta;
pub mod error;
pub mod ids;
pub mod index;
pub mod key;
pub mod kv;
pub mod log;
pub mod rows;
pub mod trace;

pub use delta::Delta;
pub use error::StorageError;
pub use ids::{Fingerprint, FragmentId, ObjectId, OriginId, RegionId};
pub use index::{ABSENT, KeyIndex, hash_rows};
pub use key::{KeyEncoder, Keys};
pub use kv::{Family, Kv, MemKv, RocksKv, WriteBatch};
pub use log::{ChainHash, KvLog, Log, Position, Record};
pub use rows::{RowScan, RowStore, RowsSnapshot, Segment, Spill, SpillArea, SpillFiles, ZSet};
pub use trace::{Found, Layout, Run, RunId, RunTrace, Scan, Trace, TraceSnapshot};
