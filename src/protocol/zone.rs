//! The zone: what a question of the DNS asks of the system, and what the answer says.
//!
//! ```text
//!  pump.oc.internal                    the nodes of this name
//!  _http._tcp.oc.internal              the nodes that offer this service
//!  pump._http._tcp.oc.internal         this service of the nodes of this name (RFC 6763, 4)
//!  ip4-192-168-1-50.oc.internal        this address: where a device is that a node lists
//!  _tcp.oc.internal                    a parent: it exists, and has no records itself
//!  oc.internal                         the apex: the server itself
//! ```
//!
//! Invariants: letters are compared without regard to their case; a name that cannot be that of a
//! node or service is answered without a lookup: it does not exist; no answer is valid for longer
//! than the lease that it is about, as far as this is known, nor than [`MAX_TTL`].

use core::{fmt::Write as _, net::IpAddr, time::Duration};

use heapless::String;

use super::{
    Coverage, MAX_NAME_LEN, Name,
    codec::{
        service::{MAX_SERVICE_NAME_LEN, ServiceName, Transport, to_service_name},
        to_name,
    },
    dns_sd::MAX_LABEL_LEN,
    lookup::Question,
    signing::TTL_LEASES,
};

/// Bytes of the zone's name at most: with an instance of a service before it, it is a name of the
/// DNS, which has at most 255.
pub const MAX_ZONE_LEN: usize = 160;
/// How long an answer is valid at most.
pub const MAX_TTL: Duration = Duration::from_secs(30);
/// How long an answer is valid that says that nothing was found, or not everything.
pub const NEGATIVE_TTL: Duration = Duration::from_secs(5);
/// How long a failed lookup is not repeated (RFC 9520, section 3.2).
pub const FAILURE_TTL: Duration = Duration::from_secs(1);

/// The zone that is answered for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(String<MAX_ZONE_LEN, u8>);

/// What the name in a question stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryName {
    /// Something that is not in the zone.
    Outside,
    /// The zone itself.
    Apex,
    /// The nodes of this name.
    Name(Name),
    /// An address, which the name has in it ([`name_of_address`]).
    Address(IpAddr),
    /// The nodes that offer a service.
    Service(ServiceName, Transport),
    /// A service of the nodes of this name.
    Instance(Name, ServiceName, Transport),
    /// A name between the zone and its services.
    Parent,
    /// All services that there are (RFC 6763, section 9). No server can list them.
    Services,
    /// A name that cannot be that of a node or service.
    Nothing,
}

/// What was found for a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matched {
    /// Records of the name and of the type.
    Records,
    /// The name, which has no record of the type.
    Name,
    /// Nothing.
    Nothing,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Records.
    Records,
    /// The name exists, but has no such record (NODATA).
    NoData,
    /// The name does not exist (NXDOMAIN).
    NoName,
    /// The lookup failed (SERVFAIL).
    Failed,
}

impl Zone {
    /// The zone of this name; `None` unless it is one or several labels of `a-z 0-9 - _` in any
    /// case, with at most [`MAX_ZONE_LEN`] bytes in all.
    pub fn new(name: &str) -> Option<Self> {
        let is_label = |label: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            (1..=MAX_LABEL_LEN).contains(&label.len()) && label.bytes().all(allowed)
        };
        let mut text = String::try_from(name).ok()?;
        text.make_ascii_lowercase();
        text.split('.').all(is_label).then_some(Self(text))
    }

    /// Its name, in lower case, without a dot at its end.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The question that a name of these labels asks. The label of the root is not among them.
    pub fn query_name(&self, labels: &[&[u8]]) -> QueryName {
        let mut inside = labels;
        for own in self.0.rsplit('.') {
            match inside.split_last() {
                Some((last, rest)) if last.eq_ignore_ascii_case(own.as_bytes()) => inside = rest,
                _ => return QueryName::Outside,
            }
        }
        match inside {
            [] => QueryName::Apex,
            [before @ .., last] => match transport(last) {
                None => named(inside),
                Some(transport) => under(before, transport),
            },
        }
    }
}

