//! Does as the published crate does: both get the same connection, which takes and gives bytes,
//! waits and fails as a script says, and the same operations. Frames, bytes, errors and each call
//! of the connection must be the same; beside that, what is empty must hold no memory.

mod script;

use std::{
    fmt::Debug,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use asynchronous_codec as ours;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_core::Stream;
use futures_sink::Sink;
use proptest::{collection::vec, prelude::*};
use script::{Connection, Step};

/// Frames with a length of two bytes before them.
#[derive(Debug, Default)]
struct Lengths {
    /// The bytes in the buffer at each call.
    decoded: Vec<usize>,
}

/// This length is refused.
const REFUSED: u16 = u16::MAX;
/// A frame that begins with this cannot be encoded as a whole.
const UNSENDABLE: u8 = 0xEE;

impl Lengths {
    fn take(src: &mut BytesMut) -> io::Result<Option<Bytes>> {
        let Some(length) = src.first_chunk().map(|length| u16::from_be_bytes(*length)) else {
            return Ok(None);
        };
        if length == REFUSED {
            src.advance(2);
            return Err(io::ErrorKind::InvalidData.into());
        }
        let length = usize::from(length);
        if src.len() < 2 + length {
            return Ok(None);
        }
        src.advance(2);
        // It shares the memory of the buffer, as Noise's frames do.
        Ok(Some(src.split_to(length).freeze()))
    }

    /// At the end, two bytes or three are a frame, too.
    fn take_last(src: &mut BytesMut) -> io::Result<Option<Bytes>> {
        match src.len() {
            2..=3 => Ok(Some(src.split().freeze())),
            _ => Self::take(src),
        }
    }

    fn put(item: &[u8], dst: &mut BytesMut) -> io::Result<()> {
        if item.first() == Some(&UNSENDABLE) {
            dst.put_u8(UNSENDABLE);
            return Err(io::ErrorKind::InvalidInput.into());
        }
        dst.put_u16(item.len().try_into().expect("short frames"));
        dst.put_slice(item);
        Ok(())
    }
}

/// What is done with a [`ours::Framed`], and with the published one.
#[derive(Clone, Debug)]
enum Operation {
    Next,
    /// If it is ready for it.
    Send(Vec<u8>),
    /// Whether it is ready or not.
    Push(Vec<u8>),
    Flush,
    Close,
    /// Goes on with the parts.
    Rebuild,
}

/// All that can be seen of a run.
#[derive(Debug, PartialEq)]
struct Seen {
    results: Vec<String>,
    io: Connection,
    decoded: Vec<usize>,
    unread: Vec<u8>,
    unwritten: Vec<u8>,
}

fn shown<T: Debug>(what: &str, polled: Poll<Result<T, io::Error>>) -> String {
    // The texts of errors may differ.
    format!(
        "{what}: {:?}",
        polled.map(|done| done.map_err(|error| error.kind()))
    )
}

/// A function that runs operations, and the codec, for one of the two crates.
macro_rules! subject {
    ($run:ident, $library:ident, $frugal:expr) => {
        impl $library::Encoder for Lengths {
            type Item<'a> = &'a [u8];
            type Error = io::Error;

            fn encode(&mut self, item: &[u8], dst: &mut BytesMut) -> io::Result<()> {
                Self::put(item, dst)
            }
        }

        impl $library::Decoder for Lengths {
            type Item = Bytes;
            type Error = io::Error;

            fn decode(&mut self, src: &mut BytesMut) -> io::Result<Option<Bytes>> {
                self.decoded.push(src.len());
                Self::take(src)
            }

            fn decode_eof(&mut self, src: &mut BytesMut) -> io::Result<Option<Bytes>> {
                self.decoded.push(src.len());
                Self::take_last(src)
            }
        }

        fn $run(io: Connection, mark: usize, operations: &[Operation]) -> Seen {
            let mut framed = $library::Framed::new(io, Lengths::default());
            framed.set_send_high_water_mark(mark);
            let mut results = Vec::new();
            // Frames are kept, so that their memory is in use while the buffer goes on.
            let mut frames = Vec::new();
            let cx = &mut Context::from_waker(Waker::noop());
            for operation in operations {
                let mut pinned = Pin::new(&mut framed);
                let result = match operation {
                    Operation::Next => {
                        let next = pinned.poll_next(cx).map(Option::transpose);
                        if let Poll::Ready(Ok(Some(frame))) = &next {
                            frames.push(frame.clone());
                        }
                        shown("next", next)
                    }
                    Operation::Send(item) => {
                        let ready = pinned.as_mut().poll_ready(cx);
                        shown(
                            "send",
                            ready.map(|ready| ready.and_then(|()| pinned.start_send(item))),
                        )
                    }
                    Operation::Push(item) => shown("send", Poll::Ready(pinned.start_send(item))),
                    Operation::Flush => shown("flush", Sink::<&[u8]>::poll_flush(pinned, cx)),
                    Operation::Close => shown("close", Sink::<&[u8]>::poll_close(pinned, cx)),
                    Operation::Rebuild => {
                        let parts = framed.into_parts();
                        if $frugal {
                            holds_nothing_if_empty(&parts.read_buffer);
                            holds_nothing_if_empty(&parts.write_buffer);
                        }
                        framed = $library::Framed::from_parts(parts.map_codec(|codec| codec));
                        framed.set_send_high_water_mark(mark);
                        String::new()
                    }
                };
                results.push(result);
            }
            let mut parts = framed.into_parts();
            // At the end the published crate asks twice.
            parts.codec.decoded.dedup();
            Seen {
                results,
                io: parts.io,
                decoded: parts.codec.decoded,
                unread: parts.read_buffer.to_vec(),
                unwritten: parts.write_buffer.to_vec(),
            }
        }
    };
}

fn holds_nothing_if_empty(buffer: &BytesMut) {
    assert!(
        !buffer.is_empty() || buffer.capacity() == 0,
        "{} bytes held",
        buffer.capacity()
    );
}

subject!(run_ours, ours, true);
subject!(run_published, published, false);

fn compare(io: Connection, mark: usize, operations: &[Operation]) -> Result<(), TestCaseError> {
    let published = run_published(io.clone(), mark, operations);
    prop_assert_eq!(run_ours(io, mark, operations), published);
    Ok(())
}

fn twenty(operations: [Operation; 2]) -> Vec<Operation> {
    vec![operations; 20].concat()
}

/// A frame: most are short, some are longer than what is read at a time.
fn item() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..20),
        1 => (0..20_000_usize).prop_map(|length| vec![7; length]),
        1 => Just(vec![UNSENDABLE, 1]),
    ]
}

