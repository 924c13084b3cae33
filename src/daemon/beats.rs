//! Passes beats of peers to the core and its answers back, passes acks of servers to the core, and
//! logs them.

use super::{
    driver::Driver,
    environment::Environment,
    report::{self, text},
};
use crate::{
    net::{EACH, ReceivedBeat},
    protocol::{
        Ack, AckCode, Beat, BeatOutcome, Input, Instant, PeerId, Role, StreamId,
        clock::ClockOf,
        codec::{heartbeat::WallReading, record::Kind},
    },
};

impl Driver {
    /// Gives the core the held first beat of this stream. If there is none, its stream has ended.
    pub(super) fn judge(&mut self, stream: StreamId) {
        let held = &mut self.held_beats;
        if let Some(at) = held.iter().position(|(_, of, _)| *of == stream) {
            let (from, stream, beat) = held.swap_remove(at);
            self.on_first_beat(self.env.now(), from, stream, *beat);
        }
    }

    /// Passes the first beat of a stream to the core.
    pub(super) fn on_first_beat(
        &mut self,
        now: Instant,
        from: PeerId,
        stream: StreamId,
        received: ReceivedBeat,
    ) {
        self.note_reader(now, &from);
        self.on_beat(now, from, stream, 0, received);
    }

    /// Reports what the peer can dial, before it gets addresses.
    pub(super) fn note_reader(&mut self, now: Instant, peer: &PeerId) {
        let reader = self.env.net.reader(peer);
        self.handle(now, Input::Seen { peer, reader });
    }

    /// A beat was received.
    pub(super) fn on_beat(
        &mut self,
        now: Instant,
        from: PeerId,
        stream: StreamId,
        sequence: u64,
        received: ReceivedBeat,
    ) {
        let beat = Beat {
            role: received.role,
            lease: received.lease,
            record: received
                .record
                .as_ref()
                .map(|(info, envelope)| (info, envelope.as_slice())),
            publisher: received.publisher,
            load: received.load,
            known: &received.known,
        };
        let clock = WallReading {
            ms: self.env.own_ms(),
            synchronised: self.synchronised,
        };
        let Environment { net, machine, .. } = &mut self.env;
        let BeatOutcome { ack, publish } = machine.beat(now, &from, stream, &beat);
        let code = ack.code;
        let denied = matches!(code, AckCode::Full | AckCode::Refused);
        let leaves = !denied && received.lease.is_zero();
        net.ack(from, stream, sequence, &ack, clock, denied || leaves);
        if denied {
            log::debug!("gives {} no lease: {}", text(&from), ack.reason);
        } else if leaves {
            self.env.reserve_slot(from);
            self.env.net.unprotect(&from, true);
        } else if sequence == 0 && code == AckCode::Accepted {
            self.env.reserve_slot(from);
            match (self.env.machine.role(), received.role) {
                (Role::Native, Role::Node) => {
                    let entry = self.env.machine.taken_in(&from);
                    let why = match entry.is_some_and(|entry| entry.stranded) {
                        true => "every indexer that it was offered failed at it",
                        false => "no indexer is reachable",
                    };
                    log::info!(target: EACH, "takes node {} in: {why}", text(&from));
                }
                (Role::Native, Role::Native) if !self.env.machine.is_native(&from) => {
                    log::info!(target: EACH, "guest {} beats: a native not configured here", text(&from));
                }
                (Role::Native, _) => {
                    log::info!(target: EACH, "{} {} beats", report::role(received.role), text(&from))
                }
                _ => log::debug!("grants node {} a lease", text(&from)),
            }
        }
        if publish && let Some((info, envelope)) = received.record {
            let kind = Kind::of(received.role);
            let own_ms = self.env.own_ms();
            self.env.net.publish(kind, &info, envelope, own_ms);
        }
    }

    /// A server answered a beat of ours, or sent an unsolicited ack.
    pub(super) fn on_ack(
        &mut self,
        now: Instant,
        server: PeerId,
        asked: bool,
        ack: &Ack<'_>,
        clock: Option<WallReading>,
    ) {
        let is_native = self.env.machine.is_native(&server);
        if let Some(theirs) = clock {
            let clock_of = match is_native {
                true => ClockOf::Native(server),
                false => ClockOf::Other(server),
            };
            let sent = self.env.machine.asked_at(&server).filter(|_| asked);
            self.env.wall.heard(now, sent, clock_of, theirs);
        }
        let server = &server;
        if !asked {
            return self.handle(now, Input::Notified { server, ack });
        }
        self.handle(now, Input::Acked { server, ack });
        if ack.code == AckCode::Accepted {
            let kind = match is_native {
                true => "native",
                false => "indexer",
            };
            self.servers.granted(*server, kind, ack.lease);
        }
    }
}
