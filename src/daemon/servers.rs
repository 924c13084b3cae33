//! What is logged about the servers that grant leases to this process: only what is new.
//!
//! A server that is away is tried every few seconds without end. Its failure is logged once, and
//! again when there is another failure, or after it has granted a lease.
//!
//! Invariant: at most [`MOST`] servers are remembered, the most recent ones; the failure of an
//! earlier one is logged again.

use std::{collections::HashSet, time::Duration};

use super::{report::text, status::Trouble};
use crate::protocol::{Instant, PeerId};

/// Servers with failures that are remembered: more than there are leases held or sought.
const MOST: usize = 64;

/// Why a server grants no lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    server: PeerId,
    pub(super) what: String,
    /// When the first failure happened after the last lease was granted.
    pub(super) since: Instant,
    /// Only a request of ours failed, so an answer ends it.
    of_request: bool,
}

/// The servers, and what was logged about them.
#[derive(Debug, Default)]
pub(super) struct Servers {
    /// Those that granted a lease on the stream that is open.
    granted: HashSet<PeerId>,
    /// The failures of the others, the oldest first.
    troubles: Vec<Failure>,
    /// The server that denied a lease last. The reason for dropping its stream is logged
    /// already.
    denied: Option<PeerId>,
    /// It was logged that no offered indexer grants a lease.
    stranded: bool,
}

impl Servers {
    /// Logs that a server granted a lease of the clamped duration.
    pub(super) fn granted(&mut self, server: PeerId, called: impl Fn() -> String, lease: Duration) {
        if self.granted.insert(server) {
            self.stranded = false;
            self.troubles.retain(|known| known.server != server);
            let seconds = lease.as_secs();
            log::info!("holds a lease of {seconds} s with {}", called());
        }
    }

    /// Logs that no offered indexer has granted a lease, so that the native is asked to take us in.
    pub(super) fn offers_failed(&mut self, native: &str) {
        let is_news = !std::mem::replace(&mut self.stranded, true);
        let level = if is_news {
            log::Level::Warn
        } else {
            log::Level::Debug
        };
        log::log!(
            level,
            "holds no lease, and no offered indexer has granted one: asks {native} to take this node in, and keeps trying"
        );
    }

    /// Logs that the server's ack is late.
    pub(super) fn late(&mut self, server: &PeerId, called: &str) {
        if self.granted.remove(server) {
            log::info!("{called} does not answer: opens a new connection beside the silent one");
        }
    }

    /// Logs that the server gives no lease.
    pub(super) fn denied(&mut self, now: Instant, server: PeerId, called: &str, reason: &str) {
        self.granted.remove(&server);
        self.denied = Some(server);
        let what = format!("gives no lease: {}", reason.escape_debug());
        self.trouble(now, server, called, what);
    }

    /// Our stream to the server is dropped, because it gives no lease or does not answer.
    pub(super) fn dropped(&mut self, now: Instant, server: PeerId, called: &str) {
        self.granted.remove(&server);
        if self.denied.take() != Some(server) {
            self.trouble(now, server, called, "does not answer".into());
        }
    }

    /// Our stream to the server has ended, or could not be opened, and `why`.
    pub(super) fn closed(&mut self, now: Instant, server: PeerId, called: &str, why: Option<&str>) {
        let held = self.granted.remove(&server);
        if let Some(why) = why {
            self.trouble(now, server, called, format!("accepts no beats: {why}"));
        } else if held {
            log::info!("the heartbeat stream with {called} has ended");
        }
    }

    /// Logs that we give up the lease with the server.
    pub(super) fn given_up(&mut self, server: &PeerId, called: &str) {
        if self.granted.remove(server) {
            log::info!("gives up the lease with {called}");
        }
    }

    /// The servers that grant us no lease, and why, for `status`.
    pub(super) fn troubles(&self) -> Vec<Trouble> {
        self.troubles
            .iter()
            .filter(|failure| !failure.of_request)
            .map(|failure| Trouble {
                peer_id: text(&failure.server),
                what: failure.what.clone(),
            })
            .collect()
    }

    /// Why this server grants no lease or does not answer requests, if it does not.
    pub(super) fn failure_of(&self, server: &PeerId) -> Option<&Failure> {
        let mut all = self.troubles.iter();
        all.find(|failure| failure.server == *server)
    }

