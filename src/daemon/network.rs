//! What the operator of a closed network does with its key: makes it, grants with it, and revokes
//! (PROTOCOL.md, section 8). No daemon is asked, and no daemon has the key.
//!
//! Invariants: nothing is signed that a reader would refuse; the sequence of a list is above that
//! of every list before, and above that of a list that was lost, as long as the clock goes forward.

pub(super) mod date;
mod shown;

use std::fmt;
use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use libp2p::identity::Keypair;

pub(crate) use self::date::end_of;
pub(crate) use self::shown::{line_in, show};
use super::clock::BUILD_MS;
pub(crate) use super::report::text;
use super::storage::{StorageError, network as files};
use crate::config::{Role, peer_id_fault};
use crate::net::grants::{SealError, open_revocation, sign_grant, sign_revocation};
use crate::protocol::{
    PeerId,
    codec::{
        grant::{Grant, GrantName, GrantNames, MAX_GRANT_LEN, MAX_GRANT_NAMES, Roles},
        revocation::{MAX_REVOCATION_LEN, MAX_REVOKED},
    },
    grants::Revoked,
};

pub(crate) use super::storage::network::NETWORK_KEY;

/// A device, for the commands.
pub(crate) type Peer = PeerId;

/// Why a command about a network fails: one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// What was typed is wrong.
    Usage(String),
    /// It could not be done.
    Failed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(sentence) | Self::Failed(sentence) => f.write_str(sentence),
        }
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        Self::Failed(match error {
            StorageError::IdentityCorrupt { path, reason } => format!(
                "{} is no usable key of a network ({reason}): give the file that `oc-discovery network new` \
                 has made",
                path.display()
            ),
            error => error.to_string(),
        })
    }
}

/// What is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The roles that the peer may have.
    pub(crate) roles: Vec<Role>,
    /// The names of which a node has one; none: any.
    pub(crate) names: Vec<String>,
    /// Until when it counts, ms since the Unix epoch; `None`: it has no end.
    pub(crate) until_ms: Option<u64>,
}

/// The key of a closed network.
#[derive(Debug)]
pub(crate) struct NetworkKey {
    pair: Keypair,
    id: PeerId,
    file: PathBuf,
}

/// A signed revocation list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignedList {
    /// Its sequence.
    pub(crate) sequence: u64,
    /// The revoked peers.
    pub(crate) peers: Vec<String>,
    /// It, as a line of text.
    pub(crate) line: String,
    /// Of the peers that were to be revoked, those that were in it before.
    pub(crate) known: usize,
}

impl NetworkKey {
    /// Makes the key of a new network in a directory, which is made if needed.
    ///
    /// # Errors
    /// The directory has one, or cannot be written.
    pub(crate) fn create(dir: &Path) -> Result<Self, Error> {
        let there = dir.join(NETWORK_KEY);
        if there.symlink_metadata().is_ok() {
            let there = there.display();
            return Err(Error::Failed(format!(
                "{there} exists already, and a network's key is never overwritten: name another directory"
            )));
        }
        let (pair, file) = files::create(dir)?;
        Self::of(pair, file)
    }

    /// Reads the key of a network.
    ///
    /// # Errors
    /// There is no such file, others than its owner can read it, or it is no key.
    pub(crate) fn load(file: &Path) -> Result<Self, Error> {
        Self::of(files::load(file)?, file.to_path_buf())
    }

    fn of(pair: Keypair, file: PathBuf) -> Result<Self, Error> {
        let public = pair.public().to_peer_id();
        let id = PeerId::try_from(public).map_err(|error| Error::Failed(error.to_string()))?;
        Ok(Self { pair, id, file })
    }

    /// The network's id.
    pub(crate) fn id(&self) -> String {
        text(&self.id)
    }

    /// Its file.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Signs a grant for each of the peers, all or none. Returns a line of text for each. `now_ms`:
    /// ms since the Unix epoch.
    ///
    /// # Errors
    /// The wish has a value out of its bounds, or a peer is revoked.
    pub(crate) fn grant(
        &self,
        wish: &Wish,
        peers: &[PeerId],
        now_ms: u64,
    ) -> Result<Vec<String>, Error> {
        check_clock(now_ms)?;
        let (roles, names) = (checked_roles(wish)?, checked_names(wish)?);
        if let Some(until_ms) = wish.until_ms.filter(|until_ms| *until_ms <= now_ms) {
            let ended = date::utc(until_ms);
            return Err(Error::Usage(format!(
                "--until: {ended} has passed: give a date to come"
            )));
        }
        let list = files::ListFile::beside(&self.file)?;
        let revoked = self.revoked(&list)?;
        if let Some(peer) = peers.iter().find(|peer| revoked.has(peer)) {
            let (peer, list) = (text(peer), list.path().display());
            return Err(Error::Failed(format!(
                "{peer} is revoked in {list}, and a grant does not undo that: give the device a new identity with \
                 `oc-discovery identity reset`, and grant that one"
            )));
        }
        let signed = peers.iter().map(|peer| {
            let grant = Grant {
                peer: *peer,
                roles,
                names: names.clone(),
                issued_at_ms: now_ms,
                not_after_ms: wish.until_ms,
            };
            let envelope = sign_grant(&self.pair, &grant).map_err(|error| match error {
                SealError::Key => self.cannot_sign(),
                SealError::TooLong { length, .. } => Error::Usage(format!(
                    "--name: with these names the grant has {length} bytes, at most {MAX_GRANT_LEN} are allowed: \
                     give fewer or shorter names, or one ending such as *.roof"
                )),
            })?;
            Ok(BASE64URL_NOPAD.encode(&envelope))
        });
        signed.collect()
    }

