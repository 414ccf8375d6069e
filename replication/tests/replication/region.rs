//! A region without a log, a catalog and views: one fragment of slots, one GLOBAL table, one blob.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::Bytes;
use tributary_replication::{
    Bundle, Changed, Changes, Chunk, ClusterId, CutRequest, Defects, Epoch, Frontier, HlcClock, Identity,
    Inbox, Included, Link, LinkConfig, LinkEffect, Local, Member, Message, OriginChanges, RowVersions,
    Section, SectionObject, SlotChanges, SlotLayout, SlotSet, TableWrites, Tick,
};
use tributary_storage::{
    ChainHash, Delta, Fingerprint, FragmentId, KeyEncoder, Keys, ObjectId, OriginId, RegionId,
};

pub const CLUSTER: ClusterId = ClusterId([0xaa; 16]);
const FRAGMENT: FragmentId = FragmentId {
    view: ObjectId(7),
    number: 0,
};
const TABLE: ObjectId = ObjectId(8);
const BLOB: &str = "catalog";

/// A bundle that is built but not durable yet.
struct HeldBack {
    peer: String,
    request: CutRequest,
    bundle: Bundle,
    due_ms: u64,
}

pub struct Region {
    pub name: String,
    pub identity: Option<Identity>,
    pub members: BTreeMap<RegionId, Member>,
    pub frontier: Frontier,
    pub links: BTreeMap<String, Link>,
    pub inbox: Inbox,
    pub applied_jointly: usize,
    pub conflicts: u64,
    /// How long a bundle waits for its log records to be durable.
    pub sync_ms: u64,
    config: LinkConfig,
    chains: BTreeMap<(OriginId, Epoch), ChainHash>,
    slots: SlotSet,
    rows: RowVersions,
    blobs: BTreeMap<OriginId, (Epoch, Vec<u8>)>,
    clock: HlcClock,
    position: u64,
    held_back: Vec<HeldBack>,
}

fn table_columns() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("value", DataType::Int64, false),
    ]))
}

fn strings(values: &[&str]) -> ArrayRef {
    Arc::new(values.iter().map(|value| Some(*value)).collect::<StringArray>())
}

fn encoded(keys: &[&str]) -> Keys {
    KeyEncoder::new(&[DataType::Utf8]).encode(&[strings(keys)])
}

/// Collects what a link wants.
pub type Outbox = Vec<(String, LinkEffect)>;

impl Region {
    pub fn new(name: &str, number: u16, members: &BTreeMap<RegionId, Member>, config: LinkConfig) -> Self {
        let origin = OriginId::first(RegionId(number));
        let identity = Identity {
            cluster: CLUSTER,
            region: RegionId(number),
            name: name.into(),
            origin,
        };
        Self {
            name: name.into(),
            identity: Some(identity),
            members: members.clone(),
            frontier: Frontier::new(),
            links: BTreeMap::new(),
            inbox: Inbox::new(),
            applied_jointly: 0,
            conflicts: 0,
            sync_ms: 0,
            config,
            chains: BTreeMap::new(),
            slots: SlotSet::new(SlotLayout {
                key_types: vec![DataType::Utf8],
                partial_types: vec![DataType::Int64],
            }),
            rows: RowVersions::new(table_columns(), vec![0], true),
            blobs: BTreeMap::new(),
            clock: HlcClock::default(),
            position: 0,
            held_back: vec![],
        }
    }

    pub fn set_defects(&mut self, defects: Defects) {
        self.slots.set_defects(defects);
        self.rows.set_defects(defects);
        self.inbox.set_defects(defects);
    }

    pub fn add_peer(&mut self, peer: &str) {
        self.links
            .insert(peer.into(), Link::new(peer.into(), self.config.clone()));
    }

    /// Memory is lost, what is durable stays.
    pub fn restart(&mut self) {
        self.held_back.clear();
        self.inbox = Inbox::new();
        for (peer, link) in &mut self.links {
            *link = Link::new(peer.clone(), self.config.clone());
        }
    }

    /// Forgets epochs after `epoch`, as a region does that comes back from an old copy of its disk.
    pub fn set_own_epoch(&mut self, epoch: u64) {
        let own = self.origin();
        self.frontier.set(own, Epoch(epoch));
    }

    /// Makes the own history another one.
    pub fn fork(&mut self) {
        let own = self.origin();
        for ((origin, _), chain) in &mut self.chains {
            if *origin == own {
                chain.0[0] ^= 0xff;
            }
        }
    }

    pub fn origin(&self) -> OriginId {
        self.identity.as_ref().expect("a member").origin
    }

