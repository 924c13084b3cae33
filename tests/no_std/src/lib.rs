//! The protocol core where there is neither an operating system nor a heap.
//!
//! That it can be built is the test: an allocator is missing if the core or one of its dependencies
//! allocates, and there are two panic handlers if one of them brings std.

#![no_std]

pub use oc_discovery::protocol;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
