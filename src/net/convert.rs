//! Conversion between the core's types and libp2p's: peer ids, multiaddresses, keys of the DHT.
//!
//! Invariant: an address that libp2p cannot read, that names a peer, or that cannot be dialled is
//! never dialled or shown.
//! The core keeps addresses as opaque bytes, so this module leaves such addresses out.

use std::fmt;

use libp2p::{
    Multiaddr,
    kad::{KBucketKey, RecordKey},
    multiaddr::Protocol,
};

use crate::protocol::{
    Addr, Addrs, Key, MAX_ADDR_LEN, PeerId,
    address::can_be_dialled,
    codec::{ED25519_PREFIX, PEER_ID_LEN, peer_to_bytes, record::Kind},
};

/// Why an address cannot be in a message or record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddrError {
    /// No bytes at all.
    Empty,
    /// More than [`MAX_ADDR_LEN`] bytes.
    TooLong {
        /// Bytes found.
        length: usize,
    },
    /// Not a multiaddress that this version can read.
    Unreadable,
    /// It names a peer; addresses travel without `/p2p`.
    NamesPeer,
    /// It cannot be dialled.
    Undialable,
}

impl fmt::Display for AddrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("address: is empty"),
            Self::TooLong { length } => {
                write!(
                    f,
                    "address: has {length} bytes, at most {MAX_ADDR_LEN} are allowed"
                )
            }
            Self::Unreadable => f.write_str("address: is not a multiaddress"),
            Self::NamesPeer => f.write_str("address: must be without /p2p"),
            Self::Undialable => f.write_str("address: nobody can dial it"),
        }
    }
}

impl std::error::Error for AddrError {}

/// The address as the core keeps it.
///
/// # Errors
/// It is empty, has more than [`MAX_ADDR_LEN`] bytes, contains `/p2p`, or cannot be dialled.
pub(crate) fn to_addr(multiaddr: &Multiaddr) -> Result<Addr, AddrError> {
    check_addr(multiaddr)?;
    let length = multiaddr.len();
    Addr::from_slice(multiaddr.as_ref()).map_err(|_| AddrError::TooLong { length })
}

/// The addresses as the core keeps them: those that it can keep, up to its limit.
pub(crate) fn to_addrs(multiaddrs: &[Multiaddr]) -> Addrs {
    let mut addrs = Addrs::new();
    for addr in multiaddrs.iter().filter_map(|addr| to_addr(addr).ok()) {
        if addrs.push(addr).is_err() {
            break;
        }
    }
    addrs
}

/// The address of these bytes.
///
/// # Errors
/// The bytes are not one readable multiaddress of 1 to [`MAX_ADDR_LEN`] bytes without `/p2p` that
/// can be dialled.
pub(crate) fn to_multiaddr(bytes: &[u8]) -> Result<Multiaddr, AddrError> {
    let length = bytes.len();
    if length > MAX_ADDR_LEN {
        return Err(AddrError::TooLong { length });
    }
    let multiaddr = Multiaddr::try_from(bytes.to_vec()).map_err(|_| AddrError::Unreadable)?;
    check_addr(&multiaddr)?;
    Ok(multiaddr)
}

fn check_addr(multiaddr: &Multiaddr) -> Result<(), AddrError> {
    if multiaddr.is_empty() {
        return Err(AddrError::Empty);
    }
    if multiaddr
        .iter()
        .any(|part| matches!(part, Protocol::P2p(_)))
    {
        return Err(AddrError::NamesPeer);
    }
    if !can_be_dialled(multiaddr.as_ref()) {
        return Err(AddrError::Undialable);
    }
    Ok(())
}

/// The multihash code in a peer id, and the bytes before the key in the digest.
const IDENTITY: u8 = ED25519_PREFIX[0];
const KEY_PREFIX: &[u8] = ED25519_PREFIX.split_at(2).1;

/// Code and length of a sha2-256 multihash.
const SHA2_256: [u8; 2] = [0x12, 0x20];

