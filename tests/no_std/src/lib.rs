//! The protocol core without an operating system and without a heap.
//!
//! The build itself is the test: it fails for lack of an allocator if the core or one of its
//! dependencies allocates, and because of two panic handlers if one of them uses std.

#![no_std]

pub use oc_discovery::protocol;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
