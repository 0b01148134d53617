//! The `onedelete` program. Everything it does stands in the library.

use std::process::ExitCode;

/// Each request takes and gives back a hundred pieces of memory, of which some are kilobytes. The C library's way takes a sixth
/// of a request's time.
#[global_allocator]
static MEMORY: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    onedelete::cli::main()
}
