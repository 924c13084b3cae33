//! The option with which other processes are started to find this native: `--native MULTIADDR`.
//!
//! It is printed before `ready`, shown by `status`, and logged again when the best address has
//! changed, because addresses come late (DHCP) and change.
//!
//! Invariants: changes are logged at most once a minute, and only if they still hold then, so that
//! nothing from outside can fill the log; an address is not given to others unless it is known that
//! they can use it.

use std::time::Duration;

use libp2p::Multiaddr;

use super::driver::Driver;
use crate::protocol::{Instant, Role};

/// The time between two lines of the log about it.
const PAUSE: Duration = Duration::from_secs(60);

/// What was printed or logged of the address so far.
#[derive(Debug, Default)]
pub(super) struct Invitation {
    said: Option<Multiaddr>,
    /// When it was last logged.
    logged: Option<Instant>,
}

impl Invitation {
    /// Takes note that it was printed at the start.
    #[cfg(feature = "program")]
    pub(super) fn printed(&mut self, addr: Multiaddr) {
        self.said = Some(addr);
    }

    /// Whether `addr`, which is the best address at `now`, must be logged.
    fn is_news(&mut self, now: Instant, addr: &Multiaddr) -> bool {
        let may = self.logged.is_none_or(|logged| now - logged >= PAUSE);
        let is_news = may && self.said.as_ref() != Some(addr);
        if is_news {
            self.said = Some(addr.clone());
            self.logged = Some(now);
        }
        is_news
    }
}

impl Driver<'_> {
    /// The option with which others are started. `None` if this is not a native, or if it is not
    /// known at which address others reach it.
    pub(super) fn native_option(&self) -> Option<String> {
        self.invitation_to().map(|(option, _)| option)
    }

    /// Logs the option if it has changed.
    pub(super) fn invite_if_changed(&mut self, now: Instant) {
        let Some((option, addr)) = self.invitation_to() else {
            return;
        };
        if self.invitation.is_news(now, &addr) {
            log::info!("others are started with {option} from now on");
        }
    }

    /// The option, and the address in it.
    pub(super) fn invitation_to(&self) -> Option<(String, Multiaddr)> {
        if self.env.machine().role() != Role::Native {
            return None;
        }
        let addr = self.env.net.best_addr()?;
        Some((format!("--native {addr}/p2p/{}", self.own_id()), addr))
    }
}

#[cfg(all(test, feature = "program"))]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    fn addr(n: u8) -> Multiaddr {
        format!("/ip4/192.0.2.{n}/tcp/4820").parse().unwrap()
    }

    #[test]
    fn what_was_printed_is_no_news_and_what_comes_after_it_is_at_once() {
        let mut invitation = Invitation::default();
        invitation.printed(addr(1));
        assert!(!invitation.is_news(at(0), &addr(1)));
        assert!(invitation.is_news(at(0), &addr(2)));
        assert!(!invitation.is_news(at(100), &addr(2)));
        assert!(
            Invitation::default().is_news(at(0), &addr(1)),
            "none before"
        );
    }

    #[test]
    fn the_log_says_a_change_once_a_minute_and_none_that_was_taken_back() {
        let mut invitation = Invitation::default();
        assert!(invitation.is_news(at(5), &addr(1)));
        let one_before = Instant::from_millis(64_999);
        assert!(!invitation.is_news(one_before, &addr(2)));
        assert!(!invitation.is_news(at(65), &addr(1)), "taken back");
        assert!(invitation.is_news(at(65), &addr(2)));
        assert!(!invitation.is_news(at(124), &addr(1)));
        assert!(invitation.is_news(at(125), &addr(1)));
    }
}
