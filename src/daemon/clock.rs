//! The two clocks, and whether the second one can be trusted.
//!
//! [`boottime`] drives every timer and lease: it never goes back, and it counts suspend. [`wall`]
//! only signs and judges records. Both are milliseconds. Nothing below `daemon` reads a clock.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// The date of these sources, in milliseconds since the Unix epoch. A clock that is behind it is
/// wrong.
///
/// It comes from `SOURCE_DATE_EPOCH`, or else from the last commit, and is never before the release
/// (see `build.rs`).
pub(crate) const BUILD_MS: u64 = decimal(env!("OC_DISCOVERY_BUILD_MS"));

/// Milliseconds since the machine started, suspend included (`CLOCK_BOOTTIME`).
pub(crate) fn boottime() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(1000)
        .saturating_add(nanoseconds / 1_000_000)
}

/// The time of the system clock, in milliseconds since the Unix epoch; 0 if it is before that.
pub(crate) fn wall() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}

/// Whether the system clock can be trusted without asking a native.
///
/// It cannot if it is behind [`BUILD_MS`], as on a device without a battery-backed clock, or if
/// systemd-timesyncd runs and has not reached a server since the start. Otherwise it is trusted,
/// because other time daemons leave no sign that can be read.
pub(crate) fn synchronised() -> bool {
    let dir = Path::new("/run/systemd/timesync");
    let timesyncd = match dir.is_dir() {
        true if !dir.join("synchronized").exists() => Timesyncd::Waits,
        true => Timesyncd::Synchronised,
        false => Timesyncd::Absent,
    };
    believed(wall(), timesyncd)
}

/// What systemd-timesyncd says of the clock.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Timesyncd {
    /// It does not run.
    Absent,
    /// It has not reached a server since the start.
    Waits,
    Synchronised,
}

fn believed(wall_ms: u64, timesyncd: Timesyncd) -> bool {
    wall_ms >= BUILD_MS && timesyncd != Timesyncd::Waits
}

/// A decimal number at compile time; anything else ends the build.
#[expect(clippy::panic, reason = "it is called at compile time alone")]
const fn decimal(text: &str) -> u64 {
    match u64::from_str_radix(text, 10) {
        Ok(value) => value,
        Err(_) => panic!("OC_DISCOVERY_BUILD_MS is not a number: build.rs sets it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_behind_the_build_is_not_believed() {
        assert!(!believed(BUILD_MS - 1, Timesyncd::Absent));
        assert!(!believed(BUILD_MS - 1, Timesyncd::Synchronised));
        assert!(believed(BUILD_MS, Timesyncd::Absent));
    }

    #[test]
    fn time_daemon_that_waits_for_its_server_is_heeded() {
        assert!(!believed(BUILD_MS, Timesyncd::Waits));
        assert!(believed(BUILD_MS, Timesyncd::Synchronised));
    }

    #[test]
    fn clocks_are_in_milliseconds() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let whole_seconds: u64 = uptime.split('.').next().unwrap().parse().unwrap();
        let now = boottime();
        assert!(now / 1000 >= whole_seconds && now / 1000 <= whole_seconds + 60);
        assert!(boottime() >= now);
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        assert!(wall() / 1000 >= seconds && wall() / 1000 <= seconds + 60);
    }
}
