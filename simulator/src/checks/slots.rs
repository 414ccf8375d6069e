//! Single writer, absolute values: whoever holds a slot under a stamp holds the same partials.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use tributary_region::dataflow::Dataflow;
use tributary_storage::OriginId;

use crate::failure::{Checked, Violation};
use crate::model::{LogId, Model};

/// Rows per batch when slots are read.
const SCAN_ROWS: usize = 4096;

/// How many slots are remembered before all are forgotten.
const REMEMBERED_MAX: usize = 50_000;

/// A slot's trace, key, origin and stamp.
type Place = (String, String, OriginId, u64);

/// What was seen under each stamp, and where first.
#[derive(Default)]
pub struct SlotCheck {
    seen: BTreeMap<Place, (String, usize)>,
}

impl SlotCheck {
    /// Compares a region's slots with what was seen before. Slots of records that are not durable yet are left
    /// out: a crash may give their stamps to others. So are its own while it merges in portions: nobody is shown them,
    /// and the next portion may give them another value under the same stamp.
    ///
    /// # Errors
    /// When a stamp holds two values.
    pub fn check(&mut self, model: &Model, log: LogId, dataflow: &Dataflow) -> Checked {
        if self.seen.len() > REMEMBERED_MAX {
            self.seen.clear();
        }
        let unsettled = model.origin_of(log).filter(|_| dataflow.is_applying());
        for (place, partials) in slots_of(dataflow)? {
            let (_, _, origin, stamp) = &place;
            if unsettled == Some(*origin) {
                continue;
            }
            let written_in = model.log_of(*origin, log);
            if written_in.is_none_or(|written_in| *stamp > model.durable(written_in)) {
                continue;
            }
            let (first, there) = self
                .seen
                .entry(place.clone())
                .or_insert_with(|| (partials.clone(), log.node));
            if *first != partials {
                let (trace, key, origin, stamp) = place;
                let detail = format!(
                    "{trace} key {key} of {origin} at {stamp} is {first} in r{} and {partials} in r{}",
                    *there + 1,
                    log.node + 1
                );
                return Err(Violation::new("single writer", detail));
            }
        }
        Ok(())
    }

    /// Forgets what was seen of an origin after an epoch: it is lost, and its stamps will be given to others.
    pub fn forget(&mut self, origin: OriginId, after: u64) {
        self.seen
            .retain(|(_, _, of, stamp), _| *of != origin || *stamp <= after);
    }
}

/// Compares all live slots of all regions. Stamps may differ: a replay may have given a value a later one.
///
/// # Errors
/// When two regions hold different values.
pub fn equal_everywhere(regions: &[(usize, &Dataflow)]) -> Checked {
    let mut first: Option<BTreeMap<(String, String, OriginId), String>> = None;
    for (number, dataflow) in regions {
        let live = slots_of(dataflow)?
            .into_iter()
            .filter(|(_, partials)| !partials.starts_with("deleted"));
        let live: BTreeMap<_, _> = live
            .map(|((trace, key, origin, _), partials)| ((trace, key, origin), partials))
            .collect();
        let first = first.get_or_insert_with(|| live.clone());
        if *first != live {
            let all = first.keys().chain(live.keys());
            let differs = all
                .into_iter()
                .find(|place| first.get(*place) != live.get(*place));
            let detail = differs.map_or_else(String::new, |place| {
                format!(
                    "{place:?} is {:?} in r{} and {:?} in r{}",
                    first.get(place),
                    regions[0].0 + 1,
                    live.get(place),
                    number + 1
                )
            });
            return Err(Violation::new("slots are equal after healing", detail));
        }
    }
    Ok(())
}

/// All slots of a region with their partials as text.
fn slots_of(dataflow: &Dataflow) -> Checked<Vec<(Place, String)>> {
    let mut all = Vec::new();
    let held = dataflow.slots().flat_map(|(id, slots)| {
        let keys = slots.layout().key_types.len();
        slots
            .snapshots()
            .map(move |(origin, rows)| (id, keys, origin, rows))
    });
    for (id, keys, origin, snapshot) in held {
        let name = format!("slots/{id}");
        for delta in snapshot.scan(SCAN_ROWS) {
            let rows = delta.rows();
            let stamps = rows.column(keys).as_primitive::<Int64Type>();
            let deleted = rows.column(keys + 1).as_boolean();
            for row in 0..delta.len() {
                let broken =
                    |detail: String| Violation::new("slots can be read", format!("{name}: {detail}"));
                let show = |from: usize, to: usize| -> Checked<String> {
                    let mut text = String::new();
                    for column in &rows.columns()[from..to] {
                        text += &show_cell(column, row).map_err(&broken)?;
                        text.push(' ');
                    }
                    Ok(text)
                };
                let stamp = u64::try_from(stamps.value(row)).map_err(|_| broken("a stamp".into()))?;
                let partials = match deleted.value(row) {
                    true => "deleted".to_owned(),
                    false => show(keys + 2, rows.num_columns())?,
                };
                all.push(((name.clone(), show(0, keys)?, origin, stamp), partials));
            }
        }
    }
    Ok(all)
}

fn show_cell(column: &arrow::array::ArrayRef, row: usize) -> Result<String, String> {
    match column.data_type() {
        DataType::Binary if !column.is_null(row) => {
            Ok(format!("{:02x?}", column.as_binary::<i32>().value(row)))
        }
        DataType::Binary => Ok("NULL".into()),
        _ => crate::value::cell(column, row).map(|value| value.to_string()),
    }
}
