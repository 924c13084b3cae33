//! What the process uses of the machine.

use rustix::time::{ClockId, clock_gettime};

/// Resident memory, bytes; `None`: the system does not say.
pub(super) fn resident_bytes() -> Option<u64> {
    // Its size, then how much of it is resident, in pages (proc_pid_statm(5)).
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

/// User and system time so far, ms.
pub(super) fn cpu_ms() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanoseconds) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    seconds
        .saturating_mul(1000)
        .saturating_add(nanoseconds / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_uses_memory_and_time() {
        let resident = resident_bytes().unwrap();
        assert!((100_000..100_000_000_000).contains(&resident), "{resident}");
        let begin = cpu_ms();
        while cpu_ms() == begin {}
    }
}
