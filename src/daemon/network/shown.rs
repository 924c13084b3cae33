//! What a line of text says that a network's key has signed. The field names of JSON are an
//! interface: they are never renamed.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use data_encoding::BASE64URL_NOPAD;
use miniserde::{Serialize, json};

use super::{Error, date, text};
use crate::config::Role;
use crate::net::grants::{OpenError, open_grant, open_revocation};
use crate::protocol::{
    PeerId,
    codec::{
        envelope::Flaw,
        grant::{Grant, GrantName},
        revocation::Revocation,
    },
};

/// What was signed, with a signature that verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// A grant.
    Grant(ShownGrant),
    /// A revocation list.
    List(ShownList),
}

/// A grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ShownGrant {
    schema: u32,
    kind: &'static str,
    network: String,
    peer_id: String,
    roles: Vec<&'static str>,
    names: Vec<String>,
    issued_at_ms: u64,
    not_after_ms: Option<u64>,
    ended: bool,
}

/// A revocation list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ShownList {
    schema: u32,
    kind: &'static str,
    network: String,
    sequence: u64,
    issued_at_ms: u64,
    peers: Vec<String>,
}

/// Bytes of a file at most: a line of text, or what it is made of.
const MOST_BYTES: u64 = 8 * 1024;

/// The line of text in a file; of a signed list as it is kept beside a network's key, the line that
/// is made of it.
///
/// # Errors
/// The file cannot be read, or has more bytes than a list.
pub(crate) fn line_in(file: &Path) -> Result<String, Error> {
    let failed = |why: &dyn fmt::Display| {
        Error::Failed(format!(
            "{}: {why}: give a line of `oc-discovery network grant`, a file with one, or the list beside the key",
            file.display()
        ))
    };
    let opened = File::open(file).map_err(|error| failed(&error))?;
    let mut bytes = Vec::new();
    let read = opened.take(MOST_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| failed(&error))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(failed(&"it is too long for a grant or a list"));
    }
    let is_line = bytes
        .trim_ascii()
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    Ok(match is_line {
        true => String::from_utf8_lossy(&bytes).into_owned(),
        false => BASE64URL_NOPAD.encode(&bytes),
    })
}

/// Reads a line of text, which `network grant` or `network revoke` has printed. `now_ms`: ms since
/// the Unix epoch.
///
/// # Errors
/// It is none, or its signature does not verify.
pub(crate) fn show(line: &str, now_ms: u64) -> Result<Shown, Error> {
    let envelope = BASE64URL_NOPAD.decode(line.trim().as_bytes()).map_err(|_| {
        Error::Failed(
            "this is no line of `oc-discovery network grant`: it has other characters than - _ and those of base64, or \
             a part of it is missing"
                .to_owned(),
        )
    })?;
    let shown = match open_grant(&envelope, |network, grant| {
        of_grant(&network, grant, now_ms)
    }) {
        Err(OpenError::Envelope(Flaw::WrongType) | OpenError::TooLong { .. }) => {
            open_revocation(&envelope, |network, list| of_list(&network, list))
        }
        shown => shown,
    };
    shown.map_err(|error| {
        Error::Failed(format!(
            "this is no grant and no revocation list: {error}; give one whole line of `oc-discovery network grant` or `revoke`, or a \
             file with it"
        ))
    })
}

fn of_grant(network: &PeerId, grant: &Grant<'_>, now_ms: u64) -> Shown {
    let roles = Role::ALL
        .into_iter()
        .filter(|role| grant.roles.allow(*role));
    Shown::Grant(ShownGrant {
        schema: 1,
        kind: "grant",
        network: text(network),
        peer_id: text(&grant.peer),
        roles: roles.map(Role::name).collect(),
        names: grant
            .names
            .iter()
            .map(GrantName::as_str)
            .map(str::to_owned)
            .collect(),
        issued_at_ms: grant.issued_at_ms,
        not_after_ms: grant.not_after_ms,
        ended: grant.not_after_ms.is_some_and(|end| end < now_ms),
    })
}

fn of_list(network: &PeerId, list: &Revocation<'_>) -> Shown {
    Shown::List(ShownList {
        schema: 1,
        kind: "revocations",
        network: text(network),
        sequence: list.sequence,
        issued_at_ms: list.issued_at_ms,
        peers: list.peers.iter().map(|peer| text(&peer)).collect(),
    })
}

impl Shown {
    /// It as one object on one line.
    pub(crate) fn to_json(&self) -> String {
        match self {
            Self::Grant(grant) => json::to_string(grant),
            Self::List(list) => json::to_string(list),
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grant(grant) => grant.fmt(f),
            Self::List(list) => list.fmt(f),
        }
    }
}

impl fmt::Display for ShownGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "grant for  {}", self.peer_id)?;
        writeln!(f, "network    {}", self.network)?;
        writeln!(f, "roles      {}", self.roles.join(", "))?;
        match self.names.is_empty() {
            true => writeln!(f, "names      any that no other grant names")?,
            false => writeln!(f, "names      {}", self.names.join(", "))?,
        }
        writeln!(f, "issued     {}", date::utc(self.issued_at_ms))?;
        match self.not_after_ms {
            None => f.write_str("ends       never"),
            Some(end) if self.ended => write!(f, "ended      {}", date::utc(end)),
            Some(end) => write!(f, "ends       {}", date::utc(end)),
        }
    }
}

impl fmt::Display for ShownList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "revocation list of the network {}", self.network)?;
        writeln!(f, "sequence   {}", self.sequence)?;
        write!(f, "issued     {}", date::utc(self.issued_at_ms))?;
        for peer in &self.peers {
            write!(f, "\nrevoked    {peer}")?;
        }
        Ok(())
    }
}
