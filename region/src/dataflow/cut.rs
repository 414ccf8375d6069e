//! What leaves: snapshots for readers and bundles for peers.

use std::sync::Arc;

use arrow::array::RecordBatch;
use tributary_replication::link::{CutRequest, OriginChanges};
use tributary_replication::{Bundle, Changes, Chunk, Epoch, Included, Section, SectionObject, Tick};
use tributary_storage::{Fingerprint, FragmentId, ObjectId, OriginId};

use super::{ATTACHED_BLOB, CATALOG_BLOB, Dataflow, ViewState};
use crate::error::{RegionError, Result};
use crate::snapshot::{Snapshot, TableSnapshot, ViewSnapshot};
use crate::{bundles, door};

impl Dataflow {
    /// A table as of the last step.
    pub fn table_snapshot(&self, id: ObjectId) -> Option<TableSnapshot> {
        let table = self.tables.get(&id)?;
        Some(TableSnapshot {
            def: table.def.clone(),
            rows: table.rows.snapshot(),
            tombstones: table.rows.tombstones(),
            oldest_tombstones: table.rows.oldest_tombstones(),
        })
    }

    /// Everything as of the last step. The caller adds what it knows of links and freshness.
    pub fn snapshot(&self) -> Snapshot {
        let tables = self
            .tables
            .keys()
            .filter_map(|&id| Some((id, self.table_snapshot(id)?)))
            .collect();
        let views = self
            .views
            .iter()
            .map(|(&id, state)| (id, self.view_snapshot(id, state)))
            .collect();
        let head = |(origin, epoch)| self.chain_at(origin, epoch).map(|chain| (origin, chain));
        Snapshot {
            position: self.position,
            frontier: self.frontier.clone(),
            collected: self.collected.clone(),
            settled: false,
            hlc: self.hlc,
            origin: self.writes_as(),
            catalog: self.catalog.clone(),
            tables,
            views,
            sources: self.sources.clone(),
            source_marks: self.source_logs.iter().map(|(&id, log)| (id, log.mark)).collect(),
            heads: self.frontier.iter().filter_map(head).collect(),
            links: Vec::new(),
            regions: Vec::new(),
        }
    }

    fn view_snapshot(&self, id: ObjectId, state: &ViewState) -> ViewSnapshot {
        let missing = self.missing(id);
        match state {
            ViewState::Attached(view) => ViewSnapshot {
                rows: view.result(),
                missing,
                backfill: (1, 1),
                failure: None,
                errors: Arc::new(view.errors()),
                groups_held_back: view.groups_held_back(),
                state: Arc::new(view.state_sizes()),
            },
            ViewState::Backfilling(backfill) => ViewSnapshot {
                rows: backfill.empty_result(),
                missing,
                backfill: backfill.progress(),
                failure: backfill.failure().map(Arc::from),
                errors: Arc::new(Vec::new()),
                groups_held_back: backfill.view().groups_held_back(),
                state: Arc::new(Vec::new()),
            },
        }
    }

    /// Builds the bundle that a link asks for, from the state as of the last step.
    ///
    /// # Errors
    /// [`RegionError::Withheld`] when a part of it must not leave the region: then nothing of it does.
    pub fn bundle(&self, request: &CutRequest, tick: Tick) -> Result<Bundle> {
        let sender = self
            .origin
            .ok_or_else(|| RegionError::Invariant("a cut before joining".into()))?;
        let cluster = self
            .catalog
            .cluster
            .ok_or_else(|| RegionError::Invariant("no cluster".into()))?;
        let mut included = Vec::new();
        let mut sections = Vec::new();
        for (origin, from, changes) in &request.origins {
            let to = self.frontier.get(*origin);
            let chain = self.chain_at(*origin, to).ok_or_else(|| {
                RegionError::Invariant(format!("the log hash of {origin} at {} is unknown", to.0))
            })?;
            included.push(Included {
                origin: *origin,
                from: *from,
                to,
                chain,
            });
            match changes {
                OriginChanges::Of(objects) => {
                    for (object, changes) in objects {
                        sections.extend(self.section(*origin, object, changes)?);
                    }
                }
                OriginChanges::Since(epoch) => sections.extend(self.everything_since(*origin, *epoch)?),
            }
        }
        Ok(Bundle {
            sender,
            cluster: tributary_replication::ClusterId(cluster),
            tick,
            frontier: self.frontier.clone(),
            collected: self.collected.clone(),
            included,
            chunk: Chunk {
                number: 0,
                last: true,
            },
            sections,
        })
    }

