//! Takes the place of the library for unwinding, which a release has no use for: it aborts on panic
//! and has no tables that say how to unwind (`build.rs`).
//!
//! The standard library would still ask it for a backtrace, and bring with it what reads symbols
//! and debug information: 180 KB. Here a backtrace is empty, so the compiler leaves all of that
//! out, and `libgcc_s.so` is not loaded. The message of a panic is as before.
//!
//! It is part of the binary and not of the library: a program that depends on the library keeps its
//! own way to unwind.

#![expect(
    unsafe_code,
    reason = "its symbols have the names of the C++ ABI for exceptions; no other symbol has them, for the library is not linked"
)]

use std::ffi::{c_int, c_void};
use std::process::abort;

type Pointer = *const c_void;

/// `_URC_END_OF_STACK`.
const END_OF_STACK: c_int = 5;

#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_trace: Pointer, _argument: Pointer) -> c_int {
    END_OF_STACK
}

/// What is only called while a stack is unwound.
macro_rules! never_called {
    ($($name:ident($($argument:ty),*) -> $result:ty;)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name($(_: $argument),*) -> $result {
            abort()
        }
    )*};
}

never_called! {
    _Unwind_GetDataRelBase(Pointer) -> usize;
    _Unwind_GetIP(Pointer) -> usize;
    _Unwind_GetIPInfo(Pointer, *mut c_int) -> usize;
    _Unwind_GetLanguageSpecificData(Pointer) -> Pointer;
    _Unwind_GetRegionStart(Pointer) -> usize;
    _Unwind_GetTextRelBase(Pointer) -> usize;
    _Unwind_Resume(Pointer) -> !;
    _Unwind_SetGR(Pointer, c_int, usize) -> ();
    _Unwind_SetIP(Pointer, usize) -> ();
}
