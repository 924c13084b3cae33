//! A lease with a server that turns out not to belong to the closed network.

use super::{Lease, Phase, REFUSED_PAUSE};
use crate::protocol::{Instant, Rng};

impl Lease {
    /// The lease ends, and is not sought for a while: as if the server had refused, at any time.
    pub(crate) fn expelled(&mut self, now: Instant, rng: &mut Rng) {
        self.expiry = None;
        let pause = self.pause(now, rng);
        self.refused = Some(now + REFUSED_PAUSE);
        let until = self.not_before(pause);
        self.phase = Phase::Dropping { until };
    }
}
