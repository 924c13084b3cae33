//! Inputs for tests: one method for each.

use core::time::Duration;

use super::Input;
use crate::protocol::{
    Ack, Addrs, IndexersAnswer, Instant, Machine, PeerId, Reader, RecordInfo, StreamId, Verdict,
    address::TransportAddr, codec::heartbeat::AckCause, signing::Urgency,
};

/// The inputs that tests give a machine.
pub(crate) trait Events: Machine {
    /// The next time-out; the end of time if there is none.
    fn timeout(&self) -> Instant {
        let never = Instant::from_millis(u64::MAX);
        self.next_timeout().unwrap_or(never)
    }

    fn seen(&mut self, peer: &PeerId, reader: Reader) {
        self.handle(Instant::default(), Input::Seen { peer, reader });
    }

    fn stream_closed(&mut self, now: Instant, peer: &PeerId, stream: StreamId) {
        self.handle(now, Input::StreamClosed { peer, stream });
    }

    fn stream_probed(&mut self, now: Instant, peer: &PeerId, stream: StreamId, verdict: Verdict) {
        let input = Input::StreamProbed {
            peer,
            stream,
            verdict,
        };
        self.handle(now, input);
    }

    fn probed(&mut self, now: Instant, peer: &PeerId, verdict: Verdict) {
        self.handle(now, Input::Probed { peer, verdict });
    }

    fn search_value(&mut self, now: Instant, own_ms: u64, peer: &PeerId, record: &RecordInfo) {
        let input = Input::SearchValue {
            peer,
            record,
            own_ms,
        };
        self.handle(now, input);
    }

    fn search_ended(&mut self, now: Instant, own_ms: u64, peer: &PeerId) {
        self.handle(now, Input::SearchEnded { peer, own_ms });
    }

    fn acked(&mut self, now: Instant, server: &PeerId, ack: &Ack<'_>) {
        self.ack(now, server, ack, (AckCause::Beat, None));
    }

    /// An ack that came over a connection that was dialled to this address.
    fn carried(&mut self, now: Instant, server: &PeerId, over: TransportAddr, ack: &Ack<'_>) {
        self.ack(now, server, ack, (AckCause::Beat, Some(over)));
    }

    fn notified(&mut self, now: Instant, server: &PeerId, ack: &Ack<'_>) {
        self.ack(now, server, ack, (AckCause::Unsolicited, None));
    }

    fn ack(
        &mut self,
        now: Instant,
        server: &PeerId,
        ack: &Ack<'_>,
        (cause, over): (AckCause, Option<TransportAddr>),
    ) {
        let clock = None;
        let input = Input::Acked {
            server,
            over,
            cause,
            ack,
            clock,
        };
        self.handle(now, input);
    }

    fn lease_closed(&mut self, now: Instant, server: &PeerId) {
        self.handle(now, Input::LeaseClosed { server });
    }

    fn answered(&mut self, now: Instant, native: &PeerId, answer: Option<IndexersAnswer<'_>>) {
        self.handle(now, Input::Answered { native, answer });
    }

    fn record_signed(&mut self, now: Instant, urgency: Urgency) {
        self.handle(now, Input::RecordSigned { urgency });
    }

    fn learn_native(&mut self, now: Instant, peer: PeerId, addrs: Addrs) {
        let (native, addrs) = (&peer, &addrs);
        self.handle(now, Input::NativeLearned { native, addrs });
    }

    fn network_changed(&mut self, now: Instant) {
        self.handle(now, Input::NetworkChanged);
    }

    fn shift(&mut self, now: Instant, gap: Duration) {
        self.handle(now, Input::Overslept { gap });
    }

    fn shut_down(&mut self) {
        self.handle(Instant::default(), Input::ShutDown);
    }
}

impl<M: Machine> Events for M {}
