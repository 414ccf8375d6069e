//! Bundles on their way into the log: what is checked before a record is made of them.
//!
//! Once a bundle is logged it must be appliable for ever, so everything that can be wrong with it is found
//! here: sections of unknown objects, other plans, other columns. The blobs that travel in bundles are encoded
//! here too.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, BinaryArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use tributary_executor::View;
use tributary_planner::catalog::Catalog;
use tributary_replication::{
    Bundle, Epoch, Hlc, ReceivedBundle, RowVersions, Section, SectionObject, SlotSet,
};
use tributary_storage::{Fingerprint, ObjectId, OriginId};

use crate::dataflow::conflicts::{CONFLICTS, definition};
use crate::dataflow::{ATTACHED_BLOB, CATALOG_BLOB, Dataflow};
use crate::error::{RegionError, Result};

/// An applicable set of bundles that passed every check.
pub struct ValidSet {
    /// The bundles as received, in the order in which they are applied.
    pub bytes: Vec<Bytes>,
    /// The same, decoded.
    pub bundles: Vec<Bundle>,
    /// A time that is not before any record the bundles stem from.
    pub time: Hlc,
    /// GLOBAL rows in it.
    pub rows: Vec<(ObjectId, RecordBatch)>,
    /// The newest catalog in it, if it is newer than ours.
    pub catalog: Option<Arc<Catalog>>,
    /// How far each origin gets.
    pub advances: Vec<(OriginId, Epoch)>,
}

/// Checks an applicable set against the catalog that holds once everything sealed is stepped.
///
/// An error names the peer whose bundle is wrong and what is wrong with it.
pub fn validate(
    set: Vec<ReceivedBundle>,
    sealed_catalog: &Arc<Catalog>,
    dataflow: &Dataflow,
    tick_ms: u64,
) -> std::result::Result<ValidSet, (String, String)> {
    let mut catalog = sealed_catalog.clone();
    for received in &set {
        for section in &received.bundle.sections {
            if section.object == SectionObject::Blob(CATALOG_BLOB.into()) {
                let newer =
                    decode_catalog(&section.rows).map_err(|e| (received.peer.clone(), e.to_string()))?;
                if newer.version > catalog.version {
                    catalog = Arc::new(newer);
                }
            }
        }
    }
    let mut valid = ValidSet {
        bytes: Vec::new(),
        bundles: Vec::new(),
        time: Hlc::default(),
        rows: Vec::new(),
        catalog: (catalog.version > sealed_catalog.version).then(|| catalog.clone()),
        advances: Vec::new(),
    };
    for received in set {
        let stage = dataflow.stage(received.bundle.sender);
        let chunk = received.bundle.chunk;
        if let Some(stage) = stage.filter(|stage| chunk.is_sealing() && stage.head.id == chunk.stage) {
            valid.rows.extend(stage.table_rows());
        }
        for section in &received.bundle.sections {
            check_section(section, &catalog, dataflow).map_err(|reason| (received.peer.clone(), reason))?;
            if let SectionObject::Rows(table) = section.object {
                valid.rows.push((table, section.rows.clone()));
            }
        }
        valid.time = valid
            .time
            .max(Hlc::from_ms(received.bundle.tick.0.saturating_mul(tick_ms)));
        valid
            .advances
            .extend(received.bundle.included.iter().map(|part| (part.origin, part.to)));
        valid.bytes.push(received.bytes);
        valid.bundles.push(received.bundle);
    }
    Ok(valid)
}

/// Checks a chunk of a stage. `staged` is the catalog that came with an earlier one of it. Returns the newest catalog that
/// is known of its sender, if it is newer than the sealed one.
///
/// An error says what is wrong with it.
pub fn validate_chunk(
    chunk: &Bundle,
    staged: Option<Arc<Catalog>>,
    sealed: &Arc<Catalog>,
    dataflow: &Dataflow,
) -> std::result::Result<Option<Arc<Catalog>>, String> {
    let mut included = chunk.included.iter();
    if included.any(|part| Some(part.origin) == dataflow.origin()) {
        return Err("a chunk of this region's own changes".into());
    }
    let mut newest = staged;
    for section in &chunk.sections {
        if section.object == SectionObject::Blob(CATALOG_BLOB.into()) {
            let catalog = decode_catalog(&section.rows).map_err(|error| error.to_string())?;
            newest = (catalog.version > sealed.version).then(|| Arc::new(catalog));
        }
    }
    let catalog = newest.as_ref().unwrap_or(sealed);
    for section in &chunk.sections {
        check_section(section, catalog, dataflow)?;
    }
    Ok(newest)
}

