//! `asynchronous-codec`'s `Framed`, whose connections hold no memory while they are idle.
//!
//! The published crate gives each connection 8 KiB to read and 8 KiB to write for as long as it
//! lives, and clears 8 KiB of stack at each read. libp2p has one such pair below every connection
//! (Noise): nearly two thirds of what a lease costs. This package replaces it through
//! `[patch.crates-io]`. Its version must equal the one in `Cargo.lock`; otherwise cargo silently
//! ignores the patch. CI checks that no registry copy is in the tree.
//!
//! ```text
//!          ┌─ memory (one for the thread) ─┐
//!          │ scratch, 8 KiB   a spare      │
//!          └───┬──────────────────▲────┬───┘
//!         read │        when empty│    │ when there is something to hold
//!              ▼                  │    ▼
//!  AsyncRead ──▶ Reading: bytes of no whole frame ──Decoder──▶ Stream
//!  AsyncWrite ◀─ Writing: bytes not yet written   ◀─Encoder── Sink
//! ```
//!
//! Frames, bytes, errors, and the calls of the reader and of the writer are those of the published
//! crate: `tests/published.rs` compares both, call by call. It has what libp2p's crates use. The
//! rest (codecs for lines, lengths, JSON and CBOR; parts of [`FramedRead`] and [`FramedWrite`];
//! `Deref`) is missing, so a crate that needs it does not compile.
//!
//! Invariants: after each call, a buffer without bytes has no memory. A thread keeps at most one
//! scratch buffer, and one spare buffer of 512 bytes (`src/memory.rs`).
//!
//! To retire it: when the published crate gives back what is empty, remove this directory, its
//! lines in `[patch.crates-io]` and its part of `.ci/run`; the tests need nothing else.

#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]

mod framed;
mod framed_read;
mod framed_write;
mod memory;
mod reading;
mod writing;

pub use framed::{Framed, FramedParts};
pub use framed_read::FramedRead;
pub use framed_write::FramedWrite;

use std::io;

use bytes::BytesMut;

/// Makes bytes of items.
pub trait Encoder {
    /// What it takes; it may borrow.
    type Item<'a>;
    /// Why an item cannot be sent, or not written.
    type Error: From<io::Error>;

    /// Appends the bytes of `item` to `dst`.
    ///
    /// # Errors
    /// As the implementation says. What it has appended is sent nevertheless.
    fn encode(&mut self, item: Self::Item<'_>, dst: &mut BytesMut) -> Result<(), Self::Error>;
}

/// Makes items of bytes.
pub trait Decoder {
    /// What it makes.
    type Item;
    /// Why bytes are no item, or cannot be read.
    type Error: From<io::Error>;

    /// Removes the next item from the front of `src`; `None` if it is not there as a whole.
    ///
    /// # Errors
    /// As the implementation says.
    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Self::Item>, Self::Error>;

    /// As [`Decoder::decode`], when no further bytes will come.
    ///
    /// # Errors
    /// As the implementation says.
    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Self::Item>, Self::Error> {
        self.decode(src)
    }
}
