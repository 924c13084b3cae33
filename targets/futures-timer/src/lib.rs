//! `futures-timer`'s `Delay` on [`async_io::Timer`].
//!
//! The published crate starts a thread of its own and wakes it for every timer; libp2p uses it for its
//! connection and query timeouts. This package takes its place through `[patch.crates-io]`, so that the
//! whole program has one thread and one timer wheel. Its version must equal the one in `Cargo.lock`, or cargo
//! ignores the patch without a word: CI checks that no registry copy is in the tree.

#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// A future that is ready once its duration has passed.
pub struct Delay(async_io::Timer);

impl Delay {
    /// Ready `duration` from now.
    pub fn new(duration: Duration) -> Self {
        Self(async_io::Timer::after(duration))
    }

    /// Starts anew: ready `duration` from now, whether it had fired before or not.
    pub fn reset(&mut self, duration: Duration) {
        self.0.set_after(duration);
    }
}

impl Future for Delay {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}

impl fmt::Debug for Delay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Delay").finish()
    }
}
