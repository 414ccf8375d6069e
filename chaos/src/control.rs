//! Negative controls: a defect of the laboratory's own, which the run has to find. A check that cannot fail is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::ledger::Outcome;
use crate::regions::Region;
use crate::workload::{Session, Shared};

/// What is done behind the back of the checks, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Control {
    /// The ledger has an acknowledged insert that was never made.
    Ledger,
    /// A row is inserted that no ledger has.
    Row,
    /// An account has one more than it should.
    Bank,
}

/// No id of a client: each has its own range, and none comes so far.
const ID: u64 = 99_999_999;

impl Control {
    /// Does it, the first time it is called.
    pub async fn apply(self, shared: &Arc<Shared>) {
        static DONE: AtomicBool = AtomicBool::new(false);
        if DONE.swap(true, Ordering::Relaxed) {
            return;
        }
        shared.journal.note(&format!("negative control: {self:?}"));
        let sql = match self {
            Control::Ledger => {
                let mut ledger = shared.events(Region::Us);
                ledger.send(ID, 1);
                return ledger.settle(ID, Outcome::Acknowledged);
            }
            Control::Row => {
                format!("INSERT INTO events (id, region, key, n) VALUES ({ID}, 'us', 1, 1)")
            }
            Control::Bank => "UPDATE accounts SET balance = balance + 1 WHERE id = 0".to_owned(),
        };
        let mut session = Session::new(shared.clone(), Region::Us);
        session.connect().await;
        if let Err(failure) = session.query(&sql).await {
            shared
                .journal
                .note(&format!("the negative control could not be done: {failure:?}"));
        }
    }
}
