//! Several machines, joined by a network that loses nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, Int32Array, RecordBatch};
use arrow::datatypes::Int64Type;
use tributary_planner::catalog::{CatalogChange, PlanSettings};
use tributary_region::dataflow::Dataflow;
use tributary_region::{
    Effect, Founding, Input, Region, RegionConfig, Rejected, Snapshot, Submission, TableChange, WriteSet,
};
use tributary_replication::{Message, TableWrites};
use tributary_storage::{ObjectId, Position, Record};

const START_MS: u64 = 1_700_000_000_000;
/// The time from one timer to the next.
pub(super) const TICK_MS: u64 = 20;

struct Node {
    region: Region,
    log: Vec<Record>,
    outcomes: BTreeMap<u64, Result<Position, Rejected>>,
    withheld: Vec<String>,
    stopped: Option<String>,
}

/// Machines by name, and who is connected with whom.
pub(super) struct Cluster {
    nodes: BTreeMap<String, Node>,
    connected: BTreeSet<(String, String)>,
    /// Pairs that cannot reach each other.
    cut: BTreeSet<(String, String)>,
    /// From whom to whom no bundle arrives, though everything else does.
    slow: BTreeSet<(String, String)>,
    /// To these no bundle comes through.
    deaf: BTreeSet<String>,
    under_way: VecDeque<(String, String, Message)>,
    /// Bytes of all bundles sent so far.
    bundle_bytes: usize,
    now_ms: u64,
    tokens: u64,
}