impl From<PeerId> for libp2p::PeerId {
    #[expect(
        clippy::expect_used,
        reason = "libp2p accepts every identity multihash of 36 bytes"
    )]
    fn from(peer: PeerId) -> Self {
        Self::from_bytes(&peer_to_bytes(&peer))
            .expect("an identity multihash of 36 bytes is a peer id")
    }
}

/// The peer id is not that of an Ed25519 key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotEd25519(
    /// The peer id.
    pub libp2p::PeerId,
);

impl fmt::Display for NotEd25519 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not the peer id of an Ed25519 key", self.0)
    }
}

impl std::error::Error for NotEd25519 {}

impl TryFrom<libp2p::PeerId> for PeerId {
    type Error = NotEd25519;

    fn try_from(peer: libp2p::PeerId) -> Result<Self, NotEd25519> {
        let hash = peer.as_ref();
        (hash.code() == u64::from(IDENTITY))
            .then(|| hash.digest().strip_prefix(KEY_PREFIX))
            .flatten()
            .and_then(|key| key.try_into().ok())
            .map(PeerId::from_bytes)
            .ok_or(NotEd25519(peer))
    }
}

/// The DHT key of an indexer's record.
pub(crate) fn indexer_key(peer: &PeerId) -> RecordKey {
    RecordKey::new(&key_text(Kind::Indexer, peer))
}

/// The DHT key of a node's record.
pub(crate) fn node_key(peer: &PeerId) -> RecordKey {
    RecordKey::new(&key_text(Kind::Node, peer))
}

/// The DHT key of the providers that know which node has the name or service: the sha2-256
/// multihash of its text, so that any libp2p program can ask for it as for the content of that
/// hash. No key of a record begins so.
pub(crate) fn provider_key(key: &Key) -> RecordKey {
    // Kademlia hashes its keys in the same way.
    let hash = KBucketKey::new(key.to_string().into_bytes());
    RecordKey::new(&[&SHA2_256, hash.hashed_bytes()].concat())
}

/// The subject and kind of the record that belongs under a DHT key; `None` for a key of another
/// namespace or form.
pub(crate) fn parse_key(key: &[u8]) -> Option<(Kind, PeerId)> {
    let text = str::from_utf8(key).ok()?;
    let (kind, id) = match text.strip_prefix("/indexer/") {
        Some(id) => (Kind::Indexer, id),
        None => (Kind::Node, text.strip_prefix("/node/")?),
    };
    // The time to decode base58 grows with the square of the length. An Ed25519 peer id has at most
    // 52 characters.
    if id.len() > 2 * PEER_ID_LEN {
        return None;
    }
    let peer = PeerId::try_from(id.parse::<libp2p::PeerId>().ok()?).ok()?;
    Some((kind, peer))
}

fn key_text(kind: Kind, peer: &PeerId) -> String {
    let namespace = match kind {
        Kind::Indexer => "indexer",
        Kind::Node => "node",
    };
    format!("/{namespace}/{}", libp2p::PeerId::from(*peer))
}

#[cfg(test)]
mod tests {
    use libp2p::{identity::Keypair, multihash::Multihash};

    use super::*;

    fn peer(seed: u8) -> PeerId {
        let key = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        PeerId::try_from(key.public().to_peer_id()).unwrap()
    }

    #[test]
    fn peer_ids_convert_without_loss() {
        let key = Keypair::ed25519_from_bytes([7; 32]).unwrap().public();
        let ours = PeerId::try_from(key.to_peer_id()).unwrap();
        assert_eq!(
            ours.as_bytes(),
            &key.clone().try_into_ed25519().unwrap().to_bytes()
        );
        assert_eq!(libp2p::PeerId::from(ours), key.to_peer_id());
    }

