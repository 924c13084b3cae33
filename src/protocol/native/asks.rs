//! Requests of nodes for indexers that wait until their candidates are probed: at most 8 candidates, 2 s in all.

use core::time::Duration;

use heapless::Vec;

use crate::protocol::{Instant, PeerId, RequestId, Want};

use super::probe::PROBE_TIMEOUT;

/// Requests that may wait at once: as many nodes as a native takes in by default, which all ask at once when an indexer dies. One
/// more is answered from what is known.
pub const MAX_ASKS: usize = 256;
/// Candidates that one answer probes at most (PROTOCOL.md).
pub const MAX_CANDIDATES: usize = 8;
/// Time for all of them together (PROTOCOL.md).
const ASK_TIMEOUT: Duration = PROBE_TIMEOUT;

/// Indexers that may be offered, best first.
pub type Candidates = Vec<PeerId, MAX_CANDIDATES>;

/// One request that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Names the request.
    pub request: RequestId,
    /// Who asked.
    pub node: PeerId,
    /// Why.
    pub want: Want,
    /// How many offers at most.
    pub most: usize,
    /// Whom the answer may offer.
    pub candidates: Candidates,
    /// When it is answered at the latest.
    pub deadline: Instant,
}

impl Ask {
    /// A request that came at `now`.
    pub fn new(
        now: Instant,
        request: RequestId,
        node: PeerId,
        want: Want,
        most: usize,
        candidates: Candidates,
    ) -> Self {
        Self {
            request,
            node,
            want,
            most,
            candidates,
            deadline: now + ASK_TIMEOUT,
        }
    }
}
