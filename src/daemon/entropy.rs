//! Random numbers for keys, even on a device that has just been switched on.
//!
//! Early after power-on the system may not have gathered enough entropy. Everything that needs
//! random numbers (the identity, Noise, the seed of the core) would then block without any message.
//! So the daemon waits once, before all of them, and logs why nothing happens.
//!
//! The numbers come from getrandom(2), which waits by itself. So keys do not depend on the build of
//! the `getrandom` crate: without the setting in `.cargo/config.toml`, in a static program with
//! glibc, it reads `/dev/urandom`, which may be missing.

use std::io;

use rustix::io::{Errno, Result as Answer};
use rustix::rand::{GetRandomFlags, getrandom};

/// Returns once the system has enough random numbers for keys. From then on it always has.
///
/// # Errors
/// The system cannot give any, because it is older than Linux 3.17 or a sandbox refuses the call.
pub(super) fn wait() -> io::Result<()> {
    wait_for(|flags| getrandom(&mut [0_u8; 1], flags).map(drop))
}

/// 32 random bytes, never before the system has gathered enough for a key.
///
/// # Errors
/// As [`wait`].
pub(super) fn key() -> io::Result<[u8; 32]> {
    let mut key = [0; 32];
    loop {
        match getrandom(&mut key, GetRandomFlags::empty()) {
            // Up to 256 bytes always come at once.
            Ok(32) => return Ok(key),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Calls `ask` for random numbers, first without waiting.
fn wait_for(mut ask: impl FnMut(GetRandomFlags) -> Answer<()>) -> io::Result<()> {
    let mut flags = GetRandomFlags::NONBLOCK;
    loop {
        match ask(flags) {
            Ok(()) => return Ok(()),
            Err(Errno::AGAIN) if flags.contains(GetRandomFlags::NONBLOCK) => {
                log::warn!("waits until the system has gathered random numbers for keys");
                flags = GetRandomFlags::empty();
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: GetRandomFlags = GetRandomFlags::NONBLOCK;
    const WAITING: GetRandomFlags = GetRandomFlags::empty();

    /// The calls that were made while the system gave these answers, and the result.
    fn asked(answers: &[Answer<()>]) -> (Vec<GetRandomFlags>, io::Result<()>) {
        let mut asked = Vec::new();
        let end = wait_for(|flags| {
            asked.push(flags);
            answers[asked.len() - 1]
        });
        (asked, end)
    }

    #[test]
    fn system_that_has_random_numbers_is_asked_once() {
        let (asked, end) = asked(&[Ok(())]);
        assert_eq!(asked, [AT_ONCE]);
        end.unwrap();
        wait().unwrap();
    }

    #[test]
    fn system_that_has_none_yet_is_waited_for() {
        let (asked, end) = asked(&[Err(Errno::AGAIN), Err(Errno::INTR), Ok(())]);
        assert_eq!(asked, [AT_ONCE, WAITING, WAITING]);
        end.unwrap();
    }

    #[test]
    fn system_that_never_has_any_is_an_error() {
        for answers in [
            [Err(Errno::NOSYS), Ok(())],
            [Err(Errno::AGAIN), Err(Errno::AGAIN)],
        ] {
            let (_, end) = asked(&answers);
            assert!(end.is_err());
        }
    }

    #[test]
    fn no_key_comes_twice() {
        assert_ne!(key().unwrap(), key().unwrap());
    }
}
