//! Planning on a stack of its own: statements are bounded in depth before they are parsed, and this stack is large
//! enough for the deepest of them. A panic while planning ends the statement, not the server.

use std::future::Future;

use crate::pgwire::error::{SqlError, SqlResult};

/// Stack for planning. Only touched pages take memory.
const PLANNING_STACK_BYTES: usize = 64 * 1024 * 1024;

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
    let thread = std::thread::Builder::new()
        .name("plan".into())
        .stack_size(PLANNING_STACK_BYTES)
        .spawn(run);
    if let Err(error) = thread {
        return Err(SqlError::new("53000", format!("no thread for planning: {error}")));
    }
    receiver
        .await
        .unwrap_or_else(|_| Err(SqlError::internal("the planning thread ended without an answer")))
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
}
