//! The bytes that were read, and are not decoded yet.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use futures_io::AsyncRead;

use crate::{Decoder, memory};

#[derive(Default)]
pub(crate) struct Reading {
    pub(crate) buffer: BytesMut,
}

impl Reading {
    /// The next frame, or an error. It reads no more than that needs, and then returns, so that a
    /// fast peer cannot hold the thread; `None` at the end of `io`.
    pub(crate) fn poll_frame<R, D>(
        &mut self,
        io: &mut R,
        decoder: &mut D,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<D::Item, D::Error>>>
    where
        R: AsyncRead + Unpin,
        D: Decoder,
    {
        let polled = self.poll_undecided(io, decoder, cx);
        if self.buffer.is_empty() {
            memory::take_back(&mut self.buffer);
        }
        polled.map(Result::transpose)
    }

    fn poll_undecided<R, D>(
        &mut self,
        io: &mut R,
        decoder: &mut D,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<D::Item>, D::Error>>
    where
        R: AsyncRead + Unpin,
        D: Decoder,
    {
        loop {
            if let Some(frame) = decoder.decode(&mut self.buffer)? {
                return Poll::Ready(Ok(Some(frame)));
            }
            if ready!(self.poll_more(io, cx))? == 0 {
                return Poll::Ready(self.last(decoder));
            }
        }
    }

    /// Appends what `io` has, at most the scratch buffer; returns the number of bytes, 0 at its
    /// end.
    fn poll_more<R: AsyncRead + Unpin>(
        &mut self,
        io: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        memory::with_scratch(|scratch| {
            let read = ready!(Pin::new(io).poll_read(cx, scratch))?;
            if self.buffer.is_empty() {
                memory::lend(&mut self.buffer, read);
            }
            self.buffer.extend_from_slice(&scratch[..read]);
            Poll::Ready(Ok(read))
        })
    }

    /// A frame that ends where `io` ends.
    fn last<D: Decoder>(&mut self, decoder: &mut D) -> Result<Option<D::Item>, D::Error> {
        match decoder.decode_eof(&mut self.buffer)? {
            None if !self.buffer.is_empty() => {
                let rest = format!("{} bytes of no whole frame at the end", self.buffer.len());
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, rest).into())
            }
            frame => Ok(frame),
        }
    }
}
