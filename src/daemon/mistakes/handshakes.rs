//! Handshakes that failed for a reason that only the operator can mend: another key, another peer.
//!
//! Invariants: what anyone can cause is a notice, and names the host alone (of IPv6, the first 64
//! bits), so that one host is one notice, however often it comes and from which port. A dialled
//! address counts if it is that of a known server: records of others name addresses, too. What is
//! wrong there is about the address and the server that was meant: it is over when that server
//! answers, whichever end has dialled.

use std::fmt::Display;

use libp2p::{Multiaddr, multiaddr::Protocol};

use super::super::{
    driver::Driver,
    life::short,
    problems::Mistake,
    report::{host_and_port, text},
    status::Severity,
};
use crate::{
    net::{Refusal, Why, each::short_id, multiaddrs},
    protocol::{Instant, PeerId, Role, TransportAddr, address::Host},
};

const HANDSHAKE_REFUSED: &str = "handshake-refused";
const PEER_REFUSED: &str = "peer-refused";
const WRONG_PEER: &str = "wrong-peer-id";
const ITSELF: &str = "itself-as-native";

impl Driver<'_> {
    /// A handshake failed.
    pub(in crate::daemon) fn note_refusal(&mut self, now: Instant, refusal: &Refusal) {
        let addr = without_peer(&refusal.addr);
        let mistake = match (refusal.why, refusal.is_dialled) {
            // Records of others name addresses too: the operator can mend those of natives alone.
            (Why::OtherPeer { meant, .. }, _) if !self.is_native(meant) => {
                log::debug!("another peer answers at {}", host_and_port(&addr));
                return;
            }
            (Why::OtherPeer { meant, found }, _) => {
                let is_own = PeerId::try_from(found) == Ok(self.env.own);
                other_peer(&host_and_port(&addr), &meant, &found, is_own)
            }
            // A browser or a scanner came to this port: it is no mistake of the operator.
            (Why::OtherProtocol, false) => {
                log::debug!("{} speaks another protocol", host_and_port(&addr));
                return;
            }
            (why, true) => {
                let at = host_and_port(&addr);
                let Some((role, meant)) = self.server_at(&addr) else {
                    log::debug!("a handshake failed at {at}, which is of no known server: {why:?}");
                    return;
                };
                let called = format!("{role} {} at {at}", short(&meant));
                let about = about(&at, text(&meant));
                let mistake = match why {
                    Why::OtherProtocol => other_protocol(&called, about),
                    _ => other_key(why, &called, about, self.key.as_deref()),
                };
                // Anyone may announce an indexer at any address.
                match role {
                    Role::Native => mistake,
                    Role::Indexer | Role::Node => Mistake {
                        severity: Severity::Notice,
                        ..mistake
                    },
                }
            }
            (why, false) => {
                let host = TransportAddr::of(addr.as_ref()).host;
                refused_peer(why, &host, self.key.as_deref())
            }
        };
        self.problems.happened(now, mistake);
    }

    /// This server has answered a beat or a request, or is no server of this process any more:
    /// nothing stands in its place.
    pub(in crate::daemon) fn end_refusals(&mut self, now: Instant, server: &PeerId) {
        if self.problems.is_empty() {
            return;
        }
        let meant = about("", text(server));
        self.problems.over_if(now, |mistake| {
            let is_refusal = [HANDSHAKE_REFUSED, ITSELF, WRONG_PEER].contains(&mistake.code);
            is_refusal && mistake.about.ends_with(&meant)
        });
    }

    fn is_native(&self, peer: libp2p::PeerId) -> bool {
        PeerId::try_from(peer).is_ok_and(|peer| self.env.machine().is_native(&peer))
    }

    /// The server that is known at this address.
    fn server_at(&self, addr: &Multiaddr) -> Option<(Role, PeerId)> {
        let machine = self.env.endpoint.machine();
        let mut found = None;
        machine.servers(self.env.now(), &mut |server| {
            let addrs = machine.addrs_of(&server.peer).map(multiaddrs);
            if addrs.is_some_and(|addrs| addrs.contains(addr)) {
                found = Some((server.role, server.peer));
            }
        });
        found
    }
}

/// What a refusal at a dialled address is about: the address, and the server that was meant.
fn about(at: &str, meant: impl Display) -> String {
    format!("{at} {meant}")
}

/// A peer that came from this host has another key. Behind one address there may be several.
pub(super) fn refused_peer(why: Why, host: &Host, own: Option<&str>) -> Mistake {
    let about = format!("{} {why}", source(host));
    let mistake = other_key(why, &format!("a peer at {host}"), about, own);
    let hint = match own {
        Some(_) => mistake.hint,
        // Most servers without a key have none on purpose.
        None => "if it belongs to this network, which is open here, start it without --psk; if the network has a key, \
                 give this process the key file with --psk"
            .into(),
    };
    Mistake {
        code: PEER_REFUSED,
        severity: Severity::Notice,
        hint,
        ..mistake
    }
}

