//! Decides which addresses a peer can use. An entry without such an address is not handed out to
//! it.
//!
//! A reader is known by the addresses of its connections and by its own signed record. What these
//! show of the reader decides about an address:
//!
//! | address | not usable | perhaps usable | fits |
//! |---|---|---|---|
//! | of one host¹ | it is on another host | – | it is on this host, or unknown |
//! | of one family² | it surely lacks the family | it has not shown it | it has shown it, or none |
//! | any other³ | – | – | always |
//!
//! ¹ loopback, unspecified, multicast, link-local IPv6; ² other IP addresses, `/dns4`, `/dns6`; ³
//! `/dns`, `/dnsaddr`, unreadable.
//!
//! A reader lacks a family only if everything known about it agrees: it is on another host, all of
//! its connections use the other family, and its record lists only addresses of the other family. A
//! connection over IPv4 alone proves nothing, because a host with both families also makes such
//! connections. A record proves nothing if it may have been cut (it has [`MAX_ADDRS`] addresses),
//! if it has a name in it, or if it lists only loopback. Private and unique local addresses count
//! as usable for every reader, because it may be in that network.
//!
//! Invariants: an unknown reader can use every address; more knowledge of the families that a
//! reader has never removes an address.

use super::{
    Addr, Addrs, MAX_ADDRS,
    address::{Families, Host, TransportAddr},
};

/// What is known of a peer as a reader of addresses. The default is: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reader {
    /// The reader is on another host.
    far: bool,
    /// The families of its connections. Empty for a reader on this host, because loopback proves
    /// nothing.
    seen: Families,
    /// The families that its record lists, if the record is complete.
    listed: Families,
}

impl Reader {
    /// How many different readers there can be: they differ in two sets of two families, and in
    /// whether the reader is far.
    pub const KINDS: usize = 32;

    /// A peer on this host.
    pub fn near() -> Self {
        Self::default()
    }

    /// A peer on another host that connects in these families.
    pub const fn far(seen: Families) -> Self {
        Self {
            far: true,
            seen,
            listed: Families::NONE,
        }
    }

    /// The same reader with new knowledge of its connections. What its record lists stays.
    pub(crate) fn seen_as(self, now: Self) -> Self {
        Self {
            listed: self.listed,
            ..now
        }
    }

    /// The same reader with the families that its own record lists.
    pub(crate) fn with_record(self, addrs: &Addrs) -> Self {
        let listed = families(addrs).unwrap_or_default();
        // Addresses that were cut off may have the other family.
        let is_whole = addrs.len() < MAX_ADDRS || listed == Families::BOTH;
        Self {
            listed: if is_whole { listed } else { Families::NONE },
            ..self
        }
    }

    /// Whether the reader may be able to dial the address.
    pub(crate) fn may_use(&self, addr: &Addr) -> bool {
        match TransportAddr::of(addr).host.is_of_its_own_host() {
            true => !self.far,
            false => !self.lacks(Families::of(addr)),
        }
    }

    /// Whether the reader may be able to dial one of the addresses.
    pub(crate) fn may_use_one_of(&self, addrs: &Addrs) -> bool {
        addrs.iter().any(|addr| self.may_use(addr))
    }

    /// Whether one of the addresses has a family that the reader is known to use.
    pub(crate) fn fits(&self, addrs: &Addrs) -> bool {
        let shown = self.seen.and(self.listed);
        let fits = |addr: &Addr| {
            shown.is_none()
                || TransportAddr::of(addr).host.is_of_its_own_host()
                || Families::of(addr).meets(shown)
        };
        addrs.iter().any(|addr| self.may_use(addr) && fits(addr))
    }

    fn lacks(&self, families: Families) -> bool {
        self.far && self.seen.is_one() && self.listed == self.seen && !families.meets(self.seen)
    }
}

