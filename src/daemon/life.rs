//! What the log tells of peers that hold leases here: which peer came, from where and why, and how
//! each lease ended. The reasons are the core's ([`crate::protocol::LeaseEnd`]).
//!
//! Invariant: people read the name first, then the last eight characters of the id, then the
//! address. Lines that a peer can repeat are bounded ([`each`]).

use std::time::Duration;

use super::{
    driver::Driver,
    environment::Environment,
    report::{place_of, text},
    status::Span,
};
use crate::{
    net::{
        Frame,
        each::{About, each},
    },
    protocol::{
        Arrival, EndCause, Instant, Joined, LeaseEnd, PeerId, Placement, Role, Shortage, StreamId,
        Subject, TransportAddr,
        codec::record::{Kind, contents},
    },
};

pub(super) use crate::net::each::short;

/// Nodes whose names are remembered after they were released.
const MOST_RELEASED: usize = 64;

impl Environment<'_> {
    /// A peer for people: `node pump (…6SudFq1x)`, or without a name `indexer …6SudFq1x`.
    pub(super) fn called(&self, role: Role, peer: &PeerId) -> String {
        match self.name_of(peer) {
            Some(name) => format!("{role} {name} ({})", short(peer)),
            None => format!("{role} {}", short(peer)),
        }
    }

    /// The same with the host that its stream comes from.
    pub(super) fn called_at(
        &self,
        role: Role,
        peer: &PeerId,
        source: Option<TransportAddr>,
    ) -> String {
        at_host(self.called(role, peer), source)
    }

    /// What a line about a peer is about. `source`: where its stream comes from.
    pub(super) fn about(
        &self,
        code: &'static str,
        role: &'static str,
        peer: &PeerId,
        source: Option<TransportAddr>,
    ) -> About {
        About {
            code,
            role,
            peer: text(peer),
            name: self.name_of(peer).unwrap_or_default(),
            addr: source.map_or_else(String::new, |source| source.host.to_string()),
        }
    }

    /// A server for people: its role, its short id, and where it listens.
    pub(super) fn server(&self, peer: &PeerId) -> String {
        self.listening(self.endpoint.role_of(peer), peer)
    }

    /// The same of a peer that is no server of this process.
    pub(super) fn listening(&self, role: Role, peer: &PeerId) -> String {
        match self.listens_at(peer) {
            Some(at) => format!("{role} {} at {at}", short(peer)),
            None => format!("{role} {}", short(peer)),
        }
    }

    /// What a line about a server is about.
    pub(super) fn about_server(&self, code: &'static str, peer: &PeerId) -> About {
        About {
            code,
            role: self.endpoint.role_of(peer).name(),
            peer: text(peer),
            name: String::new(),
            addr: self.listens_at(peer).unwrap_or_default(),
        }
    }

    pub(super) fn listens_at(&self, peer: &PeerId) -> Option<String> {
        let addrs = self.machine().addrs_of(peer)?;
        Some(place_of(addrs.first()?))
    }

    /// The same without the address.
    pub(super) fn server_in_short(&self, peer: &PeerId) -> String {
        format!("{} {}", self.endpoint.role_of(peer), short(peer))
    }

    /// A peer whose role is not known, for people: with its name, and the address that it is
    /// connected from, if there are such.
    fn anyone(&self, peer: &PeerId) -> String {
        let called = match self.name_of(peer) {
            Some(name) => format!("{name} ({})", short(peer)),
            None => format!("peer {}", short(peer)),
        };
        at_host(called, self.net.source(peer))
    }

    /// The name in the peer's record, or the one that it had when it was gone or released.
    pub(super) fn name_of(&self, peer: &PeerId) -> Option<String> {
        let mut released = self.released.iter();
        let name = released.find(|(released, _)| released == peer);
        self.listed_name(peer)
            .or(name.map(|(_, name)| name.clone()))
    }

    /// Remembers the name of a node that is released: it is not listed here any more when it goes.
    pub(super) fn note_release(&mut self, peer: PeerId) {
        self.released.retain(|(released, _)| *released != peer);
        if let Some(name) = self.listed_name(&peer) {
            self.released.truncate(MOST_RELEASED - 1);
            self.released.insert(0, (peer, name));
        }
    }

    fn listed_name(&self, peer: &PeerId) -> Option<String> {
        let entry = self.machine().entry(self.now(), peer)?;
        let name = match entry.subject {
            Subject::Named { name, .. } => name,
            Subject::Signed(envelope) => contents(Kind::Node, envelope)?.name,
        };
        (!name.is_empty()).then(|| name.to_owned())
    }
}

