//! Decides when the own record is signed, and whether the new one waits for the next beat.
//!
//! It is signed when the leases ask for it ([`Action::Sign`](super::Action::Sign): at the start,
//! and when it is older than one lease), and when its addresses or the services that it offers
//! differ from the signed ones; and when its host says that something else in it has changed.
//!
//! Invariants: nothing is signed without an address that can be in a record, without a time to sign
//! with, by a native, or after the end; a record that was requested meanwhile is signed as soon as
//! there are both.

use core::time::Duration;

use heapless::Vec;

use super::{
    Addr, MAX_ADDR_LEN, Role,
    clock::WallClock,
    codec::record::{MAX_RECORD_ADDRS, MAX_TTL},
};

/// How many leases a record lives for, unless that is longer than [`MAX_TTL`].
pub(crate) const TTL_LEASES: u32 = 3;

/// The time to live of a record if its subject requests leases of this length (PROTOCOL.md).
pub fn record_ttl(lease: Duration) -> Duration {
    lease.saturating_mul(TTL_LEASES).min(MAX_TTL)
}

/// The addresses in a record, best first.
type RecordAddrs = Vec<Addr, MAX_RECORD_ADDRS, u8>;

/// Whether a new record waits for the next beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// It has the same content as the one before, with a later time.
    NextBeat,
    /// It is the first one, or an address or a service in it has changed, so servers get it at
    /// once.
    AtOnce,
}

/// The state of signing: what is due, and what was signed.
#[derive(Clone, Debug, PartialEq)]
pub struct Signing {
    may_sign: bool,
    is_wanted: bool,
    /// The host is signing, or has failed to.
    is_begun: bool,
    announced: RecordAddrs,
    /// Empty if nothing was signed yet: a record has an address.
    signed: RecordAddrs,
    /// The services to be in the record, one bit each, and those that are in the signed one.
    offered: u8,
    signed_offer: u8,
    /// Something else that is in the record has changed since it was signed.
    has_changed: bool,
}

impl Signing {
    /// Nothing is signed yet, and a native signs nothing.
    pub const fn new(role: Role) -> Self {
        Self {
            may_sign: !matches!(role, Role::Native),
            is_wanted: false,
            is_begun: false,
            announced: Vec::new(),
            signed: Vec::new(),
            offered: u8::MAX,
            signed_offer: u8::MAX,
            has_changed: false,
        }
    }

    /// Takes note that the leases need a new signature.
    pub fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Sets which of the own services are offered, one bit each
    /// ([`Health::offered`](super::health::Health::offered)). Unless the host sets it, all are.
    pub fn offer(&mut self, services: u8) {
        self.offered = services;
    }

    /// Takes note that what the record says has changed: tags, services, or devices of the link.
    pub fn changed(&mut self) {
        self.has_changed = true;
    }

    /// The own services to be in the record, one bit each.
    pub fn offered(&self) -> u8 {
        self.offered
    }

    /// Ends signing, because a record that is signed now would outlive the leases that are given
    /// up.
    pub fn end(&mut self) {
        self.may_sign = false;
    }

    /// Sets the addresses that this process announces, best first. Those that cannot be in a record
    /// are left out.
    pub fn announce<'a>(&mut self, addrs: impl Iterator<Item = &'a [u8]> + Clone) {
        let usable = usable(addrs);
        if !usable.clone().eq(self.announced.iter().map(Vec::as_slice)) {
            let usable = usable.filter_map(|addr| Addr::from_slice(addr).ok());
            self.announced = usable.collect();
        }
    }

    /// Whether the host must sign the record now. If so, it is not told again before
    /// [`Signing::signed`] or [`Signing::retry`]. It is never signed without a time to sign with.
    pub fn begin(&mut self, clock: &WallClock, system_ms: u64) -> bool {
        let is_due = self.may_sign
            && !self.is_begun
            && clock.is_trusted(system_ms)
            && !self.announced.is_empty()
            && (self.is_wanted || (!self.signed.is_empty() && !self.was_signed()));
        self.is_begun |= is_due;
        is_due
    }

    /// Takes note that a record that could not be signed may be tried again.
    pub fn retry(&mut self) {
        self.is_begun = false;
    }

    /// Takes note that the record was signed with the addresses announced and the services offered.
    pub fn signed(&mut self) -> Urgency {
        let urgency = match self.was_signed() {
            true => Urgency::NextBeat,
            false => Urgency::AtOnce,
        };
        (self.is_wanted, self.is_begun, self.has_changed) = (false, false, false);
        self.signed_offer = self.offered;
        self.signed.clone_from(&self.announced);
        urgency
    }

    fn was_signed(&self) -> bool {
        !self.has_changed && self.offered == self.signed_offer && self.announced == self.signed
    }
}

