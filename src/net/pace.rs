//! Beats that come faster than any client needs them end their stream, and the peer is told why.

use super::{
    Net, NetEvent,
    frames::encoded,
    streams::{AckKind, BEATS_A_SECOND, BeatFrame, Pace},
};
use crate::protocol::{
    Ack, Reason,
    codec::{grant::Membership, heartbeat::encode_ack},
};

/// How the reason begins that a peer is given.
pub(crate) const TOO_FAST: &str = "beats come faster than";

impl Net {
    /// A peer has sent a beat.
    pub(super) fn beaten(&mut self, frame: BeatFrame, pace: Pace) -> NetEvent {
        if pace == Pace::Kept {
            let source = self.sources.get(&frame.connection).copied();
            let source = source.filter(|_| frame.sequence == 0);
            return NetEvent::Beat { frame, source };
        }
        let BeatFrame {
            peer,
            stream,
            sequence,
            ..
        } = frame;
        let why = format!("{TOO_FAST} {BEATS_A_SECOND} a second: the stream ends");
        let why = Reason::try_from(why.as_str()).unwrap_or_default();
        let ack = Ack::refused(&why);
        let body = encoded(|buffer| encode_ack(sequence, &ack, None, Membership::OPEN, buffer));
        self.streams()
            .ack(&peer, stream, &body, AckKind::LastAnswer);
        NetEvent::TooFast { peer, stream }
    }
}
