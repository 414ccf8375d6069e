//! What clients asked for and what they were told.
//!
//! The set of commits that are in lies between the acknowledged and the submitted: every acknowledged one is in
//! its log for good, at the position it was told, exactly once; nothing is in that was not submitted. Only with its
//! log goes what was acknowledged: when the disk is wiped, restored from an old copy, or the region is fenced.

use std::collections::BTreeMap;

use tributary_region::{Committed, Rejected, WriteSet};

use crate::failure::{Checked, Violation};
use crate::model::LogId;

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// Nothing is known yet.
    Submitted,
    /// It is in its region's log, not acknowledged.
    Sealed(u64),
    /// It was acknowledged.
    Acknowledged(u64),
    /// It was refused.
    Refused,
    /// A crash took it before it was acknowledged.
    Lost,
    /// Its log is continued no more, or not from there.
    Superseded,
}

struct Submission {
    log: LogId,
    writes: Option<WriteSet>,
    fate: Fate,
}

/// All submissions of a run.
#[derive(Default)]
pub struct Ledger {
    submissions: BTreeMap<u64, Submission>,
    /// How submissions ended.
    pub counts: LedgerCounts,
}

/// How submissions ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct LedgerCounts {
    /// Submitted.
    pub submitted: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Refused because a row had changed.
    pub conflicts: u64,
    /// Refused while a connected region was too far behind.
    pub behind: u64,
    /// Refused for another reason.
    pub refused: u64,
    /// Lost in a crash before they were acknowledged.
    pub lost: u64,
    /// Acknowledged, and gone with their log as told.
    pub superseded: u64,
}

impl Ledger {
    /// A new submission at a region; DDL has no writes. Returns its token.
    pub fn submit(&mut self, log: LogId, writes: Option<WriteSet>) -> u64 {
        self.counts.submitted += 1;
        let token = self.counts.submitted;
        self.submissions.insert(
            token,
            Submission {
                log,
                writes,
                fate: Fate::Submitted,
            },
        );
        token
    }

    /// What was submitted under a token.
    pub fn writes(&self, token: u64) -> Option<&WriteSet> {
        self.submissions.get(&token)?.writes.as_ref()
    }

    /// A record was made of a submission.
    ///
    /// # Errors
    /// When it was made twice.
    pub fn seal(&mut self, token: u64, position: u64) -> Checked {
        let submission = self.find(token)?;
        if submission.fate != Fate::Submitted {
            let detail = format!(
                "submission {token} is sealed at {position} and was {:?}",
                submission.fate
            );
            return Err(Violation::new("no doubled commit", detail));
        }
        submission.fate = Fate::Sealed(position);
        submission.writes = None;
        Ok(())
    }

    /// A region answered.
    ///
    /// # Errors
    /// When the answer is not true, or is the second one.
    pub fn reply(
        &mut self,
        log: LogId,
        token: u64,
        outcome: &Result<Committed, Rejected>,
        durable: u64,
    ) -> Checked {
        let submission = self.find(token)?;
        let broken = |detail: String| {
            Err(Violation::new(
                "acknowledgements",
                format!("submission {token} at {log}: {detail}"),
            ))
        };
        if submission.log != log {
            return broken(format!("it was made at {}", submission.log));
        }
        let fate = match (outcome, &submission.fate) {
            (Ok(committed), Fate::Sealed(position)) if *position == committed.position.0 => {
                if *position > durable {
                    let detail =
                        format!("it is acknowledged at {position}, the log is synced up to {durable}");
                    return Err(Violation::new(
                        "durable before visible",
                        format!("submission {token}: {detail}"),
                    ));
                }
                Fate::Acknowledged(*position)
            }
            (Err(_), Fate::Submitted) => Fate::Refused,
            (outcome, fate) => return broken(format!("answered {outcome:?}, and it is {fate:?}")),
        };
        submission.fate = fate;
        submission.writes = None;
        match outcome {
            Ok(_) => self.counts.acknowledged += 1,
            Err(Rejected::Conflict { .. }) => self.counts.conflicts += 1,
            Err(Rejected::Behind { .. }) => self.counts.behind += 1,
            Err(_) => self.counts.refused += 1,
        }
        Ok(())
    }

    /// A crash left `last` as a region's last record; `epoch_of` is what the log says of each token.
    ///
    /// # Errors
    /// When an acknowledged commit is gone.
    pub fn crash(&mut self, log: LogId, last: u64) -> Checked {
        for (token, submission) in self.submissions.iter_mut().filter(|(_, s)| s.log == log) {
            match submission.fate {
                Fate::Acknowledged(position) if position > last => {
                    let detail = format!(
                        "submission {token} was acknowledged at {position}, {log} restarts at {last}"
                    );
                    return Err(Violation::new("acknowledged commits survive", detail));
                }
                Fate::Submitted => submission.fate = Fate::Lost,
                Fate::Sealed(position) if position > last => submission.fate = Fate::Lost,
                _ => continue,
            }
            self.counts.lost += 1;
        }
        Ok(())
    }

    /// A log is continued no more after `last`, as its operator knows.
    pub fn supersede(&mut self, log: LogId, last: u64) {
        for submission in self.submissions.values_mut().filter(|s| s.log == log) {
            match submission.fate {
                Fate::Acknowledged(position) if position > last => {
                    submission.fate = Fate::Superseded;
                    self.counts.superseded += 1;
                }
                Fate::Submitted => submission.fate = Fate::Lost,
                Fate::Sealed(position) if position > last => submission.fate = Fate::Lost,
                _ => {}
            }
        }
    }

    /// The greatest position of a log at which something was acknowledged.
    pub fn acknowledged(&self, log: LogId) -> u64 {
        let all = self.submissions.values().filter(|s| s.log == log);
        let positions = all.filter_map(|submission| match submission.fate {
            Fate::Acknowledged(position) => Some(position),
            _ => None,
        });
        positions.max().unwrap_or(0)
    }

    /// At the end: every acknowledged commit is where it was acknowledged, according to `holds`.
    ///
    /// # Errors
    /// When one is not.
    pub fn check_all(&self, holds: impl Fn(LogId, u64, u64) -> bool) -> Checked {
        for (token, submission) in &self.submissions {
            let (Fate::Acknowledged(position) | Fate::Sealed(position)) = submission.fate else {
                continue;
            };
            if !holds(submission.log, position, *token) {
                let detail = format!("submission {token} is not at {position} of {}", submission.log);
                return Err(Violation::new("acknowledged commits survive", detail));
            }
        }
        Ok(())
    }

    fn find(&mut self, token: u64) -> Checked<&mut Submission> {
        let unknown = || Violation::new("acknowledgements", format!("token {token} was never submitted"));
        self.submissions.get_mut(&token).ok_or_else(unknown)
    }
}
