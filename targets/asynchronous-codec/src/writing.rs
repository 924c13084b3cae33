//! The bytes that were encoded, and are not written yet.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use futures_io::AsyncWrite;

use crate::{Encoder, memory};

/// The published crate's.
const HIGH_WATER_MARK: usize = 1 << 17;

pub(crate) struct Writing {
    pub(crate) buffer: BytesMut,
    /// With this many bytes, it takes no further item.
    pub(crate) high_water_mark: usize,
}

impl Writing {
    pub(crate) fn new(buffer: BytesMut) -> Self {
        Self {
            buffer,
            high_water_mark: HIGH_WATER_MARK,
        }
    }

    /// Ready when there are less bytes than the high-water mark.
    pub(crate) fn poll_ready<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.buffer.len() >= self.high_water_mark {
            ready!(self.poll_some(io, cx))?;
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn encode<E: Encoder>(
        &mut self,
        encoder: &mut E,
        item: E::Item<'_>,
    ) -> Result<(), E::Error> {
        if self.buffer.is_empty() {
            memory::lend(&mut self.buffer, 1);
        }
        let encoded = encoder.encode(item, &mut self.buffer);
        if self.buffer.is_empty() {
            memory::take_back(&mut self.buffer);
        }
        encoded
    }

    /// Ready when all is written, and `io` has flushed it.
    pub(crate) fn poll_flush<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.buffer.is_empty() {
            ready!(self.poll_some(io, cx))?;
        }
        Pin::new(io).poll_flush(cx)
    }

    /// As [`Writing::poll_flush`], and closes `io`.
    pub(crate) fn poll_close<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(io, cx))?;
        Pin::new(io).poll_close(cx)
    }

    fn poll_some<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let written = ready!(Pin::new(io).poll_write(cx, &self.buffer))?;
        if written == 0 {
            // The kind is the published one's.
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.buffer.advance(written);
        if self.buffer.is_empty() {
            memory::take_back(&mut self.buffer);
        }
        Poll::Ready(Ok(()))
    }
}

/// Implements the sink of a type with an `io`, a `writing`, and an encoder in this field.
macro_rules! sink {
    ($framed:ident, $encoder:ident) => {
        impl<T, E> futures_sink::Sink<E::Item<'_>> for $framed<T, E>
        where
            T: AsyncWrite + Unpin,
            E: Encoder,
        {
            type Error = E::Error;

            fn poll_ready(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Result<(), E::Error>> {
                let Self { io, writing, .. } = self.get_mut();
                writing.poll_ready(io, cx).map_err(Into::into)
            }

            fn start_send(
                self: std::pin::Pin<&mut Self>,
                item: E::Item<'_>,
            ) -> Result<(), E::Error> {
                let this = self.get_mut();
                this.writing.encode(&mut this.$encoder, item)
            }

            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Result<(), E::Error>> {
                let Self { io, writing, .. } = self.get_mut();
                writing.poll_flush(io, cx).map_err(Into::into)
            }

            fn poll_close(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Result<(), E::Error>> {
                let Self { io, writing, .. } = self.get_mut();
                writing.poll_close(io, cx).map_err(Into::into)
            }
        }
    };
}
pub(crate) use sink;
