//! Connections of peers that are of no use are closed, however many streams the peer begins.
//!
//! The swarm keeps a connection while a stream is being negotiated, and this handler while one is
//! open. A peer that begins one stream after the other, and ends none of its messages, would so
//! keep a place for as long as it likes. So a connection that a peer made has [`Unused`]: it ends a
//! time after the last use, which is a beat, a whole request, a watch, or something that we began.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_timer::Delay;

use super::{Granted, Happened, State};

/// The time since the last use of a connection. It takes no timer while there is a use.
#[derive(Default)]
pub(super) struct Unused(Option<Box<Delay>>);

impl Unused {
    /// The connection is used.
    pub(super) fn ends(&mut self) {
        self.0 = None;
    }

    /// The connection is not used. Ready when that is so for `limit`.
    pub(super) fn poll(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let delay = self.0.get_or_insert_with(|| Box::new(Delay::new(limit)));
        Pin::new(delay).poll(cx)
    }
}

impl State {
    /// Ready if the peer made the connection, and it is of no use for too long.
    pub(super) fn poll_unused(&mut self, cx: &mut Context<'_>) -> Option<Happened> {
        let beats = self.inbound.as_mut().is_some_and(Granted::has_beaten);
        let is_used = beats
            || self.remote.is_none()
            || self.outbound.is_some()
            || self.first_beat.is_some()
            || self.watches.is_some()
            || !self.unanswered.is_empty()
            || !self.to_open.is_empty()
            || self.ours > 0;
        if is_used {
            self.unused.ends();
            return None;
        }
        let is_over = self.unused.poll(self.shared.unused, cx).is_ready();
        is_over.then_some(Happened::Unused)
    }
}
