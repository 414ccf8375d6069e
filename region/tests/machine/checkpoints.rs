//! Checkpoints that are gathered while the region goes on.

use tributary_region::{Input, Region, RegionConfig};
use tributary_storage::checkpoint::{self, Checkpoint};
use tributary_storage::{MemKv, Record};

use super::{Machine, NOW_MS};

impl Machine {
    /// A region with rows in its view, and a checkpoint that was begun and is not whole.
    fn gathering() -> Self {
        let mut machine = Self::with_view();
        while machine.region.has_checkpoint_work() {
            machine.gather();
        }
        machine.checkpoints.clear();
        let rows: Vec<(i32, i32)> = (0..40).map(|id| (id, id % 10)).collect();
        machine.insert(1, &rows);
        machine.settle();
        machine.step(Input::CheckpointDue);
        machine.gather();
        assert!(machine.region.has_checkpoint_work() && machine.checkpoints.is_empty());
        machine
    }

    fn gather(&mut self) {
        self.step(Input::Gather { rows_max: 1 });
    }

    /// What is shown after a restart from a checkpoint and the given records.
    fn shown_after_restart(checkpoint: &Checkpoint, tail: Vec<Record>) -> String {
        let disk = MemKv::new();
        checkpoint::write(&disk, checkpoint).expect("the disk works");
        let loaded = checkpoint::load(&disk).expect("readable");
        let mut out = Vec::new();
        let region = Region::open(
            RegionConfig::new("local", Vec::new()),
            loaded,
            tail,
            NOW_MS,
            &mut out,
        );
        let mut machine = Self::open(Vec::new());
        machine.region = region.expect("the checkpoint is whole");
        machine.shown("m")
    }
}

#[test]
fn a_checkpoint_is_of_the_moment_when_it_began() {
    let mut machine = Machine::gathering();
    let (shown, position) = (machine.shown("m"), machine.region.snapshot().position);
    let mut id = 1_000;
    while machine.region.has_checkpoint_work() {
        // Groups on either side of where gathering stands, and new ones.
        machine.insert(
            id,
            &[
                (id as i32, id as i32 % 13),
                (-(id as i32), 9),
                (id as i32 + 500, 0),
            ],
        );
        machine.settle();
        machine.gather();
        id += 1;
    }
    assert!(id > 1_005, "it took some portions");
    assert_ne!(machine.shown("m"), shown);
    let checkpoint = machine.checkpoints.pop().expect("it is whole");
    assert_eq!(checkpoint.position, position);
    assert_eq!(Machine::shown_after_restart(&checkpoint, Vec::new()), shown);
    let tail = machine.log.iter().filter(|record| record.position > position);
    let tail: Vec<Record> = tail.cloned().collect();
    assert_eq!(
        Machine::shown_after_restart(&checkpoint, tail),
        machine.shown("m")
    );
}

#[test]
fn a_checkpoint_that_lost_a_view_is_begun_anew() {
    let mut machine = Machine::gathering();
    machine.ddl("DROP MATERIALIZED VIEW m");
    machine.gather();
    assert!(machine.checkpoints.is_empty() && machine.region.has_checkpoint_work());
    while machine.region.has_checkpoint_work() {
        machine.gather();
    }
    let checkpoint = machine.checkpoints.pop().expect("another one is whole");
    assert_eq!(checkpoint.position, machine.region.snapshot().position);
    assert!(checkpoint.rows.is_empty(), "the view is gone");
}
