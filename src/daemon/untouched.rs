//! Memory that a process takes only as it writes to it.
//!
//! An allocator writes a header before each block, so a block that is never used still takes a page
//! of memory. Kademlia makes its 256 buckets with room for all their peers, nearly all of them stay
//! empty for ever, and they are most of an idle native's heap: 640 KiB. What is made within
//! [`keeping`] has its large blocks in a place of their own, without headers.
//!
//! Invariant: a block of this place is never used again, so only what lives as long as the process
//! is made so.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Room for the buckets, which take the most on 64 bits. What finds no room is on the heap.
const ROOM: usize = 768 * 1024;
/// Smaller blocks are on the heap: several of them share a page anyway.
const LARGE: usize = 1024;
/// No block here has a greater alignment.
const ALIGN: usize = align_of::<u128>();
/// In words of the greatest alignment.
static mut PLACE: [u128; ROOM / ALIGN] = [0; ROOM / ALIGN];
static USED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static KEEPING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `make`. If the process has the [`Allocator`], the large blocks that this thread allocates
/// meanwhile take memory only as they are written to.
pub(super) fn keeping<T>(make: impl FnOnce() -> T) -> T {
    KEEPING.set(true);
    let made = make();
    KEEPING.set(false);
    made
}

/// The allocator of the program: that of the system, and the place for what is kept.
pub struct Allocator;

// SAFETY: blocks of the place are given out once each, have the size and the alignment that were
// asked for, and are never freed. Everything else is passed on to the allocator of the system,
// which gave out every other block.
#[expect(
    unsafe_code,
    reason = "no allocator of the system leaves the pages of a block untouched"
)]
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(block) = kept(layout) {
            return block;
        }
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !is_kept(block) {
            // SAFETY: as above, and the block is the system's.
            unsafe { System.dealloc(block, layout) }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !is_kept(block) {
            // SAFETY: as above, and the block is the system's.
            return unsafe { System.realloc(block, layout, size) };
        }
        // SAFETY: the caller promises that this layout is valid. The old block has
        // `layout.size()` bytes, the new one `size`, and they are not the same memory.
        unsafe {
            let larger = System.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !larger.is_null() {
                larger.copy_from_nonoverlapping(block, layout.size().min(size));
            }
            larger
        }
    }
}

/// A block of the place, if blocks are being kept and there is room.
fn kept(layout: Layout) -> Option<*mut u8> {
    if !KEEPING.get() || layout.size() < LARGE || layout.align() > ALIGN {
        return None;
    }
    let take = |used: usize| {
        let end = used.checked_add(layout.size().checked_next_multiple_of(ALIGN)?)?;
        (end <= ROOM).then_some(end)
    };
    let at = USED.fetch_update(Relaxed, Relaxed, take).ok()?;
    Some(start().wrapping_add(at))
}

fn is_kept(block: *const u8) -> bool {
    block.addr().wrapping_sub(start().addr()) < ROOM
}

fn start() -> *mut u8 {
    (&raw mut PLACE).cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only test that takes from the place, so that it can know what is left.
    #[test]
    #[expect(unsafe_code, reason = "an allocator cannot be called without")]
    fn large_blocks_are_kept_while_there_is_room_and_meanwhile_only() {
        let large = Layout::from_size_align(LARGE, ALIGN).unwrap();
        let small = Layout::from_size_align(LARGE - 1, 1).unwrap();
        let odd = Layout::from_size_align(LARGE + 1, 1).unwrap();
        let aligned = Layout::from_size_align(LARGE, 2 * ALIGN).unwrap();
        assert_eq!(kept(large), None);
        keeping(|| {
            assert_eq!(kept(small), None);
            assert_eq!(kept(aligned), None);
            let (first, second) = (kept(odd).unwrap(), kept(large).unwrap());
            assert_eq!(second.addr() - first.addr(), LARGE + ALIGN);
            assert_eq!(second.addr() % ALIGN, 0);
            let block = unsafe { Allocator.alloc(odd) };
            assert!(is_kept(block));
            unsafe {
                block.write_bytes(7, odd.size());
                let larger = Allocator.realloc(block, odd, 2 * odd.size());
                assert!(!is_kept(larger));
                assert_eq!(larger.add(LARGE).read(), 7);
                let whole = Layout::from_size_align(2 * odd.size(), 1).unwrap();
                Allocator.dealloc(larger, whole);
                Allocator.dealloc(block, odd);
            }
            let rest = ROOM - USED.load(Relaxed);
            let [too_large, whole] =
                [rest + 1, rest].map(|size| Layout::from_size_align(size, 1).unwrap());
            assert_eq!(kept(too_large), None);
            let last = kept(whole).unwrap();
            assert!(is_kept(last.wrapping_add(rest - 1)) && !is_kept(last.wrapping_add(rest)));
            assert_eq!(kept(large), None);
        });
        assert_eq!(kept(large), None);
    }
}
