//! `oc-discovery network`: the key of a closed network, grants, and the revocation list.
//!
//! Invariants: only results are on stdout, so that a line can be redirected into a file; all that
//! was typed is checked before the first line is printed.

use std::io::{self, Read as _};
use std::path::Path;

use miniserde::{Serialize, json};

use super::{Failure, USAGE, ask, note, print, role_given, show as show_answer};
use crate::cli::{GiveList, Grant, Network, NetworkAction, New, Revoke, ShowGrant};
use crate::daemon::{
    client::OperatorRequest,
    clock::wall,
    members::Revoked,
    network::{self, NetworkKey, Peer, Wish},
};

/// Bytes of stdin at most: 18,000 peer ids.
const MOST_BYTES: u64 = 1 << 20;

/// A grant in JSON. The field names are an interface: they are never renamed.
#[derive(Serialize)]
struct GrantLine<'a> {
    schema: u32,
    peer_id: &'a str,
    grant: &'a str,
}

/// A revocation list in JSON.
#[derive(Serialize)]
struct ListLine<'a> {
    schema: u32,
    network: &'a str,
    sequence: u64,
    peers: &'a [String],
    list: &'a str,
}

impl From<network::Error> for Failure {
    fn from(error: network::Error) -> Self {
        let code = match error {
            network::Error::Usage(_) => USAGE,
            network::Error::Failed(_) => 1,
        };
        Failure::new(code, error)
    }
}

/// Runs the command.
pub(super) fn run(args: &Network) -> Result<(), Failure> {
    match &args.what {
        NetworkAction::New(args) => new(args),
        NetworkAction::Grant(args) => grant(args),
        NetworkAction::Show(args) => show(args),
        NetworkAction::Revoke(args) => revoke(args),
    }
}

/// Gives a running daemon a list.
pub(super) fn give_list(args: &GiveList) -> Result<(), Failure> {
    let text = match args.file.as_str() {
        "-" => {
            let mut text = String::new();
            let read = io::stdin()
                .lock()
                .take(MOST_BYTES)
                .read_to_string(&mut text);
            read.map(|_| text)
        }
        file => std::fs::read_to_string(file),
    };
    let text = text.map_err(|why| Failure::new(1, format!("cannot read {}: {why}", args.file)))?;
    let line = text.trim();
    let is_line = line
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if line.is_empty() || !is_line {
        let sentence = format!(
            "{}: it is no revocation list: give the line that `oc-discovery network revoke` has printed",
            args.file
        );
        return Err(Failure::new(1, sentence));
    }
    let request = OperatorRequest::Revoke(line.to_owned());
    let answer = ask::<Revoked>(args.data_dir.as_deref(), &request)?;
    show_answer(&answer, args.json)
}

fn new(args: &New) -> Result<(), Failure> {
    let key = NetworkKey::create(Path::new(&args.dir))?;
    print(key.id())?;
    note(format_args!(
        "{} is the key of this network: whoever has it decides who belongs to it, so keep it off line",
        key.file().display()
    ));
    Ok(())
}

fn grant(args: &Grant) -> Result<(), Failure> {
    let roles = args.role.iter().map(|name| role_given(name));
    let wish = Wish {
        roles: roles.collect::<Result<_, _>>()?,
        names: args.name.clone(),
        until_ms: args.until.as_deref().map(network::end_of).transpose()?,
    };
    let peers = peers(&args.peers)?;
    if peers.is_empty() {
        let sentence = "no device is named: give its peer id, which `oc-discovery id` prints, or - for ids from stdin";
        return Err(Failure::new(USAGE, sentence));
    }
    let key = NetworkKey::load(Path::new(&args.key))?;
    let grants = key.grant(&wish, &peers, wall())?;
    for (peer, grant) in peers.iter().zip(&grants) {
        match args.json {
            true => print(json::to_string(&GrantLine {
                schema: 1,
                peer_id: &network::text(peer),
                grant,
            }))?,
            false => print(grant)?,
        }
    }
    if wish.until_ms.is_none() {
        note(
            "granted without an end: --until YYYY-MM-DD gives a last day, `network revoke` ends it before",
        );
    }
    Ok(())
}

fn show(args: &ShowGrant) -> Result<(), Failure> {
    let line = match args.grant.as_str() {
        "-" => stdin()?,
        file if Path::new(file).is_file() => network::line_in(Path::new(file))?,
        line => line.to_owned(),
    };
    let shown = network::show(&line, wall())?;
    match args.json {
        true => print(shown.to_json()),
        false => print(shown),
    }
}

fn revoke(args: &Revoke) -> Result<(), Failure> {
    let peers = peers(&args.peers)?;
    let key = NetworkKey::load(Path::new(&args.key))?;
    let list = key.revoke(&peers, wall())?;
    match args.json {
        true => print(json::to_string(&ListLine {
            schema: 1,
            network: &key.id(),
            sequence: list.sequence,
            peers: &list.peers,
            list: &list.line,
        }))?,
        false => print(&list.line)?,
    }
    if list.known > 0 {
        note(format_args!(
            "{} of these devices {} revoked before",
            list.known,
            if list.known == 1 { "was" } else { "were" }
        ));
    }
    Ok(())
}

/// The peers with the ids on the command line, or on stdin.
fn peers(given: &[String]) -> Result<Vec<Peer>, Failure> {
    if given != ["-"] {
        let peers = given.iter().map(|id| network::peer_of("peer id", id));
        return Ok(peers.collect::<Result<_, _>>()?);
    }
    let text = stdin()?;
    let lines = text.lines().enumerate();
    let ids = lines.map(|(at, line)| (at + 1, line.trim()));
    let ids = ids.filter(|(_, id)| !id.is_empty());
    let peers = ids.map(|(at, id)| network::peer_of(&format!("line {at} of stdin"), id));
    Ok(peers.collect::<Result<_, _>>()?)
}

fn stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let read = io::stdin().take(MOST_BYTES + 1).read_to_string(&mut text);
    read.map_err(|error| Failure::new(1, format!("cannot read stdin: {error}")))?;
    if text.len() as u64 > MOST_BYTES {
        let sentence = format!("stdin has more than {MOST_BYTES} bytes: give it in parts");
        return Err(Failure::new(USAGE, sentence));
    }
    Ok(text)
}
