//! One direction: frames that go.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use futures_io::AsyncWrite;
use futures_sink::Sink;

use crate::{Encoder, writing::Writing};

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

impl<T, E> Sink<E::Item<'_>> for FramedWrite<T, E>
where
    T: AsyncWrite + Unpin,
    E: Encoder,
{
    type Error = E::Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let this = self.get_mut();
        this.writing
            .poll_ready(&mut this.io, cx)
            .map_err(Into::into)
    }

    fn start_send(self: Pin<&mut Self>, item: E::Item<'_>) -> Result<(), Self::Error> {
        let this = self.get_mut();
        this.writing.encode(&mut this.encoder, item)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let this = self.get_mut();
        this.writing
            .poll_flush(&mut this.io, cx)
            .map_err(Into::into)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let this = self.get_mut();
        this.writing
            .poll_close(&mut this.io, cx)
            .map_err(Into::into)
    }
}
