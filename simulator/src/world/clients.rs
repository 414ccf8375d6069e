//! What clients do: writes in every region, DDL at the primary.

use tributary_region::{Input, Submission, WriteSet};

use super::World;
use super::event::Event;
use crate::failure::{Checked, Violation};
use crate::value::{row_of, show_row};
use crate::workload::Ddl;

/// Mean milliseconds between two changes of the catalog, early in a run and later.
const DDL_EVERY_MS: (u64, u64) = (40, 500);

impl World {
    /// Clients write in a region, mostly one, on what they read there now or read a while ago.
    pub(super) fn write(&mut self, node: usize) -> Checked {
        let every_ms = self.options.write_every_ms;
        let at = self.now_ms + self.rng.about(every_ms);
        self.queue.plan(at, Event::Write(node));
        if self.healed {
            return Ok(());
        }
        let mut submissions = Vec::new();
        let clients = if self.rng.percent(80) {
            1
        } else {
            self.rng.between(2, 6)
        };
        for _ in 0..clients {
            submissions.extend(self.draw_commit(node)?);
        }
        if submissions.is_empty() {
            return Ok(());
        }
        self.step(node, Input::Commits(submissions))
    }

    /// A client's transaction; `None` when there is no table, or nothing to write.
    fn draw_commit(&mut self, node: usize) -> Checked<Option<Submission>> {
        let Some(process) = &self.nodes[node].process else {
            return Ok(None);
        };
        let snapshot = match process.snapshots.front() {
            Some(old) if self.rng.percent(8) => old.clone(),
            _ => process.region.snapshot(),
        };
        let drawn = self.workload.draw_writes(&snapshot);
        let Some(writes) = drawn.map_err(|detail| Violation::new("the simulator can write", detail))? else {
            return Ok(None);
        };
        let token = self.ledger.submit(self.nodes[node].log(), Some(writes.clone()));
        self.trace.add(
            self.now_ms,
            node,
            format_args!("commit {token} {}", describe(&writes)),
            &[],
        );
        Ok(Some(Submission { token, writes }))
    }

    /// One client of the primary creates or drops something.
    pub(super) fn ddl(&mut self) -> Checked {
        let (early, late) = DDL_EVERY_MS;
        let every_ms = if self.workload.is_complete() { late } else { early };
        let at = self.now_ms + self.rng.about(every_ms);
        self.queue.plan(at, Event::Ddl);
        if self.healed {
            return Ok(());
        }
        let Some((primary, snapshot)) = self.primary() else {
            return Ok(());
        };
        let now_ms = self.nodes[primary].clock.read(self.now_ms);
        let drawn = self
            .workload
            .draw_ddl(&snapshot.catalog, now_ms, &mut self.report)?;
        let Some(Ddl { text, changes }) = drawn else {
            return Ok(());
        };
        // Now and then a client asks the wrong region; it must be told so.
        let node = if self.rng.percent(4) {
            self.rng.index(self.nodes.len())
        } else {
            primary
        };
        // One that must stop could make other objects under the numbers of those that others know.
        if self.nodes[node].suspect.is_some() {
            return Ok(());
        }
        let token = self.ledger.submit(self.nodes[node].log(), None);
        self.trace
            .add(self.now_ms, node, format_args!("ddl {token}: {text}"), &[]);
        self.step(
            node,
            Input::Ddl {
                token,
                changes,
                base_version: snapshot.catalog.version,
            },
        )
    }
}

/// The rows of a transaction, for the trace.
fn describe(writes: &WriteSet) -> String {
    let mut text = String::new();
    for (table, change) in &writes.tables {
        for row in 0..change.writes.rows.num_rows() {
            let verb = if change.writes.deleted.value(row) {
                "delete"
            } else {
                "put"
            };
            let content =
                row_of(&change.writes.rows, row, change.writes.rows.num_columns()).unwrap_or_default();
            text += &format!(
                " {verb} {table}{} over {:?}",
                show_row(&content),
                change.expected[row]
            );
        }
    }
    text
}
