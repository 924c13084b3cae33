//! One direction: frames that go.

use bytes::BytesMut;
use futures_io::AsyncWrite;

use crate::{
    Encoder,
    writing::{Writing, sink},
};

/// A sink for the frames that an [`AsyncWrite`] is to have.
pub struct FramedWrite<T, E> {
    io: T,
    encoder: E,
    writing: Writing,
}

impl<T, E> FramedWrite<T, E>
where
    T: AsyncWrite,
    E: Encoder,
{
    /// Frames that `encoder` makes, for `inner`.
    pub fn new(inner: T, encoder: E) -> Self {
        Self {
            io: inner,
            encoder,
            writing: Writing::new(BytesMut::new()),
        }
    }

    /// The writer. What was encoded and not written is lost.
    pub fn into_inner(self) -> T {
        self.io
    }

    /// With this many bytes that are not written, it takes no further frame.
    pub fn send_high_water_mark(&self) -> usize {
        self.writing.high_water_mark
    }

    /// Takes no further frame while `bytes` or more are not written. 2^17 by default. It may hold
    /// more: what one frame has beyond this.
    pub fn set_send_high_water_mark(&mut self, bytes: usize) {
        self.writing.high_water_mark = bytes;
    }
}

/// Nothing in it is pinned but the writer.
impl<T: Unpin, E> Unpin for FramedWrite<T, E> {}

sink!(FramedWrite, encoder);
