//! The `tributary` binary. Everything it does lives in the library, where tests reach it too.

use std::process::ExitCode;

fn main() -> ExitCode {
    tributary_server::cli::main()
}
