//! What is logged about the servers that grant leases to this process: only what is new, with how
//! many leases it holds then.
//!
//! Invariant: a lease has one line when it begins and one when it ends; what fails again and again
//! is counted ([`troubles`]).

mod troubles;

use std::time::Duration;

pub(super) use self::troubles::tries;
use self::troubles::{Manner, Over, Troubles};
use super::{
    driver::Driver,
    environment::Environment,
    life::{short, span},
    report::text,
    status::{Span, Trouble, counted},
};
use crate::{
    config::Config,
    net::{
        Failure, FailureKind, Frame,
        each::{About, tell},
    },
    protocol::{Ack, Instant, PeerId, Reason, Report, Role, lease::Lease, time::MAX_LEASE},
};

/// Lost leases that are remembered, so that their return is told with the time between.
const MOST_LOST: usize = 64;

/// The servers, and what was logged about them.
#[derive(Debug, Default)]
pub(super) struct Servers {
    /// The leases that a node wants; the other roles want one with each native.
    wanted: u8,
    held: Vec<Held>,
    /// Leases that ended and were not granted again: since when. The latest are at the end.
    lost: Vec<(PeerId, Instant)>,
    troubles: Troubles,
    /// The servers that denied a lease and whose streams were not dropped yet: the reason for that
    /// is logged already.
    denied: Vec<PeerId>,
    /// The network has changed in this turn, and the core drops what was sent over the old one.
    network_changed: bool,
    /// It was logged that no offered indexer grants a lease.
    stranded: bool,
}

/// A lease, as it was logged.
#[derive(Debug)]
struct Held {
    server: PeerId,
    since: Instant,
    /// Since when an ack is late.
    late: Option<Instant>,
    is_released: bool,
}

impl Servers {
    /// No server grants a lease yet.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            wanted: config.min_indexers,
            ..Self::default()
        }
    }

    /// Why this server grants no lease or does not answer, if it does not.
    pub(super) fn failure_of(&self, server: &PeerId) -> Option<&troubles::Trouble> {
        let mut all = self.troubles.iter();
        all.find(|trouble| trouble.server == *server)
    }

    /// The servers that grant us no lease, and why, for `status`.
    pub(super) fn troubles(&self) -> Vec<Trouble> {
        let all = self.troubles.iter();
        let all = all.filter(|trouble| trouble.manner != Manner::Unasked);
        all.map(|trouble| Trouble {
            peer_id: text(&trouble.server),
            what: trouble.what.clone(),
        })
        .collect()
    }

    fn held(&mut self, server: &PeerId) -> Option<&mut Held> {
        self.held.iter_mut().find(|held| held.server == *server)
    }

    /// The lease is over. Returns how long it was held, if it was.
    fn end(&mut self, now: Instant, server: &PeerId) -> Option<Duration> {
        let at = self.held.iter().position(|held| held.server == *server)?;
        Some(now - self.held.swap_remove(at).since)
    }

    /// A lease has ended that this process wants.
    fn lose(&mut self, now: Instant, server: &PeerId) {
        self.lost.retain(|(lost, _)| lost != server);
        if self.lost.len() == MOST_LOST {
            self.lost.remove(0);
        }
        self.lost.push((*server, now));
    }

    /// How long there was no lease with the server; `None` if there was none before.
    fn regain(&mut self, now: Instant, server: &PeerId) -> Option<Duration> {
        let at = self.lost.iter().position(|(lost, _)| lost == server)?;
        Some(now - self.lost.remove(at).1)
    }

    /// The server gives no lease: its stream will be dropped.
    fn deny(&mut self, server: PeerId) {
        self.denied.retain(|denied| *denied != server);
        self.denied.truncate(MOST_LOST - 1);
        self.denied.insert(0, server);
    }

    /// Why the stream to the server is dropped now.
    fn dropped(&mut self, server: &PeerId) -> Dropped {
        let denied = self.denied.extract_if(.., |denied| denied == server);
        match (denied.count() > 0, self.network_changed) {
            (true, _) => Dropped::Denied,
            (false, true) => Dropped::NetworkChanged,
            (false, false) => Dropped::Silent,
        }
    }

    /// ": 1 of 2 leases"; nothing if none is wanted, as at the end of the process.
    fn count(&self, env: &Environment<'_>) -> String {
        let wanted = match env.machine().role() {
            Role::Node => self.wanted.into(),
            Role::Indexer | Role::Native => env.natives().into_iter().count(),
        };
        if env.endpoint.is_ending() || wanted == 0 {
            return String::new();
        }
        let held = env.lease_with(&env.own).held;
        format!(": {held} of {}", counted(&wanted, "lease"))
    }
}

