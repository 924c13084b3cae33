//! What a thread lends to its connections: a place to read into, and a small buffer.
//!
//! A beat takes the spare buffer, and returns it a moment later: it allocates nothing, and the
//! connection holds nothing until the next.
//!
//! Both are taken out while they are in use. Whatever asks meanwhile, such as a reader that itself
//! reads frames, gets new ones; of two that come back one is kept.

use std::{cell::Cell, mem};

use bytes::BytesMut;

/// Bytes read at a time, as by the published crate.
const SCRATCH: usize = 8 * 1024;

/// The size of the spare buffer: that of most frames, and the most that a connection holds for a
/// frame of which only a part has come, and which is not longer.
const KEPT: usize = 512;

thread_local! {
    static SCRATCHES: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static SPARE: Cell<Option<BytesMut>> = const { Cell::new(None) };
}

/// Calls `read` with [`SCRATCH`] bytes of any content.
pub(crate) fn with_scratch<R>(read: impl FnOnce(&mut [u8]) -> R) -> R {
    // While the thread ends there may be none.
    let mut scratch = SCRATCHES.try_with(Cell::take).unwrap_or_default();
    scratch.resize(SCRATCH, 0);
    let result = read(&mut scratch);
    let _ = SCRATCHES.try_with(|kept| kept.set(scratch));
    result
}

/// Gives an empty `buffer` room for `bytes`; one that has it already is left as it is.
pub(crate) fn lend(buffer: &mut BytesMut, bytes: usize) {
    if buffer.capacity() >= bytes.max(1) {
        return;
    }
    *buffer = if bytes > KEPT {
        BytesMut::with_capacity(bytes)
    } else {
        let spare = SPARE.try_with(Cell::take).ok().flatten();
        spare.unwrap_or_else(|| BytesMut::with_capacity(KEPT))
    };
}

/// Takes the memory of an empty `buffer`.
pub(crate) fn take_back(buffer: &mut BytesMut) {
    let mut buffer = mem::take(buffer);
    // Neither more than the spare may have, nor what a frame still uses.
    if !buffer.try_reclaim(KEPT + 1) && buffer.try_reclaim(KEPT) {
        let _ = SPARE.try_with(|spare| spare.set(Some(buffer)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffer that was lent and has `bytes` bytes.
    fn filled(bytes: usize) -> BytesMut {
        let mut buffer = BytesMut::new();
        lend(&mut buffer, bytes);
        buffer.resize(bytes, 1);
        buffer
    }

    fn spare() -> Option<BytesMut> {
        SPARE.take()
    }

    #[test]
    fn a_buffer_that_came_back_is_lent_again_from_its_begin() {
        let mut first = filled(KEPT);
        let place = first.as_ptr();
        // As after a frame was taken, and its memory has two owners for a moment.
        drop(first.split_to(KEPT).freeze());
        take_back(&mut first);
        assert_eq!(first.capacity(), 0);

        let mut second = filled(1);
        assert_eq!((second.as_ptr(), second.capacity()), (place, KEPT));
        assert_ne!(filled(1).as_ptr(), place, "it is lent to one");
        second.clear();
        take_back(&mut second);
        assert_eq!(filled(KEPT).as_ptr(), place);
    }

    #[test]
    fn a_buffer_of_a_byte_more_is_not_kept() {
        for (bytes, kept) in [(KEPT, true), (KEPT + 1, false), (100 * KEPT, false)] {
            for taken in [0, 1, KEPT / 2, KEPT, bytes] {
                let mut buffer = filled(bytes);
                drop(buffer.split_to(taken));
                buffer.clear();
                take_back(&mut buffer);
                assert_eq!(spare().is_some(), kept, "{bytes} bytes, {taken} taken");
            }
        }
        let mut grown = filled(KEPT);
        grown.resize(KEPT + 1, 1);
        grown.clear();
        take_back(&mut grown);
        assert_eq!(spare(), None);
    }

    #[test]
    fn a_buffer_that_a_frame_still_uses_is_not_kept() {
        for (bytes, taken) in [(10, 10), (KEPT, 1), (KEPT, KEPT), (10 * KEPT, 10 * KEPT)] {
            let mut buffer = filled(bytes);
            let frame = buffer.split_to(taken).freeze();
            buffer.clear();
            take_back(&mut buffer);
            assert_eq!(spare(), None, "{bytes} bytes, {taken} taken");
            assert_eq!(frame, vec![1; taken]);
        }
    }

    #[test]
    fn room_that_a_codec_has_made_is_left_as_it_is() {
        let mut buffer = BytesMut::with_capacity(10 * KEPT);
        let place = buffer.as_ptr();
        lend(&mut buffer, 10 * KEPT);
        assert_eq!((buffer.as_ptr(), buffer.capacity()), (place, 10 * KEPT));
    }

    #[test]
    fn what_reads_within_a_read_has_a_scratch_buffer_of_its_own() {
        let outer = with_scratch(|outer| {
            outer.fill(1);
            let inner = with_scratch(|inner| {
                inner.fill(2);
                inner.as_ptr()
            });
            assert!(outer.iter().all(|byte| *byte == 1));
            assert_ne!(inner, outer.as_ptr());
            outer.as_ptr()
        });
        with_scratch(|next| {
            assert_eq!((next.as_ptr(), next.len()), (outer, SCRATCH));
            assert!(next.iter().all(|byte| *byte == 1), "the one that was kept");
        });
    }
}
