//! Why a view cannot be built.
//!
//! Building is the only thing that fails: once a view exists, a row that cannot be computed becomes an entry
//! of its errors (see [`crate::row_errors`]), and a broken invariant stops the process with the values in hand.

use thiserror::Error;
use tributary_storage::StorageError;

/// A plan that cannot run here, or state that is not that of the plan.
#[derive(Debug, Error)]
pub enum ExecutorError {
    /// The plan asks for something this version does not compute. The planner refuses such queries at CREATE,
    /// so a user meets this only when the two disagree.
    #[error("not supported in a view: {0}")]
    Unsupported(String),
    /// The plan contradicts itself: a column that does not exist, a type that is not the expression's.
    #[error("the plan is not well formed: {0}")]
    Plan(String),
    /// A checkpoint holds some traces of the view and lacks this one.
    #[error("the checkpoint lacks the trace {name} of the view")]
    MissingState {
        /// The name of the trace.
        name: String,
    },
    /// The store could not give the state.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The result of building something.
pub type Result<T> = std::result::Result<T, ExecutorError>;
