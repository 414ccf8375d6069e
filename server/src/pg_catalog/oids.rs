//! OIDs: functions of names and ids, so that they stay.

use tributary_storage::ObjectId;

/// The first OID of users' objects, as in PostgreSQL.
const FIRST_USER: u32 = 16_384;
/// System tables, in the order of their list.
const FIRST_SYSTEM: u32 = 12_000;

/// Schema `pg_catalog`.
pub(super) const PG_CATALOG: u32 = 11;
/// Schema `public`.
pub(super) const PUBLIC: u32 = 2200;
/// Schema `information_schema`.
pub(super) const INFORMATION_SCHEMA: u32 = 13_000;
/// Schema `tributary`.
pub(super) const TRIBUTARY: u32 = 13_001;
/// The one database.
pub(super) const DATABASE: u32 = 16_383;
/// The one role.
pub(super) const ROLE: u32 = 10;

/// A table or view.
pub(super) fn relation(object: ObjectId) -> u32 {
    FIRST_USER + object.0.saturating_mul(2) % 0x3fff_0000
}

/// The index and constraint of its key.
pub(super) fn key(object: ObjectId) -> u32 {
    relation(object) + 1
}

/// Whether an OID is that of a system table.
pub(super) fn is_system(oid: i64) -> bool {
    (i64::from(FIRST_SYSTEM)..i64::from(INFORMATION_SCHEMA)).contains(&oid)
}

/// A system table by its place in the list.
pub(super) fn system(place: usize) -> u32 {
    FIRST_SYSTEM + place as u32
}
