//! What has happened since the start, by reason: for each kind of line in the log that a fleet
//! repeats, how often it was true.
//!
//! Invariant: a counter only grows. What the log suppressed is counted here all the same.

use std::collections::BTreeMap;

use crate::{
    net::{FailureKind, Frame, goaway::broken, undialable::left_out},
    protocol::{Arrival, EndCause, Joined},
};

/// How often each of these has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// Leases granted to a peer that was not known.
    pub(super) joins_new: u64,
    /// Leases granted to a peer that had left or was lost within a day.
    pub(super) joins_back: u64,
    /// Nodes that this native has taken in itself.
    pub(super) joins_taken_in: u64,
    /// Holders that have moved to another host.
    pub(super) moves: u64,
    /// Leases that their holder gave up.
    pub(super) ends_left: u64,
    /// Leases of nodes that are with their indexer now.
    pub(super) ends_handed_over: u64,
    /// Leases without a beat in time.
    pub(super) ends_lost: u64,
    /// Leases that made room for peers without any.
    pub(super) ends_yielded: u64,
    /// Leases of peers that have another role now.
    pub(super) ends_new_role: u64,
    /// Leases of peers that do not belong to the closed network, or not any more.
    pub(super) ends_expelled: u64,
    /// Beats that were answered `full`.
    pub(super) refusals_full: u64,
    /// Beats that were answered `refused`, for other reasons than the next.
    pub(super) refusals_refused: u64,
    /// Those of peers that rest, because they came and went again and again.
    pub(super) refusals_resting: u64,
    /// Heartbeat streams that were ended because their beats came too fast.
    pub(super) streams_too_fast: u64,
    /// Beats that were refused because their sender is no member of the closed network.
    pub(super) refusals_no_member: u64,
    /// Times that two devices were found to use one identity.
    pub(super) contested_identities: u64,
    /// Leases that servers granted to this process.
    pub(super) leases_granted: u64,
    /// Leases of this process that ended without its wish.
    pub(super) leases_lost: u64,
    /// Beats of this process to which a server gave no lease.
    pub(super) leases_denied: u64,
    /// Leases that this process gave up.
    pub(super) leases_given_up: u64,
    /// Handshakes that failed because of another key, peer or protocol.
    pub(super) handshakes_failed: u64,
    /// Dials of this process that failed: a port without a listener.
    pub(super) dials_refused: u64,
    /// No answer in time.
    pub(super) dials_timed_out: u64,
    /// The host or the network is unreachable, or there is no route.
    pub(super) dials_unreachable: u64,
    /// The handshake failed; often the pre-shared key is another.
    pub(super) dials_handshake: u64,
    /// Another peer answers there.
    pub(super) dials_other_peer: u64,
    /// The name was not resolved.
    pub(super) dials_unresolved: u64,
    /// The peer to be dialled is this process.
    pub(super) dials_own_identity: u64,
    /// Any other reason.
    pub(super) dials_other: u64,
    /// Beats that could not be read.
    pub(super) malformed_beats: u64,
    /// Acks that could not be read.
    pub(super) malformed_acks: u64,
    /// Directory requests that could not be read.
    pub(super) malformed_requests: u64,
    /// Responses to own requests that could not be read.
    pub(super) malformed_responses: u64,
    /// Frames of watch streams that could not be read.
    pub(super) malformed_watches: u64,
}

