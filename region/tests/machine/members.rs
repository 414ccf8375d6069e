//! Regions that come, go, and come back with nothing: several machines, joined by a network that loses nothing.

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

    fn try_start(
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

#[test]
fn a_region_that_is_added_serves_what_the_others_have_and_contributes() {
    let mut cluster = Cluster::new(&["us", "eu"]);
    cluster.with_view("us");
    cluster.insert("us", "g", &[(1, 10), (2, 20)]).expect("in");
    cluster.insert("us", "t", &[(1, 1), (2, 2)]).expect("in");
    cluster.insert("eu", "t", &[(1, 1)]).expect("in");
    cluster.run(400);

    cluster.start("ap", &["us", "eu"], Vec::new(), |_| {});
    cluster.run(600);
    assert!(
        cluster.snapshot("ap").catalog.cluster.is_none(),
        "nobody talks to a stranger"
    );
    cluster
        .ddl("us", "ALTER DATABASE tributary ADD REGION ap")
        .expect("added");
    // A view that can be read can be read all the time.
    for _ in 0..60 {
        cluster.run(TICK_MS);
        for name in ["us", "eu"] {
            assert_eq!(cluster.view(name, "m"), rows(&[[10, 2], [20, 1]]), "{name}");
        }
    }
    assert_eq!(cluster.view("ap", "m"), rows(&[[10, 2], [20, 1]]));
    cluster.insert("ap", "t", &[(1, 2)]).expect("it takes writes");
    cluster.run(400);
    for name in ["us", "eu", "ap"] {
        assert_eq!(cluster.view(name, "m"), rows(&[[10, 2], [20, 2]]), "{name}");
        assert!(cluster.snapshot(name).settled, "{name}");
    }
}

#[test]
fn a_region_that_joins_takes_no_writes_before_its_views_are_complete() {
    let mut cluster = Cluster::new(&["us", "eu"]);
    cluster.with_view("us");
    let many: Vec<(i32, i32)> = (0..500).map(|id| (id, id)).collect();
    cluster.insert("us", "g", &many).expect("in");
    cluster.run(200);
    cluster
        .ddl("us", "ALTER DATABASE tributary ADD REGION ap")
        .expect("added");
    cluster.start("ap", &["us", "eu"], Vec::new(), |config| {
        config.backfill_rows_max = 3
    });
    let mut refused = 0;
    for id in 0..100 {
        cluster.run(TICK_MS);
        if cluster.snapshot("ap").catalog.object("t").is_none() {
            continue;
        }
        match cluster.insert("ap", "t", &[(id, 7)]) {
            Ok(_) => break,
            Err(rejected) => assert_eq!(rejected, Rejected::Joining),
        }
        refused += 1;
        assert_eq!(cluster.view("us", "m"), Some(Vec::new()));
    }
    assert!(refused > 0, "it joined at once");
    cluster.run(400);
    for name in ["us", "eu", "ap"] {
        assert_eq!(cluster.view(name, "m"), rows(&[[7, 1]]), "{name}");
    }
}

#[test]
fn a_region_that_was_alone_gets_company() {
    let mut cluster = Cluster::new(&["us"]);
    cluster.with_view("us");
    cluster.insert("us", "g", &[(1, 10)]).expect("in");
    cluster.insert("us", "t", &[(1, 1), (2, 1)]).expect("in");
    cluster.run(100);
    assert_eq!(cluster.view("us", "m"), rows(&[[10, 2]]));
    cluster
        .ddl("us", "ALTER DATABASE tributary ADD REGION eu")
        .expect("added");
    cluster.start("eu", &["us"], Vec::new(), |_| {});
    cluster.run(800);
    cluster.insert("eu", "t", &[(1, 1)]).expect("in");
    cluster.run(400);
    for name in ["us", "eu"] {
        assert_eq!(cluster.view(name, "m"), rows(&[[10, 3]]), "{name}");
    }
    // Its log is replayed over the moment at which its views changed their kind.
    let log = cluster.stop("us");
    cluster.start("us", &["eu"], log, |_| {});
    cluster.run(400);
    assert_eq!(cluster.view("us", "m"), rows(&[[10, 3]]));
}

#[test]
fn a_region_that_lost_its_log_stops_and_comes_back_as_another_incarnation() {
    let mut cluster = Cluster::new(&["us", "eu"]);
    cluster.with_view("us");
    cluster.insert("eu", "g", &[(1, 10)]).expect("in");
    cluster.insert("eu", "t", &[(1, 1), (2, 1)]).expect("in");
    cluster.insert("us", "t", &[(1, 1)]).expect("in");
    cluster.run(400);
    assert_eq!(cluster.view("us", "m"), rows(&[[10, 3]]));

    cluster.stop("eu");
    cluster.start("eu", &["us"], Vec::new(), |_| {});
    cluster.run(800);
    assert!(
        cluster.stopped("eu").contains("--reincarnate"),
        "{}",
        cluster.stopped("eu")
    );
    assert_eq!(
        cluster.view("us", "m"),
        rows(&[[10, 3]]),
        "nothing is undone by that"
    );

    let log = cluster.stop("eu");
    let again = cluster.try_start("eu", &["us"], log, |_| {});
    assert!(again.is_err_and(|reason| reason.contains("lost its log")));

    cluster
        .ddl("us", "ALTER DATABASE tributary FENCE REGION eu")
        .expect("another incarnation");
    cluster.start("eu", &["us"], Vec::new(), |config| config.reincarnate = true);
    for _ in 0..60 {
        cluster.run(TICK_MS);
        let now = cluster.view("us", "m");
        let whole = [rows(&[[10, 3]]), rows(&[[10, 1]])];
        assert!(
            whole.contains(&now),
            "all of the old incarnation or nothing of it: {now:?}"
        );
    }
    cluster.insert("eu", "t", &[(1, 1)]).expect("in");
    cluster.run(400);
    for name in ["us", "eu"] {
        assert_eq!(
            cluster.view(name, "m"),
            rows(&[[10, 2]]),
            "{name}: the GLOBAL row of eu.1 is still there"
        );
        assert!(cluster.snapshot(name).settled, "{name}");
    }
}

#[test]
fn a_fenced_region_stops_when_it_hears_of_it() {
    let mut cluster = Cluster::new(&["us", "eu", "ap"]);
    cluster.with_view("us");
    cluster.run(200);
    let log = cluster.stop("eu");
    cluster
        .ddl("us", "ALTER DATABASE tributary FENCE REGION eu")
        .expect("fenced");
    cluster.start("eu", &["us", "ap"], log, |_| {});
    cluster
        .insert("eu", "t", &[(9, 9)])
        .expect("it does not know yet");
    cluster.run(600);
    assert!(
        cluster.stopped("eu").contains("fenced"),
        "{}",
        cluster.stopped("eu")
    );
    let eu = cluster
        .snapshot("us")
        .catalog
        .region_named("eu")
        .expect("still a member");
    assert_eq!(
        cluster.snapshot("us").known_as(eu).map(|known| known.incarnation),
        Some(1)
    );
}

#[test]
fn a_primary_that_lost_its_log_finds_its_cluster_and_goes_on() {
    let mut cluster = Cluster::new(&["us", "eu", "ap"]);
    cluster.with_view("us");
    cluster.insert("us", "g", &[(1, 10)]).expect("in");
    cluster.insert("us", "t", &[(1, 1)]).expect("in");
    cluster.insert("eu", "t", &[(1, 1)]).expect("in");
    cluster.run(400);
    cluster.stop("us");
    // The shell does not found a cluster when its peers have one.
    cluster.start("us", &["eu", "ap"], Vec::new(), |config| {
        config.reincarnate = true
    });
    cluster.run(1_500);
    for name in ["us", "eu", "ap"] {
        assert_eq!(cluster.view(name, "m"), rows(&[[10, 1]]), "{name}");
    }
    cluster
        .ddl("us", "CREATE TABLE later (id INT PRIMARY KEY, v INT)")
        .expect("it still is the primary");
    cluster.run(400);
    for name in ["us", "eu", "ap"] {
        let snapshot = cluster.snapshot(name);
        let us = snapshot.catalog.region_named("us").expect("a member");
        assert_eq!(snapshot.catalog.regions[&us].incarnation, 2, "{name}");
        assert!(snapshot.catalog.object("later").is_some(), "{name}");
        assert!(snapshot.settled, "{name}");
    }
}

#[test]
fn a_primary_that_lost_its_log_waits_for_members_that_are_away() {
    for is_late in [false, true] {
        let mut cluster = Cluster::new(&["us", "eu", "ap"]);
        cluster.with_view("us");
        cluster.run(400);
        // What only ap hears of.
        let eu = cluster.stop("eu");
        cluster
            .ddl("us", "CREATE TABLE last (id INT PRIMARY KEY, v INT)")
            .expect("made");
        cluster.run(400);
        cluster.stop("us");
        let ap = cluster.stop("ap");
        cluster.start("eu", &["us", "ap"], eu, |_| {});
        cluster.start("us", &["eu", "ap"], Vec::new(), |config| {
            config.reincarnate = true;
            config.members_wait_ms = 2_000;
        });
        cluster.run(1_000);
        let writes_as = |cluster: &Cluster| cluster.snapshot("us").origin;
        assert_eq!(writes_as(&cluster), None, "ap may know more");
        if is_late {
            cluster.run(2_500);
            assert!(writes_as(&cluster).is_some(), "it does not wait for ever");
            continue;
        }
        cluster.start("ap", &["us", "eu"], ap, |_| {});
        cluster.run(1_500);
        for name in ["us", "eu", "ap"] {
            let snapshot = cluster.snapshot(name);
            assert!(snapshot.catalog.object("last").is_some(), "{name}");
            let us = snapshot.catalog.region_named("us").expect("a member");
            assert_eq!(snapshot.catalog.regions[&us].incarnation, 2, "{name}");
        }
    }
}

#[test]
fn the_primary_is_handed_over_and_the_old_one_is_dropped() {
    let mut cluster = Cluster::new(&["us", "eu", "ap"]);
    cluster.with_view("us");
    cluster.insert("us", "g", &[(1, 10)]).expect("in");
    cluster.insert("us", "t", &[(1, 1)]).expect("in");
    cluster
        .ddl("us", "ALTER DATABASE tributary SET PRIMARY REGION eu")
        .expect("handed over");
    cluster.run(400);
    let refused = cluster.ddl("us", "CREATE TABLE x (id INT PRIMARY KEY, v INT)");
    assert_eq!(refused, Err(Rejected::NotPrimary));
    cluster
        .ddl("eu", "CREATE TABLE x (id INT PRIMARY KEY, v INT)")
        .expect("made");
    cluster
        .ddl("eu", "ALTER DATABASE tributary DROP REGION us")
        .expect("drained");
    cluster.run(400);
    assert_eq!(cluster.insert("us", "t", &[(2, 1)]), Err(Rejected::Leaving));
    cluster
        .ddl("eu", "ALTER DATABASE tributary DROP REGION us")
        .expect("dropped");
    cluster.run(400);
    assert!(
        cluster.stopped("us").contains("dropped"),
        "{}",
        cluster.stopped("us")
    );
    cluster.insert("ap", "t", &[(1, 1)]).expect("in");
    cluster.run(400);
    for name in ["eu", "ap"] {
        assert_eq!(
            cluster.view(name, "m"),
            rows(&[[10, 2]]),
            "{name}: the share of us stays"
        );
        assert!(cluster.snapshot(name).settled, "{name}");
    }
    // A view that is new does not wait for it.
    cluster
        .ddl(
            "eu",
            "CREATE MATERIALIZED VIEW n AS SELECT v, count(*) AS n FROM t GROUP BY v",
        )
        .expect("made");
    cluster.run(400);
    assert_eq!(cluster.view("ap", "n"), rows(&[[1, 1]]));
}

#[test]
fn a_stranger_is_told_why_nobody_talks_to_it() {
    let mut cluster = Cluster::new(&["us", "eu"]);
    let mut out = Vec::new();
    let region = &mut cluster.nodes.get_mut("us").expect("it runs").region;
    let peer = "br".to_owned();
    region.step(START_MS + 1_000, Input::Connected { peer }, &mut out);
    let told = out.iter().position(|effect| {
        matches!(effect, Effect::Send { peer, message: Message::Refuse { reason } }
            if peer == "br" && reason.contains("ADD REGION \"br\" first"))
    });
    let closed = out
        .iter()
        .position(|effect| matches!(effect, Effect::Close { peer, .. } if peer == "br"));
    assert!(told.is_some() && told < closed, "it is told, and then left");
}
