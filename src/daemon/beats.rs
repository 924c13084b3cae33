//! Passes beats of peers to the core and its answers back, passes acks of servers to the core, and
//! logs them.
//!
//! Invariant: a beat reaches the core only decoded, in order, and with a verified record
//! ([`Net::read_beat`](crate::net::Net::read_beat)).

use super::{driver::Driver, environment::Environment, life::short};
use crate::{
    net::{BeatFrame, Frame, each::each},
    protocol::{
        Ack, AckCode, Beat, BeatOutcome, Endpoint, Input, Instant, PeerId, SignedRecord, StreamId,
        codec::{
            heartbeat::{AckCause, WallReading},
            record::Kind,
        },
        rivals::FirstBeat,
    },
};

impl Driver<'_> {
    /// A beat was received. The first one of a stream is held until [`Driver::judge`] if the core
    /// requires it.
    pub(super) fn on_beat(&mut self, now: Instant, frame: BeatFrame, source: Option<Endpoint>) {
        let (peer, stream) = (&frame.peer, frame.stream);
        let beat = match self.env.net.read_beat(&frame) {
            Ok(beat) => beat,
            Err(why) => {
                self.log_malformed(peer, Frame::Beat, &why);
                return self.handle(now, Input::StreamClosed { peer, stream });
            }
        };
        if let Some(source) = source {
            match self.env.machine.stream_opened(now, peer, stream, source) {
                FirstBeat::Now => self.note_reader(now, peer),
                FirstBeat::Held => return self.held_beats.push(frame),
            }
        }
        self.answer_beat(now, &frame, &beat);
    }

    /// Gives the core the held first beat of this stream. If there is none, its stream has ended.
    pub(super) fn judge(&mut self, stream: StreamId) {
        let held = &mut self.held_beats;
        if let Some(at) = held.iter().position(|frame| frame.stream == stream) {
            let (now, frame) = (self.env.now(), held.swap_remove(at));
            if let Ok(beat) = self.env.net.read_beat(&frame) {
                self.note_reader(now, &frame.peer);
                self.answer_beat(now, &frame, &beat);
            }
        }
    }

    /// Reports what the peer can dial, before it gets addresses.
    pub(super) fn note_reader(&mut self, now: Instant, peer: &PeerId) {
        let reader = self.env.net.reader(peer);
        self.handle(now, Input::Seen { peer, reader });
    }

    /// Passes a beat to the core, and its answer back.
    fn answer_beat(&mut self, now: Instant, frame: &BeatFrame, beat: &Beat<SignedRecord<'_>>) {
        let from = frame.peer;
        let clock = WallReading {
            ms: self.env.own_ms(),
            synchronised: self.synchronised,
        };
        let Environment { net, machine, .. } = &mut self.env;
        let BeatOutcome {
            ack,
            publish,
            arrival,
        } = machine.beat(now, &from, frame.stream, beat);
        let code = ack.code;
        let denied = matches!(code, AckCode::Full | AckCode::Refused);
        let leaves = !denied && ack.ends_stream();
        let reason = denied.then(|| ack.reason.to_owned());
        net.ack(frame, &ack, clock);
        log::debug!(
            "beat {} of {}, for {} ms: {code:?}",
            beat.sequence,
            short(&from),
            beat.lease.as_millis()
        );
        if let Some(reason) = reason {
            match code {
                AckCode::Full => self.counters.refusals_full += 1,
                _ => self.counters.refusals_refused += 1,
            }
            let from = self.env.called(beat.role, &from);
            each!(info, "gives {from} no lease, and answers: {reason}");
        } else if leaves {
            self.env.reserve_slot(from);
            self.env.net.forget(&from);
        } else if beat.sequence == 0 && code == AckCode::Accepted {
            self.env.reserve_slot(from);
        }
        self.log_arrival(&from, beat.role, arrival);
        if publish && let Some(record) = &beat.record {
            let (kind, own_ms) = (Kind::of(beat.role), self.env.own_ms());
            let envelope = record.envelope.to_vec();
            self.env.net.publish(kind, &record.info, envelope, own_ms);
        }
    }

    /// A server answered a beat of ours, or sent an unsolicited ack.
    pub(super) fn on_ack(
        &mut self,
        now: Instant,
        server: PeerId,
        cause: AckCause,
        ack: &Ack<'_>,
        clock: Option<WallReading>,
    ) {
        if let Some(theirs) = clock {
            let Environment { wall, machine, .. } = &mut self.env;
            wall.heard(now, &**machine, &server, cause, theirs);
        }
        let server = &server;
        if cause == AckCause::Unsolicited {
            self.note_released(server, ack);
            return self.handle(now, Input::Notified { server, ack });
        }
        self.handle(now, Input::Acked { server, ack });
        if ack.code == AckCode::Released {
            self.note_released(server, ack);
        }
        // A lease of 0 ms is not a lease.
        if ack.code == AckCode::Accepted && !ack.lease.is_zero() {
            self.note_granted(server, ack.lease);
            self.note_lease(now);
        }
    }
}
