//! What sinks write, and that they go on exactly where they were after a crash.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::time::Duration;

use tributary_planner::catalog::Catalog;
use tributary_region::replay::KeptResults;
use tributary_region::{Snapshot, ViewSnapshot};
use tributary_replication::{Frontier, Hlc};
use tributary_storage::{Delta, ObjectId, OriginId, Position, RegionId, ZSet};

use super::carrier::{Carrier, Target};
use super::files::Directory;
use super::format::{Format, file_schema, rows};
use super::progress::{Pending, Progress, Records};
use super::segment::{Content, end_of, name, prefix};
use super::state::{Running, SinkState};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
    ]))
}

fn delta() -> Delta {
    let ids = Int64Array::from(vec![Some(1), Some(2), None]);
    let names = StringArray::from(vec![Some("a \"b\","), None, Some("c")]);
    let rows = RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(names)]).expect("valid");
    Delta::new(rows, Some(Int64Array::from(vec![-2, 1, 1])))
}

fn directory(path: &Path, format: Format) -> Directory {
    Directory {
        path: path.to_owned(),
        sink: "out/put".to_owned(),
        region: "us".to_owned(),
        format,
    }
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).expect("a directory");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .collect();
    names.sort();
    names
}

#[test]
fn a_row_stands_once_for_each_time_it_came_or_went() {
    let rows = rows(&file_schema(&schema()), &delta(), 7).expect("rows");
    let ops = rows
        .column(2)
        .as_any()
        .downcast_ref::<StringArray>()
        .expect("text");
    let ops: Vec<Option<&str>> = ops.iter().collect();
    assert_eq!(
        ops,
        [Some("delete"), Some("delete"), Some("insert"), Some("insert")]
    );
    assert_eq!(rows.column(0).null_count(), 1);
    assert_eq!(rows.num_columns(), 4);
}

#[test]
fn names_sort_in_the_order_of_writing_and_say_where_they_end() {
    let prefix = prefix("out/put", "us.1", 3);
    assert_eq!(prefix, "out%2Fput.us%2E1.3.");
    let snapshot = name(&prefix, Content::Snapshot, 99, "csv");
    let changes = name(&prefix, Content::ChangesFrom(99), 100, "csv");
    assert!(snapshot < changes);
    assert_eq!(end_of(&prefix, &changes), Some(100));
    assert_eq!(end_of("other.us.3.", &changes), None);
}

#[test]
fn each_format_is_written_and_gets_its_name_last() {
    let there = tempfile::tempdir().expect("a temporary directory");
    for (format, first_bytes) in [
        (
            Format::Ndjson,
            "{\"id\":1,\"name\":\"a \\\"b\\\",\",\"tributary_op\":\"delete\",\"tributary_position\":7}\n",
        ),
        (
            Format::Csv,
            "id,name,tributary_op,tributary_position\n1,\"a \"\"b\"\",\",delete,7\n",
        ),
        (Format::Parquet, "PAR1"),
    ] {
        let directory = directory(there.path(), format);
        let deltas = [delta()].into_iter();
        let segment = directory
            .write(1, Content::ChangesFrom(5), 7, &schema(), deltas)
            .expect("written");
        assert_eq!((segment.to, segment.rows), (7, 4));
        assert!(!directory.was_published(&segment).expect("the directory is there"));
        directory.publish(&segment).expect("renamed");
        assert!(directory.was_published(&segment).expect("the directory is there"));
        let bytes = fs::read(there.path().join(&segment.name)).expect("a file");
        assert_eq!(bytes.len() as u64, segment.bytes);
        assert!(bytes.starts_with(first_bytes.as_bytes()), "{format:?}");
        assert!(directory.tidy(1, 7, None).is_ok());
        assert!(directory.tidy(1, 6, None).is_err(), "it ends at 7");
        assert!(directory.tidy(2, 6, None).is_ok(), "of another incarnation");
    }
    assert_eq!(names(there.path()).len(), 3);
}

