//! What connections hold, and when it goes back.

mod script;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use asynchronous_codec::{Decoder, Encoder, Framed, FramedRead, FramedWrite};
use bytes::{Buf, BytesMut};
use futures_core::Stream;
use futures_io::AsyncRead;
use futures_sink::Sink;
use script::{Connection, Step};

/// Frames of a length, of which only the count and the place in memory matter.
struct Blocks {
    length: usize,
    places: Vec<*const u8>,
}

impl Blocks {
    fn of(length: usize) -> Self {
        Self {
            length,
            places: Vec::new(),
        }
    }
}

impl Decoder for Blocks {
    type Item = ();
    type Error = io::Error;

    fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<()>> {
        if src.len() < self.length {
            return Ok(None);
        }
        self.places.push(src.as_ptr());
        src.advance(self.length);
        Ok(Some(()))
    }
}

impl Encoder for Blocks {
    type Item<'a> = ();
    type Error = io::Error;

    fn encode(&mut self, (): (), dst: &mut BytesMut) -> io::Result<()> {
        dst.resize(dst.len() + self.length, 3);
        self.places.push(dst.as_ptr());
        Ok(())
    }
}

fn next<S: Stream + Unpin>(stream: &mut S) -> Poll<Option<S::Item>> {
    Pin::new(stream).poll_next(&mut Context::from_waker(Waker::noop()))
}

fn send<S: Sink<(), Error = io::Error> + Unpin>(sink: &mut S) -> Poll<io::Result<()>> {
    assert!(Pin::new(&mut *sink).start_send(()).is_ok());
    flush(sink)
}

fn flush<S: Sink<(), Error = io::Error> + Unpin>(sink: &mut S) -> Poll<io::Result<()>> {
    Pin::new(sink).poll_flush(&mut Context::from_waker(Waker::noop()))
}

/// `frames` frames of 100 bytes, each of which has come when the last one was answered; and then
/// nothing.
fn beats(frames: usize) -> Connection {
    let (read, write, flush) = (Step::AtMost(100), Step::AtMost(100), Step::AtMost(0));
    let mut steps = [read, write, flush].repeat(frames);
    steps.push(Step::Pending);
    Connection::new(vec![3; 100 * frames], steps)
}

#[test]
fn beats_of_all_connections_use_the_same_memory_and_leave_none() {
    let mut connections = [0; 3].map(|_| Framed::new(beats(10), Blocks::of(100)));
    for _ in 0..10 {
        for connection in &mut connections {
            assert!(matches!(next(connection), Poll::Ready(Some(Ok(())))));
            assert_eq!(connection.read_buffer().capacity(), 0);
            assert!(matches!(send(connection), Poll::Ready(Ok(()))));
        }
    }
    let mut places = Vec::new();
    for mut connection in connections {
        assert!(next(&mut connection).is_pending());
        let parts = connection.into_parts();
        assert_eq!(
            (parts.read_buffer.capacity(), parts.write_buffer.capacity()),
            (0, 0)
        );
        assert_eq!(parts.codec.places.len(), 20);
        places.extend(parts.codec.places);
    }
    places.dedup();
    assert_eq!(places.len(), 1, "one buffer for all");
}

#[test]
fn a_burst_comes_whole_and_its_memory_goes_back() {
    const FRAME: usize = 1 << 20;
    let mut framed = Framed::new(
        Connection::new(vec![3; 3 * FRAME], Vec::new()),
        Blocks::of(FRAME),
    );
    for _ in 0..3 {
        assert!(matches!(next(&mut framed), Poll::Ready(Some(Ok(())))));
    }
    assert!(matches!(next(&mut framed), Poll::Ready(None)));
    assert_eq!(framed.read_buffer().capacity(), 0);
    for _ in 0..3 {
        assert!(matches!(send(&mut framed), Poll::Ready(Ok(()))));
    }
    let parts = framed.into_parts();
    assert_eq!(parts.io.written.len(), 3 * FRAME);
    assert_eq!(
        (parts.read_buffer.capacity(), parts.write_buffer.capacity()),
        (0, 0)
    );
}

#[test]
fn a_frame_that_has_come_in_part_is_kept_and_holds_little() {
    let steps = vec![
        Step::AtMost(99),
        Step::Pending,
        Step::AtMost(1),
        Step::Pending,
    ];
    let mut read = FramedRead::new(Connection::new(vec![3; 100], steps), Blocks::of(100));
    assert!(next(&mut read).is_pending());
    assert_eq!(read.read_buffer().len(), 99);
    assert!(read.read_buffer().capacity() <= 512);
    // Meanwhile another one reads, with memory of its own.
    let mut other = FramedRead::new(beats(1), Blocks::of(100));
    assert!(matches!(next(&mut other), Poll::Ready(Some(Ok(())))));

    assert!(matches!(next(&mut read), Poll::Ready(Some(Ok(())))));
    assert_eq!(read.read_buffer().capacity(), 0);
}

#[test]
fn what_the_writer_does_not_take_is_kept() {
    let steps = vec![
        Step::AtMost(60),
        Step::Pending,
        Step::AtMost(10),
        Step::Fails,
    ];
    let mut write = FramedWrite::new(Connection::new(Vec::new(), steps), Blocks::of(100));
    assert!(send(&mut write).is_pending());
    assert!(matches!(flush(&mut write), Poll::Ready(Err(_))));
    assert!(matches!(flush(&mut write), Poll::Ready(Ok(()))));
    assert_eq!(write.into_inner().written, [3; 100]);
}

#[test]
fn an_item_without_bytes_leaves_no_memory() {
    let connection = Connection::new(Vec::new(), Vec::new());
    let mut framed = Framed::new(connection, Blocks::of(0));
    assert!(Pin::new(&mut framed).start_send(()).is_ok());
    assert_eq!(framed.into_parts().write_buffer.capacity(), 0);
}

/// A reader of bytes in frames: each frame is a byte here.
struct Within(FramedRead<Connection, Blocks>);

impl AsyncRead for Within {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        buf[0] = 9;
        Pin::new(&mut self.0).poll_next(cx).map(|frame| {
            let frame = frame.transpose()?;
            assert_eq!(buf[0], 9, "another place to read into");
            Ok(frame.map_or(0, |()| 1))
        })
    }
}

#[test]
fn frames_within_frames() {
    let inner = FramedRead::new(Connection::new(vec![3; 1_000], Vec::new()), Blocks::of(100));
    let mut outer = FramedRead::new(Within(inner), Blocks::of(5));
    for _ in 0..2 {
        assert!(matches!(next(&mut outer), Poll::Ready(Some(Ok(())))));
    }
    assert!(matches!(next(&mut outer), Poll::Ready(None)));
    assert_eq!(outer.read_buffer().capacity(), 0);
    assert_eq!(outer.into_inner().0.read_buffer().capacity(), 0);
}
