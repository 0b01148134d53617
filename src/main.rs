//! The `onedelete` program. Everything it does stands in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    onedelete::cli::main()
}