#[test]
fn what_a_crash_left_unfinished_goes_but_for_the_pending_segment() {
    let there = tempfile::tempdir().expect("a temporary directory");
    let directory = directory(there.path(), Format::Csv);
    let write = |to| {
        let deltas = std::iter::empty();
        let segment = directory.write(1, Content::Snapshot, to, &schema(), deltas);
        segment.expect("written")
    };
    let (_, pending) = (write(7), write(8));
    fs::write(there.path().join(".other.unfinished"), "").expect("somebody else's");
    directory.tidy(1, 9, Some(&pending)).expect("tidied");
    assert_eq!(
        names(there.path()),
        [
            ".other.unfinished".to_owned(),
            format!(".{}.unfinished", pending.name)
        ]
    );
}

#[test]
fn a_segment_without_an_unfinished_file_was_taken_away() {
    let there = tempfile::tempdir().expect("a temporary directory");
    let directory = directory(there.path(), Format::Ndjson);
    let segment = directory
        .write(1, Content::Snapshot, 7, &schema(), [delta()].into_iter())
        .expect("written");
    directory.publish(&segment).expect("renamed");
    fs::remove_file(there.path().join(&segment.name)).expect("taken away");
    assert!(directory.was_published(&segment).expect("the directory is there"));
    let gone = Directory {
        path: there.path().join("gone"),
        ..directory
    };
    let reason = gone.was_published(&segment).expect_err("nobody can say");
    assert!(reason.contains("has to exist"), "{reason}");
}

#[test]
fn a_directory_that_is_missing_is_said_to_be() {
    let there = tempfile::tempdir().expect("a temporary directory");
    let directory = directory(&there.path().join("missing"), Format::Csv);
    let refused = directory.write(1, Content::Snapshot, 7, &schema(), std::iter::empty());
    let reason = refused.expect_err("there is no directory");
    assert!(reason.contains("the directory has to exist"), "{reason}");
}

#[test]
fn progress_is_read_as_it_was_saved() {
    let there = tempfile::tempdir().expect("a temporary directory");
    let records = Records::new(there.path().join("sinks"));
    assert_eq!(records.load().expect("no directory yet"), BTreeMap::new());
    let pending = Pending {
        to: 9,
        name: "n".to_owned(),
        rows: 2,
        bytes: 3,
    };
    let progress = Progress {
        written: 5,
        settled: 7,
        pending: Some(pending.clone()),
        segments: 1,
        rows: 10,
        bytes: 20,
    };
    let sink = ObjectId(105);
    records.save(sink, &progress).expect("saved");
    assert_eq!(
        records.load().expect("readable"),
        BTreeMap::from([(sink, progress.clone())])
    );
    assert_eq!(progress.positions().collect::<Vec<_>>(), [7, 9]);
    let after = progress.after(&pending);
    assert_eq!((after.written, after.settled, after.rows), (9, 9, 12));
    records.remove(sink);
    assert_eq!(records.load().expect("readable"), BTreeMap::new());
}

const SINK: ObjectId = ObjectId(7);
const VIEW: ObjectId = ObjectId(6);

/// A region with one view, as a sink sees it.
struct Region {
    view: ZSet,
    position: u64,
    out: tempfile::TempDir,
    data: tempfile::TempDir,
    kept: KeptResults,
}

impl Region {
    fn new() -> Region {
        Region {
            view: ZSet::new(schema()),
            position: 1,
            out: tempfile::tempdir().expect("a temporary directory"),
            data: tempfile::tempdir().expect("a temporary directory"),
            kept: KeptResults::new(),
        }
    }