    pub fn with_link<R>(
        &mut self,
        peer: &str,
        now_ms: u64,
        act: impl FnOnce(&mut Link, &Local<'_>, &mut Vec<LinkEffect>) -> R,
    ) -> (R, Outbox) {
        let chains = &self.chains;
        let chain_at = |origin, epoch| chains.get(&(origin, epoch)).copied();
        let local = Local {
            identity: self.identity.as_ref(),
            name: &self.name,
            frontier: &self.frontier,
            chain_at: &chain_at,
            members: &self.members,
            now_ms,
        };
        let link = self.links.get_mut(peer).expect("a peer");
        let mut out = Vec::new();
        let result = act(link, &local, &mut out);
        (
            result,
            out.into_iter().map(|effect| (peer.to_string(), effect)).collect(),
        )
    }

    /// Commits (key, value) pairs to the slots and to the table; `None` deletes.
    pub fn write(&mut self, writes: &[(&str, Option<i64>)], now_ms: u64) {
        let own = self.origin();
        self.position += 1;
        let stamp = Epoch(self.position);
        let keys: Vec<&str> = writes.iter().map(|(key, _)| *key).collect();
        let deleted: BooleanArray = writes.iter().map(|(_, value)| Some(value.is_none())).collect();
        let partials: Int64Array = writes.iter().map(|(_, value)| *value).collect();
        let values: Int64Array = writes.iter().map(|(_, value)| Some(value.unwrap_or(0))).collect();
        self.slots.write_own(
            own,
            stamp,
            &SlotChanges {
                rows: keys.len(),
                keys: vec![strings(&keys)],
                deleted: deleted.clone(),
                partials: vec![Arc::new(partials)],
            },
        );
        let rows =
            RecordBatch::try_new(table_columns(), vec![strings(&keys), Arc::new(values)]).expect("rows");
        let hlc = self.clock.now(now_ms);
        self.rows
            .write_own(own, stamp, hlc, &TableWrites { rows, deleted });
        self.blobs
            .insert(own, (stamp, format!("{own} at {stamp}").into_bytes()));
        self.seal();
        let before = self
            .chains
            .get(&(own, self.frontier.get(own)))
            .copied()
            .unwrap_or(ChainHash([0; 16]));
        self.chains.insert(
            (own, stamp),
            before.next(tributary_storage::Position(stamp.0), b"a record"),
        );
        self.frontier.advance(own, stamp);
        let changes = BTreeMap::from([
            (SectionObject::Slots(FRAGMENT), Changed::Stamped),
            (SectionObject::Rows(TABLE), Changed::Keys(encoded(&keys))),
            (SectionObject::Blob(BLOB.into()), Changed::Stamped),
        ]);
        self.links
            .values_mut()
            .for_each(|link| link.changed(stamp, &changes));
    }

    /// A message arrived.
    pub fn receive(&mut self, peer: &str, message: Message, now_ms: u64) -> Outbox {
        let (_, effects) = self.with_link(peer, now_ms, |link, local, out| link.receive(message, local, out));
        let mut out = Vec::new();
        for (peer, effect) in effects {
            match effect {
                LinkEffect::Deliver(bytes) => {
                    self.inbox
                        .offer(&peer, bytes, &self.frontier)
                        .expect("the link looked at it");
                }
                LinkEffect::Stage(_) => panic!("nothing here is too large for one message"),
                effect => out.push((peer, effect)),
            }
        }
        out.extend(self.apply(now_ms));
        out
    }

    /// Time has passed; `tick` when a tick was reached.
    pub fn poll(&mut self, now_ms: u64, tick: Option<Tick>) -> Outbox {
        let mut out = Vec::new();
        for peer in self.links.keys().cloned().collect::<Vec<_>>() {
            out.extend(
                self.with_link(&peer, now_ms, |link, local, out| link.poll(local, out))
                    .1,
            );
            if let Some(tick) = tick {
                let (request, _) = self.with_link(&peer, now_ms, |link, local, _| link.cut_due(tick, local));
                if let Some(request) = request {
                    let bundle = self.bundle(tick, &request);
                    self.held_back.push(HeldBack {
                        peer,
                        request,
                        bundle,
                        due_ms: now_ms + self.sync_ms,
                    });
                }
            }
        }
        let (due, later) = std::mem::take(&mut self.held_back)
            .into_iter()
            .partition(|cut| cut.due_ms <= now_ms);
        self.held_back = later;
        let due: Vec<HeldBack> = due;
        for HeldBack {
            peer,
            request,
            bundle,
            ..
        } in due
        {
            let bytes = bundle.encode();
            let made = |link: &mut Link, _: &Local<'_>, out: &mut Vec<LinkEffect>| {
                link.cut_made(request, &bundle, bytes, out);
            };
            out.extend(self.with_link(&peer, now_ms, made).1);
        }
        out.extend(self.apply(now_ms));
        out
    }

    fn seal(&mut self) {
        self.rows.seal(self.position);
    }