    fn everything_since(&self, origin: OriginId, epoch: Epoch) -> Result<Vec<Section>> {
        let changes = Changes::Since(epoch);
        let mut sections = Vec::new();
        let blobs = [CATALOG_BLOB, ATTACHED_BLOB].map(|name| SectionObject::Blob(name.into()));
        let rows = self.tables.iter().filter(|(_, table)| table.def.is_global());
        let objects = blobs
            .into_iter()
            .chain(rows.map(|(&id, _)| SectionObject::Rows(id)))
            .chain(self.slots.keys().map(|&id| SectionObject::Slots(id)));
        for object in objects {
            sections.extend(self.section(origin, &object, &changes)?);
        }
        Ok(sections)
    }

    /// One section; `None` when there is nothing to say or the object was dropped meanwhile.
    fn section(
        &self,
        origin: OriginId,
        object: &SectionObject,
        changes: &Changes,
    ) -> Result<Option<Section>> {
        let (fingerprint, rows) = match object {
            SectionObject::Rows(id) => match self.tables.get(id) {
                Some(table) => (table.fingerprint, table.rows.section(origin, changes)),
                None => return Ok(None),
            },
            SectionObject::Slots(id) => match self.slots.get(id) {
                Some(slots) => {
                    let Changes::Since(since) = changes else {
                        return Err(RegionError::Invariant("slots are asked for by stamp".into()));
                    };
                    (slots.fingerprint, slots.set.section(origin, *since))
                }
                None => return Ok(None),
            },
            SectionObject::Blob(name) => match self.blob(origin, name, changes) {
                Some(rows) => (Fingerprint([0; 16]), rows),
                None => return Ok(None),
            },
        };
        let section = Section {
            object: object.clone(),
            origin,
            fingerprint,
            rows,
        };
        if section.rows.num_rows() == 0 {
            return Ok(None);
        }
        if !self.defects.skip_residency_check {
            door::check(&self.catalog, object, &section.rows, |id| self.group_rows_min(id))
                .map_err(RegionError::Withheld)?;
        }
        Ok(Some(section))
    }

    /// The bound on groups that the running view of a fragment obeys.
    fn group_rows_min(&self, id: FragmentId) -> u64 {
        let number = usize::from(id.number);
        match self.views.get(&id.view) {
            Some(ViewState::Attached(view)) => view.group_rows_min(number),
            Some(ViewState::Backfilling(backfill)) => backfill.view().group_rows_min(number),
            None => 1,
        }
    }

    fn blob(&self, origin: OriginId, name: &str, changes: &Changes) -> Option<RecordBatch> {
        let wanted = |stamp: Epoch| match changes {
            Changes::Keys(_) => true,
            Changes::Since(epoch) => stamp > *epoch,
        };
        if name == CATALOG_BLOB {
            let is_its = self.catalog_origin == Some(origin);
            return (is_its && wanted(self.catalog_stamp)).then(|| bundles::encode_catalog(&self.catalog));
        }
        let (stamp, views) = self.attached.get(&origin)?;
        wanted(*stamp).then(|| bundles::encode_attached(views))
    }

    /// The slots of every fragment.
    pub fn slots(&self) -> impl Iterator<Item = (FragmentId, &tributary_replication::SlotSet)> {
        self.slots.iter().map(|(id, slots)| (*id, &slots.set))
    }
}
