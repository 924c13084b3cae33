//! What is logged about the servers that grant leases to this process: only what is new.
//!
//! A server that is away is tried every few seconds without end. Its failure is logged once, and
//! again when there is another failure, or after it has granted a lease.
//!
//! Invariant: at most [`MOST`] servers are remembered, the most recent ones; the failure of an
//! earlier one is logged again.

use std::{collections::HashSet, time::Duration};

use super::{report::text, status::Trouble};
use crate::protocol::PeerId;

/// Servers with failures that are remembered: more than there are leases held or sought.
const MOST: usize = 64;

/// The servers, and what was logged about them.
#[derive(Debug, Default)]
pub(super) struct Servers {
    /// Those that granted a lease on the stream that is open.
    granted: HashSet<PeerId>,
    /// The failures of the others, the oldest first.
    troubles: Vec<(PeerId, String)>,
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
            self.troubles.retain(|(known, _)| *known != server);
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
    pub(super) fn denied(&mut self, server: PeerId, called: &str, reason: &str) {
        self.granted.remove(&server);
        self.denied = Some(server);
        let what = format!("gives no lease: {}", reason.escape_debug());
        self.trouble(server, called, what);
    }

    /// Our stream to the server is dropped, because it gives no lease or does not answer.
    pub(super) fn dropped(&mut self, server: PeerId, called: &str) {
        self.granted.remove(&server);
        if self.denied.take() != Some(server) {
            self.trouble(server, called, "does not answer".into());
        }
    }

    /// Our stream to the server has ended, or could not be opened, and `why`.
    pub(super) fn closed(&mut self, server: PeerId, called: &str, why: Option<&str>) {
        let held = self.granted.remove(&server);
        if let Some(why) = why {
            self.trouble(server, called, format!("accepts no beats: {why}"));
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
            .map(|(server, what)| Trouble {
                peer_id: text(server),
                what: what.clone(),
            })
            .collect()
    }

    fn trouble(&mut self, server: PeerId, called: &str, what: String) {
        match self.is_new(server, &what) {
            true => log::warn!("{called} {what}"),
            false => log::debug!("{called} still {what}"),
        }
    }

    /// Whether the failure differs from the last one of this server. Remembers the present one.
    fn is_new(&mut self, server: PeerId, what: &str) -> bool {
        let known = self.troubles.iter().position(|(known, _)| *known == server);
        let before = known.map(|at| self.troubles.remove(at).1);
        if self.troubles.len() == MOST {
            self.troubles.remove(0);
        }
        self.troubles.push((server, what.to_owned()));
        before.is_none_or(|before| before != what)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    #[test]
    fn the_same_trouble_is_new_once_until_a_lease_was_granted() {
        let mut servers = Servers::default();
        assert!(servers.is_new(peer(1), "is away"));
        assert!(!servers.is_new(peer(1), "is away"));
        assert!(servers.is_new(peer(2), "is away"), "it is another");
        assert!(servers.is_new(peer(1), "is full"));
        assert!(servers.is_new(peer(1), "is away"), "it changed in between");
        servers.granted(peer(1), || "native".into(), Duration::from_secs(1));
        assert!(servers.is_new(peer(1), "is away"));
    }

    #[test]
    fn the_server_whose_trouble_is_oldest_is_forgotten_first() {
        let mut servers = Servers::default();
        for n in 0..=MOST as u8 {
            assert!(servers.is_new(peer(n), "is away"));
        }
        assert_eq!(servers.troubles.len(), MOST);
        assert!(!servers.is_new(peer(1), "is away"));
        assert!(servers.is_new(peer(0), "is away"));
    }

    #[test]
    fn a_drop_after_a_denial_is_no_silence() {
        let mut servers = Servers::default();
        servers.denied(peer(1), "native", "no room");
        servers.dropped(peer(1), "native");
        assert_eq!(
            servers.troubles,
            [(peer(1), "gives no lease: no room".into())]
        );
        servers.dropped(peer(1), "native");
        assert_eq!(servers.troubles, [(peer(1), "does not answer".into())]);
    }
}
