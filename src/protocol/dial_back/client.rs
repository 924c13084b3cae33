//! When which server is asked, and what its answer is worth.

use core::time::Duration;

use heapless::Vec;

use super::{PAUSE, servers};
use crate::protocol::{Addr, Instant, Machine, PeerId, Reason, Rng, Role};

/// How long addresses must stay the same before they are asked about: several change at once.
const SETTLE: Duration = Duration::from_secs(3);
/// Nodes wait up to this much longer, because thousands of them may start at once.
const SPREAD: Duration = Duration::from_secs(60);
/// How long an answer may take, with the dial of the server that is asked.
const ANSWER_LIMIT: Duration = Duration::from_secs(12);
/// When a server is looked for again if none is known, or no lease is held yet.
const ALONE: Duration = Duration::from_secs(10);
/// When an indexer or a native asks again that is not reached, or does not know.
const RETRY: Duration = Duration::from_secs(5 * 60);
/// When others ask again.
const REGULARLY: Duration = Duration::from_secs(60 * 60);
/// How much earlier, at most.
const JITTER: Duration = Duration::from_secs(6 * 60);
/// Servers that are asked in one round.
const ROUND: usize = 8;

/// What is heard of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It has reached this process.
    Reached,
    /// It has not.
    Not,
    /// It cannot tell now.
    Cannot,
    /// It does not know the question.
    Unsupported,
}

/// Where a round begins, seen from a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    With,
    After,
}

/// An answer that says something.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Whether this process was reached.
    pub is_reached: bool,
    /// The server that says so.
    pub by: PeerId,
    /// Another one that said the same before.
    pub also_by: Option<PeerId>,
    /// When it said so.
    pub at: Instant,
    /// The address that it dialled.
    pub addr: Addr,
    /// Why it did not reach this process; for people.
    pub reason: Reason,
}

impl Answer {
    /// Whether this process is certainly not reached: two servers say so, and one of them is a
    /// native that the operator gave. What one server cannot reach may be its own fault, and anyone
    /// may be an indexer of a native.
    pub fn is_fault(&self, is_own_native: impl Fn(&PeerId) -> bool) -> bool {
        let is_told = |also: PeerId| is_own_native(&self.by) || is_own_native(&also);
        !self.is_reached && self.also_by.is_some_and(is_told)
    }
}

/// Asks servers whether they reach this process.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    rng: Rng,
    /// Nodes are often behind a NAT, and many.
    is_node: bool,
    due: Instant,
    /// The server that is asked, and since when.
    asked: Option<(PeerId, Instant)>,
    /// When a server was asked last.
    last: Option<Instant>,
    /// Those of this round that could not tell.
    tried: Vec<PeerId, ROUND, u8>,
    /// One of them may be able to in a moment.
    is_hopeful: bool,
    /// No round has ended since the addresses changed.
    is_first: bool,
    /// Where the next round begins.
    begin: Option<(PeerId, Begin)>,
    answer: Option<Answer>,
    /// It is about other addresses than those of now.
    is_stale: bool,
    /// The last that could not tell, since there is no answer.
    silent: Option<Silent>,
}

/// An answer that says nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Silent {
    /// The server that could not tell.
    pub by: PeerId,
    /// When it said so.
    pub at: Instant,
    /// Why; for people.
    pub reason: Reason,
}

impl Client {
    /// A process with this role, which starts at `now`.
    pub fn new(now: Instant, role: Role, seed: u64) -> Self {
        let mut client = Self {
            rng: Rng::new(seed),
            is_node: role == Role::Node,
            due: now,
            asked: None,
            last: None,
            tried: Vec::new(),
            is_hopeful: false,
            is_first: true,
            begin: None,
            answer: None,
            is_stale: false,
            silent: None,
        };
        client.changed(now);
        client
    }

    /// The addresses have changed, or the port: what was said is about others.
    pub fn changed(&mut self, now: Instant) {
        self.asked = None;
        self.is_stale = true;
        self.silent = None;
        self.tried.clear();
        self.is_hopeful = false;
        self.is_first = true;
        let due = now + SETTLE + self.spread();
        // No server that was asked would dial sooner.
        let least = self.last.map_or(due, |last| last + PAUSE);
        self.due = due.max(least);
    }

    fn spread(&mut self) -> Duration {
        match self.is_node {
            true => self.rng.up_to(SPREAD),
            false => Duration::ZERO,
        }
    }

    /// The operator wants to know it now. Returns whether an answer may come.
    pub fn want(&mut self, now: Instant) -> bool {
        if self.asked.is_some() {
            return true;
        }
        if self.last.is_some_and(|last| now - last < PAUSE) {
            return false;
        }
        self.tried.clear();
        self.is_hopeful = false;
        self.due = now;
        true
    }

    /// The server to ask at `now`, if one is to be asked, to dial this process, which is `own`.
    /// `machine` knows its servers; `None`: there is nothing to dial.
    pub fn poll(
        &mut self,
        now: Instant,
        own: &PeerId,
        machine: Option<&dyn Machine>,
    ) -> Option<PeerId> {
        self.poll_of(now, |tell| {
            if let Some(machine) = machine {
                servers::in_order(now, own, machine, tell);
            }
        })
    }

