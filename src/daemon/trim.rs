//! Gives memory back after many peers have left, for any reason.
//!
//! glibc keeps the memory of a thousand closed connections for the next thousand. On a device with
//! little memory, other processes need it more. So the heap is trimmed when the number of some
//! thing has fallen to half of its highest value since the last trim. This is checked for things
//! that empty at different times: connections when peers disconnect, the core's tables when leases
//! expire, DHT records when their time to live is over. Connections, handshakes and requests can
//! come and go between two checks, so the highest number since the last check counts. Measured on
//! x86_64: after 500 connections have come and gone, resident memory stays at 14 MB without
//! trimming, and falls to 3.2 MB with it. The pages of tables that are no longer used are given
//! back too: 0.6 MB after 1000 nodes.

use std::ops::Range;

use crate::protocol::table::Vacant;

/// If there were never more than this, a trim is not worth its cost.
const WORTH_IT: usize = 32;

/// The highest number of each thing since the last trim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Peaks(Vec<(&'static str, usize)>);

impl Peaks {
    /// Takes note of the number of each thing; each name comes once. Returns whether a trim
    /// is due. If so, the present numbers are the highest ones from now on.
    pub(super) fn look(&mut self, used: &[(&'static str, usize)]) -> bool {
        let mut due = false;
        for (name, used) in used {
            match self.0.iter_mut().find(|(known, _)| known == name) {
                Some((_, most)) => {
                    *most = (*most).max(*used);
                    due |= *most >= WORTH_IT && *used <= *most / 2;
                }
                None => self.0.push((name, *used)),
            }
        }
        if due {
            self.0 = used.to_vec();
        }
        due
    }

    /// Takes note that there were this many at once since the last call.
    pub(super) fn saw(&mut self, name: &'static str, most: usize) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = most.max(*known),
            None => self.0.push((name, most)),
        }
    }
}

/// Which heap this process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heap {
    /// Its own.
    Own,
    /// That of the program in which it is embedded, which decides when it is trimmed.
    OfHost,
}

/// Returns memory to the system that the tables of the core and the own heap do not need now. This
/// takes about a millisecond for each ten megabytes.
pub(super) fn trim<'w>(spare: impl IntoIterator<Item = Vacant<'w>>, heap: Heap) {
    spare.into_iter().for_each(give_back);
    if heap == Heap::Own {
        trim_heap();
    }
}

/// Gives the whole pages within `spare` back. They read as zeroes from now on. If the call fails
/// they stay, which does no harm.
#[expect(
    unsafe_code,
    reason = "the tables are static: no allocator could give their memory back"
)]
fn give_back(spare: Vacant<'_>) {
    let page = rustix::param::page_size();
    let Range { start, end } = spare.bytes();
    let before = start.align_offset(page);
    let length = end.addr() - start.addr();
    let whole = length.saturating_sub(before) / page * page;
    if whole > 0 {
        // SAFETY: the pages are within `spare`, which is borrowed until here and may hold any
        // bytes; see its invariant.
        unsafe {
            libc::madvise(
                start.wrapping_add(before).cast(),
                whole,
                libc::MADV_DONTNEED,
            );
        }
    }
}

