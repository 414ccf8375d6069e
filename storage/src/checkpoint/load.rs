//! Reading the live checkpoint, whole and verified, before anything of it is used.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use bytes::Bytes;

use super::manifest::{self, Manifest, StoredObject, StoredRows, StoredTrace};
use super::object::{self, damaged};
use super::{rows_file, run_file};
use crate::Delta;
use crate::error::Result;
use crate::kv::Kv;
use crate::log::{ChainHash, Position};
use crate::rows::RowStore;
use crate::trace::{Layout, RowCodec, Run, RunId, RunTrace};

/// A checkpoint that was read. Traces are taken out of it one by one.
#[derive(Debug)]
pub struct Loaded {
    /// The last log record that is contained in it.
    pub position: Position,
    /// The hash of the log up to there.
    pub chain: ChainHash,
    /// The blobs, by name.
    pub blobs: BTreeMap<String, Bytes>,
    traces: BTreeMap<String, StoredTrace>,
    runs: BTreeMap<RunId, LoadedRun>,
    rows: BTreeMap<String, LoadedRows>,
}

#[derive(Debug)]
struct LoadedRows {
    types: String,
    parts: Vec<rows_file::Part>,
}

#[derive(Debug)]
struct LoadedRun {
    portions: Arc<Vec<Delta>>,
    stamp_min: u64,
    stamp_max: u64,
    /// How many traces have not taken it yet.
    uses: usize,
}

/// The live checkpoint; `None` when none was ever completed.
///
/// # Errors
/// [`crate::StorageError::Corrupt`] when anything it names is missing or damaged, with its name and what to
/// do.
pub fn load(kv: &dyn Kv) -> Result<Option<Loaded>> {
    load_with(kv, &|jobs| jobs.into_iter().for_each(|job| job()))
}

/// A piece of the work of loading.
pub type LoadJob<'a> = Box<dyn FnOnce() + Send + 'a>;

