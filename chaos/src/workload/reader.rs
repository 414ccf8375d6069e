//! Reads all views of a region all the time, and checks what must be true of every answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::bank::{ACCOUNTS, MONEY};
use super::session::Connection;
use super::{Failure, Session, Shared};
use crate::regions::Region;

const PAUSE: Duration = Duration::from_millis(120);

/// All views in one statement, which reads one moment.
const TOGETHER: &str = "SELECT b.n, b.total, (SELECT sum(n) FROM branches), (SELECT sum(total) FROM branches), \
                        (SELECT sum(n) FROM counted), (SELECT sum(n) FROM joined) FROM bank b";

/// The counts seen last, per region whose events they count.
type Seen = BTreeMap<String, u64>;

/// Reads until the end.
pub async fn run(shared: Arc<Shared>, region: Region) {
    let mut session = Session::new(shared.clone(), region);
    let mut reader = Reader {
        shared,
        region,
        on_connection: Seen::new(),
        ever: Seen::new(),
    };
    loop {
        tokio::time::sleep(PAUSE).await;
        let Some(_turn) = reader.shared.turn().await else {
            return;
        };
        match session.connect().await {
            Some(Connection::New) => reader.on_connection.clear(),
            Some(Connection::Same) => {}
            None => continue,
        }
        let read = reader.read(&mut session).await;
        let mut tallies = reader.shared.tallies();
        match read {
            Ok(()) => tallies.reads += 1,
            Err(_) => tallies.reads_failed += 1,
        }
    }
}

struct Reader {
    shared: Arc<Shared>,
    region: Region,
    on_connection: Seen,
    ever: Seen,
}

impl Reader {
    async fn read(&mut self, session: &mut Session) -> Result<(), Failure> {
        for row in session.query(TOGETHER).await? {
            self.together(&numbers(&row));
        }
        for row in session.query("SELECT region, n, total FROM branches").await? {
            let whole = [ACCOUNTS as i64, MONEY];
            if numbers(&row[1..]) != whole {
                self.wrong("a region's transfers keep its sum", format!("branches: {row:?}"));
            }
        }
        let own = "SELECT count(*), coalesce(sum(balance), 0) FROM accounts";
        for row in session.query(own).await? {
            let found = numbers(&row);
            if found != [ACCOUNTS as i64, MONEY] && found != [0, 0] {
                self.wrong(
                    "a region's transfers keep its sum",
                    format!("own accounts: {row:?}"),
                );
            }
        }
        self.counted(session).await
    }

    fn together(&self, numbers: &[i64]) {
        let &[accounts, money, branch_accounts, branch_money, counted, joined] = numbers else {
            return self.wrong("a row has its columns", format!("{numbers:?}"));
        };
        let regions = accounts / ACCOUNTS as i64;
        let is_whole = accounts == regions * ACCOUNTS as i64 && money == regions * MONEY;
        if !is_whole {
            self.wrong(
                "transfers keep the sum of all regions",
                format!("{accounts} accounts with {money}"),
            );
        }
        if (accounts, money) != (branch_accounts, branch_money) {
            let detail = format!("bank: {accounts}, {money}; branches: {branch_accounts}, {branch_money}");
            self.wrong("all views that a statement reads are of one moment", detail);
        }
        if counted != joined {
            let detail = format!("{counted} events counted, {joined} joined with their setting");
            self.wrong("each event is joined with its one setting", detail);
        }
    }

    async fn counted(&mut self, session: &mut Session) -> Result<(), Failure> {
        let acknowledged = self.shared.events(self.region).counts().acknowledged;
        let rows = session.query("SELECT region, n FROM counted").await?;
        let mut found = Seen::new();
        for row in &rows {
            let name = row[0].clone().unwrap_or_default();
            found.insert(name, numbers(&row[1..])[0] as u64);
        }
        for region in Region::ALL {
            let count = found.get(region.name()).copied().unwrap_or(0);
            let most = self.shared.events(region).counts().most();
            if count > most {
                let detail = format!("{count} events of {region}, of which at most {most} were sent");
                self.wrong("a view counts nothing that was not written", detail);
            }
            if region == self.region && count < acknowledged {
                // Only the session that wrote is promised to see it at once.
                self.shared.tallies().reads_behind += 1;
            }
        }
        self.compare_with_before(&found);
        Ok(())
    }

    fn compare_with_before(&mut self, found: &Seen) {
        let mut wrong = Vec::new();
        let promises = [
            ("what a connection sees never goes back", &mut self.on_connection),
            (
                "what a region shows never goes back, over restarts",
                &mut self.ever,
            ),
        ];
        for (promise, before) in promises {
            for (name, count) in before.iter() {
                let now = found.get(name).copied().unwrap_or(0);
                if now < *count {
                    wrong.push((promise, format!("{now} events of {name} after {count}")));
                }
            }
            before.clone_from(found);
        }
        for (promise, detail) in wrong {
            self.wrong(promise, detail);
        }
    }

    fn wrong(&self, promise: &'static str, detail: String) {
        let detail = format!("seen in {}: {detail}", self.region);
        self.shared.journal.violation(promise, detail);
    }
}

/// The numbers of a row; null, the sum of nothing, is zero.
fn numbers(row: &[Option<String>]) -> Vec<i64> {
    let parse = |text: &Option<String>| text.as_ref().and_then(|text| text.parse().ok()).unwrap_or(0);
    row.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_row_with_nulls() {
        let row = vec![Some("7".to_owned()), None, Some("-2".to_owned())];
        assert_eq!(numbers(&row), [7, 0, -2]);
    }
}