impl Counters {
    /// All of them by name, and those of the log.
    pub(super) fn by_name(&self) -> BTreeMap<String, u64> {
        let mut counters = BTreeMap::new();
        let own = [
            ("joins_new", self.joins_new),
            ("joins_back", self.joins_back),
            ("joins_taken_in", self.joins_taken_in),
            ("moves", self.moves),
            ("ends_left", self.ends_left),
            ("ends_handed_over", self.ends_handed_over),
            ("ends_lost", self.ends_lost),
            ("ends_yielded", self.ends_yielded),
            ("ends_new_role", self.ends_new_role),
            ("ends_expelled", self.ends_expelled),
            ("refusals_full", self.refusals_full),
            ("refusals_refused", self.refusals_refused),
            ("refusals_resting", self.refusals_resting),
            ("streams_too_fast", self.streams_too_fast),
            ("refusals_no_member", self.refusals_no_member),
            ("contested_identities", self.contested_identities),
            ("leases_granted", self.leases_granted),
            ("leases_lost", self.leases_lost),
            ("leases_denied", self.leases_denied),
            ("leases_given_up", self.leases_given_up),
            ("handshakes_failed", self.handshakes_failed),
            ("dials_refused", self.dials_refused),
            ("dials_timed_out", self.dials_timed_out),
            ("dials_unreachable", self.dials_unreachable),
            ("dials_handshake", self.dials_handshake),
            ("dials_other_peer", self.dials_other_peer),
            ("dials_unresolved", self.dials_unresolved),
            ("dials_own_identity", self.dials_own_identity),
            ("dials_other", self.dials_other),
            ("malformed_beats", self.malformed_beats),
            ("malformed_acks", self.malformed_acks),
            ("malformed_requests", self.malformed_requests),
            ("malformed_responses", self.malformed_responses),
            ("malformed_watches", self.malformed_watches),
        ];
        counters.extend(own.map(|(name, count)| (name.to_owned(), count)));
        counters.insert("undialable_addresses".to_owned(), left_out());
        counters.insert("broken_connections".to_owned(), broken());
        #[cfg(feature = "program")]
        if let Some((lost, suppressed)) = super::logging::left_out() {
            counters.insert("log_lines_lost".to_owned(), lost);
            counters.insert("log_lines_suppressed".to_owned(), suppressed);
        }
        counters
    }

    /// Counts what a beat has changed.
    pub(super) fn arrived(&mut self, arrival: &Arrival) {
        match arrival {
            Arrival::Known | Arrival::Back { .. } | Arrival::Rival => {}
            Arrival::Moved { .. } => self.moves += 1,
            Arrival::Joined(Joined {
                shortage: Some(_), ..
            }) => self.joins_taken_in += 1,
            Arrival::Joined(Joined {
                gone_for: Some(_), ..
            }) => self.joins_back += 1,
            Arrival::Joined(_) => self.joins_new += 1,
        }
    }

    /// Counts the end of a lease that was granted.
    pub(super) fn ended(&mut self, how: EndCause) {
        *match how {
            EndCause::Left => &mut self.ends_left,
            EndCause::HandedOver => &mut self.ends_handed_over,
            EndCause::Lost | EndCause::Released => &mut self.ends_lost,
            EndCause::Yielded => &mut self.ends_yielded,
            EndCause::NewRole => &mut self.ends_new_role,
            EndCause::Expelled => &mut self.ends_expelled,
        } += 1;
    }

    /// Counts a dial that failed. What failed after the dial is no dial.
    pub(super) fn failed(&mut self, kind: FailureKind) {
        *match kind {
            FailureKind::Refused => &mut self.dials_refused,
            FailureKind::TimedOut => &mut self.dials_timed_out,
            FailureKind::Unreachable => &mut self.dials_unreachable,
            FailureKind::Handshake => &mut self.dials_handshake,
            FailureKind::OtherPeer => &mut self.dials_other_peer,
            FailureKind::Unresolved => &mut self.dials_unresolved,
            FailureKind::OwnIdentity => &mut self.dials_own_identity,
            FailureKind::Other => &mut self.dials_other,
            FailureKind::Stream | FailureKind::Malformed => return,
        } += 1;
    }

    /// Counts a frame that could not be read.
    pub(super) fn malformed(&mut self, frame: Frame) {
        *match frame {
            Frame::Beat => &mut self.malformed_beats,
            Frame::Ack => &mut self.malformed_acks,
            Frame::Request => &mut self.malformed_requests,
            Frame::Response => &mut self.malformed_responses,
            Frame::Watch => &mut self.malformed_watches,
        } += 1;
    }
}