/// As [`load`], where `run` does all the pieces it is given, several at a time if it likes, before it returns.
///
/// # Errors
/// As [`load`].
pub fn load_with(kv: &dyn Kv, run: &dyn Fn(Vec<LoadJob<'_>>)) -> Result<Option<Loaded>> {
    let Some(current) = manifest::current(kv)? else {
        return Ok(None);
    };
    let Manifest {
        position,
        chain,
        traces,
        runs: stored_runs,
        blobs: stored_blobs,
        rows: stored_rows,
        segments,
    } = current.manifest;
    let mut runs = BTreeMap::new();
    for (id, stored) in &stored_runs {
        let portions = run_file::read(kv, *id, stored.object)?;
        let rows: usize = portions.iter().map(Delta::len).sum();
        if rows as u64 != stored.rows || stored.stamp_min > stored.stamp_max {
            let detail = format!("it has {rows} rows, and its manifest says {}", stored.rows);
            return Err(damaged(&format!("run {id}"), &detail));
        }
        let uses = traces
            .values()
            .flat_map(|trace| &trace.runs)
            .filter(|used| *used == id)
            .count();
        let (portions, stamp_min, stamp_max) = (Arc::new(portions), stored.stamp_min, stored.stamp_max);
        runs.insert(
            *id,
            LoadedRun {
                portions,
                stamp_min,
                stamp_max,
                uses,
            },
        );
    }
    for (name, trace) in &traces {
        if let Some(id) = trace.runs.iter().find(|id| !runs.contains_key(id)) {
            return Err(damaged(
                &format!("run {id} of trace {name}"),
                "the manifest does not list it",
            ));
        }
    }
    let mut blobs = BTreeMap::new();
    for (name, stored) in stored_blobs {
        let bytes = object::read_all(kv, &format!("blob {name}"), stored.id, stored.object)?;
        blobs.insert(name, bytes);
    }
    let rows = read_rows(kv, stored_rows, &segments, run)?;
    Ok(Some(Loaded {
        position,
        chain,
        blobs,
        traces,
        runs,
        rows,
    }))
}

/// Reads the segments of all rows, each by a job of its own.
fn read_rows(
    kv: &dyn Kv,
    stored: BTreeMap<String, StoredRows>,
    objects: &BTreeMap<RunId, StoredObject>,
    run: &dyn Fn(Vec<LoadJob<'_>>),
) -> Result<BTreeMap<String, LoadedRows>> {
    let mut read: Vec<Vec<Option<Result<rows_file::Part>>>> = Vec::with_capacity(stored.len());
    for rows in stored.values() {
        read.push(rows.segments.iter().map(|_| None).collect());
    }
    let mut jobs: Vec<LoadJob<'_>> = Vec::new();
    for ((name, rows), places) in stored.iter().zip(&mut read) {
        for (segment, place) in rows.segments.iter().zip(places) {
            jobs.push(Box::new(move || {
                *place = Some(rows_file::read(kv, name, *segment, objects));
            }));
        }
    }
    run(jobs);
    let whole = |((name, stored), parts): ((String, StoredRows), Vec<Option<Result<rows_file::Part>>>)| {
        let parts = parts.into_iter().map(|part| part.expect("every job was done"));
        let (types, parts) = (stored.types, parts.collect::<Result<_>>()?);
        Ok((name, LoadedRows { types, parts }))
    };
    stored.into_iter().zip(read).map(whole).collect()
}

impl Loaded {
    /// The names of the traces that have not been taken.
    pub fn trace_names(&self) -> impl Iterator<Item = &str> {
        self.traces.keys().map(String::as_str)
    }

    /// Takes a trace out; `None` when the checkpoint has none of that name, or it was taken before.
    ///
    /// # Errors
    /// [`crate::StorageError::Corrupt`] when it was stored with another layout.
    pub fn trace(&mut self, name: &str, layout: Layout) -> Result<Option<RunTrace>> {
        let Some(stored) = self.traces.get(name) else {
            return Ok(None);
        };
        if stored.fingerprint != layout.fingerprint() {
            let detail = format!("it was stored with another layout than {:?}", layout.key);
            return Err(damaged(&format!("trace {name}"), &detail));
        }
        let codec = RowCodec::new(layout);
        let mut runs = Vec::with_capacity(stored.runs.len());
        for id in &stored.runs {
            let loaded = self
                .runs
                .get(id)
                .expect("loading checked that every run of a trace is there");
            for portion in loaded.portions.iter() {
                run_file::check_layout(*id, portion, &codec.layout)?;
            }
            let run = Run::stored(&codec, *id, &loaded.portions, loaded.stamp_min, loaded.stamp_max);
            runs.push(Arc::new(run));
        }
        let taken = self
            .traces
            .remove(name)
            .map(|trace| trace.runs)
            .unwrap_or_default();
        for id in taken {
            self.release(id);
        }
        Ok(Some(RunTrace::from_codec(codec, runs)))
    }

    /// Takes rows out; `None` when the checkpoint has none of that name, or they were taken before.
    ///
    /// # Errors
    /// [`crate::StorageError::Corrupt`] when they were stored with other columns.
    pub fn rows(&mut self, name: &str, schema: SchemaRef) -> Result<Option<RowStore>> {
        let Some(loaded) = self.rows.remove(name) else {
            return Ok(None);
        };
        let types = rows_file::types(&schema);
        let differs = |(segment, _): &rows_file::Part| rows_file::types(&segment.rows().schema()) != types;
        if loaded.types != types || loaded.parts.iter().any(differs) {
            let detail = format!("they were stored as ({}), not ({types})", loaded.types);
            return Err(damaged(&format!("rows {name}"), &detail));
        }
        Ok(Some(RowStore::restored(schema, loaded.parts)))
    }

    /// Frees the columns of a run once no other trace needs them.
    fn release(&mut self, id: RunId) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.uses -= 1;
            if run.uses == 0 {
                self.runs.remove(&id);
            }
        }
    }
}
