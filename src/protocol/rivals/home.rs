//! Two devices with one identity behind one address.
//!
//! Each of them opens a new stream as soon as the other has replaced its own, so a stream that was
//! heard a moment ago is replaced again and again. A device alone replaces its stream when an ack
//! is late, which takes longer, or when it starts again and its old connection is still open.
//!
//! Invariant: such a device is never delayed and never refused; it is only told.

use super::*;

/// The longest time from the last beat of a stream to its replacement that counts, if the lease is
/// long. An ack is late after it (PROTOCOL.md).
const SOON: Duration = Duration::from_secs(10);
/// The same, as a part of the lease.
const PART: u32 = 6;

/// Whether a stream that was last heard `quiet` ago is replaced before an ack could be late.
pub(in crate::protocol) fn is_soon(quiet: Duration, lease: Duration) -> bool {
    quiet < SOON.min(lease / PART)
}

impl Contested {
    /// Whether both devices are behind one address, so that there may be only one.
    pub fn is_at_home(&self) -> bool {
        self.kept == self.refused
    }
}

impl Rivals {
    /// The peer comes from another host, so that what was seen at one address is over.
    pub(super) fn leaves_home(&mut self, peer: &PeerId) {
        let Some(rival) = self.find_mut(peer) else {
            return;
        };
        rival.at_home.clear();
        if rival.verdict.take_if(|it| it.is_at_home()).is_some() {
            self.tell(Transition::Ends(*peer));
        }
    }

    /// A stream of the peer from the same host has soon replaced an open one. Returns a stream that
    /// no longer waits and must be closed.
    pub(in crate::protocol) fn replaced_at_home(
        &mut self,
        now: Instant,
        peer: &PeerId,
        host: Host,
    ) -> Option<Displaced> {
        let evicted = self.make_room(peer);
        let rival = self.rival(now, peer, host)?;
        if rival.verdict.as_ref().is_some_and(|it| !it.is_at_home()) {
            // What the device that is kept does at its own host is no sign of the other one.
            return evicted;
        }
        (rival.last, rival.from) = (now, host);
        rival.at_home.retain(|at| now - *at <= WINDOW);
        match &mut rival.verdict {
            Some(verdict) => verdict.at = now,
            None if rival.check.is_some() || rival.at_home.push(now).is_ok() => {}
            None => {
                rival.at_home.clear();
                let contested = Contested {
                    peer: *peer,
                    kept: host,
                    refused: host,
                    at: now,
                };
                rival.verdict = Some(contested.clone());
                self.tell(Transition::Begins(contested));
            }
        }
        evicted
    }
}
