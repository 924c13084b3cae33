//! One direction: frames that come.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use futures_core::Stream;
use futures_io::AsyncRead;

use crate::{Decoder, reading::Reading};

/// A stream of the frames that an [`AsyncRead`] has.
pub struct FramedRead<T, D> {
    io: T,
    decoder: D,
    reading: Reading,
}

impl<T, D> FramedRead<T, D>
where
    T: AsyncRead,
    D: Decoder,
{
    /// Frames that `decoder` finds in `inner`.
    pub fn new(inner: T, decoder: D) -> Self {
        Self {
            io: inner,
            decoder,
            reading: Reading::default(),
        }
    }

    /// The reader. What was read and not decoded is lost.
    pub fn into_inner(self) -> T {
        self.io
    }

    /// What was read and is not decoded.
    pub fn read_buffer(&self) -> &BytesMut {
        &self.reading.buffer
    }
}

/// Nothing in it is pinned but the reader.
impl<T: Unpin, D> Unpin for FramedRead<T, D> {}

impl<T, D> Stream for FramedRead<T, D>
where
    T: AsyncRead + Unpin,
    D: Decoder,
{
    type Item = Result<D::Item, D::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.reading.poll_frame(&mut this.io, &mut this.decoder, cx)
    }
}