/// What one source of strangers is: a host, or with IPv6 its network of 64 bits.
fn source(host: &Host) -> String {
    match host {
        Host::V6(ip) => {
            let net = ip.to_bits() >> 64 << 64;
            format!("{}/64", std::net::Ipv6Addr::from_bits(net))
        }
        host => host.to_string(),
    }
}

/// The address without the peer id at its end.
fn without_peer(addr: &Multiaddr) -> Multiaddr {
    addr.iter()
        .filter(|part| !matches!(part, Protocol::P2p(_)))
        .collect()
}

/// The two ends have different keys. `own` is the fingerprint of the key of this process.
pub(super) fn other_key(why: Why, called: &str, about: String, own: Option<&str>) -> Mistake {
    let what = match why {
        Why::NoKey => format!("{called} has no pre-shared key, and this process has one"),
        Why::HasKey => format!("{called} has a pre-shared key, and this process has none"),
        _ => format!("{called} has another pre-shared key than this process"),
    };
    let hint = match own {
        Some(own) => format!(
            "`oc-discovery doctor` shows the fingerprint of the key on each device, here it is {own}; give all devices \
             the same file with --psk"
        ),
        None => "this process has no key: give it the key file of the network with --psk".into(),
    };
    Mistake {
        code: HANDSHAKE_REFUSED,
        severity: Severity::Warning,
        about,
        what: format!("handshake refused: is the key the same? {what}"),
        hint,
    }
}

/// What listens at the dialled address is something else.
pub(super) fn other_protocol(called: &str, about: String) -> Mistake {
    Mistake {
        code: HANDSHAKE_REFUSED,
        severity: Severity::Warning,
        about,
        what: format!("{called} speaks another protocol: it is no oc-discovery"),
        hint: "is the port right? a native prints its address when it starts".into(),
    }
}

/// Another peer than the dialled one answers at the address.
pub(super) fn other_peer(
    at: &str,
    meant: &libp2p::PeerId,
    found: &libp2p::PeerId,
    is_own: bool,
) -> Mistake {
    let (what, hint) = match is_own {
        true => (
            format!(
                "{at} leads to this process itself, and not to the peer {}",
                last(meant)
            ),
            "remove that address from --native, or write the address of the other device"
                .to_owned(),
        ),
        false => (
            format!(
                "at {at} answers the peer {}, and not {}",
                last(found),
                last(meant)
            ),
            format!(
                "if it has a new identity, write /p2p/{found} in --native; else another device has its address"
            ),
        ),
    };
    Mistake {
        code: if is_own { ITSELF } else { WRONG_PEER },
        severity: Severity::Warning,
        about: about(at, meant),
        what,
        hint,
    }
}

/// The last characters of an id.
fn last(peer: &libp2p::PeerId) -> String {
    short_id(&peer.to_base58())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_of_keys_says_which_end_has_one() {
        for (why, own, said, hinted) in [
            (
                Why::OtherKey,
                Some("abcd"),
                "has another pre-shared key",
                "here it is abcd",
            ),
            (
                Why::NoKey,
                Some("abcd"),
                "has no pre-shared key, and this process has one",
                "abcd",
            ),
            (
                Why::HasKey,
                None,
                "has a pre-shared key, and this process has none",
                "--psk",
            ),
        ] {
            let mistake = other_key(why, "a peer at 192.0.2.1", "192.0.2.1".into(), own);
            let head =
                format!("handshake refused: is the key the same? a peer at 192.0.2.1 {said}");
            assert!(mistake.what.starts_with(&head), "{mistake:?}");
            assert!(mistake.hint.contains(hinted), "{mistake:?}");
        }
    }

    #[test]
    fn an_open_server_tells_the_peer_with_a_key_what_to_do_and_a_closed_one_compares_keys() {
        let host = Host::V4([192, 0, 2, 1].into());
        let open = refused_peer(Why::HasKey, &host, None);
        assert!(open.hint.contains("start it without --psk"), "{open:?}");
        let closed = refused_peer(Why::NoKey, &host, Some("abcd"));
        assert!(closed.hint.contains("here it is abcd"), "{closed:?}");
    }

    #[test]
    fn two_kinds_of_strangers_at_one_address_are_two_notices() {
        let host = Host::V4([192, 0, 2, 1].into());
        let about = |why| refused_peer(why, &host, None).about;
        assert_ne!(about(Why::OtherKey), about(Why::NoKey));
        assert_eq!(about(Why::NoKey), about(Why::NoKey));
    }

    #[test]
    fn own_address_is_told_from_that_of_another_device() {
        let id = |n| libp2p::PeerId::from(PeerId::from_bytes([n; 32]));
        let own = other_peer("192.0.2.1:1", &id(1), &id(2), true);
        assert!(own.what.contains("leads to this process itself"), "{own:?}");
        assert_eq!(own.code, "itself-as-native");
        let other = other_peer("192.0.2.1:1", &id(1), &id(2), false);
        assert!(other.hint.contains(&format!("/p2p/{}", id(2))), "{other:?}");
    }
}
