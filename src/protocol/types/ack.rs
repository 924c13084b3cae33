//! A server's answer to a beat: with borrowed lists where it is made and read, and with lists of
//! its own after decoding.

use core::time::Duration;

use super::{MAX_LIST, MAX_REASON_LEN, Offer, Offers, PeerId, PeerList, Reason};

/// A server's answer to a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckCode {
    /// The lease is renewed.
    Accepted,
    /// Go to the offers; the lease runs on but is not renewed.
    Released,
    /// No room.
    Full,
    /// The server refuses the peer.
    Refused,
}

/// What an answered beat means for its sender's lease. Whether one begins with it says
/// [`Arrival`](crate::protocol::Arrival).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// There is none. The reason is in the ack.
    Denied,
    /// There is one.
    Held,
    /// Its holder has given it up: the host keeps none of the peer's records.
    Ended,
}

/// The answer to a beat, or an unsolicited ack. Its lists are borrowed from the machine or from the
/// receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The verdict.
    pub code: AckCode,
    /// The rest of the lease.
    pub lease: Duration,
    /// Where to go instead (released, full).
    pub offers: &'a [Offer],
    /// The reason, as a text for the operator (full, refused).
    pub reason: Reason,
    /// Indexers that the server knows, from one native to another.
    pub known: &'a [PeerId],
}

impl<'a> Ack<'a> {
    /// The lease is renewed for `lease`.
    pub fn accepted(lease: Duration) -> Self {
        Self {
            code: AckCode::Accepted,
            lease,
            offers: &[],
            reason: Reason::new(),
            known: &[],
        }
    }

    /// Go to `offers`; the lease has `left` to run.
    pub fn released(left: Duration, offers: &'a [Offer]) -> Self {
        Self {
            code: AckCode::Released,
            offers,
            ..Self::accepted(left)
        }
    }

    /// No room, and why.
    pub fn full(reason: &str) -> Self {
        Self::denied(AckCode::Full, reason)
    }

    /// The server refuses the peer, and why.
    pub fn refused(reason: &str) -> Self {
        Self::denied(AckCode::Refused, reason)
    }

    /// Whether the server closes the stream after this answer to a beat: it denies a lease, or the
    /// peer has given its lease up.
    pub fn ends_stream(&self) -> bool {
        match self.code {
            AckCode::Accepted => self.lease.is_zero(),
            AckCode::Released => false,
            AckCode::Full | AckCode::Refused => true,
        }
    }

    /// What this answer to a beat means for the sender's lease.
    pub fn lease_answer(&self) -> LeaseAnswer {
        match self.code {
            AckCode::Full | AckCode::Refused => LeaseAnswer::Denied,
            AckCode::Accepted if self.lease.is_zero() => LeaseAnswer::Ended,
            AckCode::Accepted | AckCode::Released => LeaseAnswer::Held,
        }
    }

    fn denied(code: AckCode, reason: &str) -> Self {
        debug_assert!(reason.len() <= MAX_REASON_LEN);
        Self {
            code,
            reason: Reason::try_from(reason).unwrap_or_default(),
            ..Self::accepted(Duration::ZERO)
        }
    }
}

/// An [`Ack`] with lists of its own, after decoding or before sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckBuf {
    /// The verdict.
    pub code: AckCode,
    /// The rest of the lease.
    pub lease: Duration,
    /// Where to go instead.
    pub offers: Offers,
    /// The reason, as a text for the operator.
    pub reason: Reason,
    /// Indexers that the server knows.
    pub known: PeerList,
}

impl AckBuf {
    /// The ack with borrowed lists.
    pub fn as_ack(&self) -> Ack<'_> {
        Ack {
            code: self.code,
            lease: self.lease,
            offers: &self.offers,
            reason: self.reason.clone(),
            known: &self.known,
        }
    }
}

/// If a list is longer than a message can hold, the first [`MAX_LIST`] items are kept.
impl From<Ack<'_>> for AckBuf {
    fn from(ack: Ack<'_>) -> Self {
        Self {
            code: ack.code,
            lease: ack.lease,
            offers: ack.offers.iter().take(MAX_LIST).cloned().collect(),
            reason: ack.reason,
            known: ack.known.iter().take(MAX_LIST).copied().collect(),
        }
    }
}
