//! `oc-discovery`: see `src/program.rs`, which is in the library so that its parts need not be
//! public.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use oc_discovery::program::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    oc_discovery::program::main()
}
