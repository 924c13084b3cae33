//! What others are started with to find this native: `--native MULTIADDR`.
//!
//! It is printed before `ready`, shown by `status`, and logged again when the best address has
//! changed, since addresses come late (DHCP) and move.
//!
//! Invariants: each change is logged that outlasts the minute after the one before, so that nothing
//! from outside writes the log at will; an address of which it is not known whether others can use
//! it is not given out as theirs.

use std::time::Duration;

use libp2p::Multiaddr;

use super::driver::Driver;
use crate::protocol::{Instant, Role};

/// Between two lines of the log about it.
const PAUSE: Duration = Duration::from_secs(60);

/// What was said of the address so far.
#[derive(Debug, Default)]
pub(super) struct Invitation {
    said: Option<Multiaddr>,
    /// When the log said it last.
    logged: Option<Instant>,
}

impl Invitation {
    /// It was printed at the start.
    pub(super) fn printed(&mut self, addr: Multiaddr) {
        self.said = Some(addr);
    }

    /// The best address is `addr` at `now`: whether the log is to say it.
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

impl Driver {
    /// The option that others are started with; `None`: it is not known at which address they reach
    /// this native, or it is none.
    pub(super) fn native_option(&self) -> Option<String> {
        self.invitation_to().map(|(option, _)| option)
    }

    /// Says in the log that the option has changed, if it has.
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
        if self.env.machine.role() != Role::Native {
            return None;
        }
        let addr = self.env.net.best_addr()?;
        Some((format!("--native {addr}/p2p/{}", self.own_id()), addr))
    }
}

#[cfg(test)]
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
