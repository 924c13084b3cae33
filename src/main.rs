//! `oc-discovery`: see `src/program.rs`, which is in the library so that its parts need not be
//! public.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    oc_discovery::program::main()
}
