//! Watch streams for the loop: what the core decides becomes frames. Received frames pass upwards
//! as they are, because their content borrows from them.
//!
//! Invariant: it decides nothing and keeps nothing.

use super::{Net, frames::encoded, multiaddrs};
use crate::protocol::{
    Addrs, Filter, PeerId,
    codec::watch::encode_ask,
    watch::{WatchId, WatcherId},
};

impl Net {
    /// Asks a server to tell of changes. It ends in
    /// [`WatchEvent::Ended`](super::WatchEvent::Ended), unless we end it.
    pub(crate) fn watch(&mut self, server: PeerId, addrs: &Addrs, watch: WatchId, what: &Filter) {
        let body = encoded(|buffer| encode_ask(what, buffer));
        self.streams().watch(server, multiaddrs(addrs), watch, body);
    }

    /// Takes the next frame of our stream, after the last one.
    pub(crate) fn watch_on(&mut self, watch: WatchId) {
        self.streams().watch_on(watch);
    }

    /// Ends our stream. No event follows.
    pub(crate) fn unwatch(&mut self, watch: WatchId) {
        self.streams().unwatch(watch);
    }

    /// Sends whole frames to a watcher, which has been sent the last ones.
    pub(crate) fn tell_watcher(&mut self, watcher: WatcherId, frames: &[u8]) {
        self.streams().tell_watcher(watcher, frames.to_vec());
    }

    /// Ends a watcher's stream. No event follows.
    pub(crate) fn dismiss_watcher(&mut self, watcher: WatcherId) {
        self.streams().dismiss_watcher(watcher);
    }
}
