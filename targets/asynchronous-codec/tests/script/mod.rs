//! A connection that does what a script says, and keeps each call.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use futures_io::{AsyncRead, AsyncWrite};

/// What the next call does. Without a further step, all that is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Reads or writes this many bytes at most.
    AtMost(usize),
    Pending,
    Fails,
}

/// A call, and the bytes that the caller had room for or offered.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    Read(usize),
    Write(usize),
    Flush,
    Close,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connection {
    incoming: VecDeque<u8>,
    steps: VecDeque<Step>,
    pub written: Vec<u8>,
    pub calls: Vec<Call>,
}

impl Connection {
    pub fn new(incoming: Vec<u8>, steps: Vec<Step>) -> Self {
        Self {
            incoming: incoming.into(),
            steps: steps.into(),
            ..Self::default()
        }
    }

    /// How many bytes of `most` the next step lets through.
    fn step(&mut self, call: Call, most: usize) -> Poll<io::Result<usize>> {
        self.calls.push(call);
        match self.steps.pop_front() {
            None => Poll::Ready(Ok(most)),
            Some(Step::AtMost(bytes)) => Poll::Ready(Ok(bytes.min(most))),
            Some(Step::Pending) => Poll::Pending,
            Some(Step::Fails) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let most = self.incoming.len().min(buf.len());
        self.step(Call::Read(buf.len()), most).map_ok(|bytes| {
            for (to, from) in buf.iter_mut().zip(self.incoming.drain(..bytes)) {
                *to = from;
            }
            bytes
        })
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.step(Call::Write(buf.len()), buf.len())
            .map_ok(|bytes| {
                self.written.extend_from_slice(&buf[..bytes]);
                bytes
            })
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.step(Call::Flush, 0).map_ok(|_| ())
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.step(Call::Close, 0).map_ok(|_| ())
    }
}
