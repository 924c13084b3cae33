//! Passes beats of peers to the core and its answers back, and logs what they and acks change.
//!
//! Invariant: a beat reaches the core only decoded, in order, and with a verified record
//! ([`Net::read_beat`](crate::net::Net::read_beat)).

use super::{driver::Driver, life::short, mistakes::peer_flapping};
use crate::{
    net::{BeatFrame, Frame, Shown, each::each, envelope::Libp2p},
    protocol::{
        Ack, AckCode, Arrival, Input, Instant, LeaseAnswer, PeerId, StreamId, TransportAddr,
        codec::{
            heartbeat::{AckCause, WallReading},
            record::Kind,
        },
        endpoint::Place,
        lease_table::flaps::COMES_AND_GOES,
    },
};

impl Driver<'_> {
    /// A beat was received; with `source`, it is the first one of a stream.
    pub(super) fn on_beat(
        &mut self,
        now: Instant,
        frame: BeatFrame,
        source: Option<TransportAddr>,
    ) {
        let place = match source {
            Some(source) => Place::First {
                source,
                reader: self.env.net.reader(&frame.peer),
            },
            None => Place::Next,
        };
        self.take_beat(now, frame, place);
    }

    /// Gives the core the held first beat of this stream. If there is none, its stream has ended.
    pub(super) fn judge(&mut self, stream: StreamId) {
        let held = &mut self.held_beats;
        if let Some(at) = held.iter().position(|frame| frame.stream == stream) {
            let frame = held.swap_remove(at);
            let reader = self.env.net.reader(&frame.peer);
            self.take_beat(self.env.now(), frame, Place::Held { reader });
        }
    }

    fn take_beat(&mut self, now: Instant, frame: BeatFrame, place: Place) {
        let (peer, stream) = (frame.peer, frame.stream);
        let (beat, membership) = match self.env.net.read_beat(&frame) {
            Ok(read) => read,
            Err(why) => {
                let peer = &peer;
                self.log_malformed(peer, Frame::Beat, &why);
                return self.handle(now, Input::StreamClosed { peer, stream });
            }
        };
        let clock = WallReading {
            ms: self.env.own_ms(),
            synchronised: self.synchronised,
        };
        let times = self.env.times();
        let endpoint = &mut self.env.endpoint;
        let record = beat.record.as_ref();
        let record = record.map(|record| (Kind::of(beat.role), record.envelope));
        endpoint.shown(times, &peer, membership, record, &Libp2p);
        let denial = endpoint.denial_of(&peer, &beat);
        let Some(outcome) = endpoint.beat(now, (&peer, stream), place, &beat) else {
            drop(beat);
            return self.held_beats.push(frame);
        };
        let (ack, publish, arrival) = (outcome.ack, outcome.publish, outcome.arrival);
        let (code, answer) = (ack.code, ack.lease_answer());
        let denied = (answer == LeaseAnswer::Denied).then(|| ack.reason.to_owned());
        self.env.net.ack(&frame, &ack, clock);
        log::debug!(
            "beat {} of {}, for {} ms: {code:?}",
            beat.sequence,
            short(&peer),
            beat.lease.as_millis()
        );
        if answer == LeaseAnswer::Ended {
            self.env.net.forget(&peer);
        }
        if let Some(reason) = denied {
            let source = self.env.net.source(&peer);
            let from = self.env.called_at(beat.role, &peer, source);
            match code {
                AckCode::Full => self.counters.refusals_full += 1,
                _ if denial.is_some() => self.counters.refusals_no_member += 1,
                _ if reason.starts_with(COMES_AND_GOES) => {
                    self.counters.refusals_resting += 1;
                    self.problems.happened(now, peer_flapping(&peer, &from));
                }
                _ => self.counters.refusals_refused += 1,
            }
            let about = self.env.about("refused", beat.role.name(), &peer, source);
            #[cfg(feature = "program")]
            if let Some(denial) = &denial {
                self.note_stranger(&peer, beat.role, denial);
            }
            match arrival {
                // The name is that of the device that is kept. Both are told as a problem.
                Arrival::Rival => log::debug!("gives {from} no lease, and answers: {reason}"),
                _ => each!(info, &about; "gives {from} no lease, and answers: {reason}"),
            }
        }
        self.log_arrival(&peer, beat.role, arrival);
        if publish && let Some(record) = &beat.record {
            let (kind, own_ms) = (Kind::of(beat.role), self.env.own_ms());
            let envelope = record.envelope.to_vec();
            self.env.net.publish(kind, &record.info, envelope, own_ms);
        }
    }

    /// A server has answered, and has shown this of its membership in a closed network.
    pub(super) fn on_ack(
        &mut self,
        now: Instant,
        server: &PeerId,
        shown: &Shown,
        input: Input<'_>,
    ) {
        let (times, shown) = (self.env.times(), shown.membership());
        let endpoint = &mut self.env.endpoint;
        endpoint.shown(times, server, shown, None, &Libp2p);
        self.handle(now, input);
    }

    /// Logs what a server's ack changes for this process.
    pub(super) fn log_ack(
        &mut self,
        now: Instant,
        server: &PeerId,
        cause: AckCause,
        ack: &Ack<'_>,
    ) {
        match news(cause, ack) {
            News::Released => self.note_released(server, ack),
            News::Granted => {
                self.note_granted(server, ack.lease);
                self.note_lease(now, server);
            }
            News::None => {}
        }
    }
}

/// What an ack says that has a line in the log here. A denial is an action of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Released,
    Granted,
    None,
}

fn news(cause: AckCause, ack: &Ack<'_>) -> News {
    match (ack.code, cause) {
        (AckCode::Released, _) => News::Released,
        // A lease of 0 ms is not a lease.
        (AckCode::Accepted, AckCause::Beat) if !ack.lease.is_zero() => News::Granted,
        _ => News::None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn unasked_ack_sends_nobody_away_unless_it_says_so() {
        let lease = Duration::from_secs(1);
        let unasked = |ack: &Ack<'_>| news(AckCause::Unsolicited, ack);
        assert_eq!(unasked(&Ack::released(lease, &[])), News::Released);
        assert_eq!(unasked(&Ack::full("full")), News::None);
        assert_eq!(unasked(&Ack::accepted(lease)), News::None);
        let answer = |ack: &Ack<'_>| news(AckCause::Beat, ack);
        assert_eq!(answer(&Ack::accepted(lease)), News::Granted);
        assert_eq!(answer(&Ack::accepted(Duration::ZERO)), News::None);
    }
}
