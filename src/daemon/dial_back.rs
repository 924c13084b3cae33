//! Whether others reach this process: it asks servers to dial it back, and dials back peers that
//! ask. Which, and when, is decided by [`crate::protocol::dial_back`].
//!
//! Invariants: at most one request of ours waits; the operator's `doctor` waits [`DOCTOR_LIMIT`] at
//! most for its answer, and at most [`MAX_DOCTORS`] of them do.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
#[cfg(feature = "program")]
use std::time::Duration;

#[cfg(feature = "program")]
use super::request::{CallAnswer, Reply};
use super::{
    driver::Driver,
    lookup::Requester,
    nodes::millis,
    problems::Mistake,
    report::{host_and_port, text},
    status::{Reachable, ReachableState, Severity},
};
use crate::{
    net::{DialEnd, Failure, OwnRequestId, convert},
    protocol::{
        Addr, Addrs, Host, Instant, PeerId, Reason, RequestId, Role, Subject, TableStats,
        TransportAddr, Verdict,
        codec::{
            directory::{Request, Response},
            record::{Kind, contents},
        },
        dial_back::{Answer, Client, DialedBack, Finding, Heard, Server, is_meant, told},
        reason_of,
    },
};

/// How long `doctor` waits for an answer.
#[cfg(feature = "program")]
const DOCTOR_LIMIT: Duration = Duration::from_secs(6);
/// How many may wait.
#[cfg(feature = "program")]
const MAX_DOCTORS: usize = 4;

/// Part of the answer of a server that does not know this request.
const UNKNOWN: &str = "unknown";

/// Both sides of it.
pub(super) struct DialBack {
    server: Server,
    client: Client,
    /// Our request that waits for its answer.
    request: Option<OwnRequestId>,
    /// What the addresses were that it asks about.
    addrs: u64,
    /// The operator gives addresses to be announced.
    is_given: bool,
    #[cfg(feature = "program")]
    doctors: Vec<(Reply, Instant)>,
}

impl DialBack {
    /// Nothing is asked yet.
    pub(super) fn new(now: Instant, role: Role, seed: u64, is_given: bool) -> Self {
        Self {
            server: Server::default(),
            client: Client::new(now, role, seed),
            request: None,
            addrs: 0,
            is_given,
            #[cfg(feature = "program")]
            doctors: Vec::new(),
        }
    }

    /// For `status`: the dials for others, and the hosts that were not reached.
    pub(super) fn stats(&self, now: Instant) -> [TableStats; 2] {
        self.server.stats(now)
    }

    /// When [`Driver::ask_back_if_due`] has work without an event.
    pub(super) fn timeout(&self) -> Instant {
        let due = self.client.timeout();
        #[cfg(feature = "program")]
        let due = self.doctors.iter().fold(due, |due, (_, end)| due.min(*end));
        due
    }
}

/// The server's side.
impl Driver<'_> {
    /// A peer asks to be dialled back.
    pub(super) fn dial_back(&mut self, now: Instant, from: &PeerId, id: RequestId, port: u16) {
        let asked = self.env.net.asks_back(*from, id, port);
        let means = self.env.net.means();
        match self.dial_back.server.admit(now, &asked, means) {
            Ok(at) => self.env.net.dial_back(*from, at, id),
            Err(refusal) => {
                let answer = Response::DialedBack(refusal.into());
                self.env.net.respond(id, &answer);
            }
        }
    }

    /// A dial has ended.
    pub(super) fn on_dial_end(&mut self, now: Instant, end: &DialEnd) {
        let addr = convert::to_addr(&end.addr).unwrap_or_default();
        let host = TransportAddr::of(&addr).host;
        let verdict = match end.why {
            None => Verdict::Reachable,
            Some(_) => Verdict::Silent,
        };
        self.dial_back.server.ended(now, host, verdict);
        let is_announced = self.is_announced(now, &end.peer, host);
        let answer = DialedBack {
            finding: match &end.why {
                None => Finding::Reached,
                Some(miss) if miss.may_be_here => Finding::Cannot,
                Some(_) => Finding::Not,
            },
            reason: reason_of(
                end.why
                    .as_ref()
                    .map_or("", |miss| told(&miss.text, is_announced)),
            ),
            addr,
        };
        self.env.net.respond(end.id, &Response::DialedBack(answer));
    }

    /// Whether the peer is known to have an address of this host.
    fn is_announced(&self, now: Instant, peer: &PeerId, host: Host) -> bool {
        let is_it = |addr: &[u8]| TransportAddr::of(addr).host == host;
        let machine = self.env.machine();
        let mut known = machine.addrs_of(peer).into_iter().flatten();
        let record = match machine.entry(now, peer).map(|entry| entry.subject) {
            Some(Subject::Signed(envelope)) => contents(Kind::Node, envelope),
            _ => None,
        };
        known.any(|addr| is_it(addr))
            || record.is_some_and(|it| it.addrs.iter().any(|addr| is_it(addr)))
    }
}