/// Why the core drops the stream to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dropped {
    /// It gave no lease, and that is logged.
    Denied,
    /// It was reached over the old network.
    NetworkChanged,
    /// It does not answer.
    Silent,
}

/// What the core says of the own leases.
struct Leases<'a> {
    now: Instant,
    server: &'a PeerId,
    /// Leases held whose stream is open as far as is known.
    held: usize,
    /// When a stream to the server is opened next, and when the natives are asked next.
    reopens: Option<Instant>,
    asks: Option<Instant>,
}

impl Report for Leases<'_> {
    fn lease(&mut self, lease: &Lease) {
        self.held += usize::from(lease.is_secure(self.now));
        if lease.server() == self.server {
            self.reopens = lease.is_resting().then(|| lease.timeout());
        }
    }

    fn next_round(&mut self, at: Instant) {
        self.asks = Some(at);
    }
}

impl Environment<'_> {
    fn lease_with<'a>(&self, server: &'a PeerId) -> Leases<'a> {
        let now = self.now();
        let mut leases = Leases {
            now,
            server,
            held: 0,
            reopens: None,
            asks: None,
        };
        self.machine().report(now, &mut leases);
        leases
    }

    /// When the core tries this server next; `None` if it has not decided that yet.
    fn next_try(&self, server: &PeerId) -> Option<Instant> {
        let leases = self.lease_with(server);
        leases
            .reopens
            .or(leases.asks.filter(|_| self.machine().is_native(server)))
    }
}

