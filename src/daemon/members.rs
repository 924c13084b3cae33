//! The closed network of a daemon: its own grant and the revocation list, from their files to the
//! core, and what is told of peers that do not belong to it.
//!
//! Invariants: what a file has is verified before the core gets it; a grant that would be refused
//! everywhere is an error at the start; a list that cannot be read is told and not used.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use data_encoding::BASE64URL_NOPAD;
use miniserde::{Deserialize, Serialize};

use super::{
    Error, clock,
    driver::Driver,
    life::short,
    machines,
    network::date,
    problems::Mistake,
    report::text,
    request::{CallAnswer, Reply},
    status::{self, Severity},
};
use crate::{
    config::{Config, Role, name_of_host},
    net::{
        envelope::Libp2p,
        grants::{open_grant, open_revocation},
    },
    protocol::{
        PeerId,
        closed::Closed,
        codec::{grant::MAX_GRANT_LEN, revocation::MAX_REVOCATION_LEN},
        grants::{Bearer, Denial, Taken},
    },
};

/// The own grant in the data directory.
const GRANT: &str = "grant";
/// The revocation list there.
pub(super) const REVOKED: &str = "revoked";
/// A text of a grant or a list at most: the base64url form of the longest list, and some space.
const MAX_TEXT: u64 = (MAX_REVOCATION_LEN * 4 / 3 + 64) as u64;

/// The answer to `revoke`. The field names are an interface: they are never renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Revoked {
    schema: u64,
    /// The network's id.
    network: String,
    /// The sequence of the list.
    sequence: u64,
    /// Peers that it revokes.
    revoked: usize,
    /// Whether the daemon did not have it before.
    is_new: bool,
}

impl fmt::Display for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peers = status::counted(&self.revoked, "peer");
        match self.is_new {
            true => write!(
                f,
                "taken: {peers} revoked; the other members fetch it from here"
            ),
            false => write!(f, "it was taken before: {peers} revoked"),
        }
    }
}

/// What a process shows in its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnGrant {
    network: PeerId,
    envelope: Vec<u8>,
    until_ms: Option<u64>,
    names: Vec<String>,
    roles: Vec<Role>,
}

/// The own grant of a process with this configuration and identity; `None` in an open network. One
/// in the data directory is not needed there, so if it cannot be used, that is only logged.
///
/// # Errors
/// It is missing, or would be refused: the sentence names the file and what to do.
pub(super) fn own_grant(config: &Config, own: &PeerId) -> Result<Option<OwnGrant>, Error> {
    let is_needed = config.network.is_some() || config.grant.is_some();
    match needed_grant(config, own) {
        Err(why) if !is_needed => {
            log::warn!("the grant is not shown: {why}");
            Ok(None)
        }
        grant => grant,
    }
}

