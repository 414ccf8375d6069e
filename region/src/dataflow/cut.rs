//! What leaves: snapshots for readers and bundles for peers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use tributary_replication::link::{CutRequest, OriginChanges};
use tributary_replication::{Bundle, Changes, Chunk, Epoch, Included, Section, SectionObject, Tick};
use tributary_storage::{Fingerprint, FragmentId, ObjectId, OriginId, RegionId};

use super::{ATTACHED_BLOB, CATALOG_BLOB, Dataflow, ViewState};
use crate::chunks::{Chunks, PORTION_ROWS, Part, bytes_of};
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
        let mut missing = self.missing_of_all();
        let mut views: BTreeMap<ObjectId, ViewSnapshot> = BTreeMap::new();
        for (&id, state) in &self.views {
            let mut view = view_snapshot(state, missing.remove(&id).unwrap_or_default());
            if view.failure.is_none() {
                // It waits for those below it, and so for what they wait for.
                let mut below = self.views_below(id).into_iter();
                view.failure = below.find_map(|input| views.get(&input)?.failure.clone());
            }
            views.insert(id, view);
        }
        let head = |(origin, epoch)| self.chain_at(origin, epoch).map(|chain| (origin, chain));
        Snapshot {
            position: self.position,
            frontier: self.frontier.clone(),
            collected: self.collected.clone(),
            counts: self.counts,
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
            held: BTreeMap::new(),
            rows_to_merge: 0,
        }
    }

    /// Builds the bundle that a link asks for, from the state as of the last step.
    ///
    /// # Errors
    /// [`RegionError::Withheld`] when a part of it must not leave the region: then nothing of it does.
    pub fn bundle(&self, request: &CutRequest, tick: Tick) -> Result<Bundle> {
        let mut bundle = self.head(request, tick)?;
        for (origin, from, changes) in &request.origins {
            let sections = &mut bundle.sections;
            for name in [CATALOG_BLOB, ATTACHED_BLOB] {
                let blob = SectionObject::Blob(name.into());
                sections.extend(self.section(*origin, &blob, &Changes::Since(*from))?);
            }
            match changes {
                OriginChanges::Of(objects) => {
                    let objects = objects.iter().filter(|(object, _)| !is_blob(object));
                    for (object, changes) in objects {
                        sections.extend(self.section(*origin, object, changes)?);
                    }
                }
                OriginChanges::Since(epoch) => {
                    for object in self.shipped() {
                        sections.extend(self.section(*origin, &object, &Changes::Since(*epoch))?);
                    }
                }
            }
        }
        Ok(bundle)
    }

    /// Whether what a link asks for is too much for one bundle: more than about so many bytes of rows.
    pub fn is_too_large(&self, request: &CutRequest, bytes_max: usize) -> bool {
        let mut bytes = 0;
        for (origin, _, changes) in &request.origins {
            match changes {
                OriginChanges::Of(objects) => {
                    for (object, changes) in objects {
                        bytes += self.bytes_of(*origin, object, changes, bytes_max);
                    }
                }
                OriginChanges::Since(epoch) => {
                    let changes = Changes::Since(*epoch);
                    let of = |object| self.bytes_of(*origin, &object, &changes, bytes_max);
                    bytes += self.shipped().map(of).sum::<usize>();
                }
            }
        }
        bytes > bytes_max
    }

    /// About how many bytes of an object would be sent; not counted beyond `bytes_max`.
    fn bytes_of(
        &self,
        origin: OriginId,
        object: &SectionObject,
        changes: &Changes,
        bytes_max: usize,
    ) -> usize {
        match (object, changes) {
            (SectionObject::Slots(id), Changes::Since(since)) => self
                .slots
                .get(id)
                .map_or(0, |slots| slots.set.bytes_since(origin, *since)),
            (SectionObject::Rows(id), Changes::Keys(keys)) => self.tables.get(id).map_or(0, |table| {
                let rows = table.rows.row_count().max(1);
                keys.len().min(rows) * table.rows.bytes().div_ceil(rows)
            }),
            (SectionObject::Rows(id), Changes::Since(since)) => self.tables.get(id).map_or(0, |table| {
                let mut bytes = 0;
                for rows in table.rows.walk(origin, *since, PORTION_ROWS) {
                    bytes += bytes_of(&rows);
                    if bytes > bytes_max {
                        break;
                    }
                }
                bytes
            }),
            _ => 0,
        }
    }

    /// Begins to read what a link asks for piece by piece. The catalog comes first: the rows may speak of what only it
    /// names.
    /// `earlier` are those of the stage that the bundle was to seal.
    pub(crate) fn chunks(
        &self,
        request: &CutRequest,
        tick: Tick,
        earlier: Option<&Chunks>,
    ) -> Result<Chunks> {
        let mut head = self.head(request, tick)?;
        let mut parts = VecDeque::new();
        for (origin, from, changes) in &request.origins {
            if head.sections.is_empty() {
                // Of whoever made it: it is not adopted from a chunk.
                head.sections.push(Section {
                    object: SectionObject::Blob(CATALOG_BLOB.into()),
                    origin: *origin,
                    fingerprint: Fingerprint([0; 16]),
                    rows: bundles::encode_catalog(&self.catalog),
                });
            }
            let earlier =
                earlier.filter(|earlier| request.seal.is_some_and(|(stage, _)| stage == earlier.stage));
            let mut staged = earlier.iter().flat_map(|earlier| earlier.included());
            let staged = staged
                .find(|part| part.origin == *origin)
                .map_or(*from, |part| part.to);
            for object in self.shipped() {
                let since = match changes {
                    OriginChanges::Since(epoch) => *epoch,
                    OriginChanges::Of(objects) => match objects.get(&object) {
                        Some(Changes::Since(epoch)) => *epoch,
                        // Reading all since then costs less than holding so many keys.
                        Some(Changes::Keys(_)) => staged,
                        None => continue,
                    },
                };
                let walk = match &object {
                    SectionObject::Rows(id) => {
                        let table = &self.tables[id];
                        let walk = table.rows.walk(*origin, since, PORTION_ROWS);
                        Some((table.fingerprint, walk))
                    }
                    SectionObject::Slots(id) => {
                        let slots = &self.slots[id];
                        let walk = slots.set.walk(*origin, since, PORTION_ROWS);
                        walk.map(|walk| (slots.fingerprint, walk))
                    }
                    SectionObject::Blob(_) => None,
                };
                parts.extend(walk.map(|(fingerprint, walk)| Part::new(object, *origin, fingerprint, walk)));
            }
        }
        Ok(Chunks::new(self.position, head, parts))
    }

    /// What travels by rows.
    fn shipped(&self) -> impl Iterator<Item = SectionObject> + '_ {
        let rows = self.tables.iter().filter(|(_, table)| table.def.is_global());
        let rows = rows.map(|(&id, _)| SectionObject::Rows(id));
        rows.chain(self.slots.keys().map(|&id| SectionObject::Slots(id)))
    }

    /// A bundle without sections.
    fn head(&self, request: &CutRequest, tick: Tick) -> Result<Bundle> {
        let sender = self
            .origin
            .ok_or_else(|| RegionError::Invariant("a cut before joining".into()))?;
        let cluster = self
            .catalog
            .cluster
            .ok_or_else(|| RegionError::Invariant("no cluster".into()))?;
        let mut included = Vec::new();
        for (origin, from, _) in &request.origins {
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
        }
        Ok(Bundle {
            sender,
            cluster: tributary_replication::ClusterId(cluster),
            tick,
            frontier: self.frontier.clone(),
            collected: self.collected.clone(),
            included,
            chunk: request.seal.map_or(Chunk::ONLY, |(stage, number)| Chunk {
                stage,
                number,
                last: true,
            }),
            sections: Vec::new(),
        })
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
        self.check_leaving(&section).map_err(RegionError::Withheld)?;
        Ok(Some(section))
    }

    /// Whether a section may leave the region; false when its object is no more.
    ///
    /// # Errors
    /// Why it must not.
    pub(crate) fn may_leave(&self, section: &Section) -> std::result::Result<bool, String> {
        let is_there = match &section.object {
            SectionObject::Rows(id) => self.tables.contains_key(id),
            SectionObject::Slots(id) => self.slots.contains_key(id),
            SectionObject::Blob(_) => true,
        };
        if is_there {
            self.check_leaving(section)?;
        }
        Ok(is_there)
    }

    fn check_leaving(&self, section: &Section) -> std::result::Result<(), String> {
        if self.defects.skip_residency_check {
            return Ok(());
        }
        let rows_min = |id| self.group_rows_min(id);
        door::check(&self.catalog, &section.object, &section.rows, rows_min)
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

fn view_snapshot(state: &ViewState, missing: Vec<RegionId>) -> ViewSnapshot {
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

fn is_blob(object: &SectionObject) -> bool {
    matches!(object, SectionObject::Blob(_))
}