impl Cluster {
    /// A cluster with these members, of which the first is the primary; connected and settled.
    pub(super) fn new(names: &[&str]) -> Self {
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            connected: BTreeSet::new(),
            cut: BTreeSet::new(),
            slow: BTreeSet::new(),
            deaf: BTreeSet::new(),
            under_way: VecDeque::new(),
            bundle_bytes: 0,
            now_ms: START_MS,
            tokens: 0,
        };
        for name in names {
            let peers: Vec<&str> = names.iter().copied().filter(|peer| peer != name).collect();
            cluster.start(name, &peers, Vec::new(), |config| {
                if *name == names[0] {
                    config.found = Some(Founding { cluster: [7; 16] });
                }
            });
        }
        cluster.connect_all();
        cluster.run(400);
        cluster
    }

    pub(super) fn try_start(
        &mut self,
        name: &str,
        peers: &[&str],
        log: Vec<Record>,
        set: impl FnOnce(&mut RegionConfig),
    ) -> Result<(), String> {
        let peers = peers.iter().map(|peer| (*peer).to_owned()).collect();
        let mut config = RegionConfig::new(name, peers);
        set(&mut config);
        let mut out = Vec::new();
        let region = Region::open(config, None, log.clone(), self.now_ms, &mut out);
        let region = region.map_err(|error| error.to_string())?;
        let node = Node {
            region,
            log,
            outcomes: BTreeMap::new(),
            withheld: Vec::new(),
            stopped: None,
        };
        self.nodes.insert(name.to_owned(), node);
        self.take(name, out);
        Ok(())
    }

    pub(super) fn start(
        &mut self,
        name: &str,
        peers: &[&str],
        log: Vec<Record>,
        set: impl FnOnce(&mut RegionConfig),
    ) {
        self.try_start(name, peers, log, set).expect("it opens");
    }

    /// Ends a region; returns its log.
    pub(super) fn stop(&mut self, name: &str) -> Vec<Record> {
        let gone = self.nodes.remove(name).expect("it runs");
        self.connected.retain(|(a, b)| a != name && b != name);
        let others: Vec<String> = self.nodes.keys().cloned().collect();
        for other in others {
            let peer = name.to_owned();
            self.step(&other, Input::Disconnected { peer });
        }
        gone.log
    }

    /// Two regions, in the order of their names, cannot reach each other any more.
    pub(super) fn cut(&mut self, a: &str, b: &str) {
        let pair = (a.to_owned(), b.to_owned());
        self.cut.insert(pair.clone());
        if self.connected.remove(&pair) {
            self.step(a, Input::Disconnected { peer: b.to_owned() });
            self.step(b, Input::Disconnected { peer: a.to_owned() });
        }
    }

    /// Bundles from one region to another are under way for as long as this is so.
    pub(super) fn slow_down(&mut self, from: &str, to: &str, slow: bool) {
        let pair = (from.to_owned(), to.to_owned());
        match slow {
            true => self.slow.insert(pair),
            false => self.slow.remove(&pair),
        };
    }

    /// Two regions can reach each other again.
    pub(super) fn mend(&mut self, a: &str, b: &str) {
        self.cut.remove(&(a.to_owned(), b.to_owned()));
    }

    /// Has bundles to a region lost from now on, or arrive again.
    pub(super) fn set_deaf(&mut self, name: &str, deaf: bool) {
        match deaf {
            true => drop(self.deaf.insert(name.to_owned())),
            false => drop(self.deaf.remove(name)),
        }
    }

    pub(super) fn connect_all(&mut self) {
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        for a in &names {
            for b in names.iter().filter(|b| *b > a) {
                self.connect(a, b);
            }
        }
    }

    pub(super) fn connect(&mut self, a: &str, b: &str) {
        let pair = (a.to_owned(), b.to_owned());
        if !self.cut.contains(&pair) && self.connected.insert(pair) {
            let (to_a, to_b) = (b.to_owned(), a.to_owned());
            self.step(a, Input::Connected { peer: to_a });
            self.step(b, Input::Connected { peer: to_b });
        }
    }

    pub(super) fn step(&mut self, name: &str, input: Input) {
        let Some(node) = self.nodes.get_mut(name).filter(|node| node.stopped.is_none()) else {
            return;
        };
        let mut out = Vec::new();
        node.region.step(self.now_ms, input, &mut out);
        self.take(name, out);
    }

    /// What a region would do, which is not done.
    pub(super) fn effects_of(&mut self, name: &str, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        let node = self.nodes.get_mut(name).expect("it runs");
        node.region.step(self.now_ms, input, &mut out);
        out
    }

    fn take(&mut self, name: &str, out: Vec<Effect>) {
        for effect in out {
            let node = self.nodes.get_mut(name).expect("it runs");
            match effect {
                Effect::Append { record, .. } => node.log.push(record),
                Effect::Reply { token, outcome } => {
                    node.outcomes
                        .insert(token, outcome.map(|committed| committed.position));
                }
                Effect::Send { peer, message } => {
                    if let Message::Bundle(bytes) = &message {
                        self.bundle_bytes += bytes.len();
                    }
                    self.under_way.push_back((name.to_owned(), peer, message));
                }
                Effect::Stop { reason } => node.stopped = Some(reason),
                Effect::Withheld { reason, .. } => node.withheld.push(reason),
                Effect::Close { peer, .. } => {
                    let pair = match name < peer.as_str() {
                        true => (name.to_owned(), peer.clone()),
                        false => (peer.clone(), name.to_owned()),
                    };
                    if self.connected.remove(&pair) {
                        self.step(&pair.0, Input::Disconnected { peer: pair.1.clone() });
                        self.step(&pair.1, Input::Disconnected { peer: pair.0.clone() });
                    }
                }
                _ => {}
            }
        }
    }

    /// Lets time pass: connections are tried again all the time.
    pub(super) fn run(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while self.now_ms < until {
            self.now_ms += TICK_MS;
            self.connect_all();
            let names: Vec<String> = self.nodes.keys().cloned().collect();
            for name in names {
                self.step(&name, Input::Timer);
                self.step(&name, Input::Work);
                let last = self.nodes[&name]
                    .log
                    .last()
                    .map_or(Position(0), |record| record.position);
                self.step(&name, Input::Persisted { position: last });
            }
            for _ in 0..self.under_way.len() {
                let (from, to, message) = self.under_way.pop_front().expect("counted");
                let pair = match from < to {
                    true => (from.clone(), to.clone()),
                    false => (to.clone(), from.clone()),
                };
                let is_heard = !matches!(message, Message::Bundle(_)) || !self.deaf.contains(&to);
                let is_late = self.slow.contains(&(from.clone(), to.clone()));
                if is_late && matches!(message, Message::Bundle(_)) {
                    self.under_way.push_back((from, to, message));
                } else if self.connected.contains(&pair) && is_heard {
                    self.step(&to, Input::Message { peer: from, message });
                }
            }
        }
    }

    /// Bytes of all bundles sent so far.
    pub(super) fn bundle_bytes(&self) -> usize {
        self.bundle_bytes
    }

    pub(super) fn snapshot(&self, name: &str) -> Arc<Snapshot> {
        self.nodes[name].region.snapshot()
    }

    pub(super) fn ddl(&mut self, at: &str, sql: &str) -> Result<Position, Rejected> {
        let catalog = self.snapshot(at).catalog.clone();
        let parsed = tributary_planner::parse::parse(sql).expect("it parses").remove(0);
        let settings = PlanSettings::default();
        let plan = tributary_planner::ddl::plan_ddl(&parsed.statement, &catalog, &settings, self.now_ms);
        self.change_catalog(at, plan.expect("it can be planned").changes)
    }

    /// Changes the catalog, whatever the planner would have said.
    pub(super) fn change_catalog(
        &mut self,
        at: &str,
        changes: Vec<CatalogChange>,
    ) -> Result<Position, Rejected> {
        self.tokens += 1;
        let token = self.tokens;
        let base_version = self.snapshot(at).catalog.version;
        self.step(
            at,
            Input::Ddl {
                token,
                changes,
                base_version,
            },
        );
        self.run(200);
        self.nodes[at].outcomes[&token].clone()
    }

    /// Inserts rows into a table of two integer columns.
    pub(super) fn insert(
        &mut self,
        at: &str,
        table: &str,
        rows: &[(i32, i32)],
    ) -> Result<Position, Rejected> {
        let id = self.table(at, table);
        let schema = self.snapshot(at).catalog.table(id).expect("a table").schema();
        let keys = Int32Array::from_iter_values(rows.iter().map(|row| row.0));
        let values = Int32Array::from_iter_values(rows.iter().map(|row| row.1));
        let batch =
            RecordBatch::try_new(schema, vec![Arc::new(keys), Arc::new(values)]).expect("two columns");
        self.write(at, table, batch, false)
    }

    /// Deletes rows of a table of two integer columns.
    pub(super) fn delete(&mut self, at: &str, table: &str, keys: &[i32]) -> Result<Position, Rejected> {
        let id = self.table(at, table);
        let schema = self.snapshot(at).catalog.table(id).expect("a table").schema();
        let keys: Arc<Int32Array> = Arc::new(keys.to_vec().into());
        let batch = RecordBatch::try_new(schema, vec![keys.clone(), keys]).expect("two columns");
        self.write(at, table, batch, true)
    }

    pub(super) fn table(&self, at: &str, table: &str) -> ObjectId {
        let catalog = &self.snapshot(at).catalog;
        catalog.object(table).expect("it was created").id
    }

    pub(super) fn dataflow(&self, at: &str) -> &Dataflow {
        self.nodes[at].region.dataflow()
    }

    /// Has several writers insert a row each, at once; what became of each.
    pub(super) fn insert_together(
        &mut self,
        at: &str,
        table: &str,
        keys: &[i32],
    ) -> Vec<Result<Position, Rejected>> {
        let (id, snapshot) = (self.table(at, table), self.snapshot(at));
        let schema = snapshot.catalog.table(id).expect("a table").schema();
        let first = self.tokens + 1;
        let submission = |(number, key): (usize, &i32)| {
            let column: Arc<Int32Array> = Arc::new(vec![*key].into());
            let rows =
                RecordBatch::try_new(schema.clone(), vec![column.clone(), column]).expect("two columns");
            let deleted = BooleanArray::from(vec![false]);
            let change = TableChange {
                writes: TableWrites { rows, deleted },
                expected: vec![None],
            };
            let writes = WriteSet {
                tables: BTreeMap::from([(id, change)]),
                catalog_version: snapshot.catalog.version,
                ..WriteSet::default()
            };
            let token = first + number as u64;
            Submission { token, writes }
        };
        let submissions: Vec<Submission> = keys.iter().enumerate().map(submission).collect();
        self.tokens += keys.len() as u64;
        self.step(at, Input::Commits(submissions));
        self.run(TICK_MS);
        let outcomes = &self.nodes[at].outcomes;
        (first..first + keys.len() as u64)
            .map(|token| outcomes[&token].clone())
            .collect()
    }

    /// Writes rows over what is there, or deletes them.
    fn write(
        &mut self,
        at: &str,
        table: &str,
        batch: RecordBatch,
        deleted: bool,
    ) -> Result<Position, Rejected> {
        let (id, snapshot) = (self.table(at, table), self.snapshot(at));
        let change = TableChange {
            expected: self.dataflow(at).versions(id, &batch),
            writes: TableWrites {
                deleted: BooleanArray::from(vec![deleted; batch.num_rows()]),
                rows: batch,
            },
        };
        let writes = WriteSet {
            tables: BTreeMap::from([(id, change)]),
            catalog_version: snapshot.catalog.version,
            ..WriteSet::default()
        };
        self.tokens += 1;
        let token = self.tokens;
        self.step(at, Input::Commits(vec![Submission { token, writes }]));
        self.run(TICK_MS);
        self.nodes[at].outcomes[&token].clone()
    }

    /// The rows of a view of integers, sorted; `None` while it cannot be read.
    pub(super) fn view(&self, at: &str, view: &str) -> Option<Vec<Vec<i64>>> {
        let snapshot = self.snapshot(at);
        let id = snapshot.catalog.object(view)?.id;
        let view = snapshot.views.get(&id).filter(|view| view.missing.is_empty())?;
        let mut rows = Vec::new();
        for delta in view.rows.scan(100) {
            for row in 0..delta.len() {
                let columns = delta.rows().columns().iter();
                let cast = |column: &arrow::array::ArrayRef| {
                    let column = arrow::compute::cast(column, &arrow::datatypes::DataType::Int64);
                    column.expect("integers").as_primitive::<Int64Type>().value(row)
                };
                rows.push(columns.map(cast).collect());
            }
        }
        rows.sort();
        Some(rows)
    }

    /// What a region has sealed.
    pub(super) fn log(&self, name: &str) -> &[Record] {
        &self.nodes[name].log
    }

    /// Why a region did not send bundles.
    pub(super) fn withheld(&self, name: &str) -> &[String] {
        &self.nodes[name].withheld
    }

    pub(super) fn stopped(&self, name: &str) -> &str {
        self.nodes[name].stopped.as_deref().expect("it has stopped")
    }

    /// Tables `t` (REGIONAL) and `g` (GLOBAL), and a view over both.
    pub(super) fn with_view(&mut self, primary: &str) {
        self.ddl(primary, "CREATE TABLE t (id INT PRIMARY KEY, v INT)")
            .expect("made");
        self.ddl(
            primary,
            "CREATE TABLE g (id INT PRIMARY KEY, w INT) LOCALITY GLOBAL",
        )
        .expect("made");
        let view =
            "CREATE MATERIALIZED VIEW m AS SELECT w, count(*) AS n FROM t JOIN g ON t.v = g.id GROUP BY w";
        self.ddl(primary, view).expect("made");
        self.run(200);
    }
}

pub(super) fn rows(rows: &[[i64; 2]]) -> Option<Vec<Vec<i64>>> {
    Some(rows.iter().map(|row| row.to_vec()).collect())
}
