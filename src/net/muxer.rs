//! A muxer that does its work once in a turn of the swarm instead of twice.
//!
//! At each turn of a connection libp2p-swarm 0.48 calls `poll` and `poll_inbound` of its muxer, and
//! each of the two calls makes Yamux do all its work: flush, read, check the time of a ping. The
//! second call finds nothing to do, and these turns take most of a server's time. So `poll` does
//! nothing in a turn in which `poll_inbound` will do the work.
//!
//! The swarm asks a handler for its protocols in two places: to negotiate a stream that
//! `poll_inbound` has just given it, and at the end of each turn, after a `poll_inbound` without a
//! stream, to tell the handlers what has changed. For the second it keeps a table of their names
//! for each connection, and looks each of them up twice for each beat. [`is_negotiating`] tells the
//! two apart, so that a handler may have no names where they are not read.
//!
//! Invariant: each turn drives the inner muxer. The swarm skips `poll_inbound` only while too many
//! streams are being negotiated. Their number grows only by a `poll_inbound` that is ready, and
//! after such a call `poll` does the work itself. After a `poll_inbound` with a stream, this thread
//! is negotiating until the next one without.

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll},
};

use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};

thread_local! {
    /// True where no muxer was asked yet: a name too many does no harm.
    static NEGOTIATING: Cell<bool> = const { Cell::new(true) };
}

/// Whether the swarm, if it asks for protocols now, is going to negotiate a stream.
pub(super) fn is_negotiating() -> bool {
    NEGOTIATING.get()
}

/// As after a turn without a stream.
#[cfg(test)]
pub(super) fn end_turn() {
    NEGOTIATING.set(false);
}

/// The muxer inside, driven once a turn.
pub(super) struct OnceATurn<M> {
    inner: M,
    /// The last turn ended with a pending `poll_inbound`, or this is the first one: so this turn
    /// will call it too.
    waits: bool,
}

impl<M> OnceATurn<M> {
    pub(super) fn new(inner: M) -> Self {
        Self { inner, waits: true }
    }
}

impl<M: StreamMuxer + Unpin> StreamMuxer for OnceATurn<M> {
    type Substream = M::Substream;
    type Error = M::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let stream = Pin::new(&mut self.inner).poll_inbound(cx);
        self.waits = stream.is_pending();
        NEGOTIATING.set(stream.is_ready());
        stream
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        Pin::new(&mut self.inner).poll_outbound(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        if std::mem::take(&mut self.waits) {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, task::Waker};

    use smol::io::Cursor;

    use super::*;

    /// A muxer that counts how often it is driven, and has some streams ready.
    struct Counting {
        driven: usize,
        streams: usize,
    }

    impl StreamMuxer for Counting {
        type Substream = Cursor<Vec<u8>>;
        type Error = Infallible;

        fn poll_inbound(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Result<Self::Substream, Infallible>> {
            self.driven += 1;
            match self.streams.checked_sub(1) {
                Some(left) => {
                    self.streams = left;
                    Poll::Ready(Ok(Cursor::new(Vec::new())))
                }
                None => Poll::Pending,
            }
        }

        fn poll_outbound(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Result<Self::Substream, Infallible>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn poll(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Result<StreamMuxerEvent, Infallible>> {
            self.driven += 1;
            Poll::Pending
        }
    }

    /// Makes one turn as the swarm does, which takes at most `room` streams. Returns how often the
    /// inner muxer was driven.
    fn turn(muxer: &mut OnceATurn<Counting>, room: &mut usize) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        let before = muxer.inner.driven;
        loop {
            assert!(Pin::new(&mut *muxer).poll(&mut cx).is_pending());
            if *room == 0 || Pin::new(&mut *muxer).poll_inbound(&mut cx).is_pending() {
                return muxer.inner.driven - before;
            }
            *room -= 1;
        }
    }

    /// What the first turn finds is given on by `poll_inbound`, and needs no room before that.
    #[test]
    fn the_first_turn_drives_it_once() {
        let mut muxer = OnceATurn::new(Counting {
            driven: 0,
            streams: 0,
        });
        assert_eq!(turn(&mut muxer, &mut 2), 1);
    }

    #[test]
    fn names_are_needed_after_a_stream_and_not_at_the_end_of_a_turn() {
        assert!(is_negotiating(), "no muxer was asked yet");
        let mut cx = Context::from_waker(Waker::noop());
        let mut muxer = OnceATurn::new(Counting {
            driven: 0,
            streams: 1,
        });
        assert!(Pin::new(&mut muxer).poll(&mut cx).is_pending());
        assert!(Pin::new(&mut muxer).poll_inbound(&mut cx).is_ready());
        assert!(is_negotiating());
        assert!(Pin::new(&mut muxer).poll(&mut cx).is_pending());
        assert!(Pin::new(&mut muxer).poll_inbound(&mut cx).is_pending());
        assert!(!is_negotiating());
    }

    #[test]
    fn an_idle_turn_drives_it_once_and_no_turn_leaves_it_out() {
        let mut muxer = OnceATurn::new(Counting {
            driven: 0,
            streams: 0,
        });
        let mut room = 2;
        turn(&mut muxer, &mut room);
        assert_eq!(
            [turn(&mut muxer, &mut room), turn(&mut muxer, &mut room)],
            [1, 1]
        );
        muxer.inner.streams = 3;
        assert!(turn(&mut muxer, &mut room) > 1);
        assert_eq!((room, muxer.inner.streams), (0, 1), "no room for the last");
        assert_eq!(
            [turn(&mut muxer, &mut room), turn(&mut muxer, &mut room)],
            [1, 1]
        );
        room = 1;
        assert!(turn(&mut muxer, &mut room) >= 1);
        assert_eq!(muxer.inner.streams, 0);
        room = 1;
        turn(&mut muxer, &mut room);
        assert_eq!(turn(&mut muxer, &mut room), 1);
    }
}
