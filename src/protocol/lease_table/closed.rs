//! The streams that are to be closed, because their lease has ended or a newer stream replaced
//! them.

use heapless::Deque;

use super::{LeaseEnd, PeerId, StreamId};

#[derive(Clone, Debug, Default)]
pub(super) struct ClosedStreams<const S: usize>(Deque<Closed, S>);

/// A stream to close, its peer, and the end of its lease if that is why.
pub(crate) type Closed = (PeerId, StreamId, Option<LeaseEnd>);

impl<const S: usize> ClosedStreams<S> {
    /// None is to be closed.
    pub(super) const fn new() -> Self {
        Self(Deque::new())
    }

    /// The one that is to be closed first.
    pub(super) fn pop(&mut self) -> Option<Closed> {
        let closed = self.0.pop_front();
        if self.0.is_empty() {
            // It begins at its first place again, so that few of its pages are ever used.
            self.0.clear();
        }
        closed
    }

    /// Adds one. If there are too many, the first is forgotten.
    pub(super) fn push(&mut self, peer: PeerId, stream: StreamId, end: Option<LeaseEnd>) {
        if self.0.is_full() {
            self.0.pop_front();
        }
        // There is room after the removal.
        let _ = self.0.push_back((peer, stream, end));
    }
}

impl<const S: usize> PartialEq for ClosedStreams<S> {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().eq(other.0.iter())
    }
}
