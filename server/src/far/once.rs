//! Statements of other regions that are being carried out, or were just now: a repetition gets the first one's answer.
//!
//! A statement runs in a task of its own, so that neither a lost connection nor a repetition ends it half-way. The newest
//! [`ANSWERS_MAX`] answers of at most [`ANSWER_BYTES_MAX`] are kept; whoever comes later finds the token in the log.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::forward::ForwardReply;
use crate::pgwire::error::SqlError;
use crate::pgwire::sqlstate;

/// The most answers that are kept; beyond it the oldest go.
pub const ANSWERS_MAX: usize = 1024;
/// The most bytes of an answer that is kept.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Who sent a statement, and its token.
pub type StatementId = (String, [u8; 16]);

/// See the module's documentation.
#[derive(Default)]
pub struct Once(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// What is running or kept.
    answers: BTreeMap<StatementId, Answer>,
    /// What is kept, the oldest first.
    kept: VecDeque<StatementId>,
}

/// `None` while it runs.
type Answer = watch::Receiver<Option<ForwardReply>>;

impl Once {
    /// Carries out a statement, unless it runs or its answer is known; returns the answer in any case.
    pub async fn carry_out<F>(self: &Arc<Self>, id: StatementId, run: impl FnOnce() -> F) -> ForwardReply
    where
        F: Future<Output = ForwardReply> + Send + 'static,
    {
        let mut answer = {
            let mut known = self.known();
            match known.answers.get(&id) {
                Some(answer) => answer.clone(),
                None => {
                    let (sender, answer) = watch::channel(None);
                    known.answers.insert(id.clone(), answer.clone());
                    drop(known);
                    let (once, running) = (Arc::clone(self), run());
                    tokio::spawn(async move {
                        // Should it panic, the sender goes, and with the guard the entry.
                        let entry = Entry { once, id };
                        let reply = running.await;
                        entry.finish(&reply);
                        sender.send_replace(Some(reply));
                    });
                    answer
                }
            }
        };
        let reply = match answer.wait_for(Option::is_some).await {
            Ok(reply) => reply.clone(),
            Err(_) => None,
        };
        // It may have got as far as its commit.
        reply.unwrap_or_else(|| {
            let message = "the statement broke off, and it is not known whether it was carried out";
            ForwardReply::Refused(SqlError::new(sqlstate::COMPLETION_UNKNOWN, message).into())
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A statement that runs.
struct Entry {
    once: Arc<Once>,
    id: StatementId,
}

impl Entry {
    fn finish(&self, reply: &ForwardReply) {
        if reply.bytes() > ANSWER_BYTES_MAX {
            return;
        }
        let mut known = self.once.known();
        known.kept.push_back(self.id.clone());
        while known.kept.len() > ANSWERS_MAX {
            if let Some(oldest) = known.kept.pop_front() {
                known.answers.remove(&oldest);
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut known = self.once.known();
        if !known.kept.contains(&self.id) {
            known.answers.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::sync::Notify;

    use super::super::forward::Forwarded;
    use super::*;

    fn done(count: u64, bytes: usize) -> ForwardReply {
        ForwardReply::Done(Forwarded {
            count,
            returned: Some(vec![0; bytes]),
            notices: Vec::new(),
            committed: None,
        })
    }

    fn id(number: u8) -> StatementId {
        ("eu".to_owned(), [number; 16])
    }

    #[tokio::test]
    async fn a_repetition_waits_for_the_first_and_gets_its_answer_also_when_the_first_was_given_up() {
        let once = Arc::new(Once::default());
        let (runs, go) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let run = || {
            let (runs, go) = (Arc::clone(&runs), Arc::clone(&go));
            move || async move {
                let number = runs.fetch_add(1, Ordering::Relaxed) + 1;
                go.notified().await;
                done(number, 0)
            }
        };
        let given_up =
            tokio::time::timeout(std::time::Duration::from_millis(10), once.carry_out(id(1), run()));
        assert!(given_up.await.is_err());
        let second = tokio::spawn({
            let (once, run) = (Arc::clone(&once), run());
            async move { once.carry_out(id(1), run).await }
        });
        tokio::task::yield_now().await;
        go.notify_one();
        assert_eq!(second.await.expect("it ends"), done(1, 0));
        assert_eq!(once.carry_out(id(1), run()).await, done(1, 0), "kept");
        let other = ("ap".to_owned(), [1; 16]);
        go.notify_one();
        assert_eq!(once.carry_out(other, run()).await, done(2, 0), "another's token");
    }

    #[tokio::test]
    async fn long_answers_the_oldest_and_what_broke_off_are_not_kept() {
        let once = Arc::new(Once::default());
        let long = ANSWER_BYTES_MAX + 1;
        once.carry_out(id(1), || async move { done(1, long) }).await;
        assert_eq!(once.carry_out(id(1), || async { done(2, 0) }).await, done(2, 0));
        let broke = once.carry_out(id(2), || async { panic!("for the test") }).await;
        let ForwardReply::Refused(broke) = broke else {
            panic!("it gave no answer");
        };
        assert_eq!(SqlError::from(broke).state, sqlstate::COMPLETION_UNKNOWN);
        assert_eq!(once.carry_out(id(2), || async { done(3, 0) }).await, done(3, 0));
        for number in 0..ANSWERS_MAX as u64 {
            let mut token = [9; 16];
            token[..8].copy_from_slice(&number.to_le_bytes());
            once.carry_out(("eu".to_owned(), token), || async { done(0, 0) })
                .await;
        }
        assert_eq!(once.known().answers.len(), ANSWERS_MAX);
        assert_eq!(once.carry_out(id(2), || async { done(4, 0) }).await, done(4, 0));
    }
}
