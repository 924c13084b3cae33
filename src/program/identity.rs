//! `oc-discovery identity`: saves, restores or removes the private key of a daemon.
//!
//! Invariants: a key is written only into a new file of mode 0600, or into a pipe; an identity is
//! never replaced by another one; import and reset hold the lock of the data directory, so that no
//! daemon runs on it.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use super::{Failure, USAGE, print, write_new};
use crate::cli::{Export, Identity, IdentityAction, Import, Reset};
use crate::daemon::storage::{self, DataDir, IDENTITY_MAX_BYTES, ImportFrom};

/// Runs the command.
pub(super) fn run(args: &Identity) -> Result<(), Failure> {
    match &args.what {
        IdentityAction::Export(args) => export(args),
        IdentityAction::Import(args) => import(args),
        IdentityAction::Reset(args) => reset(args),
    }
}

fn export(args: &Export) -> Result<(), Failure> {
    let exported = storage::exported(Path::new(&args.dir)).map_err(failed)?;
    if args.file == "-" {
        if io::stdout().is_terminal() {
            let sentence = "the private key is not shown on a terminal: name a file, or pipe it into a program";
            return Err(Failure::new(USAGE, sentence));
        }
        let written = io::stdout().write_all(&exported.key);
        return written
            .map_err(|error| Failure::new(1, format!("stdout cannot be written: {error}")));
    }
    write_new(&args.file, &exported.key, "the key to ")?;
    print(format_args!(
        "{} has the private key of {}: whoever has it is this peer, so keep it secret",
        args.file, exported.peer
    ))
}

fn import(args: &Import) -> Result<(), Failure> {
    let mut key = Vec::new();
    let from = match args.file.as_str() {
        "-" => {
            let read = io::stdin()
                .take(IDENTITY_MAX_BYTES + 1)
                .read_to_end(&mut key);
            read.map_err(|error| Failure::new(1, format!("cannot read stdin: {error}")))?;
            ImportFrom::Bytes(&key)
        }
        file => ImportFrom::File(Path::new(file)),
    };
    let dir = DataDir::open(Path::new(&args.dir)).map_err(failed)?;
    let peer = dir.import(&from).map_err(failed)?;
    print(format_args!(
        "{} is {peer} now: the device that had this identity must not run any more",
        args.dir
    ))
}

fn reset(args: &Reset) -> Result<(), Failure> {
    if args.dirs.is_empty() {
        let sentence = "name the data directories whose identity is to be removed: `oc-discovery identity reset DIR`";
        return Err(Failure::new(USAGE, sentence));
    }
    let mut missing = Vec::new();
    for dir in &args.dirs {
        let path = Path::new(dir);
        if !is_there(path)? {
            // The name may be wrong, and the identity that was meant still be there.
            missing.push(format!("there is no directory {dir}"));
            continue;
        }
        if !is_there(&path.join(storage::IDENTITY))? {
            print(format_args!(
                "{dir} has no identity: the next start makes one"
            ))?;
            continue;
        }
        DataDir::open(path)
            .and_then(DataDir::reset)
            .map_err(failed)?;
        print(format_args!(
            "the identity of {dir} is removed, with what it remembered: the next start makes a new one"
        ))?;
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(1, missing.join("\n"))),
    }
}

/// Whether there is such a file. One that cannot be looked at is an error, because it may be a key.
fn is_there(path: &Path) -> Result<bool, Failure> {
    path.try_exists().map_err(|error| {
        let path = path.display();
        Failure::new(
            1,
            format!("cannot look at {path}: {error}; do this as its owner, or as root"),
        )
    })
}

fn failed(error: storage::StorageError) -> Failure {
    match error {
        // Another directory is not what is meant.
        storage::StorageError::Locked { dir, pid } => {
            let pid = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
            let dir = dir.display();
            Failure::new(1, format!("a daemon runs on {dir}{pid}: stop it first"))
        }
        other => Failure::new(1, other),
    }
}