    /// The same of the servers that `each` names, in the order in which they are asked.
    pub(super) fn poll_of(
        &mut self,
        now: Instant,
        each: impl FnOnce(&mut dyn FnMut(PeerId)),
    ) -> Option<PeerId> {
        if let Some((_, since)) = self.asked {
            if now - since < ANSWER_LIMIT {
                return None;
            }
            let reason = Reason::try_from("it does not answer").unwrap_or_default();
            self.heard(now, Heard::Cannot, reason, Addr::new());
        }
        if now < self.due {
            return None;
        }
        match self.next_of(each) {
            Some(server) => {
                self.asked = Some((server, now));
                self.last = Some(now);
                Some(server)
            }
            None => {
                self.end_round(now);
                None
            }
        }
    }

    /// The first server that was not asked in this round, from where the round begins.
    fn next_of(&self, each: impl FnOnce(&mut dyn FnMut(PeerId))) -> Option<PeerId> {
        let (mut first, mut later, mut has_begun) = (None, None, false);
        each(&mut |server| {
            let begins = self.begin.filter(|(of, _)| *of == server);
            has_begun |= begins.is_some_and(|(_, at)| at == Begin::With);
            if !self.tried.contains(&server) {
                let next = match has_begun {
                    true => &mut later,
                    false => &mut first,
                };
                next.get_or_insert(server);
            }
            has_begun |= begins.is_some();
        });
        later.or(first).filter(|_| !self.tried.is_full())
    }

    /// The server that was asked has answered, or will not. Returns whether it is known now, and
    /// was not, or otherwise, before.
    pub fn heard(&mut self, now: Instant, heard: Heard, reason: Reason, addr: Addr) -> bool {
        let Some((by, _)) = self.asked.take() else {
            return false;
        };
        let is_reached = match heard {
            Heard::Reached => true,
            Heard::Not => false,
            Heard::Cannot | Heard::Unsupported => {
                self.is_hopeful |= heard == Heard::Cannot;
                // It was asked because there is room.
                let _ = self.tried.push(by);
                if self.answer().is_none() {
                    self.silent = Some(Silent {
                        by,
                        at: now,
                        reason,
                    });
                }
                self.due = now;
                return false;
            }
        };
        // What stands in the way may be at this server: another one is asked next.
        let begin = match is_reached {
            true => Begin::With,
            false => Begin::After,
        };
        self.begin = Some((by, begin));
        let same = self
            .answer
            .as_ref()
            .filter(|it| it.is_reached == is_reached);
        let also_by = same.and_then(|it| {
            [Some(it.by), it.also_by]
                .into_iter()
                .flatten()
                .find(|it| *it != by)
        });
        let needs_another = !is_reached && !self.is_node && also_by.is_none();
        if needs_another {
            // It was asked because there is room.
            let _ = self.tried.push(by);
        } else {
            self.tried.clear();
            self.is_hopeful = false;
        }
        let before = self.answer.replace(Answer {
            is_reached,
            by,
            also_by,
            at: now,
            addr,
            reason,
        });
        self.is_stale = false;
        self.silent = None;
        let pause = match is_reached || self.is_node {
            _ if needs_another => Duration::ZERO,
            true => REGULARLY - self.rng.up_to(JITTER),
            false => RETRY,
        };
        self.due = now + pause;
        before.is_none_or(|before| before.is_reached != is_reached)
    }

    /// No server is left that could tell.
    fn end_round(&mut self, now: Instant) {
        let has_asked = !self.tried.is_empty();
        let pause = match (has_asked, self.is_hopeful, self.is_node) {
            (false, ..) => ALONE,
            // No other server says the same.
            (true, _, false) if self.answer().is_some_and(|it| !it.is_reached) => RETRY,
            // They may have dialled this process before it was started anew.
            (true, true, _) if self.is_first => PAUSE + self.spread(),
            (true, true, false) => RETRY,
            // They may all have been busy with nodes that asked at the same time.
            (true, true, true) => RETRY + self.rng.up_to(REGULARLY),
            (true, false, _) => REGULARLY - self.rng.up_to(JITTER),
        };
        self.due = now + pause;
        if self.tried.is_full() {
            // There may be others, which have their turn in the next round.
            self.begin = self.tried.last().map(|last| (*last, Begin::After));
        }
        self.tried.clear();
        self.is_hopeful = false;
        self.is_first &= !has_asked;
        if self.is_stale {
            self.answer = None;
        }
    }

    /// Whether a server is asked now.
    pub fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    /// The last answer that says something about the addresses of now.
    pub fn answer(&self) -> Option<&Answer> {
        self.answer.as_ref().filter(|_| !self.is_stale)
    }

    /// The same, or the one before the addresses changed, until servers have been asked about those
    /// of now.
    pub fn last_answer(&self) -> Option<&Answer> {
        self.answer.as_ref()
    }

    /// If there is none: the server that was asked last, and why it could not tell.
    pub fn silent(&self) -> Option<&Silent> {
        self.silent.as_ref()
    }

    /// When to poll next.
    pub fn timeout(&self) -> Instant {
        match self.asked {
            Some((_, since)) => since + ANSWER_LIMIT,
            None => self.due,
        }
    }
}
