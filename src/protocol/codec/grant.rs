//! Grants of a closed network: the payload of an envelope that the network's key signs
//! (PROTOCOL.md, section 8), and what the messages of its members carry beside.
//!
//! Invariant: a decoded grant has the form that PROTOCOL.md states: at least one role, and names
//! that a node could have. Whether it counts is decided in [`grants`](crate::protocol::grants).

use heapless::Vec;
use minicbor::Encode;

use super::{
    DecodeError, NoRoom,
    cbor::{CborReader, List, required, write},
    to_name,
};
use crate::protocol::{MAX_NAME_LEN, PeerId, Role};

/// The domain of a grant's signature (RFC 0002 of libp2p).
pub const GRANT_DOMAIN: &str = "oc-discovery-grant";
/// The payload type of a grant's envelope.
pub const GRANT_PAYLOAD_TYPE: &[u8] = b"/oc/grant/1";
/// Bytes of a grant's envelope at most.
pub const MAX_GRANT_LEN: usize = 384;
/// Names in one grant at most.
pub const MAX_GRANT_NAMES: usize = 4;
/// What a name of a grant begins with that stands for every name with the ending after it.
const ANY: &str = "*.";

/// What a message of a member carries beside: nothing in an open network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Membership<'a> {
    /// The envelope of the sender's grant, at most [`MAX_GRANT_LEN`] bytes. It is in the first
    /// message of a stream alone.
    pub grant: Option<&'a [u8]>,
    /// The sequence of the sender's revocation list, 0 if it has none.
    pub revocations: Option<u64>,
}

impl Membership<'_> {
    /// That of a peer of an open network.
    pub const OPEN: Self = Self {
        grant: None,
        revocations: None,
    };
}

/// The roles that a grant allows, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    const ALL: u64 = 7;

    /// These roles; `None` if there is none.
    pub fn of(roles: &[Role]) -> Option<Self> {
        let bits = roles.iter().fold(0, |bits, role| bits | bit(*role));
        (bits != 0).then_some(Self(bits))
    }

    /// Whether the role is among them.
    pub const fn allow(self, role: Role) -> bool {
        self.0 & bit(role) != 0
    }

    fn read(r: &mut CborReader<'_>) -> Result<Self, DecodeError> {
        const FIELD: &str = "grant's roles";
        match r.uint(FIELD)? {
            bits @ 1..=Self::ALL => Ok(Self(bits as u8)),
            _ => Err(DecodeError::OutOfBounds {
                field: FIELD,
                bound: "1 to 7, a sum of 1 node, 2 indexer, 4 native",
            }),
        }
    }
}

const fn bit(role: Role) -> u8 {
    match role {
        Role::Node => 1,
        Role::Indexer => 2,
        Role::Native => 4,
    }
}

/// A name of a grant: one name, or `*.` and the ending of all names that it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantName<'a>(&'a str);

impl<'a> GrantName<'a> {
    /// The text as a name of a grant; `None` unless it is a node's name, or `*.` and one, of at
    /// most [`MAX_NAME_LEN`] bytes in all.
    pub fn new(text: &'a str) -> Option<Self> {
        let plain = text.strip_prefix(ANY).unwrap_or(text);
        (text.len() <= MAX_NAME_LEN && to_name(plain).is_some()).then_some(Self(text))
    }

    /// As it is written.
    pub const fn as_str(&self) -> &'a str {
        self.0
    }

    /// Whether it stands for this name. `*` stands for at least one character.
    pub fn covers(&self, name: &str) -> bool {
        // The point belongs to the ending.
        match self.0.strip_prefix('*') {
            Some(ending) => name.len() > ending.len() && name.ends_with(ending),
            None => self.0 == name,
        }
    }
}

/// The names of a grant.
pub type GrantNames<'a> = Vec<GrantName<'a>, MAX_GRANT_NAMES, u8>;

/// The content of a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant<'a> {
    /// Its subject.
    pub peer: PeerId,
    /// The roles that the subject may have.
    pub roles: Roles,
    /// The names of which the subject has one. None: any name that no grant names.
    pub names: GrantNames<'a>,
    /// Wall-clock time of the signature, ms since the Unix epoch.
    pub issued_at_ms: u64,
    /// Wall-clock time after which it does not count, ms since the Unix epoch. None: it has no end.
    pub not_after_ms: Option<u64>,
}

#[derive(Encode)]
#[cbor(map)]
struct GrantMap<'a, N> {
    #[n(0)]
    peer: &'a PeerId,
    #[n(1)]
    roles: u8,
    #[n(2)]
    names: Option<N>,
    #[n(3)]
    issued_at_ms: u64,
    #[n(4)]
    not_after_ms: Option<u64>,
}

/// Writes the payload of a grant to `buffer`.
///
/// # Errors
/// See [`NoRoom`].
pub fn encode_grant<'b>(grant: &Grant<'_>, buffer: &'b mut [u8]) -> Result<&'b [u8], NoRoom> {
    let map = GrantMap {
        peer: &grant.peer,
        roles: grant.roles.0,
        names: (!grant.names.is_empty()).then(|| List(grant.names.iter().map(GrantName::as_str))),
        issued_at_ms: grant.issued_at_ms,
        not_after_ms: grant.not_after_ms,
    };
    write(&map, buffer)
}

/// Decodes the payload of a grant. Its signer is not checked here.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_grant(payload: &[u8]) -> Result<Grant<'_>, DecodeError> {
    const FIELD: &str = "grant";
    let (mut peer, mut roles, mut names) = (None, None, GrantNames::new());
    let (mut issued, mut not_after) = (None, None);
    CborReader::whole(payload, |r| {
        r.map(FIELD, |r, key| {
            match key {
                0 => peer = Some(r.peer("grant's peer id")?),
                1 => roles = Some(Roles::read(r)?),
                2 => names = read_names(r)?,
                3 => issued = Some(r.uint("grant's time of issue")?),
                4 => not_after = Some(r.uint("grant's end")?),
                _ => r.skip(FIELD)?,
            }
            Ok(())
        })
    })?;
    Ok(Grant {
        peer: required(peer, FIELD, 0)?,
        roles: required(roles, FIELD, 1)?,
        names,
        issued_at_ms: required(issued, FIELD, 3)?,
        not_after_ms: not_after,
    })
}

fn read_names<'b>(r: &mut CborReader<'b>) -> Result<GrantNames<'b>, DecodeError> {
    const FIELD: &str = "grant's names";
    const NAME: &str = "grant's name";
    let names: GrantNames<'b> = r.list(FIELD, |r| {
        let text = r.text(NAME, MAX_NAME_LEN)?;
        GrantName::new(text).ok_or(DecodeError::OutOfBounds {
            field: NAME,
            bound: "1 to 63 of a-z 0-9 - ., or *. before such a name",
        })
    })?;
    // A grant for no name at all would be read as one for any name.
    if names.is_empty() {
        return Err(DecodeError::OutOfBounds {
            field: FIELD,
            bound: "1 to 4 names",
        });
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