fn check_section(
    section: &Section,
    catalog: &Catalog,
    dataflow: &Dataflow,
) -> std::result::Result<(), String> {
    let unknown = |object: ObjectId| {
        if object.0 < catalog.next_object {
            Ok(())
        } else {
            Err(format!("rows of object {object}, which is unknown"))
        }
    };
    match &section.object {
        SectionObject::Rows(id) => {
            let conflicts = (*id == CONFLICTS).then(definition);
            let Some(def) = conflicts.as_ref().or_else(|| catalog.table(*id)) else {
                return unknown(*id);
            };
            if let Some(fingerprint) = dataflow.table_fingerprint(*id) {
                same_fingerprint(section.fingerprint, fingerprint)?;
            }
            let table = RowVersions::new(def.schema(), def.primary_key.clone(), true);
            table
                .check_foreign(section.origin, &section.rows)
                .map_err(|error| error.to_string())?;
        }
        SectionObject::Slots(id) => {
            let Some(def) = catalog.materialized_view(id.view) else {
                return unknown(id.view);
            };
            same_fingerprint(section.fingerprint, def.plan.fingerprint())?;
            if usize::from(id.number) >= def.plan.fragments.len() {
                return Err(format!("slots of fragment {id}, which its view does not have"));
            }
            let mut scratch = SlotSet::new(View::slot_layout(&def.plan, usize::from(id.number)));
            scratch
                .check_foreign(section.origin, &section.rows)
                .map_err(|error| error.to_string())?;
        }
        SectionObject::Blob(name) if name == ATTACHED_BLOB => {
            decode_attached(&section.rows).map_err(|error| error.to_string())?;
        }
        SectionObject::Blob(name) if name == CATALOG_BLOB => {}
        SectionObject::Blob(name) => return Err(format!("a blob named {name:?}, which is unknown")),
    }
    Ok(())
}

fn same_fingerprint(theirs: Fingerprint, ours: Fingerprint) -> std::result::Result<(), String> {
    if theirs == ours {
        Ok(())
    } else {
        Err("rows under another plan or schema".into())
    }
}

/// Decodes bundles that were checked before they were logged.
pub fn decode_logged(bytes: &[Bytes]) -> Result<Vec<Bundle>> {
    Ok(bytes
        .iter()
        .map(|bytes| Bundle::decode(bytes))
        .collect::<std::result::Result<_, _>>()?)
}

/// The catalog as a blob section.
pub fn encode_catalog(catalog: &Catalog) -> RecordBatch {
    blob(&catalog.to_bytes())
}

/// The inverse of [`encode_catalog`]; the bytes may come from a peer.
pub fn decode_catalog(rows: &RecordBatch) -> Result<Catalog> {
    let damaged = |detail: String| RegionError::Unreadable {
        what: "replicated catalog",
        position: 0,
        detail,
    };
    let bytes = blob_bytes(rows).map_err(damaged)?;
    Catalog::from_bytes(bytes).map_err(|error| damaged(error.to_string()))
}

/// The list of attached views as a blob section.
pub fn encode_attached(views: &BTreeSet<ObjectId>) -> RecordBatch {
    blob(&postcard::to_stdvec(views).expect("a set of ids is plain data"))
}

/// The inverse of [`encode_attached`]; the bytes may come from a peer.
pub fn decode_attached(rows: &RecordBatch) -> Result<BTreeSet<ObjectId>> {
    let damaged = |detail: String| RegionError::Unreadable {
        what: "list of attached views",
        position: 0,
        detail,
    };
    let bytes = blob_bytes(rows).map_err(damaged)?;
    postcard::from_bytes(bytes).map_err(|error| damaged(error.to_string()))
}

fn blob(bytes: &[u8]) -> RecordBatch {
    let schema = Arc::new(Schema::new(vec![Field::new("blob", DataType::Binary, false)]));
    let column = BinaryArray::from_iter_values([bytes]);
    RecordBatch::try_new(schema, vec![Arc::new(column)]).expect("one binary column")
}

fn blob_bytes(rows: &RecordBatch) -> std::result::Result<&[u8], String> {
    let column = rows
        .columns()
        .first()
        .and_then(|column| column.as_any().downcast_ref::<BinaryArray>());
    match column {
        Some(column) if column.len() == 1 && column.is_valid(0) => Ok(column.value(0)),
        _ => Err("not one binary value".into()),
    }
}
