//! Requests of nodes for indexers, which wait until their candidates are probed: at most 8
//! candidates, 2 s in all. A request that arrives while the native catches up after an oversleep
//! waits until the leases are extended, and gets its candidates only then.

use core::time::Duration;

use heapless::Vec;

use crate::protocol::{Instant, PeerId, Reader, RequestId, Want};

use super::probe::PROBE_TIMEOUT;

/// Requests that may wait at once: as many as a native takes in nodes by default, because these may
/// all ask at once when an indexer dies. A further request is answered from what is known.
pub(super) const MAX_PENDING_REQUESTS: usize = 256;
/// Candidates that one answer probes at most (PROTOCOL.md).
pub(super) const MAX_SHORTLIST: usize = 8;
/// Time for all of them together (PROTOCOL.md).
const SHORTLIST_TIMEOUT: Duration = PROBE_TIMEOUT;

/// Indexers that may be offered, best first.
pub(super) type Shortlist = Vec<PeerId, MAX_SHORTLIST>;

/// One request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PendingRequest {
    /// Names the request.
    pub id: RequestId,
    /// The node that asked.
    pub node: PeerId,
    /// The addresses that it can use.
    pub reader: Reader,
    /// Why it asks.
    pub want: Want,
    /// How many offers at most.
    pub most: usize,
    /// The indexers that the answer may offer, and when they were chosen; `None` if they are not
    /// chosen yet.
    pub candidates: Option<(Instant, Shortlist)>,
}

impl PendingRequest {
    /// The latest time of the answer. It is due at once if its candidates are not chosen yet.
    pub(super) fn deadline(&self) -> Instant {
        match &self.candidates {
            Some((since, _)) => *since + SHORTLIST_TIMEOUT,
            None => Instant::default(),
        }
    }
}
