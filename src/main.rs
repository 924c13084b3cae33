//! `oc-discovery`: see `src/program.rs`, which is in the library so that its parts need not be
//! public.

// Denied, not forbidden: `unwinding` takes the place of a library; its comment says why.
#![deny(unsafe_code)]

#[cfg(all(
    panic = "abort",
    target_os = "linux",
    not(target_feature = "crt-static")
))]
mod unwinding;

use std::process::ExitCode;

use oc_discovery::program::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    oc_discovery::program::main()
}