#[cfg(target_env = "gnu")]
#[expect(
    unsafe_code,
    reason = "no safe interface exists, and nothing else gives the memory back: see the figures above"
)]
fn trim_heap() {
    // SAFETY: malloc_trim(3) takes no pointer, keeps every live allocation valid, and may be called
    // by any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators give memory back by themselves, or have no call for it.
#[cfg(not(target_env = "gnu"))]
fn trim_heap() {}

#[cfg(all(test, feature = "program"))]
mod tests {
    use std::{mem::MaybeUninit, time::Duration};

    use static_cell::ConstStaticCell;

    use super::*;
    use crate::protocol::{
        Addrs, Beat, Indexer, IndexerConfig, Instant, MAX_ENVELOPE_LEN, Machine, PeerId,
        RecordInfo, Role, SignedRecord, StreamId, Terms,
    };

    #[test]
    fn trims_when_half_of_the_most_have_left_and_once() {
        let mut peaks = Peaks::default();
        for (used, due) in [
            (100, false),
            (51, false),
            (50, true),
            (50, false),
            (26, false),
            (25, true),
            // Too few for a trim.
            (0, false),
        ] {
            assert_eq!(peaks.look(&[("nodes", used)]), due, "{used}");
        }
    }

    #[test]
    fn whatever_empties_is_a_reason_also_after_all_else_has() {
        let mut peaks = Peaks::default();
        assert!(!peaks.look(&[("connections", 300), ("nodes", 300), ("records", 300)]));
        assert!(peaks.look(&[("connections", 0), ("nodes", 300), ("records", 300)]));
        assert!(!peaks.look(&[("connections", 0), ("nodes", 151), ("records", 300)]));
        assert!(peaks.look(&[("connections", 0), ("nodes", 150), ("records", 300)]));
        assert!(peaks.look(&[("connections", 0), ("nodes", 0), ("records", 0)]));
        assert!(!peaks.look(&[("connections", 0), ("nodes", 0), ("records", 0)]));
    }

    #[test]
    fn a_wave_that_came_and_went_since_the_last_look_counts() {
        for (most, due) in [(WORTH_IT, true), (WORTH_IT - 1, false)] {
            let mut peaks = Peaks::default();
            peaks.saw("handshakes", most);
            assert_eq!(peaks.look(&[("handshakes", 0)]), due, "{most}");
            assert!(!peaks.look(&[("handshakes", 0)]), "{most}");
        }
        let mut peaks = Peaks::default();
        peaks.saw("handshakes", 256);
        assert!(!peaks.look(&[("handshakes", 129)]), "not emptied yet");
        peaks.saw("handshakes", 129);
        assert!(peaks.look(&[("handshakes", 128)]));
    }

    static INDEXER: ConstStaticCell<Indexer<512>> = ConstStaticCell::new(Indexer::new());

    fn peer(n: u16) -> PeerId {
        let mut peer = [0; 32];
        peer[..2].copy_from_slice(&n.to_be_bytes());
        PeerId::from_bytes(peer)
    }

    fn beat(indexer: &mut dyn Machine, n: u16, lease: Duration, envelope: &[u8]) {
        let peer = peer(n);
        let info = RecordInfo {
            peer,
            sequence: u64::from(n) + lease.as_secs(),
            issued_at_ms: 0,
            ttl: Duration::from_secs(1),
            addrs: Addrs::new(),
            name: Default::default(),
        };
        let beat = Beat {
            record: (!lease.is_zero()).then_some(SignedRecord { info, envelope }),
            ..Beat::new(Role::Node, lease)
        };
        indexer.beat(Instant::from_millis(0), &peer, StreamId(1), &beat);
    }

    #[test]
    #[expect(
        unsafe_code,
        reason = "to see what is in memory that is uninitialised for the compiler"
    )]
    fn whole_pages_are_given_back_and_their_edges_stay() {
        let page = rustix::param::page_size();
        let mut memory = vec![MaybeUninit::new(7_u8); 5 * page];
        let start = memory.as_ptr().align_offset(page);
        for (from, to) in [(1, 4 * page), (1, page), (page - 1, page + 1)] {
            memory.fill(MaybeUninit::new(7));
            give_back(Vacant::of(&mut memory[start + from..start + to]));
            // SAFETY: every byte was written, here or by the kernel.
            let bytes = memory.iter().map(|byte| unsafe { byte.assume_init() });
            let bytes: Vec<u8> = bytes.collect();
            let zeroes = bytes.iter().filter(|byte| **byte == 0).count();
            let whole = (to / page).saturating_sub(from.div_ceil(page)) * page;
            assert_eq!(zeroes, whole, "{from} to {to}");
            assert_eq!(
                bytes[start + page..].iter().take(whole).max(),
                (whole > 0).then_some(&0)
            );
        }
    }

    #[test]
    fn those_who_stayed_are_found_after_the_pages_of_the_others_were_given_back() {
        let long = [7; MAX_ENVELOPE_LEN];
        let indexer = INDEXER.take();
        let lease = Duration::from_secs(90);
        let config = IndexerConfig {
            terms: Terms {
                lease,
                beat_interval: lease / 3,
            },
            gc_interval: lease,
        };
        let now = Instant::from_millis(0);
        indexer.start(now, PeerId::from_bytes([255; 32]), 1, config);
        for _ in 0..2 {
            for n in 0..200 {
                beat(indexer, n, lease, &long[..usize::from(n) * 5]);
            }
            while indexer.poll(now, 0).is_some() {}
            for n in (0..200).filter(|n| n % 9 != 0) {
                beat(indexer, n, Duration::ZERO, &[]);
            }
            while indexer.poll(now, 0).is_some() {}
            trim(indexer.spare(), Heap::Own);
            for n in 0..200 {
                let found = indexer.listed(now, &peer(n)).map(|found| found.envelope());
                let stayed = n % 9 == 0;
                assert_eq!(found, stayed.then_some(&long[..usize::from(n) * 5]), "{n}");
            }
        }
    }
}
