//! The region as a machine: inputs in, effects out, with a log that is a list.

mod backpressure;
mod checkpoints;
mod cluster;
mod collection;
mod conflicts;
mod hidden_views;
mod incarnations;
mod members;
mod residency;
mod sources;
mod stages;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{BooleanArray, Int32Array, RecordBatch};
use arrow::util::pretty::pretty_format_batches;
use tributary_planner::catalog::{CatalogChange, ObjectKind, PlanSettings};
use tributary_planner::plan::{Expr, Node};
use tributary_region::{
    Effect, Founding, Input, Region, RegionConfig, Rejected, Snapshot, Submission, TableChange, WriteSet,
};
use tributary_replication::{Epoch, TableWrites};
use tributary_storage::checkpoint::Checkpoint;
use tributary_storage::{ObjectId, OriginId, Position, Record};

const NOW_MS: u64 = 1_700_000_000_000;

/// A region with its log.
struct Machine {
    region: Region,
    log: Vec<Record>,
    replies: Vec<(u64, Result<Position, Rejected>)>,
    published: Vec<Arc<Snapshot>>,
    checkpoints: Vec<Checkpoint>,
    now_ms: u64,
}

impl Machine {
    fn open(log: Vec<Record>) -> Self {
        Self::open_with(RegionConfig::new("local", Vec::new()), log)
    }

    fn open_with(mut config: RegionConfig, log: Vec<Record>) -> Self {
        config.found = Some(Founding { cluster: [7; 16] });
        let mut out = Vec::new();
        let region = Region::open(config, None, log.clone(), NOW_MS, &mut out).expect("the log is whole");
        let mut machine = Self {
            region,
            log,
            replies: Vec::new(),
            published: Vec::new(),
            checkpoints: Vec::new(),
            now_ms: NOW_MS,
        };
        machine.take(out);
        machine
    }

    /// A founded region with a table `t(id, v)` and a view that counts its rows per `v`.
    fn with_view() -> Self {
        let mut machine = Self::open(Vec::new());
        machine.settle();
        machine.ddl("CREATE TABLE t (id INT PRIMARY KEY, v INT)");
        machine.ddl("CREATE MATERIALIZED VIEW m AS SELECT v, count(*) AS n FROM t GROUP BY v");
        machine
    }

    fn step(&mut self, input: Input) {
        let mut out = Vec::new();
        self.now_ms += 1;
        self.region.step(self.now_ms, input, &mut out);
        self.take(out);
    }

    fn take(&mut self, out: Vec<Effect>) {
        for effect in out {
            match effect {
                Effect::Append { record, .. } => self.log.push(record),
                Effect::Reply { token, outcome } => {
                    self.replies
                        .push((token, outcome.map(|committed| committed.position)));
                }
                Effect::Publish(snapshot) => self.published.push(snapshot),
                Effect::Checkpoint(checkpoint) => self.checkpoints.push(checkpoint),
                Effect::Stop { reason } => panic!("the region stopped: {reason}"),
                _ => {}
            }
        }
    }

    fn persist(&mut self) {
        let position = self.log.last().map_or(Position(0), |record| record.position);
        self.step(Input::Persisted { position });
    }

    /// Works and syncs until nothing is left to do.
    fn settle(&mut self) {
        self.step(Input::Work);
        while self.region.has_work() {
            self.step(Input::Work);
        }
        self.persist();
    }

    fn ddl(&mut self, sql: &str) {
        let catalog = self.region.snapshot().catalog.clone();
        let parsed = tributary_planner::parse::parse(sql).expect("it parses").remove(0);
        let plan =
            tributary_planner::ddl::plan_ddl(&parsed.statement, &catalog, &PlanSettings::default(), NOW_MS)
                .expect("it can be planned");
        let token = 1_000 + self.log.len() as u64;
        self.step(Input::Ddl {
            token,
            changes: plan.changes,
            base_version: catalog.version,
        });
        self.settle();
    }

    /// Inserts rows whose keys are expected to be free.
    fn insert(&mut self, token: u64, rows: &[(i32, i32)]) {
        let expected = vec![None; rows.len()];
        self.write(token, rows, expected, false);
    }

