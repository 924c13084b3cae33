//! Puts flags, files and defaults together: flags win, then the files, the last one first, then
//! the defaults. A list or the services of a file replace those of an earlier one as a whole.

use std::io;
use std::path::{Path, PathBuf};

use super::file::{self, Given, Place};
use super::settings::{Kind, SETTINGS, Setting, Slot};
use super::shown::{ConfigReport, Shown};
use super::{Config, EnvVars, Error, Flags, Role};
use crate::protocol::order::sort_few;

/// Where the files of a system are, one for each role. `$CONFIGURATION_DIRECTORY` comes before it,
/// as systemd sets it.
const SYSTEM_CONFIG: &str = "/etc/oc-discovery";
/// Files in the directory of a file.
const MAX_FILES: usize = 64;

/// A checked configuration, and where its values come from.
#[derive(Clone)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    flags: Flags,
    files: Vec<PathBuf>,
    given: Vec<Given>,
}

/// What is wrong: a sentence for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Faults {
    pub(crate) sentences: Vec<String>,
    /// A file could not be read, so that nothing is known of what is in it.
    pub(crate) is_unread: bool,
}

impl From<file::Unread> for Faults {
    fn from(file::Unread(sentence): file::Unread) -> Self {
        Self {
            sentences: vec![sentence],
            is_unread: true,
        }
    }
}

/// The configuration of a daemon with this role and these flags.
///
/// # Errors
/// All that is wrong with it.
pub(crate) fn load(role: Role, flags: &Flags, env: EnvVars<'_>) -> Result<Loaded, Faults> {
    let files = files(role, flags.config.as_deref(), env)?;
    let (mut sentences, mut given) = (Vec::new(), Vec::new());
    for path in &files {
        for new in file::read(path, role, &mut sentences)? {
            let is_other = |old: &Given| old.setting.name != new.setting.name;
            given.retain(is_other);
            given.push(new);
        }
    }
    checked(role, flags, given, sentences, |flags| {
        Config::parse(role, flags, env)
    })
    .map(|(config, given)| Loaded {
        config,
        flags: flags.clone(),
        files,
        given,
    })
}

/// Checks a file alone, as that of a process with this role.
///
/// # Errors
/// All that is wrong in it.
pub(crate) fn check(path: &Path, role: Role) -> Result<(), Faults> {
    let mut sentences = Vec::new();
    let given = file::read(path, role, &mut sentences)?;
    let none = Flags {
        #[cfg(feature = "mdns")]
        mdns: true,
        ..Flags::default()
    };
    checked(role, &none, given, sentences, |flags| {
        Config::with_data_dir(role, flags, flags.data_dir.as_ref().map(PathBuf::from))
    })
    .map(drop)
}

/// The files that are read, in their order.
fn files(role: Role, given: Option<&str>, env: EnvVars<'_>) -> Result<Vec<PathBuf>, Faults> {
    let system = || {
        let variable = env("CONFIGURATION_DIRECTORY")?;
        let mut dirs = std::env::split_paths(&variable);
        dirs.next().filter(|dir| dir.is_absolute())
    };
    let (file, is_there) = match given {
        Some(file) => (PathBuf::from(file), true),
        None => {
            let dir = system().unwrap_or_else(|| PathBuf::from(SYSTEM_CONFIG));
            let file = dir.join(role.name()).with_extension("toml");
            // If it may not be looked for, it is not absent: the key of the network may be in it.
            let found = file.symlink_metadata();
            let is_there = !found.is_err_and(|why| why.kind() == io::ErrorKind::NotFound);
            (file, is_there)
        }
    };
    let parts = file.with_extension("d");
    let mut files = Vec::new();
    let unread = |why: io::Error| file::Unread(format!("{}: {why}", parts.display()));
    match std::fs::read_dir(&parts) {
        Ok(entries) => {
            for entry in entries {
                let path = entry.map_err(unread)?.path();
                if path.extension().is_some_and(|end| end == "toml") {
                    files.push(path);
                }
            }
        }
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) => return Err(unread(why).into()),
    }
    if files.len() > MAX_FILES {
        let (dir, count) = (parts.display(), files.len());
        return Err(Faults {
            sentences: vec![format!(
                "{dir}: it has {count} files, and {MAX_FILES} is the most; join some"
            )],
            is_unread: false,
        });
    }
    sort_few(&mut files, Clone::clone);
    Ok(is_there.then_some(file).into_iter().chain(files).collect())
}

/// Checks flags and files together. After each error, the value that it is about is left out, so
/// that all errors are found.
fn checked(
    role: Role,
    flags: &Flags,
    given: Vec<Given>,
    mut sentences: Vec<String>,
    parse: impl Fn(&Flags) -> Result<Config, Error>,
) -> Result<(Config, Vec<Given>), Faults> {
    let is_left = |given: &Given| {
        let own = given.setting;
        // The checks of a file are for the services of that file; without a check, what goes with
        // checks means nothing.
        let of_checks = ["check-interval", "allow-exec"].contains(&own.name);
        let of_service = !flags.node.service.is_empty()
            && (own.name == "check" || (of_checks && flags.node.check.is_empty()));
        own.roles.contains(&role) && !own.is_in(flags) && !of_service
    };
    let given: Vec<Given> = given.into_iter().filter(is_left).collect();
    let mut merged = flags.clone();
    for given in &given {
        let values = given.values.iter().map(|(value, _)| value.clone());
        given.setting.set(&mut merged, values.collect());
    }
    let mut wrong: Vec<&str> = Vec::new();
    loop {
        match parse(&merged) {
            Ok(config) if sentences.is_empty() => return Ok((config, given)),
            Ok(_) => break,
            Err(error) => {
                if !wrong.iter().any(|first| follows(error.option(), first)) {
                    sentences.push(located(&error, &given));
                }
                wrong.push(error.option());
                if !leave_out(&mut merged, &error) {
                    break;
                }
            }
        }
    }
    Err(Faults {
        sentences,
        is_unread: false,
    })
}

