//! Random numbers at the first start of a device.
//!
//! Early after power-on the system may not have gathered enough of them for a key. Everything that needs them waits for the system
//! (the identity, Noise, the seed of the core), and would do so without a word: so it is waited for once, here, before all
//! of them, and the log says why nothing happens.

use std::io;

use rustix::io::{Errno, Result as Answer};
use rustix::rand::{GetRandomFlags, getrandom};

/// Returns once the system has enough random numbers for keys; from then on it always has (getrandom(2)).
///
/// # Errors
/// The system cannot give any.
pub(super) fn wait() -> io::Result<()> {
    wait_for(|flags| getrandom(&mut [0_u8; 1], flags).map(drop))
}

/// `ask` for random numbers, first without waiting for them.
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
            // Before Linux 3.17, and where a sandbox refuses the call: whoever needs a key reads /dev/random first.
            Err(Errno::NOSYS | Errno::PERM) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: GetRandomFlags = GetRandomFlags::NONBLOCK;
    const WAITING: GetRandomFlags = GetRandomFlags::empty();

    /// What was asked for while the system gave these answers, and how it ended.
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
    fn call_that_the_system_does_not_have_is_left_to_others_and_other_errors_are_told() {
        let (_, end) = asked(&[Err(Errno::NOSYS)]);
        end.unwrap();
        for answers in [
            [Err(Errno::IO), Ok(())],
            [Err(Errno::AGAIN), Err(Errno::AGAIN)],
        ] {
            let (_, end) = asked(&answers);
            assert!(end.is_err());
        }
    }
}