    fn write(
        &mut self,
        token: u64,
        rows: &[(i32, i32)],
        expected: Vec<Option<(OriginId, Epoch)>>,
        deleted: bool,
    ) {
        let submission = self.submission(token, rows, expected, deleted);
        self.step(Input::Commits(vec![submission]));
    }

    fn submission(
        &self,
        token: u64,
        rows: &[(i32, i32)],
        expected: Vec<Option<(OriginId, Epoch)>>,
        deleted: bool,
    ) -> Submission {
        let change = TableChange {
            writes: TableWrites {
                rows: self.batch(rows),
                deleted: BooleanArray::from(vec![deleted; rows.len()]),
            },
            expected,
        };
        let writes = WriteSet {
            tables: BTreeMap::from([(self.table(), change)]),
            catalog_version: self.region.snapshot().catalog.version,
            ..WriteSet::default()
        };
        Submission { token, writes }
    }

    fn batch(&self, rows: &[(i32, i32)]) -> RecordBatch {
        let schema = self.region.snapshot().tables[&self.table()].def.schema();
        let ids = Int32Array::from_iter_values(rows.iter().map(|row| row.0));
        let values = Int32Array::from_iter_values(rows.iter().map(|row| row.1));
        RecordBatch::try_new(schema, vec![Arc::new(ids), Arc::new(values)]).expect("two columns")
    }

    fn version_of(&self, id: i32) -> Option<(OriginId, Epoch)> {
        self.region
            .dataflow()
            .versions(self.table(), &self.batch(&[(id, 0)]))[0]
    }

    fn table(&self) -> ObjectId {
        self.region
            .snapshot()
            .catalog
            .object("t")
            .expect("it was created")
            .id
    }

    fn shown(&self, view: &str) -> String {
        let snapshot = self.region.snapshot();
        let id = snapshot.catalog.object(view).expect("it was created").id;
        let batches: Vec<RecordBatch> = snapshot.views[&id]
            .rows
            .scan(100)
            .map(|delta| delta.into_parts().0)
            .collect();
        pretty_format_batches(&batches).expect("printable").to_string()
    }
}

#[test]
fn nothing_leaves_before_its_record_is_durable() {
    let mut machine = Machine::with_view();
    let (replies, position) = (machine.replies.len(), machine.region.snapshot().position);
    machine.insert(1, &[(1, 5)]);
    machine.step(Input::Work);
    machine.step(Input::Timer);
    assert_eq!(
        machine.replies.len(),
        replies,
        "an acknowledgement left before the sync"
    );
    assert_eq!(
        machine.region.snapshot().position,
        position,
        "a snapshot left before the sync"
    );
    machine.persist();
    assert_eq!(
        machine.replies.last(),
        Some(&(1, Ok(Position(machine.log.len() as u64))))
    );
    assert!(machine.shown("m").contains("| 5 | 1 |"), "{}", machine.shown("m"));
}

#[test]
fn the_same_inputs_give_the_same_log_byte_for_byte() {
    let run = || {
        let mut machine = Machine::with_view();
        for id in 0..20 {
            machine.insert(
                u64::try_from(id).expect("small"),
                &[(id, id % 3), (100 + id, id % 2)],
            );
            if id % 4 == 0 {
                machine.settle();
            }
        }
        machine.settle();
        let log: Vec<_> = machine
            .log
            .iter()
            .map(|record| (record.position, record.chain, record.payload.clone()))
            .collect();
        (log, machine.shown("m"))
    };
    assert_eq!(run(), run());
}

#[test]
fn a_replay_shows_what_was_published() {
    let mut machine = Machine::with_view();
    for id in 0..50 {
        machine.insert(u64::try_from(id).expect("small"), &[(id, id % 3)]);
        machine.step(Input::Work);
    }
    machine.settle();
    let reopened = Machine::open(machine.log.clone());
    assert_eq!(reopened.shown("m"), machine.shown("m"));
    assert_eq!(
        reopened.region.snapshot().position,
        machine.region.snapshot().position
    );
    assert!(
        reopened
            .region
            .snapshot()
            .frontier
            .covers(&machine.region.snapshot().frontier)
    );
}

