//! Cancel requests: a key per connection, told to that client only, that stops the statement running now.
//!
//! A wrong or late key does nothing and is answered with nothing, as the protocol wants. Secrets are random and
//! compared as whole keys, so that a number alone is of no use.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The keys of all connections.
#[derive(Default)]
pub struct CancelKeys {
    running: Mutex<BTreeMap<(i32, i32), Arc<CancelSignal>>>,
    next_process: AtomicI32,
}

/// What a cancel request reaches: the statement that runs when it arrives, and no later one.
#[derive(Default)]
pub struct CancelSignal {
    /// Even: idle. Odd: the number of the running statement.
    statement: AtomicU64,
    canceled: AtomicU64,
    notify: Notify,
}

/// A connection's key; dropping it makes the key void.
pub struct CancelHandle {
    keys: Arc<CancelKeys>,
    /// The process number told to the client.
    pub process: i32,
    /// The secret told to the client.
    pub secret: i32,
    signal: Arc<CancelSignal>,
}

impl CancelKeys {
    /// A key for a new connection.
    pub fn register(self: &Arc<Self>) -> CancelHandle {
        let process = self.next_process.fetch_add(1, Ordering::Relaxed) & i32::MAX;
        let secret = rand::random();
        let signal = Arc::new(CancelSignal::default());
        self.lock().insert((process, secret), Arc::clone(&signal));
        CancelHandle {
            keys: Arc::clone(self),
            process,
            secret,
            signal,
        }
    }

    /// Cancels what runs under this key; whether there was such a connection.
    pub fn cancel(&self, process: i32, secret: i32) -> bool {
        let signal = self.lock().get(&(process, secret)).cloned();
        if let Some(signal) = &signal {
            let running = signal.statement.load(Ordering::Acquire);
            if running % 2 == 1 {
                signal.canceled.store(running, Ordering::Release);
                signal.notify.notify_one();
            }
        }
        signal.is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(i32, i32), Arc<CancelSignal>>> {
        // The map is whole between any two of its calls, so a panic elsewhere while it was locked is harmless.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CancelHandle {
    /// The signal, to be waited for while a statement runs.
    pub fn signal(&self) -> Arc<CancelSignal> {
        Arc::clone(&self.signal)
    }
}

impl Drop for CancelHandle {
    fn drop(&mut self) {
        self.keys.lock().remove(&(self.process, self.secret));
    }
}

impl CancelSignal {
    /// A statement starts; it ends when the guard is dropped.
    pub fn start(&self) -> RunningStatement<'_> {
        let number = self.statement.fetch_add(1, Ordering::AcqRel) + 1;
        RunningStatement { signal: self, number }
    }
}

/// A statement that can be canceled.
pub struct RunningStatement<'a> {
    signal: &'a CancelSignal,
    number: u64,
}

impl RunningStatement<'_> {
    /// Completes when the statement is canceled; never for a cancel of an earlier one.
    pub async fn canceled(&self) {
        while self.signal.canceled.load(Ordering::Acquire) != self.number {
            self.signal.notify.notified().await;
        }
    }
}

impl Drop for RunningStatement<'_> {
    fn drop(&mut self) {
        self.signal.statement.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn is_canceled(running: &RunningStatement<'_>) -> bool {
        tokio::time::timeout(Duration::from_millis(20), running.canceled())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn only_the_running_statement_of_the_right_key_is_canceled() {
        let keys = Arc::new(CancelKeys::default());
        let (first, second) = (keys.register(), keys.register());
        let (one, two) = (first.signal(), second.signal());
        let (running, other) = (one.start(), two.start());
        assert!(
            !keys.cancel(first.process, first.secret.wrapping_add(1)),
            "a wrong secret is no key"
        );
        assert!(!is_canceled(&running).await);
        assert!(keys.cancel(first.process, first.secret));
        assert!(is_canceled(&running).await);
        assert!(!is_canceled(&other).await);
    }

    #[tokio::test]
    async fn a_late_cancel_does_not_reach_the_next_statement() {
        let keys = Arc::new(CancelKeys::default());
        let handle = keys.register();
        let signal = handle.signal();
        drop(signal.start());
        keys.cancel(handle.process, handle.secret);
        assert!(!is_canceled(&signal.start()).await);
        let running = signal.start();
        keys.cancel(handle.process, handle.secret);
        drop(running);
        assert!(!is_canceled(&signal.start()).await, "canceled too late");
    }

    #[test]
    fn a_closed_connection_has_no_key() {
        let keys = Arc::new(CancelKeys::default());
        let handle = keys.register();
        let (process, secret) = (handle.process, handle.secret);
        drop(handle);
        assert!(!keys.cancel(process, secret));
    }
}