/// The client's side.
impl Driver<'_> {
    /// The addresses announced may have changed.
    pub(super) fn look_at_addresses(&mut self, now: Instant) {
        // Their order says only which of them are better known.
        let hash = |addr| {
            let mut hasher = DefaultHasher::new();
            addr_hash(addr, &mut hasher)
        };
        let all = self.env.net.record_addrs().iter();
        let all = all.fold(0, |all, addr| all ^ hash(addr));
        let all = all ^ u64::from(self.port_to_dial().unwrap_or_default());
        if std::mem::replace(&mut self.dial_back.addrs, all) != all {
            self.dial_back.request = None;
            self.dial_back.client.changed(now);
        }
    }

    /// Asks the next server, if it is time for that.
    pub(super) fn ask_back_if_due(&mut self, now: Instant) {
        if now >= self.dial_back.client.timeout() {
            self.ask_back(now);
        }
        #[cfg(feature = "program")]
        self.answer_doctors(now);
    }

    fn ask_back(&mut self, now: Instant) {
        self.look_at_addresses(now);
        let port = self.port_to_dial();
        let is_ending = self.env.endpoint.is_ending();
        let machine = port.filter(|_| !is_ending).map(|_| self.env.machine());
        let next = self.dial_back.client.poll(now, &self.env.own, machine);
        let Some((server, port)) = next.zip(port) else {
            return;
        };
        let Some(id) = self.lookups.name_if_there_is_room(Requester::DialBack) else {
            return self.hear(
                now,
                Heard::Cannot,
                "too many requests wait here",
                Addr::new(),
            );
        };
        self.dial_back.request = Some(id);
        let addrs = self.env.machine().addrs_of(&server).cloned();
        let addrs = addrs.unwrap_or_else(Addrs::new);
        self.env
            .net
            .request(server, &addrs, id, &Request::DialBack { port });
    }

    /// The port at which this process says that it is reached: that of its best address.
    fn port_to_dial(&self) -> Option<u16> {
        let mut all = self.env.net.record_addrs().iter();
        let port = all.next().map(|addr| TransportAddr::of(addr.as_ref()).port);
        port.filter(|port| *port > 0)
    }

    /// A server has answered a request of ours, if it is this one.
    pub(super) fn note_dialed_back(
        &mut self,
        now: Instant,
        id: OwnRequestId,
        response: &Result<Response<'_>, Failure>,
    ) {
        if self.dial_back.request != Some(id) {
            return;
        }
        self.dial_back.request = None;
        match response {
            Ok(Response::DialedBack(answer)) => {
                let heard = match answer.finding {
                    Finding::Reached => Heard::Reached,
                    Finding::Not if self.announces_such_as(&answer.addr) => Heard::Not,
                    Finding::Not => {
                        let why = "the address at which it sees this process is not announced";
                        return self.hear(now, Heard::Cannot, why, Addr::new());
                    }
                    Finding::Cannot => Heard::Cannot,
                };
                self.hear(now, heard, &answer.reason, answer.addr.clone());
            }
            Ok(Response::Error(why)) if !why.contains(UNKNOWN) => {
                self.hear(
                    now,
                    Heard::Cannot,
                    &format!("it answers: {why}"),
                    Addr::new(),
                );
            }
            Ok(_) => {
                let why = "it does not dial back: an earlier version";
                self.hear(now, Heard::Unsupported, why, Addr::new());
            }
            Err(why) => {
                let why = why.sentence("does not answer");
                self.hear(now, Heard::Cannot, &format!("it {why}"), Addr::new());
            }
        }
    }

    fn announces_such_as(&self, dialled: &Addr) -> bool {
        let announced = self.env.net.record_addrs().iter().map(AsRef::as_ref);
        let is_given = self.dial_back.is_given;
        is_meant(dialled, self.port_to_dial(), announced, is_given)
    }

    fn hear(&mut self, now: Instant, heard: Heard, why: &str, addr: Addr) {
        let is_news = self
            .dial_back
            .client
            .heard(now, heard, reason_of(why), addr);
        let reached = self.reachable(now);
        match reached.state {
            ReachableState::Unknown => {
                log::debug!("reachable from outside: unknown: {}", why.escape_debug());
            }
            // Its problem has a line of its own.
            ReachableState::No if self.env.machine().role() != Role::Node => {}
            state if is_news => {
                let called = self.dial_back.client.answer();
                let called = called.map(|answer| self.env.server(&answer.by));
                let called = called.unwrap_or_default();
                let at = reached.addr.unwrap_or_default();
                let why = reached
                    .reason
                    .map(|why| format!(": {}", why.escape_debug()));
                let (state, why) = (state.word(), why.unwrap_or_default());
                log::info!("reachable from outside: {state} ({called} has dialled {at}{why})");
            }
            _ => {}
        }
        self.look_for_mistakes(now);
    }

    /// What is known, for `status`.
    pub(super) fn reachable(&self, now: Instant) -> Reachable {
        let client = &self.dial_back.client;
        let shown = |reason: &Reason| Some(reason.as_str().to_owned());
        match (client.answer(), client.silent()) {
            (Some(answer), _) => Reachable {
                state: match answer.is_reached {
                    true => ReachableState::Yes,
                    false => ReachableState::No,
                },
                addr: place(answer),
                by: Some(text(&answer.by)),
                reason: shown(&answer.reason).filter(|_| !answer.is_reached),
                age_ms: Some(millis(now - answer.at)),
            },
            (None, Some(silent)) => Reachable {
                state: ReachableState::Unknown,
                addr: None,
                by: Some(text(&silent.by)),
                reason: shown(&silent.reason),
                age_ms: Some(millis(now - silent.at)),
            },
            (None, None) => Reachable {
                state: ReachableState::Unknown,
                addr: None,
                by: None,
                reason: Some("no server has been asked yet".to_owned()),
                age_ms: None,
            },
        }
    }

    /// What is wrong with it. A node is found and used without being reached itself.
    pub(super) fn unreachable(&self) -> Option<Mistake> {
        let role = self.env.machine().role();
        // It does not come and go while the addresses change.
        let answer = self.dial_back.client.last_answer()?;
        if answer.is_reached || role == Role::Node {
            return None;
        }
        let at = place(answer).unwrap_or_default();
        let (by, why) = (self.env.server(&answer.by), answer.reason.escape_debug());
        let also = answer
            .also_by
            .map(|by| format!(", and before {},", self.env.server(&by)));
        let also = also.unwrap_or_default();
        Some(Mistake {
            severity: match answer.is_fault(|server| self.env.machine().is_native(server)) {
                true => Severity::Warning,
                false => Severity::Notice,
            },
            ..not_reached(role, &format!("{by}{also}"), &at, &why.to_string())
        })
    }
}

