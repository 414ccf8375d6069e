//! What a client is told of a commit that was refused.

use tributary_planner::catalog::Catalog;
use tributary_planner::parse::quote;
use tributary_region::Rejected;
use tributary_wire::error::SqlError;
use tributary_wire::sqlstate::{
    CANNOT_CONNECT_NOW, CANT_CHANGE_NOW, DISK_FULL, SERIALIZATION_FAILURE, TOO_BUSY, UNDEFINED_TABLE,
};

/// The error of a commit that was refused; nothing of it was written.
pub fn of_rejected(rejected: &Rejected, catalog: &Catalog) -> SqlError {
    let name = |id| {
        catalog
            .by_id(id)
            .map_or_else(|| format!("{id}"), |object| object.name.clone())
    };
    match rejected {
        Rejected::Conflict { table } => SqlError::new(
            SERIALIZATION_FAILURE,
            format!(
                "could not serialize access: a row of \"{}\" was changed concurrently",
                name(*table)
            ),
        )
        .hint("run the transaction again"),
        Rejected::Joining => SqlError::new(CANNOT_CONNECT_NOW, "this region is still joining the cluster")
            .hint("it accepts writes once it has heard from the primary region"),
        Rejected::Leaving => SqlError::new(CANT_CHANGE_NOW, "this region is leaving the cluster")
            .hint("write in another region; SHOW REGIONS lists them"),
        Rejected::NoSuchTable(id) => SqlError::new(
            UNDEFINED_TABLE,
            format!("relation \"{}\" was dropped concurrently", name(*id)),
        ),
        Rejected::CatalogChanged => SqlError::new(SERIALIZATION_FAILURE, "the catalog changed concurrently")
            .hint("run the transaction again"),
        Rejected::ClockDrift { ahead_ms } => SqlError::new(
            CANT_CHANGE_NOW,
            format!("the cluster's clock is {ahead_ms} ms ahead of this region's clock"),
        )
        .hint("check the clocks; REGIONAL tables still accept writes"),
        Rejected::Overloaded => {
            SqlError::new(TOO_BUSY, "too many commits wait to be processed").hint("try again")
        }
        Rejected::DiskFull => SqlError::new(DISK_FULL, "no space left on the device of this region")
            .hint("free space; reads go on meanwhile"),
        Rejected::Unsupported(reason) => SqlError::unsupported(reason.clone())
            .hint("write the query in another way, and report this one: planning should have refused it"),
        Rejected::NotPrimary => SqlError::new(CANNOT_CONNECT_NOW, "this is not the primary region")
            .hint("run DDL again; it is forwarded to the primary region"),
        Rejected::SourceMoved { .. } | Rejected::SourceColumns(_) => {
            SqlError::new(SERIALIZATION_FAILURE, rejected.to_string())
        }
        Rejected::NotCommitted => SqlError::internal(rejected.to_string()),
        Rejected::Tombstones {
            table,
            tombstones_max,
            kept_by,
        } => {
            let table = name(*table);
            let message = format!(
                "no more rows of \"{table}\" can be deleted: {tombstones_max} tombstones of it are not acknowledged by \
                 all regions"
            );
            SqlError::new(DISK_FULL, message).hint(tombstones_hint(kept_by))
        }
        Rejected::Behind {
            table,
            peer,
            lag_ms,
            lag_max_ms,
            ..
        } => SqlError::new(
            TOO_BUSY,
            format!(
                "region {} is {lag_ms} ms behind, and \"{}\" is written only while no connected region is more than \
                 {lag_max_ms} ms behind",
                quote(peer),
                name(*table)
            ),
        )
        .hint("try again later; with backpressure = 'block' a statement waits, with 'coalesce' it does not ask; both can be set for the table or for the region"),
        Rejected::OtherRegion(id) => {
            SqlError::unsupported(format!("rows of \"{}\" are written in another region", name(*id)))
                .hint("connect to the table's region")
        }
    }
}

fn tombstones_hint(kept_by: &[String]) -> String {
    if kept_by.is_empty() {
        return "delete fewer rows at a time, or try again: tombstones that all regions have acknowledged are dropped every second"
            .to_owned();
    }
    let names: Vec<String> = kept_by.iter().map(|name| quote(name)).collect();
    let (regions, have) = match names.as_slice() {
        [_] => ("region", "has"),
        _ => ("regions", "have"),
    };
    format!(
        "they are kept until {regions} {} {have} acknowledged them, and not connected now: bring it back, or run ALTER \
         DATABASE tributary DROP REGION {} FORCE",
        names.join(" and "),
        names[0]
    )
}
