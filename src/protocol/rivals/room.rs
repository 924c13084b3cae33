//! Room for identities: of too many, one of those from the prefix and host with the most gives way.

use core::cmp::Reverse;

use super::*;

/// How many identities last came from a prefix, and how many of them from one host in it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Crowd {
    of_prefix: usize,
    of_host: usize,
}

impl Rivals {
    /// Adds the identity, if it is not there. [`Rivals::make_room`] has made room.
    pub(super) fn rival(&mut self, now: Instant, peer: &PeerId, from: Host) -> Option<&mut Rival> {
        let known = self.all.iter().position(|rival| rival.peer == *peer);
        let at = known.unwrap_or(self.all.len());
        if at == self.all.len() {
            let _ = self.all.push(Rival {
                peer: *peer,
                from,
                replaced: Vec::new(),
                at_home: Vec::new(),
                last: now,
                check: None,
                verdict: None,
            });
        }
        self.all.get_mut(at)
    }

    /// Makes room for the identity, if needed. Returns the newcomer that waited in its place, if
    /// there was one.
    pub(super) fn make_room(&mut self, peer: &PeerId) -> Option<Displaced> {
        if !self.all.is_full() || self.all.iter().any(|rival| rival.peer == *peer) {
            return None;
        }
        let all = self.all.iter().enumerate();
        let (at, _) = all.max_by_key(|(_, rival)| {
            let is_idle = (rival.verdict.is_none(), rival.check.is_none());
            (self.crowd(rival.from), is_idle, Reverse(rival.last))
        })?;
        let gone = self.all.swap_remove(at);
        self.evicted += 1;
        if gone.verdict.is_some() {
            self.tell(Transition::Evicted(gone.peer));
        }
        Some(Displaced {
            peer: gone.peer,
            stream: gone.check?.newcomer,
        })
    }

    fn crowd(&self, host: Host) -> Crowd {
        let from = self.all.iter().map(|rival| rival.from);
        let near = from.filter(|from| from.prefix() == host.prefix());
        Crowd {
            of_prefix: near.clone().count(),
            of_host: near.filter(|from| *from == host).count(),
        }
    }
}