impl Driver<'_> {
    /// Logs what a beat has changed for its sender.
    pub(super) fn log_arrival(&mut self, peer: &PeerId, role: Role, arrival: Arrival) {
        self.counters.arrived(&arrival);
        match arrival {
            Arrival::Known | Arrival::Rival => {}
            // That the stream of an indexer has ended was told.
            Arrival::Back { source, away } if role == Role::Indexer => {
                let called = self.env.called_at(role, peer, source);
                let about = self.env.about("back", role.name(), peer, source);
                each!(info, &about; "{called} is back after {} without a heartbeat", Span::of(away));
            }
            Arrival::Back { .. } => {}
            Arrival::Moved { from, to } => {
                let called = self.env.called(role, peer);
                let about = self.env.about("moved", role.name(), peer, Some(to));
                each!(info, &about; "{called} has moved from {} to {}", from.host, to.host);
            }
            Arrival::Joined(joined) => {
                let called = self.env.called(role, peer);
                let code = match (joined.shortage, joined.gone_for) {
                    (Some(_), _) => "taken-in",
                    (None, Some(_)) => "back",
                    (None, None) => "joined",
                };
                let about = self.env.about(code, role.name(), peer, joined.source);
                each!(info, &about; "{}", beginning(&called, &joined));
            }
        }
    }

    /// Logs that a peer sent what cannot be read. Its stream has ended, or its request.
    pub(super) fn log_malformed(&mut self, peer: &PeerId, frame: Frame, why: &str) {
        self.counters.malformed(frame);
        let (called, name) = (self.env.anyone(peer), frame.name());
        let about = self
            .env
            .about("malformed", "", peer, self.env.net.source(peer));
        each!(info, &about; "{called} sends {name} that cannot be read: {why}");
    }

    /// A peer beats faster than it may. Its stream is over, and its lease runs on.
    pub(super) fn on_too_fast(&mut self, now: Instant, peer: &PeerId, stream: StreamId) {
        self.counters.streams_too_fast += 1;
        let called = self.env.anyone(peer);
        self.note_too_fast(now, peer, &called);
        self.on_stream_closed(now, peer, stream, None);
    }

    /// Logs that an indexer that this native hands out has no heartbeat stream any more. Its lease
    /// runs on, so that it may come back. Nothing is said after the lease, whose end has a line.
    pub(super) fn log_silence(&self, peer: &PeerId) {
        if self.env.machine().has_cut_off(peer) {
            let called = self.env.called(Role::Indexer, peer);
            let about = self.env.about("silent", Role::Indexer.name(), peer, None);
            each!(
                info,
                &about;
                "the connection with {called} has ended: it is lost unless it is back before its lease ends"
            );
        }
    }

    /// Logs the end of a lease.
    pub(super) fn log_end(&mut self, peer: &PeerId, end: &LeaseEnd) {
        self.counters.ended(end.how);
        // The connection of a peer that is silent is still there.
        let source = self.env.net.source(peer);
        let called = self.env.called_at(end.role, peer, source);
        let placement = Placement::of(end.role, self.env.machine().role());
        let code = match end.how {
            EndCause::Left => "left",
            EndCause::HandedOver => "handed-over",
            EndCause::Lost | EndCause::Released => "lost",
            EndCause::Yielded => "yielded",
            EndCause::NewRole => "new-role",
            EndCause::Expelled => "expelled",
        };
        let about = self.env.about(code, end.role.name(), peer, source);
        each!(info, &about; "{}", ending(&called, end, placement));
        #[cfg(feature = "program")]
        self.tell_if_empty();
    }
}

/// A peer, and the host that its stream comes from, if that is known.
fn at_host(called: String, source: Option<TransportAddr>) -> String {
    match source {
        Some(source) => format!("{called} at {}", source.host),
        None => called,
    }
}