fn needed_grant(config: &Config, own: &PeerId) -> Result<Option<OwnGrant>, Error> {
    let in_dir = config.data_dir.as_ref().map(|dir| dir.join(GRANT));
    let file: Option<PathBuf> = match &config.grant {
        Some(file) => Some(file.clone()),
        None => in_dir
            .clone()
            .filter(|file| file.symlink_metadata().is_ok()),
    };
    let Some(file) = file else {
        return match config.network {
            None => Ok(None),
            Some(network) => Err(Error(format!(
                "--network {network}: there is no grant: put the line that `oc-discovery network grant` prints for {} \
                 into {}, or give its file with --grant",
                text(own),
                in_dir.map_or_else(
                    || "the data directory".to_owned(),
                    |file| file.display().to_string()
                ),
            ))),
        };
    };
    let wrong = |why: &dyn fmt::Display| {
        Error(format!(
            "{}: {why}: grant {} with `oc-discovery network grant`, and put the line there",
            file.display(),
            text(own)
        ))
    };
    let envelope = read_text(&file, MAX_GRANT_LEN).map_err(|why| wrong(&why))?;
    let bearer = Bearer {
        peer: *own,
        role: config.role,
        name: None,
    };
    let name = (config.role == Role::Node).then(|| own_name(config));
    let bearer = Bearer {
        name: name.as_deref(),
        ..bearer
    };
    let now_ms = Some(clock::wall()).filter(|now| *now >= clock::BUILD_MS);
    let opened = open_grant(&envelope, |network, grant| {
        let judged = grant.judge(&bearer, now_ms).map_err(|denial| match denial {
            Denial::OtherPeer => format!("it is for {}, another peer", text(&grant.peer)),
            Denial::Role(role) => format!("it does not allow the role {role}"),
            Denial::Name => format!(
                "it does not allow the name {:?}, only {}",
                bearer.name.unwrap_or_default(),
                grant
                    .names
                    .iter()
                    .map(|name| name.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            Denial::Ended { .. } => format!(
                "it ended on {}",
                date::utc(grant.not_after_ms.unwrap_or_default())
            ),
            other => other.to_string(),
        });
        judged.map(|()| OwnGrant {
            network,
            envelope: envelope.clone(),
            until_ms: grant.not_after_ms,
            names: grant
                .names
                .iter()
                .map(|name| name.as_str().to_owned())
                .collect(),
            roles: Role::ALL
                .into_iter()
                .filter(|role| grant.roles.allow(*role))
                .collect(),
        })
    });
    let grant = opened.map_err(|why| wrong(&format_args!("it is no grant ({why})")))?;
    let grant = grant.map_err(|why| wrong(&why))?;
    match config.network {
        Some(network) if network != libp2p::PeerId::from(grant.network) => {
            Err(wrong(&format_args!(
                "it is a grant of the network {}, and --network says {network}",
                text(&grant.network)
            )))
        }
        _ => Ok(Some(grant)),
    }
}

fn own_name(config: &Config) -> String {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    config.name.clone().unwrap_or_else(|| name_of_host(&host))
}

/// The bytes of a line of base64url text, at most so many.
fn read_text(file: &Path, most: usize) -> Result<Vec<u8>, String> {
    let length = fs::metadata(file)
        .map_err(|why| format!("cannot be read: {why}"))?
        .len();
    if length > MAX_TEXT {
        return Err(format!(
            "it has {length} bytes, at most {MAX_TEXT} are allowed"
        ));
    }
    let line = fs::read_to_string(file).map_err(|why| format!("cannot be read: {why}"))?;
    decoded(line.trim(), most)
}

/// The same, of a text.
pub(super) fn decoded(line: &str, most: usize) -> Result<Vec<u8>, String> {
    match BASE64URL_NOPAD.decode(line.as_bytes()) {
        Ok(bytes) if bytes.len() <= most => Ok(bytes),
        Ok(bytes) => Err(format!(
            "it has {} bytes, at most {most} are allowed",
            bytes.len()
        )),
        Err(why) => Err(format!("it is no base64url text ({why})")),
    }
}

impl Driver<'_> {
    /// The process has this grant, and takes part in its network: it refuses others if the
    /// configuration names the network.
    pub(super) fn join(&mut self, grant: &OwnGrant, is_enforced: bool) {
        let known = self.env.endpoint.closed();
        if known.is_none_or(|closed| *closed.network() != grant.network) {
            let mut closed = machines::boxed(Closed::new);
            closed.start(grant.network, &grant.envelope);
            self.env.endpoint.join(closed);
            self.read_list();
        } else if let Some(closed) = self.env.endpoint.closed_mut() {
            closed.start(grant.network, &grant.envelope);
        }
        self.record.has_grant(grant.envelope.clone());
        self.env.endpoint.record_changed();
        self.member = Some(grant.clone());
        if is_enforced {
            self.enforce();
        }
        self.show_membership();
    }

    /// The same after a reload, if the grant is another one or the network is closed now.
    ///
    /// Returns whether another grant is shown from now on.
    pub(super) fn rejoin(&mut self, config: &Config) -> bool {
        let Ok(Some(grant)) = own_grant(config, &self.env.own) else {
            return false;
        };
        let closed = self.env.endpoint.closed();
        let is_enforced = closed.is_some_and(Closed::is_enforced);
        let closes = config.network.is_some() && !is_enforced;
        let is_other = self.member.as_ref() != Some(&grant);
        if closes || is_other {
            self.join(&grant, config.network.is_some());
        }
        is_other
    }

    /// Peers without a grant are refused from now on.
    fn enforce(&mut self) {
        let Some(closed) = self
            .env
            .endpoint
            .closed_mut()
            .filter(|it| !it.is_enforced())
        else {
            return;
        };
        closed.enforce();
        let network = text(closed.network());
        self.env.net.close_dht();
        log::info!("the network is closed: only peers with a grant of {network} take part");
    }

    /// What beats and acks say of the own membership.
    fn show_membership(&mut self) {
        if let Some(closed) = self.env.endpoint.closed() {
            self.env.net.show(closed.membership());
        }
    }

    /// The list of an earlier run.
    fn read_list(&mut self) {
        let Some(file) = self.list_file() else { return };
        let taken = match fs::read(&file) {
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => return,
            Err(why) => Err(why.to_string()),
            Ok(list) => {
                let taken = self.env.endpoint.take_revocations(&list, &Libp2p);
                taken.map_err(|denial| denial.to_string())
            }
        };
        if let Err(why) = taken {
            log::warn!(
                "{}: the revocation list is not used ({why}): it is fetched again from another member",
                file.display()
            );
        }
    }

    fn list_file(&self) -> Option<PathBuf> {
        Some(self.files.dir()?.join(REVOKED))
    }

    /// A newer list counts: it is kept for the next start, and told.
    pub(super) fn keep_revocations(&mut self) {
        self.show_membership();
        let Some(closed) = self.env.endpoint.closed() else {
            return;
        };
        let revoked = closed.revoked();
        log::info!(
            "takes the revocation list {} of the network: {} revoked",
            revoked.sequence(),
            status::counted(&revoked.peers().len(), "peer")
        );
        let Some(dir) = self.files.dir() else { return };
        if let Err(why) = super::storage::replace(dir, REVOKED, closed.list()) {
            log::warn!(
                "cannot keep the revocation list in {}: {why}",
                dir.display()
            );
        }
    }

    /// A peer does not belong to the network any more. That is told of one that `had_lease`: a list
    /// names peers that were never here, too.
    pub(super) fn expel(&mut self, peer: &PeerId, denial: &Denial, had_lease: bool) {
        if had_lease {
            log::info!("{} is expelled: {denial}", short(peer));
        }
        self.env.net.expel(*peer);
    }

    /// A peer was refused because it is no member.
    pub(super) fn note_stranger(&mut self, peer: &PeerId, role: Role, denial: &Denial) {
        let mistake = Mistake {
            code: code(denial),
            severity: Severity::Notice,
            about: text(peer),
            what: format!("{role} {} is refused: {denial}", short(peer)),
            hint: match denial {
                Denial::Revoked => {
                    "if it belongs to the network, give it a new identity, and grant that".into()
                }
                _ => format!(
                    "if it belongs to the network: oc-discovery network grant --key FILE --role {role} {}",
                    text(peer)
                ),
            },
        };
        self.problems.happened(self.env.now(), mistake);
    }

    /// `revoke LIST`: takes a list from the operator.
    pub(super) fn revoke(&mut self, line: &str, reply: Reply) {
        let answer = self.take_list(line);
        match answer {
            Ok(answer) => reply.answer(CallAnswer::Revoked(answer)),
            Err(why) => reply.refuse(&why),
        }
    }

    fn take_list(&mut self, line: &str) -> Result<Revoked, String> {
        let list = decoded(line, MAX_REVOCATION_LEN)?;
        let Some(closed) = self.env.endpoint.closed().filter(|it| it.is_enforced()) else {
            return Err(
                "this process is in no closed network: start it with --network ID".to_owned(),
            );
        };
        let (network, before) = (text(closed.network()), closed.revoked().sequence());
        let signed_by = open_revocation(&list, |signer, list| (signer, list.sequence));
        let (signer, sequence) =
            signed_by.map_err(|why| format!("it is no revocation list: {why}"))?;
        if text(&signer) != network {
            return Err(format!(
                "it is a list of the network {}, and this process is in {network}",
                text(&signer)
            ));
        }
        let taken = self.env.endpoint.take_revocations(&list, &Libp2p);
        match taken.map_err(|denial| denial.to_string())? {
            Taken::Newer => {}
            Taken::Old if sequence == before => {}
            Taken::Old => {
                return Err(format!(
                    "it is older than the list that counts here: its sequence is {sequence}, that of the other {before}"
                ));
            }
        }
        let closed = self.env.endpoint.closed();
        Ok(Revoked {
            schema: status::SCHEMA,
            network,
            sequence,
            revoked: closed.map_or(0, |closed| closed.revoked().peers().len()),
            is_new: sequence > before,
        })
    }

    /// The network for `status`.
    pub(super) fn network_status(&self) -> Option<status::Network> {
        let closed = self.env.endpoint.closed()?;
        let grant = self.member.as_ref()?;
        let stats = closed.stats();
        let own = closed.revoked().has(&self.env.own);
        Some(status::Network {
            id: text(closed.network()),
            closed: closed.is_enforced(),
            roles: grant
                .roles
                .iter()
                .map(|role| role.name().to_owned())
                .collect(),
            names: grant.names.clone(),
            until_ms: grant.until_ms,
            is_revoked: own,
            list_sequence: closed.revoked().sequence(),
            revoked: closed.revoked().peers().len() as u64,
            members: stats.used as u64,
        })
    }

    /// What is wrong with the own membership.
    pub(super) fn own_membership(&self) -> Option<Mistake> {
        let grant = self.member.as_ref()?;
        let closed = self.env.endpoint.closed()?;
        let now_ms = self.env.settled_ms().unwrap_or_default();
        let (what, hint) = if closed.revoked().has(&self.env.own) {
            (
                "this device is revoked: no member of the network deals with it".to_owned(),
                "give it a new identity with `oc-discovery identity reset`, and grant that"
                    .to_owned(),
            )
        } else if let Some(until) = grant.until_ms.filter(|until| *until < now_ms) {
            (
                format!("the own grant ended on {}", date::utc(until)),
                "grant it anew with `oc-discovery network grant`, then `oc-discovery reload`"
                    .to_owned(),
            )
        } else {
            return None;
        };
        Some(Mistake {
            code: "own-grant",
            severity: Severity::Critical,
            about: String::new(),
            what,
            hint,
        })
    }
}

/// The problem that a peer with this denial is.
fn code(denial: &Denial) -> &'static str {
    match denial {
        Denial::Missing => "no-grant",
        Denial::Revoked => "revoked",
        _ => "wrong-grant",
    }
}
