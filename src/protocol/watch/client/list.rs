//! The list of servers: when it is read, and what it says.

use super::{
    Extent, LONGEST_PAUSE, MOVES, NEVER, RELIST, RELIST_SOONEST, Watch,
    slots::{State, WatchedServer},
};
use crate::protocol::{Addrs, Instant, PeerId, time::backoff};

impl<const K: usize> Watch<K> {
    /// Takes the servers that may list nodes.
    pub fn listed<'a>(
        &mut self,
        now: Instant,
        servers: impl Iterator<Item = (PeerId, &'a Addrs)>,
        extent: Extent,
    ) {
        let are_all = extent != Extent::Part;
        self.lists = false;
        self.was_listed = true;
        self.unwatched = 0;
        if are_all {
            self.all_listed = Some(self.list_began);
            let servers = self.servers.iter_mut();
            servers.for_each(|s| (s.was_listed, s.is_listed) = (s.is_listed, false));
        }
        let servers_before = self.servers();
        for (peer, addrs) in servers {
            let is_placed = self.place(now, peer, addrs);
            self.unwatched = self.unwatched.saturating_add(u16::from(!is_placed));
        }
        let is_vain = self.seeks_others && self.servers() == servers_before;
        self.vain_lists = match is_vain {
            true => self.vain_lists.saturating_add(1),
            false => 0,
        };
        for at in 0..self.servers.len() {
            let Some(server) = self.servers.get_mut(at) else {
                break;
            };
            let is_missing = are_all && server.was_listed && !server.is_listed;
            server.note_list(self.list_began, extent);
            if is_missing {
                self.open_anew(now, now, at);
            }
        }
        self.list_failures = match are_all {
            true => 0,
            false => self.list_failures.saturating_add(1),
        };
        self.list_at = now
            + match are_all {
                true => RELIST,
                false => backoff(&mut self.rng, self.list_failures, LONGEST_PAUSE),
            };
        if self.has_others {
            self.list_soon();
        }
        self.reconsider(now);
    }

    /// There may be a server that is not known yet. If there is no place for it, it can wait.
    pub(super) fn list_soon(&mut self) {
        self.has_others = true;
        if self.unwatched == 0 {
            let moves = self.gone_from != NEVER;
            let longest = if moves { MOVES / 2 } else { RELIST };
            let pause = RELIST_SOONEST.saturating_mul(1 << self.vain_lists.min(16));
            self.list_at = self.list_at.min(self.list_began + pause.min(longest));
        }
    }

    /// Takes the servers that this process knows, as a number that is another one when they are
    /// others. It costs nothing while they are the same.
    pub fn knows_servers(&mut self, number: u64) {
        if core::mem::replace(&mut self.own_servers, number) != number {
            self.list_soon();
        }
    }

    /// Gives a server that is listed its slot. Returns whether there is one.
    fn place(&mut self, now: Instant, peer: PeerId, addrs: &Addrs) -> bool {
        let known = self.servers.iter().position(|s| s.is(&peer));
        let free = || self.servers.iter().position(|s| s.state == State::Free);
        let newcomer = WatchedServer::new(now, peer, addrs);
        match known.or_else(free) {
            None => self.servers.push(newcomer).is_ok(),
            Some(at) => {
                let Some(slot) = self.servers.get_mut(at) else {
                    return false;
                };
                match slot.state {
                    State::Free => {
                        *slot = newcomer;
                        // What the slot's former server told is not the newcomer's word.
                        let told = self.known.iter_mut();
                        told.filter(|entry| entry.listed_by == Some(at as u8))
                            .for_each(|entry| entry.listed_by = None);
                    }
                    _ => {
                        slot.is_listed = true;
                        slot.addrs = newcomer.addrs;
                    }
                }
                true
            }
        }
    }
}