    fn bundle(&self, tick: Tick, request: &CutRequest) -> Bundle {
        let mut sections = Vec::new();
        let mut included = Vec::new();
        for (origin, from, changes) in &request.origins {
            let to = self.frontier.get(*origin);
            let chain = self.chains[&(*origin, to)];
            included.push(Included {
                origin: *origin,
                from: *from,
                to,
                chain,
            });
            for object in [
                SectionObject::Slots(FRAGMENT),
                SectionObject::Rows(TABLE),
                SectionObject::Blob(BLOB.into()),
            ] {
                let changes = match changes {
                    OriginChanges::Since(since) => Changes::Since(*since),
                    OriginChanges::Of(objects) => match objects.get(&object) {
                        Some(changes) => changes.clone(),
                        None => continue,
                    },
                };
                let rows = match &object {
                    SectionObject::Slots(_) => match &changes {
                        Changes::Since(since) => self.slots.section(*origin, *since),
                        Changes::Keys(_) => panic!("slots are asked for by stamp"),
                    },
                    SectionObject::Rows(_) => self.rows.section(*origin, &changes),
                    SectionObject::Blob(_) => match self.blobs.get(origin) {
                        Some((_, blob)) => {
                            let column: ArrayRef = Arc::new(BinaryArray::from_iter_values([blob]));
                            RecordBatch::try_from_iter([("value", column)]).expect("rows")
                        }
                        None => continue,
                    },
                };
                sections.push(Section {
                    object,
                    origin: *origin,
                    fingerprint: Fingerprint([0; 16]),
                    rows,
                });
            }
        }
        Bundle {
            sender: self.origin(),
            cluster: CLUSTER,
            tick,
            frontier: self.frontier.clone(),
            collected: Frontier::new(),
            included,
            chunk: Chunk::ONLY,
            sections,
        }
    }

    fn apply(&mut self, now_ms: u64) -> Outbox {
        let taken = self.inbox.take_applicable(&self.frontier);
        let moved = !taken.is_empty();
        self.applied_jointly += usize::from(taken.len() > 1);
        for received in taken {
            self.merge(&received.bundle);
        }
        let mut out = Vec::new();
        if moved {
            self.position += 1;
            self.seal();
        }
        let lacks = self.inbox.lacks(&self.frontier);
        for peer in self.links.keys().cloned().collect::<Vec<_>>() {
            let need = lacks
                .iter()
                .filter(|(p, _, _)| *p == peer)
                .map(|(_, o, e)| (*o, *e))
                .collect();
            out.extend(
                self.with_link(&peer, now_ms, |link, local, out| link.lack(need, local, out))
                    .1,
            );
            if moved {
                out.extend(
                    self.with_link(&peer, now_ms, |link, local, out| link.applied(local, out))
                        .1,
                );
            }
        }
        out
    }

    fn merge(&mut self, bundle: &Bundle) {
        for section in &bundle.sections {
            let to = bundle
                .included
                .iter()
                .find(|i| i.origin == section.origin)
                .expect("included")
                .to;
            match &section.object {
                SectionObject::Slots(_) => {
                    self.slots
                        .merge_foreign(section.origin, &section.rows)
                        .expect("slots of a region");
                }
                SectionObject::Rows(_) => {
                    let merged = self
                        .rows
                        .merge_foreign(section.origin, &section.rows)
                        .expect("rows of a region");
                    self.clock.observe(merged.max_hlc);
                    self.conflicts += merged.conflicts as u64;
                }
                SectionObject::Blob(_) => {
                    let value = section.rows.column(0).as_binary::<i32>().value(0).to_vec();
                    let held = self.blobs.entry(section.origin).or_default();
                    if to > held.0 {
                        *held = (to, value);
                    }
                }
            }
        }
        for included in &bundle.included {
            self.chains.insert((included.origin, included.to), included.chain);
            self.frontier.advance(included.origin, included.to);
        }
    }

    /// Everything that is held, as text.
    pub fn state(&self) -> Vec<String> {
        let mut state = Vec::new();
        let mut show = |kind: &str, delta: &Delta| {
            for row in 0..delta.len() {
                let cells: Vec<String> = delta.rows().columns().iter().map(|c| cell(c, row)).collect();
                state.push(format!("{kind} {} x{}", cells.join(" "), delta.weight(row)));
            }
        };
        for (origin, slots) in self.slots.snapshots() {
            slots
                .scan(1000)
                .for_each(|delta| show(&format!("slot of {origin}"), &delta));
        }
        self.rows
            .snapshot()
            .scan(1000)
            .for_each(|delta| show("row", &delta));
        // Slots are kept in the order in which they came, which differs between regions.
        state.sort();
        for (origin, (_, blob)) in &self.blobs {
            state.push(format!("blob {origin} {}", String::from_utf8_lossy(blob)));
        }
        state
    }

    /// The live slots, as `key@origin=value`.
    pub fn slots(&self) -> Vec<String> {
        let mut shown = Vec::new();
        for (origin, slots) in self.slots.snapshots() {
            for delta in slots.scan(1000) {
                let rows = delta.rows();
                for row in (0..rows.num_rows()).filter(|row| !rows.column(2).as_boolean().value(*row)) {
                    let (key, value) = (cell(rows.column(0), row), cell(rows.column(3), row));
                    shown.push(format!("{key}@{origin}={value}"));
                }
            }
        }
        shown.sort();
        shown
    }
}

fn cell(column: &ArrayRef, row: usize) -> String {
    arrow::util::display::array_value_to_string(column, row).expect("a value")
}

/// Bytes as they cross the network.
pub fn over_the_wire(message: &Message) -> Bytes {
    message.encode()
}