/// The name before the zone's of a host that has none itself: of a device that a node lists.
pub fn name_of_address(ip: IpAddr) -> Name {
    let mut name = Name::new();
    // A name has room for the longest.
    let _ = match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            write!(name, "ip4-{a}-{b}-{c}-{d}")
        }
        IpAddr::V6(ip) => name.write_str("ip6").and_then(|()| {
            let mut groups = ip.segments().into_iter();
            groups.try_for_each(|group| write!(name, "-{group:x}"))
        }),
    };
    name
}

/// The address that a name has in it.
fn address(name: &str) -> Option<IpAddr> {
    let of = |text: &str, radix| {
        let mut groups = [0u16; 8];
        let mut count = 0;
        for part in text.split('-') {
            *groups.get_mut(count)? = u16::from_str_radix(part, radix).ok()?;
            count += 1;
        }
        Some((groups, count))
    };
    let ip = match name.split_at_checked(4)? {
        ("ip4-", text) => match of(text, 10)? {
            ([a, b, c, d, ..], 4) => {
                let octet = |group: u16| u8::try_from(group).ok();
                IpAddr::from([octet(a)?, octet(b)?, octet(c)?, octet(d)?])
            }
            _ => return None,
        },
        ("ip6-", text) => match of(text, 16)? {
            (groups, 8) => IpAddr::from(groups),
            _ => return None,
        },
        _ => return None,
    };
    // There is one way to write it.
    (name_of_address(ip) == name).then_some(ip)
}

fn named(labels: &[&[u8]]) -> QueryName {
    match name(labels) {
        None => QueryName::Nothing,
        Some(name) => match address(&name) {
            Some(ip) => QueryName::Address(ip),
            None => QueryName::Name(name),
        },
    }
}

/// What stands before `_tcp` or `_udp`.
fn under(labels: &[&[u8]], transport: Transport) -> QueryName {
    let Some((service, before)) = labels.split_last() else {
        return QueryName::Parent;
    };
    if service.eq_ignore_ascii_case(b"_dns-sd") && transport == Transport::Udp {
        return match before {
            [] => QueryName::Parent,
            [all] if all.eq_ignore_ascii_case(b"_services") => QueryName::Services,
            _ => QueryName::Nothing,
        };
    }
    let service = service.strip_prefix(b"_").and_then(|service| {
        let service = lower_case::<MAX_SERVICE_NAME_LEN>(&[service])?;
        to_service_name(&service)
    });
    match (service, before) {
        (None, _) => QueryName::Nothing,
        (Some(service), []) => QueryName::Service(service, transport),
        (Some(service), before) => name(before).map_or(QueryName::Nothing, |name| {
            QueryName::Instance(name, service, transport)
        }),
    }
}

fn transport(label: &[u8]) -> Option<Transport> {
    [(&b"_tcp"[..], Transport::Tcp), (b"_udp", Transport::Udp)]
        .into_iter()
        .find_map(|(text, transport)| label.eq_ignore_ascii_case(text).then_some(transport))
}

/// The labels as the name of a node. It may have dots, between labels or in one.
fn name(labels: &[&[u8]]) -> Option<Name> {
    to_name(&lower_case::<MAX_NAME_LEN>(labels)?)
}

fn lower_case<const N: usize>(labels: &[&[u8]]) -> Option<String<N>> {
    let mut text = String::new();
    for (at, label) in labels.iter().enumerate() {
        if at > 0 {
            text.push('.').ok()?;
        }
        text.push_str(core::str::from_utf8(label).ok()?).ok()?;
    }
    text.make_ascii_lowercase();
    Some(text)
}

impl QueryName {
    /// The lookup that it needs; `None`: none.
    pub fn question(&self) -> Option<Question> {
        match self {
            Self::Name(name) | Self::Instance(name, ..) => Some(Question::Name(name.clone())),
            Self::Service(service, _) => Some(Question::Service(service.clone())),
            _ => None,
        }
    }
}

/// What the answer says. `coverage`: whether another server can have a record of the name.
pub fn reply(matched: Matched, coverage: Coverage) -> Reply {
    match (matched, coverage) {
        (Matched::Records, _) => Reply::Records,
        (Matched::Name, _) => Reply::NoData,
        (Matched::Nothing, Coverage::Complete) => Reply::NoName,
        (Matched::Nothing, Coverage::Partial) => Reply::Failed,
    }
}