/// Whether an error of one option is no news after one of the other.
fn follows(option: &str, first: &str) -> bool {
    let followers: &[&str] = match first {
        "--service" => &["--check", "--allow-exec", "--check-interval"],
        "--check" => &["--allow-exec", "--check-interval"],
        "--announce" => &["--announce-only"],
        "--dns" => &["--dns-zone"],
        "--http" => &["--http-token"],
        _ => &[],
    };
    followers.contains(&option)
}

/// Leaves the value that the error is about out of the flags. False: there is nothing to leave out.
fn leave_out(flags: &mut Flags, error: &Error) -> bool {
    let Some(setting) = Setting::of(error.option()) else {
        return false;
    };
    if setting.name == "lease" {
        // The longest one, so that no beat interval is blamed for it.
        setting.set(flags, vec!["20m".to_owned()]);
        return true;
    }
    match ((setting.slot)(flags), setting.kind) {
        (Slot::One(value), _) => value.take().is_some(),
        (Slot::On(is_set), _) => std::mem::take(is_set),
        #[cfg(feature = "mdns")]
        (Slot::Off(is_set), _) => !std::mem::replace(is_set, true),
        (Slot::Many(values), kind) => {
            let before = values.len();
            match (error.value().is_some(), kind) {
                (true, _) => {
                    if let Some(at) = values.iter().position(|value| error.is_about(value)) {
                        values.remove(at);
                    }
                }
                (
                    false,
                    Kind::List(most)
                    | Kind::Tags(most)
                    | Kind::Services(most)
                    | Kind::OfService(most),
                ) => values.truncate(most),
                (false, _) => values.clear(),
            }
            values.len() < before
        }
    }
}

/// The sentence, with the place in a file if the value comes from one.
fn located(error: &Error, given: &[Given]) -> String {
    let of = |given: &&Given| error.option().strip_prefix("--") == Some(given.setting.name);
    let Some(given) = given.iter().find(of) else {
        return error.to_string();
    };
    let mut values = given.values.iter();
    let value = values.find(|(value, _)| error.is_about(value));
    let place: &Place = value.map_or(&given.key, |(_, place)| place);
    let problem: Vec<String> = error.problem().split(' ').map(key_of).collect();
    let value = error.value().map(|value| format!(" = {value:?}"));
    format!(
        "{place}: {}{}: {}",
        given.setting.name,
        value.unwrap_or_default(),
        problem.join(" ")
    )
}

/// The word; an option becomes its key.
fn key_of(word: &str) -> String {
    let end = |c: char| !c.is_ascii_alphanumeric() && c != '-';
    match word.strip_prefix("--") {
        Some(name) if Setting::of(name.trim_end_matches(end)).is_some() => name.to_owned(),
        _ => word.to_owned(),
    }
}

impl Loaded {
    /// Reads the files again.
    ///
    /// # Errors
    /// As [`load`].
    pub(crate) fn again(&self, env: EnvVars<'_>) -> Result<Self, Faults> {
        load(self.config.role, &self.flags, env)
    }

    /// All settings with their values, and where these come from.
    pub(crate) fn report(&self) -> ConfigReport {
        let role = self.config.role;
        let of_role = SETTINGS.iter().filter(|s| s.roles.contains(&role));
        ConfigReport {
            schema: 1,
            role: role.name().to_owned(),
            files: (self.files.iter().map(|file| file.display().to_string())).collect(),
            settings: of_role.map(|setting| self.shown(setting)).collect(),
        }
    }

    fn shown(&self, setting: &Setting) -> Shown {
        let mut given = self.given.iter();
        let given = given.find(|given| given.setting.name == setting.name);
        Shown {
            key: setting.name.to_owned(),
            values: (setting.show)(&self.config),
            from: match given {
                Some(given) => given.key.line(),
                None if setting.is_in(&self.flags) => format!("--{}", setting.name),
                None => "default".to_owned(),
            },
            reloads: setting.reloads,
            help: setting.help.to_owned(),
        }
    }

    /// The settings that another configuration has with other values.
    pub(crate) fn differences(&self, other: &Self) -> Vec<&'static Setting> {
        let differs = |s: &&Setting| (s.show)(&self.config) != (s.show)(&other.config);
        SETTINGS.iter().filter(differs).collect()
    }

    /// The values of a setting.
    pub(crate) fn values(&self, setting: &Setting) -> Vec<String> {
        (setting.show)(&self.config)
    }

    /// Takes over what another configuration has, `config` of it: the settings that are not among
    /// `kept`.
    pub(crate) fn replace(&mut self, other: Self, config: Config, kept: &[&'static Setting]) {
        let is_kept = |given: &Given| kept.iter().any(|kept| kept.name == given.setting.name);
        let mut given = other.given;
        given.retain(|given| !is_kept(given));
        given.extend(self.given.drain(..).filter(is_kept));
        *self = Self {
            config,
            given,
            ..other
        };
    }
}
