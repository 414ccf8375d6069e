//! What tables and views hold, compared with the model.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use tributary_region::Snapshot;
use tributary_region::dataflow::conflicts::CONFLICTS;
use tributary_replication::Epoch;
use tributary_storage::{ObjectId, OriginId, RowsSnapshot};

use crate::evaluate::{Relation, Trouble};
use crate::failure::{Checked, Violation};
use crate::model::rows::LiveRow;
use crate::model::{LogId, Model};
use crate::report::Report;
use crate::value::{Row, Rows, row_of, show_row};

/// Rows per batch when a snapshot is read.
const SCAN_ROWS: usize = 4096;

/// How many differing rows a message shows.
const SHOWN_MAX: usize = 6;

/// Compares every table, and every view that may be read, with the model at the snapshot's frontier. A region that is
/// joining is not read from yet: of it only the tables are compared.
///
/// # Errors
/// The first difference.
pub fn contents(model: &Model, at: LogId, snapshot: &Snapshot, report: &mut Report) -> Checked {
    let mut frontier = snapshot.frontier.clone();
    if let Some(origin) = snapshot.origin {
        frontier.set(origin, Epoch(snapshot.position.0));
    }
    for (&id, table) in snapshot.tables.iter().filter(|(id, _)| **id != CONFLICTS) {
        let mut held = Vec::new();
        for delta in table.scan_live(SCAN_ROWS) {
            let columns = table.def.columns.len();
            let origins = delta.rows().column(columns).as_primitive::<Int64Type>();
            let stamps = delta.rows().column(columns + 1).as_primitive::<Int64Type>();
            for row in 0..delta.len() {
                let live = LiveRow {
                    row: row_of(delta.rows(), row, columns).map_err(|detail| unreadable(id, detail))?,
                    origin: OriginId::from_i64(origins.value(row))
                        .ok_or_else(|| unreadable(id, "an origin".into()))?,
                    epoch: Epoch::from_i64(stamps.value(row))
                        .ok_or_else(|| unreadable(id, "a stamp".into()))?,
                };
                held.push(live);
            }
        }
        let mut expected = model.rows(id, at, &frontier);
        held.sort();
        expected.sort();
        if held != expected {
            let show = |live: &LiveRow| format!("{}@{}:{}", show_row(&live.row), live.origin, live.epoch);
            let detail = difference(&held, &expected, show);
            let place = format!("table {id} at {at}, {frontier}");
            return Err(Violation::new(
                "rows are what was committed",
                format!("{place}: {detail}"),
            ));
        }
        report.tables_compared += 1;
    }
    if snapshot.origin.is_none() {
        return Ok(());
    }
    for (&id, view) in snapshot.views.iter().filter(|(_, view)| view.missing.is_empty()) {
        let expected = model.view(id, at, &frontier);
        compare_view("view = SQL", id, at, snapshot, &view.rows, expected, report)?;
    }
    if snapshot.settled {
        contents_plain(model, at, snapshot, report)?;
    }
    Ok(())
}

/// Compares every view that may be read with the batch answer at the snapshot's frontier, plainly. For settled
/// frontiers only.
///
/// # Errors
/// The first difference.
pub fn contents_plain(model: &Model, at: LogId, snapshot: &Snapshot, report: &mut Report) -> Checked {
    for (&id, view) in snapshot.views.iter().filter(|(_, view)| view.missing.is_empty()) {
        let expected = model
            .view_plain(id, at, &snapshot.frontier, &snapshot.catalog)
            .map(Arc::new);
        compare_view(
            "settled view = SQL",
            id,
            at,
            snapshot,
            &view.rows,
            expected,
            report,
        )?;
    }
    Ok(())
}

fn compare_view(
    guarantee: &'static str,
    id: ObjectId,
    at: LogId,
    snapshot: &Snapshot,
    rows: &Arc<RowsSnapshot>,
    expected: Result<Arc<Relation>, Trouble>,
    report: &mut Report,
) -> Checked {
    let expected = match expected {
        Ok(expected) => expected,
        Err(trouble) => {
            report.unknown_to_oracle += 1;
            report.unknown.insert(trouble.to_string());
            return Ok(());
        }
    };
    let mut held = view_rows(rows).map_err(|detail| unreadable(id, detail))?;
    let mut expected = expected.rows.clone();
    held.sort();
    expected.sort();
    let sql = snapshot.catalog.materialized_view(id).map_or("", |def| &def.sql);
    if held != expected {
        let detail = difference(&held, &expected, |row: &Row| show_row(row));
        let place = format!("view {id} at {at}, {} ({sql})", snapshot.frontier);
        return Err(Violation::new(guarantee, format!("{place}: {detail}")));
    }
    report.views_compared += 1;
    report.alone_compared += u64::from(snapshot.catalog.regions.len() == 1);
    report.held_back_compared += u64::from(
        snapshot
            .views
            .get(&id)
            .is_some_and(|view| view.groups_held_back > 0),
    );
    report.sessions_compared += u64::from(sql.contains("SESSION(") && !held.is_empty());
    report.rows_compared += held.len() as u64;
    Ok(())
}

/// The rows of a view, each as often as its weight says.
///
/// # Errors
/// For weights that are not positive.
pub fn view_rows(rows: &Arc<RowsSnapshot>) -> Result<Rows, String> {
    let mut all = Vec::new();
    for delta in rows.scan(SCAN_ROWS) {
        for row in 0..delta.len() {
            let content = row_of(delta.rows(), row, delta.rows().num_columns())?;
            let weight = delta.weight(row);
            let Ok(weight) = usize::try_from(weight) else {
                return Err(format!("the row {} has weight {weight}", show_row(&content)));
            };
            all.extend(std::iter::repeat_n(content, weight));
        }
    }
    Ok(all)
}

fn unreadable(id: ObjectId, detail: String) -> Violation {
    Violation::new("contents can be read", format!("object {id}: {detail}"))
}

/// What one sorted list has and the other has not.
fn difference<T: Ord>(held: &[T], expected: &[T], show: impl Fn(&T) -> String) -> String {
    let only = |these: &[T], others: &[T]| -> Vec<String> {
        let mut others = others.iter().peekable();
        let mut left = Vec::new();
        for item in these {
            while others.next_if(|other| *other < item).is_some() {}
            if others.next_if(|other| *other == item).is_none() {
                left.push(show(item));
            }
        }
        left.truncate(SHOWN_MAX);
        left
    };
    let (surplus, missing) = (only(held, expected), only(expected, held));
    format!(
        "{} rows instead of {}; surplus {surplus:?}, missing {missing:?}",
        held.len(),
        expected.len()
    )
}