/// The longest time that a lease can still run if only its record is known. The record lives for
/// `ttl` and expires in `expires_in`; its subject sent a heartbeat `age` ago, if this is known.
/// `None`: it is over.
pub fn rest_of_lease(
    ttl: Duration,
    expires_in: Duration,
    age: Option<Duration>,
) -> Option<Duration> {
    let lease = ttl / TTL_LEASES;
    let rest = expires_in.min(lease.saturating_sub(age.unwrap_or_default()));
    (!rest.is_zero()).then_some(rest)
}

/// How long the outcome of a lookup is valid: for the shortest `rest` of the leases of those that
/// were found, if there is any.
pub fn lifetime(rest: Option<Duration>, coverage: Coverage) -> Duration {
    match (rest, coverage) {
        (Some(rest), Coverage::Complete) => rest.min(MAX_TTL),
        (Some(rest), Coverage::Partial) => rest.min(NEGATIVE_TTL),
        (None, Coverage::Complete) => NEGATIVE_TTL,
        (None, Coverage::Partial) => FAILURE_TTL,
    }
}

#[cfg(test)]
mod tests {
    use std::{string::String, vec::Vec};

    use super::*;

    fn zone() -> Zone {
        Zone::new("OC.internal").unwrap()
    }

    fn asked(name: &str) -> QueryName {
        let labels: Vec<&[u8]> = name.split(' ').map(str::as_bytes).collect();
        zone().query_name(&labels)
    }

    fn a_name(name: &str) -> QueryName {
        QueryName::Name(name.try_into().unwrap())
    }