#[test]
fn a_key_that_is_sealed_and_not_yet_stepped_is_taken() {
    let mut machine = Machine::with_view();
    machine.insert(1, &[(1, 5)]);
    machine.insert(2, &[(1, 6)]);
    machine.settle();
    let table = machine.table();
    assert!(machine.replies.contains(&(2, Err(Rejected::Conflict { table }))));
    assert!(
        machine
            .replies
            .iter()
            .any(|(token, outcome)| *token == 1 && outcome.is_ok())
    );
    assert!(machine.shown("m").contains("| 5 | 1 |"), "{}", machine.shown("m"));
}

#[test]
fn a_version_that_was_replaced_is_a_conflict() {
    let mut machine = Machine::with_view();
    machine.insert(1, &[(1, 5)]);
    machine.settle();
    let origin = machine.region.snapshot().origin.expect("it has joined");
    let version = Some((origin, Epoch(machine.log.len() as u64)));
    machine.write(2, &[(1, 6)], vec![version], false);
    machine.settle();
    machine.write(3, &[(1, 7)], vec![version], true);
    machine.settle();
    let table = machine.table();
    assert!(
        machine
            .replies
            .iter()
            .any(|(token, outcome)| *token == 2 && outcome.is_ok())
    );
    assert!(machine.replies.contains(&(3, Err(Rejected::Conflict { table }))));
    assert!(machine.shown("m").contains("| 6 | 1 |"), "{}", machine.shown("m"));
}

#[test]
fn a_view_over_rows_that_were_there_is_unreadable_until_it_is_attached() {
    let mut machine = Machine::with_view();
    let rows: Vec<(i32, i32)> = (0..1000).map(|id| (id, id % 4)).collect();
    machine.insert(1, &rows);
    machine.settle();
    let published = machine.published.len();
    machine.ddl("CREATE MATERIALIZED VIEW late AS SELECT max(id) AS top, count(*) AS n FROM t");
    let id = machine
        .region
        .snapshot()
        .catalog
        .object("late")
        .expect("created")
        .id;
    let missing = |snapshot: &Arc<Snapshot>| snapshot.views.get(&id).map(|view| view.missing.len());
    let seen: Vec<_> = machine.published[published..]
        .iter()
        .filter_map(missing)
        .collect();
    assert_eq!(seen.last(), Some(&0), "attached in the end");
    assert!(
        machine.shown("late").contains("| 999 | 1000 |"),
        "{}",
        machine.shown("late")
    );
}

#[test]
fn a_gap_in_the_log_is_refused() {
    let mut machine = Machine::with_view();
    machine.insert(1, &[(1, 5)]);
    machine.settle();
    let mut log = machine.log.clone();
    log.remove(2);
    let mut out = Vec::new();
    assert!(
        Region::open(
            RegionConfig::new("local", Vec::new()),
            None,
            log,
            NOW_MS,
            &mut out
        )
        .is_err()
    );
}

#[test]
fn a_view_that_cannot_be_built_never_reaches_the_log() {
    let mut machine = Machine::with_view();
    let catalog = machine.region.snapshot().catalog.clone();
    let sql = "CREATE MATERIALIZED VIEW bad AS SELECT v FROM t WHERE v > 1";
    let parsed = tributary_planner::parse::parse(sql).expect("it parses").remove(0);
    let planned =
        tributary_planner::ddl::plan_ddl(&parsed.statement, &catalog, &PlanSettings::default(), NOW_MS)
            .expect("it can be planned");
    let CatalogChange::Create(mut object) = planned.changes[0].clone() else {
        panic!("one object is created");
    };
    let ObjectKind::MaterializedView(def) = &mut object.kind else {
        panic!("it is a view");
    };
    let mut plan = (*def.plan).clone();
    plan.global = Node::Filter {
        input: Box::new(plan.global),
        predicate: Expr::Column(99),
    };
    def.plan = Arc::new(plan);
    let (records, version) = (machine.log.len(), catalog.version);
    machine.step(Input::Ddl {
        token: 77,
        changes: vec![CatalogChange::Create(object)],
        base_version: version,
    });
    machine.settle();
    let refused = machine.replies.iter().find(|(token, _)| *token == 77);
    assert!(
        matches!(refused, Some((_, Err(Rejected::Unsupported(_))))),
        "{refused:?}"
    );
    assert_eq!(machine.log.len(), records);
    machine.insert(1, &[(1, 5)]);
    machine.settle();
    assert_eq!(Machine::open(machine.log.clone()).shown("m"), machine.shown("m"));
}

