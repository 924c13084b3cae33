//! Requests of nodes for indexers that wait until their candidates are probed: at most 8
//! candidates, 2 s in all. What is asked while the native catches up after an oversleep waits until
//! its leases are moved on; its candidates are chosen only then.

use core::time::Duration;

use heapless::Vec;

use crate::protocol::{Instant, PeerId, Reader, RequestId, Want};

use super::probe::PROBE_TIMEOUT;

/// Requests that may wait at once: as many nodes as a native takes in by default, which all ask at
/// once when an indexer dies. One more is answered from what is known.
pub const MAX_PENDING_REQUESTS: usize = 256;
/// Candidates that one answer probes at most (PROTOCOL.md).
pub const MAX_CANDIDATES: usize = 8;
/// Time for all of them together (PROTOCOL.md).
const ASK_TIMEOUT: Duration = PROBE_TIMEOUT;

/// Indexers that may be offered, best first.
pub type Candidates = Vec<PeerId, MAX_CANDIDATES>;

/// One request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRequest {
    /// Names the request.
    pub id: RequestId,
    /// Who asked.
    pub node: PeerId,
    /// Which addresses are of use to it.
    pub reader: Reader,
    /// Why.
    pub want: Want,
    /// How many offers at most.
    pub most: usize,
    /// Which indexers the answer may offer, and since when they are looked at; `None`: they are not
    /// chosen yet.
    pub candidates: Option<(Instant, Candidates)>,
}

impl PendingRequest {
    /// When it is answered at the latest; at once, if its candidates are not chosen yet.
    pub fn deadline(&self) -> Instant {
        match &self.candidates {
            Some((since, _)) => *since + ASK_TIMEOUT,
            None => Instant::default(),
        }
    }
}