    /// The view gains and loses rows of these numbers, in a record of their own.
    fn change(&mut self, changes: &[(i64, i64)]) {
        let ids = Int64Array::from_iter_values(changes.iter().map(|(id, _)| *id));
        let names: StringArray = changes.iter().map(|(id, _)| Some(format!("n{id}"))).collect();
        let rows = RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(names)]).expect("valid");
        let weights = changes.iter().map(|(_, weight)| Some(*weight)).collect();
        self.view.apply(&Delta::new(rows, Some(weights)));
        self.position += 1;
        let results = BTreeMap::from([(VIEW, self.view.store().snapshot())]);
        self.kept.insert(Position(self.position), results);
    }

    fn snapshot(&self) -> Snapshot {
        let view = ViewSnapshot {
            rows: self.view.store().snapshot(),
            missing: Vec::new(),
            backfill: (0, 0),
            failure: None,
            errors: Arc::default(),
            groups_held_back: 0,
            state: Arc::default(),
        };
        Snapshot {
            position: Position(self.position),
            frontier: Frontier::default(),
            collected: tributary_replication::Frontier::default(),
            counts: Default::default(),
            settled: true,
            hlc: Hlc::default(),
            origin: Some(OriginId::first(RegionId(1))),
            catalog: Arc::new(Catalog::default()),
            tables: BTreeMap::new(),
            views: BTreeMap::from([(VIEW, view)]),
            sources: BTreeMap::new(),
            source_marks: BTreeMap::new(),
            heads: BTreeMap::new(),
            links: Vec::new(),
            regions: Vec::new(),
            held: BTreeMap::new(),
            rows_to_merge: 0,
        }
    }

    /// A sink in a process that has just started; its replay has kept what was asked for.
    fn start(&self) -> (Carrier, SinkState) {
        let state = SinkState::load(self.data.path().join("sinks")).expect("readable");
        let wanted = state.positions();
        let mut kept = self.kept.clone();
        kept.retain(|position, _| wanted.contains(position));
        state.keep(kept);
        let target = Target::Files(directory(self.out.path(), Format::Csv));
        (Carrier::new(SINK, VIEW, target, &state), state)
    }

    /// The ids that all segments add up to, and the number of snapshots among them.
    fn written(&self) -> (Vec<i64>, usize) {
        let mut sum: BTreeMap<i64, i64> = BTreeMap::new();
        let mut snapshots = 0;
        for name in names(self.out.path()) {
            if name.starts_with('.') {
                continue;
            }
            if name.contains(".snapshot.") {
                sum.clear();
                snapshots += 1;
            }
            let text = fs::read_to_string(self.out.path().join(name)).expect("a file");
            for line in text.lines().skip(1) {
                let fields: Vec<&str> = line.split(',').collect();
                let weight = if fields[2] == "insert" { 1 } else { -1 };
                *sum.entry(fields[0].parse().expect("an id")).or_default() += weight;
            }
        }
        assert!(sum.values().all(|count| *count == 0 || *count == 1), "{sum:?}");
        sum.retain(|_, count| *count != 0);
        (sum.into_keys().collect(), snapshots)
    }
}

#[test]
fn a_restart_goes_on_from_what_was_written() {
    let mut region = Region::new();
    region.change(&[(1, 1), (2, 1)]);
    let (mut carrier, state) = region.start();
    carrier
        .step(&state, &region.snapshot(), Position(0))
        .expect("written");
    region.change(&[(2, -1), (3, 1)]);
    let (mut carrier, state) = region.start();
    let written = carrier
        .step(&state, &region.snapshot(), Position(0))
        .expect("written");
    assert_eq!(written.rows, 2);
    assert_eq!(region.written(), (vec![1, 3], 1));
}