    #[test]
    fn peer_ids_of_other_keys_are_refused() {
        let hashed = Multihash::<64>::wrap(0x12, &[1; 32]).unwrap();
        let short = Multihash::<64>::wrap(0, &[8, 1, 18, 31]).unwrap();
        let secp256k1 =
            Multihash::<64>::wrap(0, &[[8, 2, 18, 32].as_slice(), &[1; 32]].concat()).unwrap();
        for multihash in [hashed, short, secp256k1] {
            let id = libp2p::PeerId::from_multihash(multihash).unwrap();
            assert_eq!(PeerId::try_from(id), Err(NotEd25519(id)));
        }
    }

    #[test]
    fn keys_name_namespace_and_peer() {
        let id = libp2p::PeerId::from(peer(3)).to_base58();
        assert_eq!(
            indexer_key(&peer(3)).to_vec(),
            format!("/indexer/{id}").into_bytes()
        );
        assert_eq!(
            node_key(&peer(3)).to_vec(),
            format!("/node/{id}").into_bytes()
        );
        assert_eq!(
            parse_key(&indexer_key(&peer(3)).to_vec()),
            Some((Kind::Indexer, peer(3)))
        );
        assert_eq!(
            parse_key(&node_key(&peer(3)).to_vec()),
            Some((Kind::Node, peer(3)))
        );
    }

    #[test]
    fn the_key_of_a_name_is_the_multihash_of_its_text() {
        let name = Key::Name("pump-3".try_into().unwrap());
        let text = provider_key(&name)
            .to_vec()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        // printf /oc/name/pump-3 | sha256sum
        assert_eq!(
            text,
            "12208911b242eb2ff52ef5f5cf90ab180197183cdce0d0353ef5364e7990e533fb00"
        );
        let service = Key::Service("http".try_into().unwrap());
        assert_eq!(service.to_string(), "/oc/service/http");
        assert_eq!(parse_key(&provider_key(&service).to_vec()), None);
    }

    #[test]
    fn other_keys_are_not_parsed() {
        let id = libp2p::PeerId::from(peer(3)).to_base58();
        let rsa = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";
        let others = [
            String::new(),
            "/indexer/".into(),
            format!("/Indexer/{id}"),
            format!("indexer/{id}"),
            format!("/indexer/{id}/"),
            format!("/indexer/{id} "),
            format!("/indexer/1{id}"),
            format!("/indexer//{id}"),
            format!("/indexer/{rsa}"),
            format!("/pk/{id}"),
            format!("/node/{}", "z".repeat(1_000_000)),
        ];
        for key in others {
            assert_eq!(parse_key(key.as_bytes()), None, "{key:.80}");
        }
        assert_eq!(parse_key(&[0xff; 40]), None);
    }

    #[test]
    fn addresses_have_one_to_64_bytes_and_no_peer() {
        let text = |dns: usize| format!("/dns4/{}/tcp/4820", "a".repeat(dns));
        let longest: Multiaddr = text(59).parse().unwrap();
        assert_eq!(longest.len(), 64);
        let addr = to_addr(&longest).unwrap();
        assert_eq!(to_multiaddr(&addr), Ok(longest));

        let long: Multiaddr = text(60).parse().unwrap();
        assert_eq!(to_addr(&long), Err(AddrError::TooLong { length: 65 }));
        assert_eq!(
            to_multiaddr(long.as_ref()),
            Err(AddrError::TooLong { length: 65 })
        );

        let id = libp2p::PeerId::from(peer(1));
        let named: Multiaddr = format!("/ip4/10.0.0.1/tcp/1/p2p/{id}").parse().unwrap();
        assert_eq!(to_addr(&named), Err(AddrError::NamesPeer));
        assert_eq!(to_multiaddr(named.as_ref()), Err(AddrError::NamesPeer));

        let nowhere: Multiaddr = "/ip4/224.0.0.1/tcp/4820".parse().unwrap();
        assert_eq!(to_addr(&nowhere), Err(AddrError::Undialable));
        assert_eq!(to_multiaddr(nowhere.as_ref()), Err(AddrError::Undialable));

        assert_eq!(to_multiaddr(&[]), Err(AddrError::Empty));
        assert_eq!(to_multiaddr(&[4, 10, 0, 0]), Err(AddrError::Unreadable));
    }
}