    /// Adds peers to the network's list, with a higher sequence, and keeps it beside the key. If
    /// all are in it, it stays as it is.
    ///
    /// # Errors
    /// The list is full or cannot be read or written, or there is none and no peer for it.
    pub(crate) fn revoke(&self, peers: &[PeerId], now_ms: u64) -> Result<SignedList, Error> {
        let file = files::ListFile::beside(&self.file)?;
        let revoked = self.revoked(&file)?;
        let mut all = revoked.peers().to_vec();
        let mut known = 0;
        for peer in peers {
            match all.contains(peer) {
                true => known += 1,
                false => all.push(*peer),
            }
        }
        let is_new = all.len() > revoked.peers().len();
        if !is_new && revoked.sequence() == 0 {
            let sentence = "no peer is revoked yet: name the peer ids to revoke";
            return Err(Error::Usage(sentence.to_owned()));
        }
        if all.len() > MAX_REVOKED {
            return Err(Error::Failed(format!(
                "{} peers would be revoked, and a list has at most {MAX_REVOKED}: make a new network, and grant \
                 the devices that stay",
                all.len()
            )));
        }
        let mut sequence = revoked.sequence();
        let envelope = match is_new {
            false => self.kept(&file)?.unwrap_or_default(),
            true => {
                check_clock(now_ms)?;
                sequence = sequence.saturating_add(1).max(now_ms);
                let signed = sign_revocation(&self.pair, sequence, now_ms, &all);
                let signed = signed.map_err(|_| self.cannot_sign())?;
                file.replace(&signed)?;
                signed
            }
        };
        Ok(SignedList {
            sequence,
            peers: all.iter().map(text).collect(),
            line: BASE64URL_NOPAD.encode(&envelope),
            known,
        })
    }

    /// The list beside the key.
    fn revoked(&self, file: &files::ListFile) -> Result<Revoked, Error> {
        let mut revoked = Revoked::default();
        let Some(envelope) = self.kept(file)? else {
            return Ok(revoked);
        };
        let wrong = |why: &dyn fmt::Display| {
            let (path, id) = (file.path().display(), self.id());
            Error::Failed(format!(
                "{path} is not the revocation list of the network {id} ({why}): put the right one back; without it \
                 those that it names would belong to the network again"
            ))
        };
        let network = open_revocation(&envelope, |network, list| {
            revoked.take(list);
            network
        });
        match network {
            Ok(network) if network == self.id => Ok(revoked),
            Ok(network) => Err(wrong(&format_args!("it is that of {}", text(&network)))),
            Err(error) => Err(wrong(&error)),
        }
    }

    fn kept(&self, file: &files::ListFile) -> Result<Option<Vec<u8>>, Error> {
        Ok(file.read(MAX_REVOCATION_LEN as u64)?)
    }

    fn cannot_sign(&self) -> Error {
        Error::Failed(format!("{} cannot sign", self.file.display()))
    }
}

/// The peer with this id. `what`: where it was given.
///
/// # Errors
/// [`Error::Usage`].
pub(crate) fn peer_of(what: &str, text: &str) -> Result<PeerId, Error> {
    let Ok(peer) = text.parse::<libp2p::PeerId>() else {
        let fault = peer_id_fault(text);
        let text: String = text.chars().take(120).collect();
        return Err(Error::Usage(format!("{what}: {text:?} {fault}")));
    };
    PeerId::try_from(peer).map_err(|error| Error::Usage(format!("{what}: {error}")))
}

fn checked_roles(wish: &Wish) -> Result<Roles, Error> {
    Roles::of(&wish.roles).ok_or_else(|| {
        let sentence = "--role is missing: give native, indexer or node";
        Error::Usage(sentence.to_owned())
    })
}

fn checked_names(wish: &Wish) -> Result<GrantNames<'_>, Error> {
    if !wish.names.is_empty() && !wish.roles.contains(&Role::Node) {
        let sentence = "--name: only nodes have names: give --role node, too, or leave --name out";
        return Err(Error::Usage(sentence.to_owned()));
    }
    let mut names = GrantNames::new();
    for text in &wish.names {
        let name = GrantName::new(text).ok_or_else(|| {
            Error::Usage(format!(
                "--name: {text:?} must have 1 to 63 of a-z 0-9 - ., or be *. and such a name, for every name with \
                 that ending"
            ))
        })?;
        names.push(name).map_err(|_| {
            Error::Usage(format!(
                "--name: {} names are given, at most {MAX_GRANT_NAMES} are allowed: give an ending such as *.roof",
                wish.names.len()
            ))
        })?;
    }
    Ok(names)
}

/// The clock of this machine dates what is signed.
fn check_clock(now_ms: u64) -> Result<(), Error> {
    if now_ms < BUILD_MS {
        return Err(Error::Failed(format!(
            "the clock of this machine says {}, which is before this program was built: set it, then try again",
            date::utc(now_ms)
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