impl Driver<'_> {
    /// Logs that a server granted a lease.
    pub(super) fn note_granted(&mut self, server: &PeerId, lease: Duration) {
        self.note_over(server, true);
        let now = self.env.now();
        match self.servers.held(server) {
            Some(held) => {
                // A node that did not move in time is renewed, and may be released again.
                held.is_released = false;
                let Some(late) = held.late.take() else {
                    return;
                };
                let (called, since) = (self.env.server(server), Span::of(now - late));
                let about = self.env.about_server("server-back", server);
                tell!(info, &about; "{called} answers again after {since}: the lease with it goes on");
                return;
            }
            None => self.servers.held.push(Held {
                server: *server,
                since: now,
                late: None,
                is_released: false,
            }),
        }
        self.counters.leases_granted += 1;
        self.servers.stranded = false;
        self.servers.troubles.forget(server);
        let without = self.servers.regain(now, server);
        let without = without.map(|time| format!(" again, after {} without it", Span::of(time)));
        let without = without.unwrap_or_default();
        let count = self.servers.count(&self.env);
        let (length, called) = (length(lease.min(MAX_LEASE)), self.env.server(server));
        let about = self.env.about_server("lease-granted", server);
        tell!(info, &about; "holds a lease of {length} with {called}{without}{count}");
    }

    /// Logs that a server which did not answer requests does so again.
    pub(super) fn note_answer(&mut self, server: &PeerId) {
        self.note_over(server, false);
    }

    /// The server has answered: a request, or a beat with a lease.
    fn note_over(&mut self, server: &PeerId, by_lease: bool) {
        let over = self
            .servers
            .troubles
            .answers(self.env.now(), server, by_lease);
        if let Some(Over { lasted, tries: n }) = over {
            let called = self.env.server(server);
            let about = self.env.about_server("server-back", server);
            tell!(
                info,
                &about;
                "{called} answers again after {}, {}",
                Span::of(lasted),
                tries(n)
            );
        }
    }

    /// Logs that the server released this process, and where it goes.
    pub(super) fn note_released(&mut self, server: &PeerId, ack: &Ack<'_>) {
        let Some(held) = self.servers.held(server) else {
            return;
        };
        if !std::mem::replace(&mut held.is_released, true) {
            let about = self.env.about_server("sent-away", server);
            let called = self.env.server(server);
            match ack.offers.first() {
                Some(to) => {
                    tell!(info, &about; "{called} sends this node to indexer {}", short(&to.peer));
                }
                None => tell!(info, &about; "{called} sends this node to another indexer"),
            }
        }
    }

    /// Logs that no offered indexer has granted a lease, so that the native is asked to take us in.
    pub(super) fn note_offers_failed(&mut self, native: &PeerId) {
        if std::mem::replace(&mut self.servers.stranded, true) {
            return;
        }
        let about = self.env.about_server("stranded", native);
        let native = self.env.server(native);
        tell!(
            warn,
            &about;
            "holds no lease, and no offered indexer has granted one: asks {native} to take this node in, and keeps trying"
        );
    }

    /// Logs that the server's ack is late.
    pub(super) fn note_late(&mut self, server: &PeerId) {
        let now = self.env.now();
        if let Some(held) = self.servers.held(server)
            && held.late.is_none()
        {
            held.late = Some(now);
            let called = self.env.server(server);
            let about = self.env.about_server("server-late", server);
            let why = match self.servers.network_changed {
                true => "was reached over the old network",
                false => "does not answer",
            };
            tell!(info, &about; "{called} {why}: opens a new connection beside the silent one");
        }
    }

    /// Logs that the server gives no lease.
    pub(super) fn note_denied(&mut self, server: PeerId, reason: &Reason) {
        self.counters.leases_denied += 1;
        self.servers.deny(server);
        self.note_end(&server, "it is denied");
        let what = format!("gives no lease: {}", reason.escape_debug());
        self.failed(server, self.env.server(&server), what, Manner::Denied);
    }

    /// Our stream to the server is dropped, because it gives no lease or does not answer.
    pub(super) fn note_dropped(&mut self, server: PeerId) {
        let dropped = self.servers.dropped(&server);
        let why = match dropped {
            Dropped::Denied => "it is denied",
            Dropped::NetworkChanged => "the network has changed",
            Dropped::Silent => "it does not answer",
        };
        self.note_end(&server, why);
        if dropped == Dropped::Silent {
            let what = "does not answer".to_owned();
            self.failed(server, self.env.server(&server), what, Manner::Silent);
        }
    }

    /// Our stream to the server has ended, or could not be opened, and `why`. The core knows it.
    pub(super) fn note_closed(&mut self, server: PeerId, called: String, why: Option<&Failure>) {
        self.servers.denied.retain(|denied| *denied != server);
        self.note_end(&server, "its stream has ended");
        if let Some(why) = why {
            if why.kind == FailureKind::Malformed {
                self.counters.malformed(Frame::Ack);
            }
            self.note_failure(server, called, why, ("accepts no beats", Manner::Silent));
        }
    }

    /// Logs that a request for indexers failed.
    pub(super) fn note_unasked(&mut self, server: PeerId, why: &Failure) {
        let called = self.env.server(&server);
        let what = "does not say which indexers there are";
        self.note_failure(server, called, why, (what, Manner::Unasked));
    }

    /// Whether the network has changed in this turn.
    pub(super) fn note_network(&mut self, changed: bool) {
        self.servers.network_changed = changed;
    }

    /// Logs that we give up the lease with the server.
    pub(super) fn note_given_up(&mut self, server: &PeerId, role: Role) {
        if let Some(held) = self.servers.end(self.env.now(), server) {
            self.counters.leases_given_up += 1;
            let called = self.env.listening(role, server);
            let about = About {
                role: role.name(),
                ..self.env.about_server("lease-given-up", server)
            };
            let count = self.servers.count(&self.env);
            tell!(info, &about; "gives up the lease with {called} after {}{count}", span(held));
        }
    }

    /// Logs the failures that are new, once the core has decided when to try again.
    pub(super) fn tell_troubles(&mut self, now: Instant) {
        let next_try = |server: &PeerId| self.env.next_try(server);
        for (server, line) in self.servers.troubles.lines(now, next_try) {
            let about = self.env.about_server("server-fails", &server);
            let machine = self.env.machine();
            let is_offered = machine.role() == Role::Node && !machine.is_native(&server);
            let then = match is_offered && self.env.next_try(&server).is_none() {
                true => "; asks its natives for others",
                false => "",
            };
            tell!(warn, &about; "{line}{then}");
        }
    }

    /// Logs the end of a lease that this process did not want.
    fn note_end(&mut self, server: &PeerId, why: &str) {
        if let Some(held) = self.servers.end(self.env.now(), server) {
            self.counters.leases_lost += 1;
            let now = self.env.now();
            self.servers.lose(now, server);
            let (called, count) = (self.env.server(server), self.servers.count(&self.env));
            let about = self.env.about_server("lease-lost", server);
            tell!(
                info,
                &about;
                "has lost the lease with {called} after {}, because {why}{count}",
                span(held)
            );
        }
    }

    /// A dial, or what was asked on a connection, failed.
    fn note_failure(
        &mut self,
        server: PeerId,
        called: String,
        why: &Failure,
        (otherwise, manner): (&str, Manner),
    ) {
        self.counters.failed(why.kind);
        // The sentence about a dial has the addresses.
        let called = match why.kind {
            FailureKind::Stream | FailureKind::Malformed => called,
            _ => self.env.server_in_short(&server),
        };
        self.failed(server, called, why.sentence(otherwise), manner);
    }

    fn failed(&mut self, server: PeerId, called: String, what: String, manner: Manner) {
        let now = self.env.now();
        self.servers
            .troubles
            .failed(now, server, called, what, manner);
    }
}