/// What comes: frames, a length that is refused, and anything.
fn incoming() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => item().prop_map(|item| {
            let mut bytes = BytesMut::new();
            bytes.put_u16(item.len().try_into().expect("short frames"));
            bytes.put_slice(&item);
            bytes.to_vec()
        }),
        1 => Just(REFUSED.to_be_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..4),
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..12_usize).prop_map(Step::AtMost),
        3 => (1..30_000_usize).prop_map(Step::AtMost),
        4 => Just(Step::Pending),
        1 => Just(Step::Fails),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => Just(Operation::Next),
        4 => item().prop_map(Operation::Send),
        1 => item().prop_map(Operation::Push),
        2 => Just(Operation::Flush),
        1 => Just(Operation::Rebuild),
        1 => Just(Operation::Close),
    ]
}

/// High-water marks, the default among them. At 0 both write nothing, and call that an error.
fn mark() -> impl Strategy<Value = usize> {
    prop_oneof![0..64_usize, Just(1 << 17)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn same_frames_for_the_same_bytes_however_they_are_cut(
        incoming in incoming(),
        steps in vec(step(), 0..60),
    ) {
        let io = Connection::new(incoming, steps);
        compare(io, 1 << 17, &twenty([Operation::Next, Operation::Rebuild]))?;
    }

    #[test]
    fn same_bytes_for_the_same_items_whatever_the_writer_takes(
        items in vec(item(), 0..20),
        steps in vec(step(), 0..60),
        mark in mark(),
    ) {
        let mut operations: Vec<_> = items.into_iter().map(Operation::Send).collect();
        operations.extend(twenty([Operation::Flush, Operation::Rebuild]));
        compare(Connection::new(Vec::new(), steps), mark, &operations)?;
    }

    #[test]
    fn same_calls_and_results_for_any_operations(
        incoming in incoming(),
        steps in vec(prop_oneof![20 => step(), 1 => Just(Step::AtMost(0))], 0..60),
        mark in mark(),
        operations in vec(operation(), 0..60),
    ) {
        compare(Connection::new(incoming, steps), mark, &operations)?;
    }

    #[test]
    fn same_back_pressure_at_the_mark_one_byte_below_and_one_above(
        length in 1..200_usize,
        offset in 0..3_usize,
        steps in vec(step(), 0..10),
    ) {
        let frame = 2 + length;
        let mark = frame + offset - 1;
        let send = Operation::Send(vec![1; length]);
        compare(Connection::new(Vec::new(), steps), mark, &[send.clone(), send.clone(), send])?;
    }
}

#[test]
fn the_default_mark_is_the_published_one() {
    let io = || Connection::new(Vec::new(), Vec::new());
    let expected = published::Framed::new(io(), Lengths::default()).send_high_water_mark();
    assert_eq!(
        ours::Framed::new(io(), Lengths::default()).send_high_water_mark(),
        expected
    );
    assert_eq!(
        ours::FramedWrite::new(io(), Lengths::default()).send_high_water_mark(),
        expected
    );
}
