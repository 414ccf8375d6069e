//! The `tributary` binary. Everything it does lives in the library, where tests reach it too.

use std::process::ExitCode;

/// Batches are allocated on one thread and freed on another, which the system's allocator does slowly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tributary_server::cli::main()
}