/// Servers, named for people, could not connect to this process at `HOST:PORT`.
pub(super) fn not_reached(role: Role, by: &str, at: &str, why: &str) -> Mistake {
    let port = at.rsplit(':').next().unwrap_or_default();
    Mistake {
        code: "unreachable",
        severity: Severity::Warning,
        about: String::new(),
        what: format!("{by} could not connect to this {role} at {at}, where it sees it: {why}"),
        hint: format!(
            "open TCP port {port} in the firewall and forward it to this host, or give the address at which others \
             reach it with --announce /ip4/ADDRESS/tcp/PORT; `oc-discovery doctor` asks anew"
        ),
    }
}

/// What waits for the answer.
#[cfg(feature = "program")]
impl Driver<'_> {
    /// The operator's `doctor`: it is answered when a server has said whether it reaches this
    /// process, or soon.
    pub(super) fn doctor(&mut self, now: Instant, reply: Reply) {
        let may_wait = self.dial_back.doctors.len() < MAX_DOCTORS;
        if may_wait && self.dial_back.client.want(now) {
            self.dial_back.doctors.push((reply, now + DOCTOR_LIMIT));
        } else {
            self.tell_doctor(now, reply);
        }
    }

    fn answer_doctors(&mut self, now: Instant) {
        let client = &self.dial_back.client;
        let is_over = !client.is_asking() && now < client.timeout();
        let waiting = &mut self.dial_back.doctors;
        let done = waiting.extract_if(.., |(_, end)| is_over || now >= *end);
        for (reply, _) in done.collect::<Vec<_>>() {
            self.tell_doctor(now, reply);
        }
    }

    fn tell_doctor(&mut self, now: Instant, reply: Reply) {
        self.look_for_mistakes(now);
        let status = self.status();
        reply.answer(CallAnswer::Status(Box::new(status)));
    }
}

fn addr_hash(addr: &libp2p::Multiaddr, hasher: &mut DefaultHasher) -> u64 {
    addr.hash(hasher);
    hasher.finish()
}

/// The address that was dialled as `HOST:PORT`.
fn place(answer: &Answer) -> Option<String> {
    let addr = convert::to_multiaddr(&answer.addr).ok()?;
    Some(host_and_port(&addr))
}
