//! Planning on a stack of its own: statements are bounded in depth before they are parsed, and this stack is large
//! enough for the deepest of them. A panic while planning ends the statement, not the server.
//!
//! Threads with such stacks wait for the next statement: making one, with its stack and its part of the allocator, and
//! taking both down again cost more than planning a small query.

use std::future::Future;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use crate::pgwire::error::{SqlError, SqlResult};

/// Stack for planning. Only touched pages take memory.
const PLANNING_STACK_BYTES: usize = 64 * 1024 * 1024;
/// Threads that wait; more are made when they are needed and end with their statement.
const WAITING_MAX: usize = 16;
/// A thread without work for so long ends.
const IDLE_MAX: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// The threads that wait, the last one on top: it is the one whose memory is still in the caches.
static WAITING: Mutex<Vec<Waiting>> = Mutex::new(Vec::new());

struct Waiting {
    thread: std::thread::ThreadId,
    jobs: mpsc::Sender<Job>,
}

/// Runs a future on a thread with a large stack. The future must not wait for I/O: the thread waits with it.
pub async fn on_large_stack<T, F>(future: F) -> SqlResult<T>
where
    T: Send + 'static,
    F: Future<Output = SqlResult<T>> + Send + 'static,
{
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let run = move || {
        let planned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(future)));
        let planned = planned.unwrap_or_else(|panic| Err(of_panic(panic.as_ref())));
        // The receiver is gone when the statement was canceled.
        let _ = sender.send(planned);
    };
    if let Err(error) = start(Box::new(run)) {
        return Err(SqlError::new("53000", format!("no thread for planning: {error}")));
    }
    receiver
        .await
        .unwrap_or_else(|_| Err(SqlError::internal("the planning thread ended without an answer")))
}

fn waiting() -> std::sync::MutexGuard<'static, Vec<Waiting>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives a job to a thread that waits, or to a new one.
fn start(mut job: Job) -> std::io::Result<()> {
    loop {
        let Some(thread) = waiting().pop() else { break };
        match thread.jobs.send(job) {
            Ok(()) => return Ok(()),
            // Its thread is gone.
            Err(mpsc::SendError(unsent)) => job = unsent,
        }
    }
    std::thread::Builder::new()
        .name("plan".into())
        .stack_size(PLANNING_STACK_BYTES)
        .spawn(move || work(job))
        .map(drop)
}

fn work(first: Job) {
    let thread = std::thread::current().id();
    let (sender, jobs) = mpsc::channel();
    let mut next = Some(first);
    while let Some(job) = next {
        job();
        {
            let mut waiting = waiting();
            if waiting.len() >= WAITING_MAX {
                return;
            }
            let jobs = sender.clone();
            waiting.push(Waiting { thread, jobs });
        }
        next = match jobs.recv_timeout(IDLE_MAX) {
            Ok(job) => Some(job),
            Err(_) if is_withdrawn(thread) => None,
            // Somebody took the thread from the list just now, and is about to give it a job.
            Err(_) => jobs.recv().ok(),
        };
    }
}

/// Takes a thread from those that wait; false when it is not there any more.
fn is_withdrawn(thread: std::thread::ThreadId) -> bool {
    let mut waiting = waiting();
    let place = waiting.iter().position(|waiting| waiting.thread == thread);
    place.map(|place| waiting.remove(place)).is_some()
}

/// The error of a caught panic. It is logged: it is a defect.
pub fn of_panic(panic: &(dyn std::any::Any + Send)) -> SqlError {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown panic");
    tracing::error!(message, "a statement panicked");
    SqlError::internal("an internal error ended the statement")
        .detail(message.to_string())
        .hint("this is a defect of the server; its log has more")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let result: SqlResult<()> = on_large_stack(async { panic!("on purpose") }).await;
        let error = result.expect_err("it panicked");
        assert_eq!(
            (error.state, error.detail.as_deref()),
            ("XX000", Some("on purpose"))
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn threads_serve_one_statement_after_the_other() {
        let id = || async { Ok(std::thread::current().id()) };
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..50 {
            let thread = on_large_stack(id()).await.expect("it ran");
            seen.insert(format!("{thread:?}"));
        }
        // Other tests may take a thread at any time.
        assert!(seen.len() < 25, "{} threads for 50 statements", seen.len());
        let many = (0..200).map(|number| tokio::spawn(on_large_stack(async move { Ok(number) })));
        for (number, answer) in many.collect::<Vec<_>>().into_iter().enumerate() {
            assert_eq!(answer.await.expect("no panic").expect("it ran"), number);
        }
    }
}
