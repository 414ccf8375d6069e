//! Transfers between the accounts of a region.
//!
//! Half of the transfers read both balances and write what they computed from them: a lost update would make or destroy
//! money. There are few accounts, so that transfers meet; of two that do, the second is refused with 40001 and tried again.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Failure, Session, Shared};
use crate::ledger::Outcome;
use crate::regions::Region;

/// Clients of each region.
pub const TELLERS: u64 = 2;
/// Accounts of each region.
pub const ACCOUNTS: u64 = 20;
/// The money of each region, for ever.
pub const MONEY: i64 = ACCOUNTS as i64 * BALANCE;

const WORKLOAD: &str = "bank";
const BALANCE: i64 = 1_000;
const PAUSE: Duration = Duration::from_millis(60);

/// The statement that opens all accounts of a region.
pub fn initial(region: Region) -> String {
    let rows: Vec<String> = (0..ACCOUNTS)
        .map(|number| format!("({}, '{region}', {BALANCE})", account(region, number)))
        .collect();
    format!(
        "INSERT INTO accounts (id, region, balance) VALUES {}",
        rows.join(", ")
    )
}

/// Transfers until the end.
pub async fn run(shared: Arc<Shared>, region: Region, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut session = Session::new(shared.clone(), region);
    loop {
        tokio::time::sleep(PAUSE).await;
        let Some(_turn) = shared.turn().await else { return };
        if session.connect().await.is_none() {
            continue;
        }
        let from = random.random_range(0..ACCOUNTS);
        let to = (from + random.random_range(1..ACCOUNTS)) % ACCOUNTS;
        let transfer = Transfer {
            from: account(region, from),
            to: account(region, to),
            amount: random.random_range(1..=50),
            is_computed_here: random.random_bool(0.5),
        };
        let outcome = match transfer.make(&mut session).await {
            Ok(()) => Outcome::Acknowledged,
            Err((failure, true)) => failure.outcome(),
            // COMMIT was never said.
            Err((_, false)) => {
                let _ = session.query("ROLLBACK").await;
                Outcome::Refused
            }
        };
        shared.committed(WORKLOAD, region, outcome);
    }
}

struct Transfer {
    from: u64,
    to: u64,
    amount: i64,
    is_computed_here: bool,
}

impl Transfer {
    /// The transfer as a transaction; of a failure, whether it was the commit's.
    async fn make(&self, session: &mut Session) -> Result<(), (Failure, bool)> {
        let Transfer { from, to, amount, .. } = *self;
        let before = |failure| (failure, false);
        session.query("BEGIN").await.map_err(before)?;
        for (id, change) in [(from, -amount), (to, amount)] {
            let sql = if self.is_computed_here {
                let sql = format!("SELECT balance FROM accounts WHERE id = {id}");
                let rows = session.query(&sql).await.map_err(before)?;
                let balance = rows
                    .first()
                    .and_then(|row| row.first()?.as_ref()?.parse::<i64>().ok());
                // An account that is not there is seen by the reader, which counts them.
                let balance = balance.ok_or((Failure::Lost, false))?;
                format!(
                    "UPDATE accounts SET balance = {} WHERE id = {id}",
                    balance + change
                )
            } else {
                format!("UPDATE accounts SET balance = balance + ({change}) WHERE id = {id}")
            };
            session.query(&sql).await.map_err(before)?;
        }
        session
            .query("COMMIT")
            .await
            .map(|_| ())
            .map_err(|failure| (failure, true))
    }
}

fn account(region: Region, number: u64) -> u64 {
    region.index() as u64 * 1_000 + number
}
