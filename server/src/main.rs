//! The `tributary` binary. Everything it does lives in the library, where tests reach it too.

use std::process::ExitCode;

/// Batches are allocated on one thread and freed on another, which mimalloc is made for. Other allocators have not been
/// measured against it yet.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tributary_server::cli::main()
}
