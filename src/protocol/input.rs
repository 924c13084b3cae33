//! What a machine is told: the events of one process, whatever its role.
//!
//! Here is what needs no answer. A call that has one at once stands in [`Machine`] under its own
//! name and with its own type ([`Machine::beat`], [`Machine::ask`], [`Machine::page`],
//! [`Machine::stream_opened`], [`Machine::network_changed`]): an ack borrows the lists of its
//! machine, and one type for all results would have each driver match those that cannot be.
//!
//! Invariants: an input borrows what is long, and each role names each variant, also those that it
//! does nothing with.
//!
//! [`Machine`]: super::Machine
//! [`Machine::ask`]: super::Machine::ask
//! [`Machine::beat`]: super::Machine::beat
//! [`Machine::network_changed`]: super::Machine::network_changed
//! [`Machine::page`]: super::Machine::page
//! [`Machine::stream_opened`]: super::Machine::stream_opened

#[cfg(test)]
mod events;

use core::time::Duration;

use super::{
    Ack, Addrs, IndexersAnswer, PeerId, Reader, RecordInfo, StreamId, address::Endpoint,
    machine::MAX_MOVED,
};

#[cfg(test)]
pub(crate) use events::Events;

/// Something that has happened.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// What the connections of a peer show of the addresses that it could dial. Given before the
    /// first beat of each of its streams, and before each of its requests; a peer of which it is
    /// not given is told every address.
    Seen {
        /// The peer that will read addresses.
        peer: &'a PeerId,
        /// What it can dial.
        reader: Reader,
    },
    /// A heartbeat stream that a peer had opened has ended.
    StreamClosed {
        /// The peer.
        peer: &'a PeerId,
        /// Its stream.
        stream: StreamId,
    },
    /// The ping of [`Action::ProbeStream`](super::Action::ProbeStream) has ended.
    StreamProbed {
        /// The peer.
        peer: &'a PeerId,
        /// The stream whose connection was pinged.
        stream: StreamId,
        /// Whether a pong came.
        alive: bool,
    },
    /// The ping of [`Action::Probe`](super::Action::Probe) has ended.
    Probed {
        /// The peer.
        peer: &'a PeerId,
        /// Whether a pong came.
        alive: bool,
    },
    /// A search has found a record; it is verified and decoded, not judged.
    SearchValue {
        /// The peer whose record is searched for.
        peer: &'a PeerId,
        /// What was found.
        record: &'a RecordInfo,
        /// Wall-clock time, ms since the Unix epoch.
        own_ms: u64,
    },
    /// A search has ended.
    SearchEnded {
        /// The peer whose record was searched for.
        peer: &'a PeerId,
        /// Wall-clock time, ms since the Unix epoch.
        own_ms: u64,
    },
    /// What the server says next on our heartbeat stream comes over a connection that leads there,
    /// as it was dialled. Given before each [`Input::Acked`]; where it is not, no address of the
    /// server counts as one that carried the lease.
    Carried {
        /// The server.
        server: &'a PeerId,
        /// Where its connection leads.
        over: Endpoint,
    },
    /// A server answered our last beat: the ack's sequence is that beat's.
    Acked {
        /// The server.
        server: &'a PeerId,
        /// Its answer.
        ack: &'a Ack<'a>,
    },
    /// A server said `released` unasked. It may cross a beat of ours: then the ack's sequence is
    /// an earlier one.
    Notified {
        /// The server.
        server: &'a PeerId,
        /// What it said.
        ack: &'a Ack<'a>,
    },
    /// Our heartbeat stream to a server has ended or could not be opened.
    LeaseClosed {
        /// The server.
        server: &'a PeerId,
    },
    /// Our request for indexers ([`Action::Ask`](super::Action::Ask)) has ended.
    Answered {
        /// The native that was asked.
        native: &'a PeerId,
        /// Its answer; `None`: it gave none.
        answer: Option<&'a IndexersAnswer>,
    },
    /// The own record was signed anew.
    RecordSigned {
        /// It does not wait for the next beat: an address or the time changed.
        urgent: bool,
    },
    /// A native became known, or its addresses changed.
    NativeLearned {
        /// The native.
        native: &'a PeerId,
        /// Where it listens.
        addrs: &'a Addrs,
    },
    /// The process overslept ([`Machine::overslept`](super::Machine::overslept)): every lease
    /// granted moves on by the gap, less what its holder was heard since. Leases held are never
    /// extended.
    Overslept {
        /// How long it overslept.
        gap: Duration,
    },
    /// The process ends: all leases held elsewhere are given up.
    ShutDown,
}

const _: () = assert!(size_of::<Input<'_>>() <= MAX_MOVED);