#[test]
fn commits_that_come_together_share_a_record_and_are_answered_each() {
    let mut machine = Machine::with_view();
    machine.insert(1, &[(1, 5), (2, 5)]);
    machine.settle();
    let records = machine.log.len();
    let (table, old) = (machine.table(), machine.version_of(1));
    let submissions = vec![
        machine.submission(10, &[(3, 6)], vec![None], false),
        // Replaces a row.
        machine.submission(11, &[(1, 7)], vec![old], false),
        // Expects that key 2 is free.
        machine.submission(12, &[(4, 9), (2, 9)], vec![None, None], false),
        // Writes a key that one before it writes.
        machine.submission(13, &[(3, 8)], vec![None], false),
        machine.submission(14, &[(5, 6)], vec![None], false),
        machine.submission(15, &[(2, 0)], vec![machine.version_of(2)], true),
    ];
    machine.step(Input::Commits(submissions));
    machine.settle();
    assert_eq!(machine.log.len(), records + 1);
    let conflict = Err(Rejected::Conflict { table });
    let position = Ok(Position(records as u64 + 1));
    for (token, expected) in [
        (10, &position),
        (11, &position),
        (12, &conflict),
        (13, &conflict),
        (14, &position),
        (15, &position),
    ] {
        let answers: Vec<_> = machine.replies.iter().filter(|(of, _)| *of == token).collect();
        assert_eq!(answers, [&(token, expected.clone())], "the answer to {token}");
    }
    assert_eq!(machine.shown("m"), SHARED);
    let reopened = Machine::open(machine.log.clone());
    assert_eq!(reopened.shown("m"), machine.shown("m"));
}

const SHARED: &str = "\
+---+---+
| v | n |
+---+---+
| 6 | 2 |
| 7 | 1 |
+---+---+";

#[test]
fn large_commits_have_records_of_their_own() {
    let mut machine = Machine::with_view();
    let records = machine.log.len();
    let rows = |from: i32, count: i32| (from..from + count).map(|id| (id, 0)).collect::<Vec<_>>();
    let submission = |machine: &Machine, token, rows: &[(i32, i32)]| {
        machine.submission(token, rows, vec![None; rows.len()], false)
    };
    let submissions = vec![
        submission(&machine, 1, &rows(0, 10)),
        submission(&machine, 2, &rows(10, 20_000)),
        submission(&machine, 3, &rows(30_000, 10)),
        submission(&machine, 4, &rows(40_000, 10)),
    ];
    machine.step(Input::Commits(submissions));
    machine.settle();
    let positions: Vec<u64> = (1..=4)
        .map(|token| {
            let answer = machine.replies.iter().find(|(of, _)| *of == token);
            answer.expect("answered").1.as_ref().expect("accepted").0 - records as u64
        })
        .collect();
    assert_eq!(positions, [1, 2, 3, 3]);
}

#[test]
fn a_commit_that_comes_again_is_answered_and_not_repeated() {
    let mut machine = Machine::with_view();
    let once = |machine: &Machine, token: u64| {
        let mut submission = machine.submission(token, &[(1, 5), (2, 5)], vec![None, None], false);
        submission.writes.token = Some(tributary_region::CommitToken { id: [9; 16], rows: 2 });
        submission
    };
    let first = once(&machine, 1);
    machine.step(Input::Commits(vec![first]));
    // Its answer is lost: it comes again before it is durable, and after a restart.
    let again = once(&machine, 2);
    machine.step(Input::Commits(vec![again]));
    machine.settle();
    let position = |machine: &Machine, token: u64| {
        let mut replies = machine.replies.iter();
        let reply = replies.find(|(answered, _)| *answered == token);
        reply.expect("it is answered").1.clone().expect("it is in")
    };
    assert_eq!(position(&machine, 1), position(&machine, 2));
    let mut reopened = Machine::open(machine.log.clone());
    let records = reopened.log.len();
    let again = once(&reopened, 3);
    reopened.step(Input::Commits(vec![again]));
    reopened.settle();
    assert_eq!(position(&reopened, 3), position(&machine, 1));
    assert_eq!(reopened.log.len(), records, "nothing was logged for it");
    assert!(
        reopened.shown("m").contains("| 5 | 2 |"),
        "{}",
        reopened.shown("m")
    );
}
