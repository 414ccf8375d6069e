//! Sources whose rows are not stored: offsets in the log, rows read again.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use tributary_planner::catalog::SourceDef;
use tributary_region::{Input, Region, RegionConfig, Rejected, SourceAppend, SourceReader, SourceRows};
use tributary_storage::{ObjectId, Record};

use super::{Machine, NOW_MS};

const BATCH: u64 = 7;

/// Row `n` is `(n, n % 3)`; there are so many of them.
#[derive(Debug)]
struct Numbers(u64);

impl SourceReader for Numbers {
    fn read(&self, _: ObjectId, _: &SourceDef, rows: Range<u64>, mark: u64) -> Result<SourceRows, String> {
        if mark != rows.end {
            return Err(format!("mark {mark} for rows to {}", rows.end));
        }
        let end = rows.end.min(self.0);
        let starts = (rows.start..end).step_by(usize::try_from(BATCH).expect("small"));
        Ok(Box::new(
            starts.map(move |start| Ok(batch(start..end.min(start + BATCH)))),
        ))
    }
}

fn batch(rows: Range<u64>) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int32, true),
        Field::new("v", DataType::Int32, true),
    ]);
    let number = |row: u64| i32::try_from(row).expect("small");
    let ids = Int32Array::from_iter_values(rows.clone().map(number));
    let values = Int32Array::from_iter_values(rows.map(|row| number(row % 3)));
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids), Arc::new(values)]).expect("two columns")
}

fn config(available: u64) -> RegionConfig {
    let mut config = RegionConfig::new("local", Vec::new());
    config.sources = Arc::new(Numbers(available));
    config
}

fn source(machine: &Machine) -> ObjectId {
    machine
        .region
        .snapshot()
        .catalog
        .object("s")
        .expect("it was created")
        .id
}

fn append(machine: &mut Machine, token: u64, rows: Range<u64>) {
    let append = SourceAppend {
        source: source(machine),
        from: rows.start,
        mark: rows.end,
        rows: vec![batch(rows)],
    };
    machine.step(Input::Source { token, append });
}

fn with_source() -> Machine {
    let mut machine = Machine::open_with(config(1000), Vec::new());
    machine.settle();
    machine.ddl(
        "CREATE SOURCE s (id INT, v INT) WITH (connector = 'file', path = '/x', format = 'csv', region = 'local')",
    );
    machine
}

const VIEW: &str = "CREATE MATERIALIZED VIEW m AS SELECT v, count(*) AS n FROM s GROUP BY v";

/// Reopens a log whose rows are to be read again.
fn reopen(available: u64, log: &[Record]) -> Result<Region, String> {
    let mut out = Vec::new();
    Region::open(config(available), None, log.to_vec(), NOW_MS, &mut out).map_err(|error| error.to_string())
}

#[test]
fn rows_reach_the_views_and_only_their_numbers_the_log() {
    let mut machine = with_source();
    machine.ddl(VIEW);
    let before: usize = machine.log.iter().map(|record| record.payload.len()).sum();
    append(&mut machine, 1, 0..100);
    append(&mut machine, 2, 100..200);
    machine.settle();
    assert!(machine.replies.iter().all(|(_, outcome)| outcome.is_ok()));
    assert!(
        machine.shown("m").contains("| 0 | 67 |"),
        "{}",
        machine.shown("m")
    );
    let after: usize = machine.log.iter().map(|record| record.payload.len()).sum();
    assert!(after - before < 100, "{} bytes for 200 rows", after - before);
    let snapshot = machine.region.snapshot();
    assert_eq!(snapshot.sources[&source(&machine)], 200);
    assert_eq!(snapshot.source_marks[&source(&machine)], 200);
}

#[test]
fn a_replay_reads_the_rows_again() {
    let mut machine = with_source();
    machine.ddl(VIEW);
    for number in 0..10 {
        append(&mut machine, number, number * 20..(number + 1) * 20);
        machine.step(Input::Work);
    }
    machine.settle();
    let reopened = Machine::open_with(config(1000), machine.log.clone());
    assert_eq!(reopened.shown("m"), machine.shown("m"));
    assert_eq!(
        reopened.region.snapshot().sources,
        machine.region.snapshot().sources
    );
}