/// The beginning of a lease as a sentence.
fn beginning(called: &str, joined: &Joined) -> String {
    let peer = at_host(called.to_owned(), joined.source);
    if let Some(shortage) = joined.shortage {
        return format!("takes {peer} in: {}", reason(shortage));
    }
    let verb = match joined.gone_for {
        Some(gone) => format!("is back after {}", Span::of(gone)),
        None => "joins".to_owned(),
    };
    format!("{peer} {verb}")
}

/// Why a native takes a node in.
fn reason(shortage: Shortage) -> String {
    match shortage {
        Shortage::NoneLive => "no indexer is alive".to_owned(),
        Shortage::Silent(1) => "the only live indexer does not answer".to_owned(),
        Shortage::Silent(live) => format!("none of {live} live indexers answers"),
        Shortage::Unsuitable(1) => {
            "the only live indexer has no place, or no address that the node can use".to_owned()
        }
        Shortage::Unsuitable(live) => {
            format!("none of {live} live indexers has a place and an address that the node can use")
        }
        Shortage::OffersFailed => "each indexer that it was offered failed".to_owned(),
    }
}

/// The end of a lease as a sentence.
fn ending(called: &str, end: &LeaseEnd, placement: Placement) -> String {
    let held = span(seconds(end.held_s));
    match end.how {
        // It has ended, or has found an indexer by itself.
        EndCause::Left if placement == Placement::TakenIn => {
            format!("{called} needs this native no more: it was here for {held}")
        }
        EndCause::Left => format!("{called} has left: it was here for {held}"),
        EndCause::HandedOver => format!(
            "{called} was sent to an indexer and gives its lease here up: it was here for {held}"
        ),
        EndCause::Lost => format!(
            "{called} is lost: no heartbeat for {}; it was here for {held}",
            span(seconds(end.silent_s))
        ),
        EndCause::Released => format!(
            "{called} was sent to an indexer and is gone: its lease here has run out, its last heartbeat came {} ago; it was here for {held}",
            span(seconds(end.silent_s))
        ),
        EndCause::Yielded => format!(
            "{called} has to go: places are short, and it holds a lease elsewhere; it was here for {held}"
        ),
        EndCause::NewRole => format!("{called} has another role now: it was here for {held}"),
        EndCause::Expelled => {
            format!("{called} does not belong to the network any more: it was here for {held}")
        }
    }
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(number.into())
}

/// A time in whole seconds, in a readable form.
pub(super) fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        _ => Span::of(time).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_native_says_why_it_takes_a_node_in() {
        let with = |shortage| Joined {
            source: Some(TransportAddr::of(&[4, 192, 0, 2, 7, 6, 0, 80])),
            gone_for: None,
            shortage: Some(shortage),
        };
        for (shortage, why) in [
            (Shortage::NoneLive, "no indexer is alive"),
            (Shortage::Silent(2), "none of 2 live indexers answers"),
            (
                Shortage::OffersFailed,
                "each indexer that it was offered failed",
            ),
        ] {
            assert_eq!(
                beginning("node pump (…1234)", &with(shortage)),
                format!("takes node pump (…1234) at 192.0.2.7 in: {why}")
            );
        }
    }

    #[test]
    fn a_lease_that_ends_says_how_long_it_was_and_how_it_ended() {
        let end = |how| LeaseEnd {
            how,
            role: Role::Node,
            held_s: 3_700,
            silent_s: 121,
        };
        for (how, said) in [
            (EndCause::Left, "n has left: it was here for 1 h 1 min"),
            (
                EndCause::Lost,
                "n is lost: no heartbeat for 2 min 1 s; it was here for 1 h 1 min",
            ),
            (
                EndCause::HandedOver,
                "n was sent to an indexer and gives its lease here up: it was here for 1 h 1 min",
            ),
            (
                EndCause::Released,
                "n was sent to an indexer and is gone: its lease here has run out, its last heartbeat came 2 min 1 s \
                 ago; it was here for 1 h 1 min",
            ),
        ] {
            assert_eq!(ending("n", &end(how), Placement::Registered), said);
        }
        let of_native = ending("n", &end(EndCause::Left), Placement::TakenIn);
        assert_eq!(
            of_native,
            "n needs this native no more: it was here for 1 h 1 min"
        );
    }
}