    #[test]
    fn zone_is_a_name_that_leaves_room_for_those_in_it() {
        assert_eq!(zone().name(), "oc.internal");
        let long = ["a"; 80].join(".");
        assert_eq!((long.len(), MAX_ZONE_LEN), (159, 160));
        assert!(Zone::new(&std::format!("{long}b")).is_some());
        assert!(Zone::new(&std::format!("{long}bc")).is_none());
        // The longest instance of a service in the longest zone: each label has a byte before it,
        // and the root has one.
        let instance = 1 + MAX_NAME_LEN + 1 + 16 + 1 + 4;
        assert!(instance + 1 + MAX_ZONE_LEN < 255);
        assert!(Zone::new("lan").is_some());
        for bad in [
            "",
            ".",
            "a..b",
            "oc.internal.",
            ".oc",
            "a b",
            "é",
            &"a".repeat(64),
        ] {
            assert_eq!(Zone::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_asked_is_known_by_the_labels() {
        let (http, tcp, udp) = ("http".try_into().unwrap(), Transport::Tcp, Transport::Udp);
        let pump = || "pump".try_into().unwrap();
        for (name, expected) in [
            ("oc internal", QueryName::Apex),
            ("pump oc internal", a_name("pump")),
            ("PUMP Oc InternaL", a_name("pump")),
            ("pump roof oc internal", a_name("pump.roof")),
            ("_tcp oc internal", QueryName::Parent),
            ("_UDP oc internal", QueryName::Parent),
            ("_HTTP _tcp oc internal", QueryName::Service(http, tcp)),
            (
                "pump _http _udp oc internal",
                QueryName::Instance(pump(), "http".try_into().unwrap(), udp),
            ),
            (
                "pump.Roof _http _tcp oc internal",
                QueryName::Instance(
                    "pump.roof".try_into().unwrap(),
                    "http".try_into().unwrap(),
                    tcp,
                ),
            ),
            (
                "pump roof _http _tcp oc internal",
                QueryName::Instance(
                    "pump.roof".try_into().unwrap(),
                    "http".try_into().unwrap(),
                    tcp,
                ),
            ),
            ("_dns-sd _udp oc internal", QueryName::Parent),
            ("_services _dns-sd _udp oc internal", QueryName::Services),
            ("b _dns-sd _udp oc internal", QueryName::Nothing),
            ("_x _http _tcp oc internal", QueryName::Nothing),
            ("http _tcp oc internal", QueryName::Nothing),
            ("_80 _tcp oc internal", QueryName::Nothing),
            ("_abcdefghijklmnop _tcp oc internal", QueryName::Nothing),
            ("pu_mp oc internal", QueryName::Nothing),
            ("p\u{fc}mp oc internal", QueryName::Nothing),
            ("internal", QueryName::Outside),
            ("example com", QueryName::Outside),
            ("oc.internal", QueryName::Outside),
            ("pump xoc internal", QueryName::Outside),
            ("oc internal com", QueryName::Outside),
        ] {
            assert_eq!(asked(name), expected, "{name}");
        }
        assert_eq!(zone().query_name(&[]), QueryName::Outside);
        assert_eq!(
            zone().query_name(&[b"\xff", b"oc", b"internal"]),
            QueryName::Nothing
        );
    }

    #[test]
    fn address_in_a_name_is_that_address_if_it_is_written_as_this_server_writes_it() {
        for ip in ["192.168.1.50", "0.0.0.0", "fd77::3", "2001:db8:1:2:3:4:5:6"] {
            let ip: IpAddr = ip.parse().unwrap();
            let name = name_of_address(ip);
            assert_eq!(
                asked(&std::format!("{name} oc internal")),
                QueryName::Address(ip),
                "{name}"
            );
            assert_eq!(QueryName::Address(ip).question(), None);
        }
        for other in [
            "ip4-192-168-1",
            "ip4-192-168-1-256",
            "ip4-192-168-1-050",
            "ip4-192-168-1-50-1",
            "ip4-192-168-1--50",
            "ip6-fd77-0-0-0-0-0-3",
            "ip6-fd77-0-0-0-0-0-0-03",
            "ip5-1-2-3-4",
        ] {
            assert!(
                matches!(
                    asked(&std::format!("{other} oc internal")),
                    QueryName::Name(_)
                ),
                "{other}"
            );
        }
    }

    #[test]
    fn name_has_63_bytes_at_most_with_its_dots() {
        let inside = |label: &str, dotted: &str| {
            let text: String = [label, dotted, "oc", "internal"].join(" ");
            asked(&text)
        };
        assert!(matches!(inside(&"a".repeat(60), "bc"), QueryName::Name(name) if name.len() == 63));
        assert_eq!(inside(&"a".repeat(60), "bcd"), QueryName::Nothing);
    }

    #[test]
    fn only_the_names_of_nodes_and_services_are_looked_up() {
        let http = Question::Service("http".try_into().unwrap());
        for name in ["_http _tcp oc internal", "_HTTP _udp oc internal"] {
            assert_eq!(asked(name).question(), Some(http.clone()));
        }
        let pump = Question::Name("pump".try_into().unwrap());
        for name in ["pump oc internal", "pump _http _tcp oc internal"] {
            assert_eq!(asked(name).question(), Some(pump.clone()));
        }
        for name in ["oc internal", "_tcp oc internal", "x_ oc internal", "com"] {
            assert_eq!(asked(name).question(), None);
        }
    }

    #[test]
    fn nothing_is_denied_that_could_not_be_asked() {
        use Reply::{Failed, NoData, NoName, Records};
        for coverage in [Coverage::Complete, Coverage::Partial] {
            assert_eq!(reply(Matched::Records, coverage), Records);
            assert_eq!(reply(Matched::Name, coverage), NoData);
        }
        assert_eq!(reply(Matched::Nothing, Coverage::Complete), NoName);
        assert_eq!(reply(Matched::Nothing, Coverage::Partial), Failed);
    }

    #[test]
    fn answer_lives_no_longer_than_the_lease() {
        let s = Duration::from_secs;
        // A record of a lease of 90 s.
        assert_eq!(rest_of_lease(s(270), s(200), None), Some(s(90)));
        assert_eq!(rest_of_lease(s(270), s(89), None), Some(s(89)));
        assert_eq!(rest_of_lease(s(270), s(200), Some(s(30))), Some(s(60)));
        assert_eq!(rest_of_lease(s(270), s(200), Some(s(89))), Some(s(1)));
        for over in [90, 91] {
            assert_eq!(rest_of_lease(s(270), s(200), Some(s(over))), None);
        }
        assert_eq!(rest_of_lease(s(270), s(0), None), None);
        assert_eq!(lifetime(Some(s(29)), Coverage::Complete), s(29));
        assert_eq!(lifetime(Some(s(31)), Coverage::Complete), s(30));
        assert_eq!(lifetime(Some(s(4)), Coverage::Partial), s(4));
        assert_eq!(lifetime(Some(s(6)), Coverage::Partial), s(5));
        assert_eq!(lifetime(None, Coverage::Complete), s(5));
        assert_eq!(lifetime(None, Coverage::Partial), s(1));
    }
}