#[test]
fn rows_that_are_gone_are_named_and_nothing_starts() {
    let mut machine = with_source();
    machine.ddl(VIEW);
    append(&mut machine, 1, 0..100);
    append(&mut machine, 2, 100..200);
    machine.settle();
    let error = reopen(150, &machine.log).err().expect("fifty rows are gone");
    assert!(error.contains("rows 100 to 200 of source \"s\""), "{error}");
    assert!(error.contains("only 50 rows"), "{error}");
}

#[test]
fn rows_that_nobody_reads_are_not_read_again() {
    let mut machine = with_source();
    append(&mut machine, 1, 0..100);
    machine.settle();
    assert!(reopen(0, &machine.log).is_ok());
}

#[test]
fn only_the_next_rows_are_taken() {
    let mut machine = with_source();
    machine.ddl(VIEW);
    append(&mut machine, 1, 0..10);
    append(&mut machine, 2, 0..10);
    append(&mut machine, 3, 20..30);
    machine.settle();
    let source_id = source(&machine);
    let moved = |token| {
        let consumed = 10;
        (token, Err(Rejected::SourceMoved { source_id, consumed }))
    };
    assert!(machine.replies.contains(&moved(2)));
    assert!(machine.replies.contains(&moved(3)));
    assert_eq!(machine.region.snapshot().sources[&source_id], 10);
}

#[test]
fn rows_of_other_columns_are_refused() {
    let mut machine = with_source();
    let rows = batch(0..3).project(&[0]).expect("it has the column");
    let append = SourceAppend {
        source: source(&machine),
        from: 0,
        mark: 3,
        rows: vec![rows],
    };
    machine.step(Input::Source { token: 9, append });
    assert_eq!(
        machine.replies.last(),
        Some(&(9, Err(Rejected::SourceColumns(source(&machine)))))
    );
}

#[test]
fn a_later_view_sees_all_rows_with_their_times() {
    let mut machine = with_source();
    machine.ddl("CREATE MATERIALIZED VIEW early AS SELECT id, tributary_time FROM s");
    for number in 0..5 {
        append(&mut machine, number, number * 10..(number + 1) * 10);
        machine.settle();
    }
    machine.ddl("CREATE MATERIALIZED VIEW late AS SELECT id, tributary_time FROM s");
    assert_eq!(machine.shown("late"), machine.shown("early"));
    append(&mut machine, 9, 50..60);
    machine.settle();
    assert_eq!(machine.shown("late"), machine.shown("early"));
    assert!(
        machine.shown("late").contains("| 59"),
        "{}",
        machine.shown("late")
    );
    let reopened = Machine::open_with(config(1000), machine.log.clone());
    assert_eq!(reopened.shown("late"), machine.shown("late"));
}

#[test]
fn a_view_whose_rows_are_gone_says_so_and_can_be_dropped() {
    let mut machine = Machine::open_with(config(30), Vec::new());
    machine.settle();
    machine.ddl(
        "CREATE SOURCE s (id INT, v INT) WITH (connector = 'file', path = '/x', format = 'csv', region = 'local')",
    );
    append(&mut machine, 1, 0..50);
    machine.settle();
    machine.ddl(VIEW);
    let snapshot = machine.region.snapshot();
    let id = snapshot.catalog.object("m").expect("it was created").id;
    let failure = snapshot.views[&id].failure.clone().expect("its rows are gone");
    assert!(
        failure.contains("rows 0 to 50 of source \"s\"") && failure.contains("only 30"),
        "{failure}"
    );
    machine.ddl("CREATE MATERIALIZED VIEW above AS SELECT count(*) AS n FROM m");
    let snapshot = machine.region.snapshot();
    let above = snapshot.catalog.object("above").expect("it was created").id;
    assert_eq!(
        snapshot.views[&above].failure.as_deref(),
        Some(&*failure),
        "it waits for m"
    );
    assert!(!machine.region.has_work());
    machine.ddl("DROP MATERIALIZED VIEW above, m");
    machine.ddl("DROP SOURCE s");
    assert!(machine.region.snapshot().sources.is_empty());
}
