//! The job that computes a new view from rows that were there before it.
//!
//! ```text
//!   snapshot at creation ──portions──▶ view ◀── what changed since (pending, in order)
//! ```
//!
//! The job has operators of its own, so nothing waits for it: other views move on with every step, and what
//! changes meanwhile is put in [`Pending`]. A job whose inputs cannot be read yet has not begun and keeps nothing.
//! When the snapshot is used up the region seals an `Attach` record; the step of that record drains what is still
//! pending and stamps the slots. A replay runs the same job to its end at that record, so the slots do not depend on
//! how the portions fell.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tributary_executor::{Scope, View, Workers};
use tributary_planner::plan::ViewPlan;
use tributary_replication::{SlotChanges, SlotDelta};
use tributary_storage::{Delta, ObjectId, RowsSnapshot};

use crate::config::Defects;
use crate::dataflow::step_global;
use crate::error::Result;

/// Rows per batch when a snapshot is scanned.
pub const SCAN_ROWS: usize = 8192;

/// A scan of one input as it was when the job began.
pub type Source = (
    ObjectId,
    u64,
    Box<dyn Iterator<Item = std::result::Result<Delta, String>> + Send>,
);

/// Changes that arrived after the job began.
#[derive(Debug)]
pub struct Pending {
    /// Deltas of the inputs.
    pub inputs: BTreeMap<ObjectId, Delta>,
    /// Per fragment the slots of other regions that changed.
    pub merges: Vec<Vec<SlotDelta>>,
}

/// A running job.
pub struct Backfill {
    view: View,
    sources: VecDeque<Source>,
    pending: VecDeque<Pending>,
    own: Vec<Vec<SlotChanges>>,
    rows_done: u64,
    rows_total: u64,
    begun: bool,
    sealed: bool,
    scope: Scope,
    failure: Option<String>,
    empty: Arc<RowsSnapshot>,
}

/// What a finished job leaves.
pub struct Finished {
    /// The operators with their state.
    pub view: View,
    /// Per fragment the own slots, in the order in which they were computed.
    pub own: Vec<Vec<SlotChanges>>,
}

impl Backfill {
    /// A job for a view; it begins with [`Backfill::begin`].
    pub fn new(
        id: ObjectId,
        plan: Arc<ViewPlan>,
        scope: Scope,
        workers: Arc<dyn Workers>,
        defects: Defects,
    ) -> Result<Self> {
        let own = plan.fragments.iter().map(|_| Vec::new()).collect();
        let mut view = View::new(id, plan, scope, workers)?;
        view.set_defects(defects.executor);
        let empty = view.result();
        view.initialize();
        Ok(Self {
            view,
            sources: VecDeque::new(),
            pending: VecDeque::new(),
            own,
            rows_done: 0,
            rows_total: 0,
            begun: false,
            sealed: false,
            scope,
            failure: None,
            empty,
        })
    }

    /// The same job for a view that holds back small groups, see [`View::hold_back_groups`].
    pub fn holding_back(mut self, rows_min: &[u64]) -> Self {
        self.view.hold_back_groups(rows_min);
        self
    }

    /// The view as far as it is computed.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// The view as far as it is computed.
    pub(crate) fn view_mut(&mut self) -> &mut View {
        &mut self.view
    }

    /// Gives the job its inputs: scans of what exists, and the slots that other regions have sent so far.
    pub fn begin(&mut self, sources: Vec<Source>, merges: Vec<Vec<SlotDelta>>) {
        self.begun = true;
        self.rows_total = sources.iter().map(|(_, rows, _)| rows).sum();
        self.sources = sources.into();
        if merges.iter().any(|deltas| !deltas.is_empty()) {
            self.pending.push_front(Pending {
                inputs: BTreeMap::new(),
                merges,
            });
        }
    }

    /// Whether the job has its inputs.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Keeps a change for later. A job that has not begun will find it in its inputs.
    pub fn pend(&mut self, pending: Pending) {
        if self.begun {
            self.pending.push_back(pending);
        }
    }

    /// Feeds up to about `rows_max` rows. True when only what is pending remains of a job that has begun.
    pub fn poll(&mut self, rows_max: usize) -> bool {
        let mut fed = 0;
        while fed < rows_max && self.failure.is_none() {
            let Some((object, _, scan)) = self.sources.front_mut() else {
                break;
            };
            let object = *object;
            match scan.next() {
                None => drop(self.sources.pop_front()),
                Some(Err(reason)) => self.failure = Some(reason),
                Some(Ok(delta)) => {
                    fed += delta.len();
                    self.rows_done += delta.len() as u64;
                    self.feed(BTreeMap::from([(object, delta)]), Vec::new());
                }
            }
        }
        self.begun && self.sources.is_empty()
    }

    /// Why the job cannot go on: an input cannot be read. Its view is never attached; dropping it ends the job.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Whether the region should seal the job's `Attach` record now, since the snapshot is used up: true once.
    pub fn is_ready_to_seal(&mut self) -> bool {
        let ready = self.begun && self.sources.is_empty() && !self.sealed;
        self.sealed |= ready;
        ready
    }

    /// Rows fed and rows to feed.
    pub fn progress(&self) -> (u64, u64) {
        // The total counts versions and so is an upper bound; a job is never shown as complete before it is.
        (
            self.rows_done.min(self.rows_total),
            self.rows_total.max(self.rows_done) + 1,
        )
    }

    /// What readers of an unfinished view would see: nothing.
    pub fn empty_result(&self) -> Arc<RowsSnapshot> {
        self.empty.clone()
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The text of [`Backfill::failure`].
    pub fn finish(mut self) -> std::result::Result<Finished, String> {
        while !self.poll(usize::MAX) {
            if let Some(failure) = self.failure {
                return Err(failure);
            }
        }
        while let Some(Pending { inputs, merges }) = self.pending.pop_front() {
            self.feed(inputs, merges);
        }
        Ok(Finished {
            view: self.view,
            own: self.own,
        })
    }

    fn feed(&mut self, inputs: BTreeMap<ObjectId, Delta>, merges: Vec<Vec<SlotDelta>>) {
        if self.scope == Scope::Alone {
            self.view.step_alone(&inputs);
            return;
        }
        let rounds = if merges.is_empty() {
            self.own.iter().map(|_| Vec::new()).collect()
        } else {
            merges
        };
        for (number, changes) in self.view.step_local(&inputs).into_iter().enumerate() {
            self.own[number].extend(changes.filter(|changes| changes.rows > 0));
        }
        step_global(&mut self.view, &inputs, rounds);
    }
}
