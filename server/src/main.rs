//! The `tributary` binary. Everything it does lives in the library, where tests reach it too.

use std::process::ExitCode;

/// Batches are allocated on one thread and freed on another, which mimalloc is made for. The system's allocator (glibc)
/// was up to a fifth slower and took up to a third less memory, see `docs/performance.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tributary_server::cli::main()
}
