//! The last check: each row of each region, against what the clients were told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::regions::Region;
use crate::workload::{Failure, Session, Shared, counting, settings};

/// Rows that a query asks for at once.
const PAGE: u64 = 20_000;

/// Reads all rows of all regions. What is wrong with them are violations.
pub async fn check(shared: &Arc<Shared>) {
    let mut joined: BTreeMap<String, u64> = BTreeMap::new();
    let writers = match writers(shared).await {
        Ok(writers) => writers,
        Err(failure) => return unreadable(shared, Region::PRIMARY, &failure),
    };
    for region in Region::ALL {
        match events(shared, region).await {
            Ok(found) => {
                for id in found.keys() {
                    let writer = writers.get(&counting::key(*id)).cloned().unwrap_or_default();
                    *joined.entry(writer).or_insert(0) += 1;
                }
                for wrong in shared.events(region).compare(&found) {
                    shared.journal.violation(
                        "each row is in exactly as its client was told",
                        format!("{region}: {wrong}"),
                    );
                }
            }
            Err(failure) => unreadable(shared, region, &failure),
        }
    }
    joined_is(shared, &joined).await;
}

/// The rows of `events` that a region owns: each id, and how often it is there.
async fn events(shared: &Arc<Shared>, region: Region) -> Result<BTreeMap<u64, u64>, Failure> {
    let mut session = Session::new(shared.clone(), region);
    session.connect().await;
    let mut found = BTreeMap::new();
    let mut after = 0;
    loop {
        let sql =
            format!("SELECT id, key, n, region FROM events WHERE id > {after} ORDER BY id LIMIT {PAGE}");
        let rows = session.query(&sql).await?;
        for row in &rows {
            let number = |column: usize| row[column].as_ref().and_then(|text| text.parse::<u64>().ok());
            let id = number(0).unwrap_or(0);
            let sent = (
                Some(counting::key(id)),
                Some(counting::value(id)),
                Some(region.name()),
            );
            if (number(1), number(2), row[3].as_deref()) != sent {
                shared
                    .journal
                    .violation("a row is as it was written", format!("{region}: {row:?}"));
            }
            *found.entry(id).or_insert(0) += 1;
            after = id;
        }
        if (rows.len() as u64) < PAGE {
            return Ok(found);
        }
    }
}

/// The writer of each setting; values that cannot be there are violations.
async fn writers(shared: &Arc<Shared>) -> Result<BTreeMap<u64, String>, Failure> {
    let mut session = Session::new(shared.clone(), Region::PRIMARY);
    session.connect().await;
    let sql = format!(
        "SELECT key, value, writer FROM settings WHERE key < {} ORDER BY key",
        settings::KEYS
    );
    let mut writers = BTreeMap::new();
    let mut values = BTreeSet::new();
    for row in session.query(&sql).await? {
        let number = |column: usize| row[column].as_ref().and_then(|text| text.parse::<u64>().ok());
        let (key, value) = (number(0).unwrap_or(0), number(1).unwrap_or(0));
        let writer = row[2].clone().unwrap_or_default();
        let wrote = Region::ALL.into_iter().find(|region| region.name() == writer);
        let problem = match wrote {
            None if value == 0 && writer == "nobody" => None,
            None => Some("nobody wrote that"),
            Some(region) => shared.settings(region).problem_with(value),
        };
        if let Some(problem) = problem {
            shared
                .journal
                .violation("a setting is one that was written", format!("{row:?}: {problem}"));
        }
        if value != 0 && !values.insert(value) {
            let detail = format!("{row:?}: the value was written for one key and is there for two");
            shared
                .journal
                .violation("a setting is one that was written", detail);
        }
        writers.insert(key, writer);
    }
    Ok(writers)
}

/// The view that joins events with settings, against the rows.
async fn joined_is(shared: &Arc<Shared>, expected: &BTreeMap<String, u64>) {
    for region in Region::ALL {
        let mut session = Session::new(shared.clone(), region);
        session.connect().await;
        let rows = match session.query("SELECT writer, n FROM joined").await {
            Ok(rows) => rows,
            Err(failure) => return unreadable(shared, region, &failure),
        };
        let parse = |row: Vec<Option<String>>| {
            let mut columns = row.into_iter().flatten();
            Some((columns.next()?, columns.next()?.parse().ok()?))
        };
        let found: BTreeMap<String, u64> = rows.into_iter().filter_map(parse).collect();
        if found != *expected {
            let detail = format!("{region}: joined shows {found:?}, the rows give {expected:?}");
            shared
                .journal
                .violation("a view is the answer over the rows there are", detail);
        }
    }
}

fn unreadable(shared: &Shared, region: Region, failure: &Failure) {
    shared
        .journal
        .violation("a healed region can be read", format!("{region}: {failure:?}"));
}