/// The addresses that can be in a record.
fn usable<'a>(
    addrs: impl Iterator<Item = &'a [u8]> + Clone,
) -> impl Iterator<Item = &'a [u8]> + Clone {
    addrs
        .filter(|addr| (1..=MAX_ADDR_LEN).contains(&addr.len()))
        .take(MAX_RECORD_ADDRS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signing() -> Signing {
        Signing::new(Role::Node)
    }

    const BUILT: u64 = 1_000;

    fn is_due(signing: &Signing, addrs: &[&[u8]]) -> bool {
        let mut signing = signing.clone();
        signing.announce(addrs.iter().copied());
        signing.begin(&WallClock::new(BUILT), BUILT)
    }

    fn sign(signing: &mut Signing, addrs: &[&[u8]]) -> Urgency {
        signing.announce(addrs.iter().copied());
        signing.signed()
    }

    #[test]
    fn record_that_cannot_be_signed_is_tried_again_at_the_next_housekeeping() {
        let mut signing = signing();
        signing.want();
        signing.announce([&b"a"[..]].into_iter());
        let clock = WallClock::new(BUILT);
        assert!(signing.begin(&clock, BUILT));
        assert!(
            !signing.begin(&clock, BUILT),
            "it has failed, or is under way"
        );
        signing.retry();
        assert!(signing.begin(&clock, BUILT));
    }

    #[test]
    fn record_lives_three_leases_and_an_hour_at_most() {
        let ms = Duration::from_millis;
        assert_eq!(record_ttl(ms(90_000)), ms(270_000));
        for (lease, ttl) in [
            (1_199_999, 3_599_997),
            (1_200_000, 3_600_000),
            (1_200_001, 3_600_000),
            (u64::MAX, 3_600_000),
        ] {
            assert_eq!(record_ttl(ms(lease)), ms(ttl));
        }
    }

    #[test]
    fn record_is_signed_when_it_is_asked_for_and_there_is_an_address_and_a_time() {
        let mut signing = signing();
        assert!(!is_due(&signing, &[b"a"]), "it was not asked for");
        signing.want();
        assert!(!is_due(&signing, &[]));
        signing.announce([&b"a"[..]].into_iter());
        assert!(!signing.begin(&WallClock::new(BUILT), BUILT - 1));
        assert!(is_due(&signing, &[b"a"]));
        sign(&mut signing, &[b"a"]);
        assert!(!is_due(&signing, &[b"a"]));
    }

    #[test]
    fn first_record_is_urgent_and_one_that_says_the_same_waits_for_the_next_beat() {
        let mut signing = signing();
        signing.want();
        assert_eq!(sign(&mut signing, &[b"a", b"b"]), Urgency::AtOnce);
        signing.want();
        assert!(is_due(&signing, &[b"a", b"b"]));
        assert_eq!(sign(&mut signing, &[b"a", b"b"]), Urgency::NextBeat);
    }

    #[test]
    fn address_that_came_went_or_moved_is_signed_unasked_and_at_once() {
        for addrs in [&[&b"a"[..]][..], &[b"b", b"a"], &[b"a", b"b", b"c"]] {
            let mut signing = signing();
            sign(&mut signing, &[b"a", b"b"]);
            assert!(is_due(&signing, addrs));
            assert_eq!(sign(&mut signing, addrs), Urgency::AtOnce);
            assert!(!is_due(&signing, addrs));
        }
    }

    #[test]
    fn service_that_went_or_came_back_is_signed_unasked_and_at_once() {
        let mut signing = signing();
        signing.offer(0b1111_1101);
        assert!(!is_due(&signing, &[b"a"]), "nothing was signed yet");
        sign(&mut signing, &[b"a"]);
        for services in [0b1111_1100, u8::MAX] {
            signing.offer(services);
            assert!(is_due(&signing, &[b"a"]));
            assert_eq!(sign(&mut signing, &[b"a"]), Urgency::AtOnce);
            assert!(!is_due(&signing, &[b"a"]));
        }
    }

    #[test]
    fn devices_that_came_or_went_are_signed_unasked_and_at_once() {
        let mut signing = signing();
        signing.changed();
        assert!(!is_due(&signing, &[b"a"]), "nothing was signed yet");
        sign(&mut signing, &[b"a"]);
        signing.changed();
        assert!(is_due(&signing, &[b"a"]));
        assert_eq!(sign(&mut signing, &[b"a"]), Urgency::AtOnce);
        assert!(!is_due(&signing, &[b"a"]));
    }

    #[test]
    fn loss_of_the_last_address_is_no_reason_to_sign() {
        let mut signing = signing();
        sign(&mut signing, &[b"a"]);
        assert!(!is_due(&signing, &[]));
    }

    #[test]
    fn address_of_65_bytes_and_the_ninth_are_in_no_record() {
        let mut signing = signing();
        signing.want();
        assert!(!is_due(&signing, &[&[7; MAX_ADDR_LEN + 1], b""]));
        assert!(is_due(&signing, &[&[7; MAX_ADDR_LEN]]));
        let nine: std::vec::Vec<_> = (0..9).map(|n| [n]).collect();
        let nine: std::vec::Vec<&[u8]> = nine.iter().map(|addr| &addr[..]).collect();
        sign(&mut signing, &nine[..8]);
        assert!(!is_due(&signing, &nine));
        assert!(is_due(&signing, &nine[..7]));
    }

    #[test]
    fn native_signs_nothing_and_neither_does_a_process_that_ends() {
        let mut native = Signing::new(Role::Native);
        native.want();
        assert!(!is_due(&native, &[b"a"]));
        let mut ending = Signing::new(Role::Indexer);
        ending.want();
        assert!(is_due(&ending, &[b"a"]));
        ending.end();
        assert!(!is_due(&ending, &[b"a"]));
    }
}
