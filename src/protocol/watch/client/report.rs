//! The report that all servers have caught up, except the silent ones.
//!
//! Invariants: it comes only when each server was heard or counts as silent, and again only when it
//! differs from the last one, or a server was not heard in between.

use core::time::Duration;

use super::{
    Watch,
    slots::{State, WatchedServer},
    statements::WatchStep,
};
use crate::protocol::Instant;

/// What a watch has no place for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    servers: u16,
    has_nodes: bool,
}

impl Missing {
    pub(super) const NONE: Self = Self {
        servers: 0,
        has_nodes: false,
    };
}

impl<const K: usize> Watch<K> {
    /// The report, if one is due.
    pub(super) fn pop_caught_up(&mut self, now: Instant) -> Option<WatchStep> {
        if now < self.report_from || !self.is_news() {
            return None;
        }
        let silent = self.servers.iter().filter(|server| server.is_silent);
        let since = silent.filter_map(|server| server.blind).min();
        let blind = since.map_or(Duration::ZERO, |since| now - since);
        let blind = self.blind.max(blind);
        (self.blind, self.was_blind, self.reported_once) = (Duration::ZERO, false, true);
        self.reported_silent = self.silent_bits();
        self.reported_missing = self.missing();
        Some(WatchStep::CaughtUp { blind })
    }

    /// Whether there is news about which servers have caught up.
    pub(super) fn is_news(&self) -> bool {
        let is_news = !self.reported_once
            || self.was_blind
            || self.silent_bits() != self.reported_silent
            || self.missing() != self.reported_missing;
        let mut used = self.servers.iter().filter(|s| s.state != State::Free);
        is_news
            && self.was_listed
            && (self.reported_once || used.next().is_some())
            && self.servers.iter().all(WatchedServer::is_settled)
    }

    fn missing(&self) -> Missing {
        Missing {
            servers: self.unwatched,
            has_nodes: self.untracked() > 0,
        }
    }

    fn silent_bits(&self) -> u64 {
        self.bits_of(|server| server.is_silent)
    }
}
