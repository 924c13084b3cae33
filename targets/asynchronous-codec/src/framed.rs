//! Both directions over one connection.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use futures_core::Stream;
use futures_io::{AsyncRead, AsyncWrite};

use crate::{
    Decoder, Encoder,
    reading::Reading,
    writing::{Writing, sink},
};

/// A stream of the frames that an [`AsyncRead`] has, and a sink for those that it, as an
/// [`AsyncWrite`], is to have.
pub struct Framed<T, U> {
    io: T,
    codec: U,
    reading: Reading,
    writing: Writing,
}

impl<T, U> Framed<T, U>
where
    T: AsyncRead + AsyncWrite,
    U: Decoder + Encoder,
{
    /// Frames of `codec` over `inner`.
    pub fn new(inner: T, codec: U) -> Self {
        Self::from_parts(FramedParts {
            io: inner,
            codec,
            read_buffer: BytesMut::new(),
            write_buffer: BytesMut::new(),
        })
    }

    /// The reverse of [`Framed::into_parts`]. The high-water mark is the default.
    pub fn from_parts(parts: FramedParts<T, U>) -> Self {
        Self {
            io: parts.io,
            codec: parts.codec,
            reading: Reading {
                buffer: parts.read_buffer,
            },
            writing: Writing::new(parts.write_buffer),
        }
    }

    /// Its parts, to go on with another codec.
    pub fn into_parts(self) -> FramedParts<T, U> {
        FramedParts {
            io: self.io,
            codec: self.codec,
            read_buffer: self.reading.buffer,
            write_buffer: self.writing.buffer,
        }
    }

    /// The connection. What was read and not decoded, or encoded and not written, is lost.
    pub fn into_inner(self) -> T {
        self.io
    }

    /// The codec.
    pub fn codec(&self) -> &U {
        &self.codec
    }

    /// The codec.
    pub fn codec_mut(&mut self) -> &mut U {
        &mut self.codec
    }

    /// What was read and is not decoded.
    pub fn read_buffer(&self) -> &BytesMut {
        &self.reading.buffer
    }

    /// As [`FramedWrite::send_high_water_mark`](crate::FramedWrite::send_high_water_mark).
    pub fn send_high_water_mark(&self) -> usize {
        self.writing.high_water_mark
    }

    /// As [`FramedWrite::set_send_high_water_mark`](crate::FramedWrite::set_send_high_water_mark).
    pub fn set_send_high_water_mark(&mut self, bytes: usize) {
        self.writing.high_water_mark = bytes;
    }
}

/// Nothing in it is pinned but the connection.
impl<T: Unpin, U> Unpin for Framed<T, U> {}

impl<T, U> Stream for Framed<T, U>
where
    T: AsyncRead + Unpin,
    U: Decoder,
{
    type Item = Result<U::Item, U::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.reading.poll_frame(&mut this.io, &mut this.codec, cx)
    }
}

sink!(Framed, codec);

/// What a [`Framed`] is made of.
#[non_exhaustive]
pub struct FramedParts<T, U> {
    /// The connection.
    pub io: T,
    /// The codec.
    pub codec: U,
    /// What was read and is not decoded.
    pub read_buffer: BytesMut,
    /// What was encoded and is not written.
    pub write_buffer: BytesMut,
}

impl<T, U> FramedParts<T, U> {
    /// The same with another codec.
    pub fn map_codec<V, F>(self, f: F) -> FramedParts<T, V>
    where
        F: FnOnce(U) -> V,
    {
        FramedParts {
            io: self.io,
            codec: f(self.codec),
            read_buffer: self.read_buffer,
            write_buffer: self.write_buffer,
        }
    }
}