    /// A request was answered by the server, or failed for this reason.
    pub(super) fn answered(&mut self, now: Instant, server: PeerId, error: Option<&String>) {
        match error {
            None => self
                .troubles
                .retain(|known| known.server != server || !known.of_request),
            Some(why)
                if self
                    .failure_of(&server)
                    .is_none_or(|known| known.of_request) =>
            {
                self.is_new(now, server, why, true);
            }
            Some(_) => {}
        }
    }

    fn trouble(&mut self, now: Instant, server: PeerId, called: &str, what: String) {
        match self.is_new(now, server, &what, false) {
            true => log::warn!("{called} {what}"),
            false => log::debug!("{called} still {what}"),
        }
    }

    /// Whether the failure differs from the last one of this server. Remembers the present one.
    fn is_new(&mut self, now: Instant, server: PeerId, what: &str, of_request: bool) -> bool {
        let mut known = self.troubles.iter();
        let known = known.position(|known| known.server == server);
        let before = known.map(|at| self.troubles.remove(at));
        if self.troubles.len() == MOST {
            self.troubles.remove(0);
        }
        self.troubles.push(Failure {
            server,
            what: what.to_owned(),
            since: before.as_ref().map_or(now, |before| before.since),
            of_request,
        });
        before.is_none_or(|before| before.what != what || before.of_request != of_request)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn the_same_trouble_is_new_once_until_a_lease_was_granted() {
        let mut servers = Servers::default();
        assert!(servers.is_new(at(0), peer(1), "is away", false));
        assert!(!servers.is_new(at(0), peer(1), "is away", false));
        assert!(
            servers.is_new(at(0), peer(2), "is away", false),
            "it is another"
        );
        assert!(servers.is_new(at(0), peer(1), "is full", false));
        assert!(
            servers.is_new(at(0), peer(1), "is away", false),
            "it changed in between"
        );
        servers.granted(peer(1), || "native".into(), Duration::from_secs(1));
        assert!(servers.is_new(at(0), peer(1), "is away", false));
    }

    #[test]
    fn the_server_whose_trouble_is_oldest_is_forgotten_first() {
        let mut servers = Servers::default();
        for n in 0..=MOST as u8 {
            assert!(servers.is_new(at(0), peer(n), "is away", false));
        }
        assert_eq!(servers.troubles.len(), MOST);
        assert!(!servers.is_new(at(0), peer(1), "is away", false));
        assert!(servers.is_new(at(0), peer(0), "is away", false));
    }

    #[test]
    fn a_drop_after_a_denial_is_no_silence() {
        let mut servers = Servers::default();
        servers.denied(at(1), peer(1), "native", "no room");
        servers.dropped(at(2), peer(1), "native");
        let what = |servers: &Servers| servers.failure_of(&peer(1)).unwrap().what.clone();
        assert_eq!(what(&servers), "gives no lease: no room");
        servers.dropped(at(2), peer(1), "native");
        assert_eq!(what(&servers), "does not answer");
    }

    #[test]
    fn a_failure_lasts_from_the_first_one_until_a_lease_is_granted() {
        let mut servers = Servers::default();
        servers.denied(at(1), peer(1), "native", "no room");
        servers.dropped(at(5), peer(1), "native");
        servers.dropped(at(6), peer(1), "native");
        assert_eq!(servers.failure_of(&peer(1)).unwrap().since, at(1));
        servers.granted(peer(1), || "native".into(), Duration::from_secs(1));
        assert_eq!(servers.failure_of(&peer(1)), None);
    }

    #[test]
    fn an_answer_ends_the_failure_of_requests_alone() {
        let mut servers = Servers::default();
        let why = "it is away".to_owned();
        servers.answered(at(1), peer(1), Some(&why));
        assert_eq!(servers.failure_of(&peer(1)).unwrap().what, why);
        assert!(servers.troubles().is_empty(), "no lease was asked for");
        servers.answered(at(2), peer(1), None);
        assert_eq!(servers.failure_of(&peer(1)), None);
        servers.denied(at(3), peer(1), "native", "no room");
        servers.answered(at(4), peer(1), Some(&why));
        servers.answered(at(5), peer(1), None);
        let what = &servers.failure_of(&peer(1)).unwrap().what;
        assert_eq!(what, "gives no lease: no room");
    }
}
