//! The Nexmark auction site as a source: people, their auctions, and bids on them.
//!
//! Event `i` of the whole source is a function of `i` and the options alone: the generator is seeded by it, and
//! the time of the first event stands in the catalog. So a region that lost its last batch in a crash makes
//! the same events again, and the regions together make each event once: see [`share`].
//!
//! Options, as the planner completed them: `rate` (events per second of the whole source), `events` (how many in
//! all; without it, no end), `share` (`us=2,eu=1`: events in these proportions), `seed` (another part of the
//! generator's endless sequence).

mod rows;
mod share;

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use tributary_planner::catalog::{Catalog, ObjectKind, SourceDef, TableDef};
use tributary_planner::ddl::NEXMARK_RATE_DEFAULT;
use tributary_region::TableChange;
use tributary_storage::{ObjectId, RegionId};

use rows::Rows;
pub use rows::{Kind, all_columns};
use share::Share;

/// Events of one commit, at most.
pub const BATCH_EVENTS_MAX: u64 = 5000;
/// Seeds are taken modulo this, so that event numbers stay far from their limit.
const SEEDS: u64 = 1_000_000_007;
/// Events in which the generator repeats its pattern of kinds; seeds are this far apart.
const PATTERN_EVENTS: u64 = 50;

/// Makes this region's share of the events.
pub struct Generator {
    source: ObjectId,
    tables: Vec<(Kind, ObjectId, TableDef)>,
    share: Share,
    settings: Settings,
    events: u64,
}

#[derive(Clone, Copy)]
struct Settings {
    rate: u64,
    seed: u64,
    base_time_ms: u64,
}

impl Generator {
    /// Checks the options and the tables.
    pub fn new(
        source: ObjectId,
        def: &SourceDef,
        catalog: &Catalog,
        region: RegionId,
    ) -> Result<Generator, String> {
        let number = |name: &str, default: u64| match def.options.get(name) {
            None => Ok(default),
            Some(text) => text
                .parse::<u64>()
                .map_err(|_| format!("option {name} = '{text}' is not a whole number")),
        };
        let names: Vec<(RegionId, &str)> = catalog
            .regions
            .iter()
            .map(|(id, def)| (*id, def.name.as_str()))
            .collect();
        let share = Share::of(region, &names, def.options.get("share").map(String::as_str))?;
        let mut tables = Vec::new();
        for (kind, id) in Kind::ALL.into_iter().zip(&def.tables) {
            let object = catalog
                .by_id(*id)
                .ok_or_else(|| format!("its table {id} is gone"))?;
            let ObjectKind::Table(table) = &object.kind else {
                return Err(format!("\"{}\" is not a table", object.name));
            };
            tables.push((kind, *id, table.clone()));
        }
        if tables.len() != Kind::ALL.len() {
            return Err("the source does not have a table for people, auctions and bids each".to_owned());
        }
        Ok(Generator {
            source,
            tables,
            share,
            events: number("events", u64::MAX)?,
            settings: Settings {
                rate: number("rate", NEXMARK_RATE_DEFAULT)?.max(1),
                seed: number("seed", 0)?,
                base_time_ms: def.base_time_ms,
            },
        })
    }

    /// Events of this region, from the first to the last.
    pub fn events_total(&self) -> u64 {
        self.share.count(self.events)
    }

    /// Events per second of this region.
    pub fn rate(&self) -> f64 {
        self.settings.rate as f64 * self.share.fraction()
    }

    /// The rows of this region's events `from..from + count`.
    pub fn batch(&self, from: u64, count: u64) -> Result<BTreeMap<ObjectId, TableChange>, String> {
        let indices = (from..from + count).map(|own| self.share.event(own));
        let rows = make(self.source, self.settings, indices)?;
        let mut changes = BTreeMap::new();
        for (kind, id, table) in &self.tables {
            if let Some(change) = rows.table(*kind, table)? {
                changes.insert(*id, change);
            }
        }
        Ok(changes)
    }
}

fn make(source: ObjectId, settings: Settings, indices: impl Iterator<Item = u64>) -> Result<Rows, String> {
    let size = |number: u64| usize::try_from(number).map_err(|_| format!("{number} is too large"));
    let config = NexmarkConfig {
        base_time: settings.base_time_ms,
        first_rate: size(settings.rate)?,
        next_rate: size(settings.rate)?,
        first_event_id: size(settings.seed % SEEDS * PATTERN_EVENTS)?,
        ..NexmarkConfig::default()
    };
    let mut events = EventGenerator::new(config);
    let mut rows = Rows::new(source);
    for index in indices {
        events = events.with_offset(index);
        rows.push(index, events.next().ok_or("the generator never ends")?);
    }
    Ok(rows)
}

/// The rows of one kind among these events, with the columns named: for measurements, without a catalog.
pub fn event_rows(
    events: Range<u64>,
    kind: Kind,
    columns: &[(&str, DataType)],
) -> Result<Option<RecordBatch>, String> {
    let settings = Settings {
        rate: NEXMARK_RATE_DEFAULT,
        seed: 0,
        base_time_ms: 0,
    };
    let rows = make(ObjectId(0), settings, events)?;
    rows.batch(kind, columns)
}

#[cfg(test)]
mod tests;