/// The length of a lease: whole seconds, or milliseconds if it is shorter than one.
fn length(lease: Duration) -> String {
    match lease.as_secs() {
        0 => format!("{} ms", lease.as_millis()),
        seconds => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers() -> Servers {
        Servers {
            wanted: 2,
            ..Servers::default()
        }
    }

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    #[test]
    fn stream_is_dropped_for_the_reason_of_its_own_server() {
        let mut servers = servers();
        servers.deny(peer(1));
        servers.deny(peer(2));
        assert_eq!(servers.dropped(&peer(1)), Dropped::Denied);
        assert_eq!(
            servers.dropped(&peer(1)),
            Dropped::Silent,
            "it is another one"
        );
        servers.network_changed = true;
        assert_eq!(servers.dropped(&peer(2)), Dropped::Denied);
        assert_eq!(servers.dropped(&peer(2)), Dropped::NetworkChanged);
        for n in 0..=u8::MAX {
            servers.deny(peer(n));
        }
        assert_eq!(servers.denied.len(), MOST_LOST);
        for latest in [254, 255] {
            assert_eq!(servers.dropped(&peer(latest)), Dropped::Denied);
        }
    }

    #[test]
    fn lease_that_is_granted_again_says_how_long_there_was_none() {
        let at = Instant::from_millis;
        let mut servers = servers();
        assert_eq!(servers.regain(at(0), &peer(1)), None, "it is the first one");
        servers.lose(at(1_000), &peer(1));
        servers.lose(at(2_000), &peer(1));
        let without = Duration::from_secs(3);
        assert_eq!(servers.regain(at(5_000), &peer(1)), Some(without));
        assert_eq!(servers.regain(at(5_000), &peer(1)), None);
    }

    #[test]
    fn a_lease_shorter_than_a_second_is_not_told_as_none() {
        for (ms, said) in [(1, "1 ms"), (999, "999 ms"), (1_000, "1 s"), (1_999, "1 s")] {
            assert_eq!(length(Duration::from_millis(ms)), said);
        }
    }
}
