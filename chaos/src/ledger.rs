//! What the clients of one region were told about each of their batches of rows.
//!
//! ```text
//!   send ─▶ unknown ─┬─ COMMIT answered ───────▶ acknowledged    each of its rows is in once, for ever
//!                    ├─ an error, a rollback ──▶ refused         none of its rows is ever in
//!                    └─ the connection is lost ▶ unknown         all of its rows are in once, or none is
//! ```
//! A batch is what is committed together; its rows have consecutive ids, and no id is ever sent twice.

use std::collections::BTreeMap;

/// What is known of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was committed.
    Acknowledged,
    /// It was not committed, and never will be.
    Refused,
    /// Nobody said.
    Unknown,
}

/// Numbers of rows by what is known of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// These must be there.
    pub acknowledged: u64,
    /// These must not be there.
    pub refused: u64,
    /// These may be there.
    pub unknown: u64,
}

/// The batches of one region.
#[derive(Debug, Default)]
pub struct Ledger {
    batches: BTreeMap<u64, Batch>,
    counts: Counts,
}

#[derive(Clone, Copy, Debug)]
struct Batch {
    rows: u64,
    outcome: Outcome,
}

impl Counts {
    /// Adds so many of a kind.
    pub fn add(&mut self, outcome: Outcome, rows: u64) {
        *self.of(outcome) += rows;
    }

    /// The most rows that can be there.
    pub fn most(&self) -> u64 {
        self.acknowledged + self.unknown
    }

    fn of(&mut self, outcome: Outcome) -> &mut u64 {
        match outcome {
            Outcome::Acknowledged => &mut self.acknowledged,
            Outcome::Refused => &mut self.refused,
            Outcome::Unknown => &mut self.unknown,
        }
    }
}

impl Ledger {
    /// Notes that a batch is about to be sent.
    pub fn send(&mut self, first: u64, rows: u64) {
        let batch = Batch {
            rows,
            outcome: Outcome::Unknown,
        };
        let before = self.batches.insert(first, batch);
        assert!(before.is_none(), "batch {first} is sent twice");
        self.counts.add(Outcome::Unknown, rows);
    }

    /// Notes what became of a batch that was sent.
    pub fn settle(&mut self, first: u64, outcome: Outcome) {
        let batch = self
            .batches
            .get_mut(&first)
            .expect("only what was sent is settled");
        assert_eq!(batch.outcome, Outcome::Unknown, "batch {first} is settled twice");
        batch.outcome = outcome;
        *self.counts.of(Outcome::Unknown) -= batch.rows;
        self.counts.add(outcome, batch.rows);
    }

    /// Rows by what is known of them.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What is wrong with the rows that are there: each id with how often it was found.
    pub fn compare(&self, found: &BTreeMap<u64, u64>) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut known = 0;
        for (&first, batch) in &self.batches {
            let ids = first..first + batch.rows;
            let there: Vec<u64> = found.range(ids.clone()).map(|(id, _)| *id).collect();
            known += there.len();
            let complete = there.len() as u64 == batch.rows;
            let problem = match batch.outcome {
                Outcome::Acknowledged if !complete => "acknowledged, and not all there",
                Outcome::Refused if !there.is_empty() => "refused, and there",
                Outcome::Unknown if !complete && !there.is_empty() => {
                    "torn: committed together, and not all there"
                }
                _ => continue,
            };
            wrong.push(format!("rows {ids:?} were {problem}: found {there:?}"));
        }
        let twice = found.iter().filter(|(_, count)| **count != 1);
        wrong.extend(twice.map(|(id, count)| format!("row {id} is there {count} times")));
        if known != found.len() {
            let strangers = found.keys().filter(|id| !self.was_sent(**id)).take(5);
            wrong.push(format!(
                "rows that nobody sent: {:?} …",
                strangers.collect::<Vec<_>>()
            ));
        }
        wrong
    }

    /// Why a row that is there cannot be.
    pub fn problem_with(&self, id: u64) -> Option<&'static str> {
        match self.batch_of(id) {
            Some(batch) => (batch.outcome == Outcome::Refused).then_some("it was refused"),
            None => Some("nobody sent it"),
        }
    }

    fn was_sent(&self, id: u64) -> bool {
        self.batch_of(id).is_some()
    }

    fn batch_of(&self, id: u64) -> Option<&Batch> {
        let (first, batch) = self.batches.range(..=id).next_back()?;
        (id < first + batch.rows).then_some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.send(10, 1);
        ledger.send(20, 3);
        ledger.send(30, 2);
        ledger.send(40, 2);
        ledger.settle(10, Outcome::Acknowledged);
        ledger.settle(20, Outcome::Acknowledged);
        ledger.settle(30, Outcome::Refused);
        ledger
    }

    fn found(ids: &[u64]) -> BTreeMap<u64, u64> {
        let mut found = BTreeMap::new();
        for id in ids {
            *found.entry(*id).or_insert(0) += 1;
        }
        found
    }

    #[test]
    fn what_is_acknowledged_is_there_once_and_what_is_unknown_as_a_whole_or_not() {
        let ledger = ledger();
        let expected = Counts {
            acknowledged: 4,
            refused: 2,
            unknown: 2,
        };
        assert_eq!(ledger.counts(), expected);
        assert_eq!(ledger.counts().most(), 6);
        assert!(ledger.compare(&found(&[10, 20, 21, 22])).is_empty());
        assert_eq!(ledger.problem_with(21), None);
        assert_eq!(ledger.problem_with(31), Some("it was refused"));
        assert_eq!(ledger.problem_with(50), Some("nobody sent it"));
        assert!(ledger.compare(&found(&[10, 20, 21, 22, 40, 41])).is_empty());
    }

    #[test]
    fn each_way_to_be_wrong_is_found() {
        let cases: [(&[u64], &str); 5] = [
            (&[10, 20, 22], "acknowledged, and not all there"),
            (&[10, 20, 21, 22, 31], "refused, and there"),
            (&[10, 20, 21, 22, 41], "torn"),
            (&[10, 10, 20, 21, 22], "is there 2 times"),
            (&[10, 11, 20, 21, 22], "nobody sent"),
        ];
        for (ids, expected) in cases {
            let wrong = ledger().compare(&found(ids));
            assert!(
                wrong.len() == 1 && wrong[0].contains(expected),
                "{expected}: {wrong:?}"
            );
        }
    }
}