/// The families of the addresses that other hosts can dial; `None`: one of them is a name, or
/// cannot be read.
fn families(addrs: &Addrs) -> Option<Families> {
    let mut all = Families::NONE;
    for addr in addrs {
        match TransportAddr::of(addr).host {
            Host::Name(_) => return None,
            host if host.is_of_its_own_host() => {}
            host => all = all.and(host.family()),
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn addr(text: &str) -> Addr {
        let (host, bytes): (u8, Vec<u8>) = match text.parse() {
            Ok(core::net::IpAddr::V4(ip)) => (4, ip.octets().into()),
            Ok(core::net::IpAddr::V6(ip)) => (41, ip.octets().into()),
            Err(_) => {
                let (kind, name) = text.split_once('/').unwrap();
                let code = match kind {
                    "dns" => 53,
                    "dns4" => 54,
                    "dns6" => 55,
                    _ => panic!("{text}"),
                };
                (code, [&[name.len() as u8], name.as_bytes()].concat())
            }
        };
        Addr::from_iter([&[host], &bytes[..], &[6, 0, 1]].concat())
    }

    fn addrs(texts: &[&str]) -> Addrs {
        texts.iter().map(|text| addr(text)).collect()
    }

    const V4: &str = "192.0.2.1";
    const V6: &str = "2001:db8::1";

    /// A reader on another host that has only this family.
    fn confined(family: Families, record: &str) -> Reader {
        Reader::far(family).with_record(&addrs(&[record]))
    }

    #[test]
    fn of_a_reader_of_which_nothing_is_known_every_address_is_of_use_and_fits() {
        for text in [V4, V6, "127.0.0.1", "::1", "fe80::1", "dns/a.b", "dns6/a.b"] {
            let reader = Reader::default();
            assert!(reader.may_use(&addr(text)), "{text}");
            assert!(reader.fits(&addrs(&[text])), "{text}");
        }
        assert!(!Reader::default().fits(&addrs(&[])));
        assert!(Reader::default().may_use(&Addr::from_iter([7])), "opaque");
    }

    #[test]
    fn what_means_something_on_its_own_host_alone_is_of_no_use_to_a_far_reader() {
        for text in ["127.0.0.1", "::1", "0.0.0.0", "::", "fe80::1", "224.0.0.1"] {
            let own = addr(text);
            assert!(!Reader::far(Families::NONE).may_use(&own), "{text}");
            assert!(!Reader::far(Families::BOTH).may_use(&own), "{text}");
            assert!(Reader::near().may_use(&own), "{text}");
        }
        for text in ["192.168.1.1", "10.0.0.1", "169.254.1.1", "fd77::1"] {
            assert!(Reader::far(Families::BOTH).may_use(&addr(text)), "{text}");
        }
    }

    #[test]
    fn a_family_is_lacking_only_if_connections_and_record_agree_on_the_other() {
        let reader = |seen, record: &[&str]| Reader::far(seen).with_record(&addrs(record));
        for (what, reader, may_use_v6) in [
            ("both agree", reader(Families::V4, &[V4]), false),
            ("no record", Reader::far(Families::V4), true),
            ("a record of both", reader(Families::V4, &[V4, V6]), true),
            ("a record of the other", reader(Families::V4, &[V6]), true),
            ("seen by both", reader(Families::BOTH, &[V4]), true),
            ("seen by neither", reader(Families::NONE, &[V4]), true),
            ("a name", reader(Families::V4, &[V4, "dns4/a.b"]), true),
            ("loopback alone", reader(Families::V4, &["127.0.0.1"]), true),
            ("loopback beside", reader(Families::V4, &[V4, "::1"]), false),
            ("three", reader(Families::V4, &[V4, V4, V4]), false),
            ("cut, maybe", reader(Families::V4, &[V4, V4, V4, V4]), true),
            ("near", Reader::near().with_record(&addrs(&[V4])), true),
        ] {
            assert_eq!(reader.may_use(&addr(V6)), may_use_v6, "{what}");
            assert!(reader.may_use(&addr(V4)), "{what}");
        }
    }

    #[test]
    fn names_are_judged_by_their_kind() {
        for (family, own, other, record) in [
            (Families::V4, "dns4/a.b", "dns6/a.b", V4),
            (Families::V6, "dns6/a.b", "dns4/a.b", V6),
        ] {
            let reader = confined(family, record);
            assert!(reader.may_use(&addr(own)) && reader.may_use(&addr("dns/a.b")));
            assert!(!reader.may_use(&addr(other)));
            let seen = Reader::far(family);
            assert!(seen.may_use(&addr(other)) && !seen.fits(&addrs(&[other])));
            assert!(seen.fits(&addrs(&[own])) && seen.fits(&addrs(&["dns/a.b"])));
        }
    }

    #[test]
    fn an_address_fits_a_family_that_was_seen_or_listed() {
        let fits = |reader: Reader| [V4, V6].map(|text| reader.fits(&addrs(&[text])));
        assert_eq!(fits(Reader::far(Families::V4)), [true, false]);
        assert_eq!(fits(Reader::far(Families::V6)), [false, true]);
        assert_eq!(fits(Reader::far(Families::BOTH)), [true, true]);
        assert_eq!(fits(Reader::far(Families::NONE)), [true, true]);
        let listed = Reader::far(Families::V4).with_record(&addrs(&[V4, V6]));
        assert_eq!(fits(listed), [true, true]);
        assert!(Reader::far(Families::V4).fits(&addrs(&[V6, V4])));
        let near = Reader::near().with_record(&addrs(&[V4]));
        assert!(near.fits(&addrs(&["::1"])), "loopback has both families");
    }

    #[test]
    fn a_record_outlasts_what_is_seen_and_is_replaced_by_the_next() {
        let reader = confined(Families::V4, V4);
        assert!(!reader.seen_as(Reader::far(Families::V4)).may_use(&addr(V6)));
        assert!(
            reader
                .seen_as(Reader::far(Families::BOTH))
                .may_use(&addr(V6))
        );
        assert!(reader.seen_as(Reader::near()).may_use(&addr("127.0.0.1")));
        assert!(reader.with_record(&addrs(&[V4, V6])).may_use(&addr(V6)));
    }
}
