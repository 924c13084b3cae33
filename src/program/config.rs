//! The commands `config check`, `config show` and `reload`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use miniserde::json;

use super::{Failure, USAGE, ask, env, note, one_dir, print, role_given, show};
use crate::cli::{self, Command, ConfigCheck, ConfigCommand, ConfigShow, Exit, Reload};
use crate::config::{self, Checked, ConfigReport, Faults, Flags, Loaded, Role};
use crate::daemon::client::{Answer, OperatorRequest};
use crate::daemon::keys;
use crate::daemon::reload::Reloaded;

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        let code = match faults.is_unread {
            true => 1,
            false => USAGE,
        };
        Failure::new(code, faults.sentences.join("\n"))
    }
}

pub(super) fn run(command: &ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check(args) => check(args),
        ConfigCommand::Show(args) => show_settings(args),
    }
}

fn check(args: &ConfigCheck) -> Result<(), Failure> {
    let file = of_its_directory(PathBuf::from(&args.file));
    let roles = match (&args.role, role_of(&file)) {
        (Some(given), _) => vec![role_given(given)?],
        (None, Some(role)) => vec![role],
        (None, None) => Role::ALL.to_vec(),
    };
    let (mut good, mut wrong) = (Vec::new(), None);
    for role in &roles {
        match config::check(&file, *role)? {
            Checked {
                loaded: Some(loaded),
                sentences,
            } if sentences.is_empty() => good.push(loaded),
            // The last role is that of a node, which has all keys.
            faulty => wrong = Some(faulty),
        }
    }
    let Some(first) = good.first() else {
        return wrong.map_or(Ok(()), |wrong| Err(all_faults(wrong)));
    };
    let refused = named_files(first);
    if !refused.is_empty() {
        return Err(Failure::new(USAGE, refused.join("\n")));
    }
    let good: Vec<&str> = good.iter().map(|good| good.config.role.name()).collect();
    let (name, roles) = (&args.file, good.join(", "));
    let word = if good.len() == 1 { "role" } else { "roles" };
    print(format_args!("{name}: in order, for the {word} {roles}"))?;
    match first.files() {
        [_] => Ok(()),
        several => {
            let names: Vec<_> = several
                .iter()
                .map(|file| file.display().to_string())
                .collect();
            print(format_args!(
                "read together, the last one wins: {}",
                names.join(", ")
            ))
        }
    }
}

/// What is wrong with the settings, and with the files that the others of them name.
fn all_faults(wrong: Checked) -> Failure {
    let mut sentences = wrong.sentences;
    sentences.extend(wrong.loaded.iter().flat_map(named_files));
    Failure::new(USAGE, sentences.join("\n"))
}

/// Checks the files that the settings name. What a daemon would run with is said, and what it would
/// not run with is returned.
fn named_files(loaded: &Loaded) -> Vec<String> {
    let mut refused = Vec::new();
    for fault in keys::examine(&loaded.config) {
        let sentence = loaded.located(fault.key, fault.sentence.trim_start_matches("--"));
        match fault.is_refused {
            true => refused.push(sentence),
            false => note(format_args!("warning: {sentence}")),
        }
    }
    refused
}

/// The file with its directory if that says what the file is for.
fn of_its_directory(file: PathBuf) -> PathBuf {
    match std::path::absolute(&file) {
        Ok(whole) if file.parent() == Some(Path::new("")) => match whole.parent() {
            Some(dir) if config::is_of_parts(dir) => whole,
            _ => file,
        },
        _ => file,
    }
}

/// The role that a file is for by its name: `node.toml`, or a file in `node.d`.
fn role_of(file: &Path) -> Option<Role> {
    let of_dir = || {
        let dir = file.parent()?;
        let name = dir.extension().filter(|end| *end == "d");
        name.and_then(|_| dir.file_stem())
    };
    let names = file.file_stem().into_iter().chain(of_dir());
    names.filter_map(|name| Role::named(name.to_str()?)).next()
}

fn show_settings(args: &ConfigShow) -> Result<(), Failure> {
    let dir = args.line.first().filter(|word| is_dir(word)).cloned();
    let is_asked = args.line.len() == usize::from(dir.is_some());
    let dir = one_dir(&args.data_dir, &dir)?;
    let answer = match (is_asked, dir) {
        (true, dir) => ask::<ConfigReport>(dir, &OperatorRequest::Config)?,
        (false, Some(_)) => {
            let sentence =
                "give the data directory of a daemon that runs, or a role and its options";
            return Err(Failure::new(USAGE, sentence));
        }
        (false, None) => {
            let (role, flags) = daemon_of(&args.line)?;
            let value = config::load(role, &flags, &env)?.report();
            let json = json::to_string(&value);
            Answer { value, json }
        }
    };
    show(&answer, args.json)
}

/// Whether a word is a directory, and no role.
fn is_dir(word: &str) -> bool {
    Role::named(word).is_none() && (word.contains('/') || Path::new(word).is_dir())
}

/// The role and the options of a command line that would start a daemon.
fn daemon_of(line: &[String]) -> Result<(Role, Flags), Failure> {
    let words = std::iter::once("oc-discovery").chain(line.iter().map(String::as_str));
    match cli::parse(words.map(OsString::from)) {
        Ok(Command::Native(args)) => Ok((Role::Native, args.flags())),
        Ok(Command::Indexer(args)) => Ok((Role::Indexer, args.flags())),
        Ok(Command::Node(args)) => Ok((Role::Node, args.flags())),
        Err(Exit::Usage(sentence)) => Err(Failure::new(USAGE, sentence)),
        Ok(_) | Err(Exit::Tell(_)) => {
            let sentence = "give a role, native, indexer or node, and its options";
            Err(Failure::new(USAGE, sentence))
        }
    }
}

/// Has a daemon reload its configuration.
pub(super) fn reload(args: &Reload) -> Result<(), Failure> {
    let dir = one_dir(&args.data_dir, &args.dir)?;
    let answer = ask::<Reloaded>(dir, &OperatorRequest::Reload)?;
    match answer.value.errors.is_empty() {
        true => show(&answer, args.json),
        false if args.json => {
            print(&answer.json)?;
            Err(Failure::silent(USAGE))
        }
        false => Err(Failure::new(USAGE, answer.value.errors.join("\n"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_of_a_file_follows_from_its_name_or_that_of_its_directory() {
        for (file, role) in [
            ("/etc/oc-discovery/node.toml", Some(Role::Node)),
            ("native.toml", Some(Role::Native)),
            (
                "/etc/oc-discovery/indexer.d/10-site.toml",
                Some(Role::Indexer),
            ),
            ("/etc/oc-discovery/indexer/10-site.toml", None),
            ("site.toml", None),
        ] {
            assert_eq!(role_of(Path::new(file)), role, "{file}");
        }
    }
}
