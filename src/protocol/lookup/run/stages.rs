//! What a lookup does next when all that it has asked has answered, or is late.

use heapless::Vec;

use super::{DhtSearch, Errand, Lookup, Open, Phase, Stage, Target, Waiting, What};
use crate::protocol::{
    Cursor, Instant, PeerId, Role,
    lookup::{Here, Question},
};

/// Silent servers of which the natives are asked whether they have taken leave, at most.
const MAX_DOUBTED: usize = 4;

impl<const S: usize, const Q: usize, const R: usize, const O: usize> Lookup<S, Q, R, O> {
    /// Whether nothing is left to do in this stage: every server has been asked, and no answer is
    /// waited for.
    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        let is_over =
            self.has_asked_around || (self.own_indexers.is_empty() && self.natives.is_empty());
        is_over
            && self.queue.is_empty()
            && self.own_page.is_empty()
            && self.searches.is_empty()
            && self.pages.iter().all(|pages| pages.is_open)
            && self.open.iter().all(|open| self.is_late(open, now))
    }

    /// Whether a server has not answered in its patience. Searches of the DHT have limits of their
    /// own.
    pub(super) fn is_late(&self, open: &Open, now: Instant) -> bool {
        !open.is_search() && now >= self.late_at(open)
    }

    /// The end of the patience with a server. It may search the DHT for the peer that was found
    /// before, which may take its whole time.
    fn late_at(&self, open: &Open) -> Instant {
        match open.target {
            Target::Server(_, _, What::Remembered) => self.deadline,
            _ => open.since + self.patience,
        }
    }

    /// Begins the next stage. Returns whether there is one.
    pub(super) fn next_stage<H: Here + ?Sized>(&mut self, now: Instant, here: &H) -> bool {
        self.stage = match self.stage {
            Stage::First => Stage::Natives,
            Stage::Natives => Stage::Pages,
            Stage::Pages => Stage::Leaves,
            Stage::Leaves => return false,
        };
        match self.stage {
            Stage::First => {}
            Stage::Natives => self.ask_natives(),
            Stage::Pages => self.ask_for_a_page(here.role()),
            Stage::Leaves => self.ask_who_has_left(now, here),
        }
        true
    }

    /// When there is a step without an event.
    pub(in crate::protocol::lookup) fn timeout(&self) -> Option<Instant> {
        if self.phase != Phase::Running {
            return None;
        }
        let late = self.open.iter().map(|open| match open.target {
            Target::Server(..) => self.late_at(open),
            Target::Dht(DhtSearch::Providers) => self.end_of(open),
            Target::Dht(DhtSearch::Record(_)) => self.deadline,
        });
        // What was due at the latest poll has been done.
        let is_ahead = |at: &Instant| *at > self.polled;
        let first = late.chain([self.next_at]).filter(is_ahead).min();
        Some(first.map_or(self.deadline, |first| first.min(self.deadline)))
    }

    /// The natives that were not asked, if the answer is empty or incomplete; for an indexer's
    /// peer, if this indexer could not search the DHT.
    fn ask_natives(&mut self) {
        let asks = match self.is_for_peer {
            true => self.is_unreached,
            false => !self.has_found() || !self.is_whole() || self.progress.more,
        };
        self.has_asked_around = true;
        for native in core::mem::take(&mut self.natives) {
            if asks {
                self.ask(native, Errand::Fellow);
            }
        }
        self.is_cut |= self.progress.more;
    }

    /// Asks the natives whether a server that does not answer has taken leave: the DHT names it for
    /// half an hour after that.
    fn ask_who_has_left<H: Here + ?Sized>(&mut self, now: Instant, here: &H) {
        let silent = self.servers.as_slice().iter();
        let silent =
            silent.filter(|server| server.is_silent() && !self.vouchers.contains(&server.peer));
        let silent: Vec<PeerId, MAX_DOUBTED> =
            silent.map(|server| server.peer).take(MAX_DOUBTED).collect();
        for server in &silent {
            if here.has_left(now, server) {
                self.has_left(server);
                continue;
            }
            here.servers(now, &mut |native| {
                if native.role == Role::Native && !self.servers.is_silent(&native.peer) {
                    let what = What::Leave(*server);
                    let waiting = Waiting::new(native.peer, Errand::Fellow, what);
                    // Without room the server stays silent, and the answer incomplete.
                    let _ = self.queue.push(waiting);
                }
            });
        }
    }

    /// A page of indexers, if the operator's lookup has found nothing; for a service also if the
    /// DHT may not have named all that list it. A node has asked all indexers for it.
    fn ask_for_a_page(&mut self, role: Role) {
        let asks = match &self.question {
            Question::Indexers => false,
            Question::Name(_) | Question::Peer(_) => !self.has_found(),
            Question::Service(_) => {
                let may_lack = self.progress.more || self.is_unreached;
                role != Role::Node && (may_lack || !self.has_found())
            }
        };
        if self.is_for_peer || !asks {
            return;
        }
        if role == Role::Native {
            // There is room, because this question has no other page.
            let _ = self.own_page.push(Cursor::Start);
        } else if let Some(native) = self.lister.pop() {
            self.read_pages(native);
        }
    }
}