#[test]
fn a_crash_on_either_side_of_the_renaming_loses_and_repeats_nothing() {
    for renamed in [false, true] {
        for taken_away in [false, renamed] {
            let mut region = Region::new();
            region.change(&[(1, 1), (2, 1)]);
            let (mut carrier, state) = region.start();
            carrier
                .step(&state, &region.snapshot(), Position(0))
                .expect("written");
            region.change(&[(2, -1), (3, 1)]);
            // What a process does before it is killed.
            let progress = Records::new(region.data.path().join("sinks"))
                .load()
                .expect("readable");
            let progress = progress[&SINK].clone();
            let directory = directory(region.out.path(), Format::Csv);
            let base = region.kept[&Position(progress.settled)][&VIEW].clone();
            let changes = region.view.store().snapshot().changes_since(&base);
            let content = Content::ChangesFrom(progress.written);
            let segment = directory
                .write(1, content, region.position, &schema(), changes.into_iter())
                .expect("written");
            let about_to = Progress {
                pending: Some(segment.clone()),
                ..progress
            };
            state.records().save(SINK, &about_to).expect("saved");
            if renamed {
                directory.publish(&segment).expect("renamed");
            }
            let taken = region.out.path().join(&segment.name);
            if taken_away {
                fs::rename(&taken, region.data.path().join("taken")).expect("moved");
            }
            region.change(&[(4, 1)]);
            let (mut carrier, state) = region.start();
            carrier
                .step(&state, &region.snapshot(), Position(0))
                .expect("written");
            if taken_away {
                fs::rename(region.data.path().join("taken"), &taken).expect("moved");
            }
            assert_eq!(
                region.written(),
                (vec![1, 3, 4], 1),
                "renamed: {renamed}, taken away: {taken_away}"
            );
            assert_eq!(
                names(region.out.path())
                    .iter()
                    .filter(|name| name.starts_with('.'))
                    .count(),
                0
            );
        }
    }
}

#[test]
fn what_a_checkpoint_has_overtaken_begins_with_a_snapshot() {
    let mut region = Region::new();
    region.change(&[(1, 1), (2, 1)]);
    let (mut carrier, state) = region.start();
    carrier
        .step(&state, &region.snapshot(), Position(0))
        .expect("written");
    region.change(&[(2, -1), (3, 1)]);
    region.kept.clear();
    let (mut carrier, state) = region.start();
    carrier
        .step(&state, &region.snapshot(), Position(0))
        .expect("written");
    assert_eq!(region.written(), (vec![1, 3], 2));
}

#[test]
fn a_checkpoint_waits_for_a_note_of_a_sink_that_has_nothing_to_write() {
    let mut region = Region::new();
    region.change(&[(1, 1)]);
    let (mut carrier, state) = region.start();
    carrier
        .step(&state, &region.snapshot(), Position(0))
        .expect("written");
    // Another view has changed.
    region.change(&[]);
    let position = Position(region.position);
    carrier
        .step(&state, &region.snapshot(), Position(0))
        .expect("looked at");
    assert!(carrier.settled() < position, "nobody has asked for it");
    let state = Arc::new(state);
    let waiting = state.clone();
    let checkpoint = std::thread::spawn(move || waiting.settle(position, Duration::from_secs(3600)));
    let mut wanted = state.wanted();
    while *wanted.borrow_and_update() < position {
        std::thread::yield_now();
    }
    carrier.step(&state, &region.snapshot(), position).expect("noted");
    checkpoint.join().expect("it waited for the note only");
    assert_eq!(carrier.settled(), position);
    region.kept.retain(|kept, _| *kept >= position);
    region.change(&[(2, 1)]);
    let (mut carrier, state) = region.start();
    carrier
        .step(&state, &region.snapshot(), Position(0))
        .expect("written");
    assert_eq!(region.written(), (vec![1, 2], 1));
}

#[test]
fn a_checkpoint_does_not_wait_for_a_sink_that_fails() {
    let mut region = Region::new();
    region.change(&[(1, 1)]);
    let (mut carrier, state) = region.start();
    carrier
        .step(&state, &region.snapshot(), Position(0))
        .expect("written");
    fs::remove_dir_all(region.out.path()).expect("removed");
    region.change(&[(2, 1)]);
    let reason = carrier.step(&state, &region.snapshot(), Position(0));
    state.fail(SINK, reason.expect_err("there is no directory"));
    state.settle(Position(region.position), Duration::from_secs(3600));
    // The directory is back: it goes on without a snapshot.
    fs::create_dir(region.out.path()).expect("made");
    carrier
        .step(&state, &region.snapshot(), Position(0))
        .expect("written");
    assert_eq!(state.tasks()[&SINK].running, Running::Running);
    let text = names(region.out.path());
    assert!(text.len() == 1 && text[0].contains("changes-from"), "{text:?}");
}
