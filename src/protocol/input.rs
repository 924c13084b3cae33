//! The inputs of a machine: the events of a process of any role.
//!
//! These are the events that need no answer. A call with an immediate answer is a method of
//! [`Machine`] with its own type: with one type for all results each driver would have to match
//! results that cannot occur.
//!
//! Invariants: an input borrows long data, and each role matches each variant by name, even those
//! that it ignores.
//!
//! [`Machine`]: super::Machine

use core::time::Duration;

use super::{
    Ack, Addrs, AnnounceEnd, IndexersAnswer, Key, PeerId, Reader, RecordInfo, StreamId, Verdict,
    address::TransportAddr,
    codec::heartbeat::{AckCause, WallReading},
    machine::MAX_MOVED,
    signing::Urgency,
    time::Pace,
};

/// An event.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// What the connections of a peer show about the addresses that it can dial. Given before the
    /// first beat of each of its streams, and before each of its requests. A peer without this
    /// input is offered every address.
    Seen {
        /// The peer that will read addresses.
        peer: &'a PeerId,
        /// The addresses that it can dial.
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
        /// The stream of the connection that was pinged.
        stream: StreamId,
        /// Whether a pong came.
        verdict: Verdict,
    },
    /// The ping of [`Action::Probe`](super::Action::Probe) has ended.
    Probed {
        /// The peer.
        peer: &'a PeerId,
        /// Whether a pong came.
        verdict: Verdict,
    },
    /// A search has found a record. It is verified and decoded, but its validity is not checked.
    SearchValue {
        /// The subject of the record that is searched for.
        peer: &'a PeerId,
        /// What was found.
        record: &'a RecordInfo,
        /// Wall-clock time, ms since the Unix epoch.
        own_ms: u64,
    },
    /// A search has ended.
    SearchEnded {
        /// The subject of the record that was searched for.
        peer: &'a PeerId,
        /// Wall-clock time, ms since the Unix epoch.
        own_ms: u64,
    },
    /// The announcement of [`Action::Announce`](super::Action::Announce) has ended.
    Announced {
        /// What was announced.
        key: &'a Key,
        /// Whether a server of the DHT took it.
        end: AnnounceEnd,
    },
    /// A server's ack has arrived: it answers the last beat of this process, or says `released`
    /// unsolicited. If that crosses a beat of this process, its sequence is an earlier one.
    Acked {
        /// The server.
        server: &'a PeerId,
        /// Where its connection leads to, if it was dialled: an address that carried the lease.
        over: Option<TransportAddr>,
        /// Why it was sent.
        cause: AckCause,
        /// The answer.
        ack: &'a Ack<'a>,
        /// The server's clock, if it told it.
        clock: Option<WallReading>,
    },
    /// A lease that was given up ([`Action::GiveUp`](super::Action::GiveUp)) has ended: the server
    /// has answered the last beat, or will not answer it any more.
    GaveUp {
        /// The server.
        server: &'a PeerId,
    },
    /// The own heartbeat stream to a server has ended or could not be opened.
    LeaseClosed {
        /// The server.
        server: &'a PeerId,
    },
    /// The own request for indexers ([`Action::Ask`](super::Action::Ask)) has ended.
    Answered {
        /// The native that was asked.
        native: &'a PeerId,
        /// Its answer; `None` if there was none.
        answer: Option<IndexersAnswer<'a>>,
    },
    /// The own record was signed again. An endpoint gives it for the host
    /// ([`Endpoint::record_signed`](super::endpoint::Endpoint::record_signed)).
    RecordSigned {
        /// Whether the record is sent before the next regular beat.
        urgency: Urgency,
    },
    /// A native has become known, or its addresses have changed.
    NativeLearned {
        /// The native.
        native: &'a PeerId,
        /// Where it listens.
        addrs: &'a Addrs,
    },
    /// The peer does not belong to the closed network, or not any more: its lease, its entries and
    /// its records are dropped at once, and a lease with it is not sought for a while. Given by an
    /// endpoint.
    Expelled {
        /// The peer.
        peer: &'a PeerId,
    },
    /// A native is no longer configured: its lease is given up.
    NativeForgotten {
        /// The native.
        native: &'a PeerId,
    },
    /// The operator has changed intervals. What waits for a longer one waits for the new one.
    Paced(Pace),
    /// A link, a route or an address of this host was added. Attempts that wait for a retry start
    /// at once.
    NetworkChanged,
    /// The process overslept ([`Machine::overslept`](super::Machine::overslept)): every lease
    /// granted is extended by the gap, less if its holder has beaten since. Leases held are never
    /// extended.
    Overslept {
        /// How long it overslept.
        gap: Duration,
    },
    /// The operator wants to stop this indexer: its nodes are handed over to others, and it takes
    /// no new ones.
    Drain,
    /// It is not stopped after all: it takes nodes again.
    EndDrain,
    /// The process ends, so all leases held elsewhere are given up.
    ShutDown,
}

const _: () = assert!(size_of::<Input<'_>>() <= MAX_MOVED);

#[cfg(test)]
pub(crate) mod tests;
