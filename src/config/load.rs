//! Puts flags, files and defaults together: flags win, then the files, the last one first, then
//! the defaults. A list or the services of a file replace those of an earlier one as a whole.

use std::io;
use std::path::{Path, PathBuf};

use super::file::{self, Fault, Given};
use super::services::NO_SUCH_SERVICE;
use super::settings::{Kind, SETTINGS, Setting, Slot};
use super::shown::{ConfigReport, Shown};
use super::{Config, EnvVars, Error, Flags, Role};
use crate::protocol::order::sort_few;

/// Where the files of a system are, one for each role. `$CONFIGURATION_DIRECTORY` comes before it,
/// as systemd sets it.
const SYSTEM_CONFIG: &str = "/etc/oc-discovery";
/// The end of the name of the directory of a file.
const PARTS: &str = "d";
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

/// What a check of files has found.
pub(crate) struct Checked {
    /// What is in order: the files that it names can be looked at, too.
    pub(crate) loaded: Option<Loaded>,
    /// What is wrong: a sentence for each.
    pub(crate) sentences: Vec<String>,
}

/// The configuration of a daemon with this role and these flags.
///
/// # Errors
/// All that is wrong with it.
pub(crate) fn load(role: Role, flags: &Flags, env: EnvVars<'_>) -> Result<Loaded, Faults> {
    let files = files(role, flags.config.as_deref(), env)?;
    let checked = of_files(role, flags, files, |flags| Config::parse(role, flags, env))?;
    match checked.loaded {
        Some(loaded) if checked.sentences.is_empty() => Ok(loaded),
        _ => Err(Faults {
            sentences: checked.sentences,
            is_unread: false,
        }),
    }
}

/// What a file gives to a daemon with this role that has no options: it is read together with the
/// files of its directory, as the daemon does. A file of such a directory is read after the file
/// that the directory belongs to, if that is there.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn check(path: &Path, role: Role) -> Result<Checked, Faults> {
    let whole = path.parent().filter(|dir| is_of_parts(dir));
    let whole = whole.map(|dir| dir.with_extension("toml"));
    let is_there = whole.as_ref().is_none_or(|file| file.exists());
    let files = with_parts(whole.unwrap_or_else(|| path.to_owned()), is_there)?;
    if !files.iter().any(|file| file == path) {
        let sentence = format!(
            "{}: a daemon reads only files that are there and end in .toml",
            path.display()
        );
        return Err(file::Unread(sentence).into());
    }
    of_files(role, &no_options(), files, |flags| {
        Config::with_data_dir(role, flags, flags.data_dir.as_ref().map(PathBuf::from))
    })
}

fn of_files(
    role: Role,
    flags: &Flags,
    files: Vec<PathBuf>,
    parse: impl Fn(&Flags) -> Result<Config, Error>,
) -> Result<Checked, Faults> {
    let (mut faults, mut given) = (Vec::new(), Vec::new());
    for (number, path) in files.iter().enumerate() {
        for new in file::read(path, number, role, &mut faults)? {
            let is_other = |old: &Given| old.setting.name != new.setting.name;
            given.retain(is_other);
            given.push(new);
        }
    }
    let (config, given) = checked(role, flags, given, &mut faults, parse);
    // As an operator goes through them, the options first.
    sort_few(&mut faults, |fault| fault.at);
    let loaded = config.map(|config| Loaded {
        config,
        flags: flags.clone(),
        files,
        given,
    });
    let sentences = faults.into_iter().map(|fault| fault.sentence).collect();
    Ok(Checked { loaded, sentences })
}

/// The files that are read, in their order.
fn files(role: Role, given: Option<&str>, env: EnvVars<'_>) -> Result<Vec<PathBuf>, Faults> {
    if let Some(file) = given {
        return with_parts(PathBuf::from(file), true);
    }
    let system = || {
        let variable = env("CONFIGURATION_DIRECTORY")?;
        let mut dirs = std::env::split_paths(&variable);
        dirs.next().filter(|dir| dir.is_absolute())
    };
    let dir = system().unwrap_or_else(|| PathBuf::from(SYSTEM_CONFIG));
    let file = dir.join(role.name()).with_extension("toml");
    // If it may not be looked for, it is not absent: the key of the network may be in it.
    let found = file.symlink_metadata();
    let is_there = !found.is_err_and(|why| why.kind() == io::ErrorKind::NotFound);
    with_parts(file, is_there)
}

/// Whether files of this directory are read after another file.
pub(crate) fn is_of_parts(dir: &Path) -> bool {
    dir.extension().is_some_and(|end| end == PARTS)
}

/// The file, if it is there, and those of its directory, in their order.
fn with_parts(file: PathBuf, is_there: bool) -> Result<Vec<PathBuf>, Faults> {
    let parts = file.with_extension(PARTS);
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

/// The flags of a command line without options.
fn no_options() -> Flags {
    Flags {
        #[cfg(feature = "mdns")]
        mdns: true,
        ..Flags::default()
    }
}

/// Checks flags and files together, and adds all that is wrong to `faults`. Returns what is left
/// without it, and what the files give to that; `None` if that is not enough.
fn checked(
    role: Role,
    flags: &Flags,
    mut given: Vec<Given>,
    faults: &mut Vec<Fault>,
    parse: impl Fn(&Flags) -> Result<Config, Error>,
) -> (Option<Config>, Vec<Given>) {
    given.retain(|given| given.setting.roles.contains(&role));
    let is_left = |given: &Given| {
        let own = given.setting;
        // The checks of a file are for the services of that file; without a check, what goes with
        // checks means nothing.
        let of_checks = ["check-interval", "allow-exec"].contains(&own.name);
        let of_service = !flags.node.service.is_empty()
            && (own.name == "check" || (of_checks && flags.node.check.is_empty()));
        !own.is_in(flags) && !of_service
    };
    let (left, hidden): (Vec<_>, Vec<_>) = given.iter().cloned().partition(is_left);
    let (config, mut found) = parsed(flags, &left, &parse);
    if !hidden.is_empty() {
        // A value that an option hides is wrong if it is so without the options, and with them,
        // too: the options may have what it needs.
        let (_, alone) = parsed(&no_options(), &given, &parse);
        let (_, on_top) = parsed(flags, &given, &parse);
        let is_hidden = |fault: &Fault| {
            hidden
                .iter()
                .any(|it| fault.setting == Some(it.setting.name))
        };
        let of_hidden = alone.into_iter().filter(is_hidden);
        found.extend(of_hidden.filter(|fault| on_top.contains(fault)));
    }
    faults.extend(found);
    (config, left)
}

/// The configuration of the flags with these values, and what is wrong with it. After each error,
/// the value that it is about is left out, so that all errors are found.
fn parsed(
    flags: &Flags,
    given: &[Given],
    parse: impl Fn(&Flags) -> Result<Config, Error>,
) -> (Option<Config>, Vec<Fault>) {
    let mut merged = flags.clone();
    for given in given {
        let values = given.values.iter().map(|value| value.text.clone());
        given.setting.set(&mut merged, values.collect());
    }
    let (mut faults, mut wrong): (Vec<_>, Vec<&str>) = (Vec::new(), Vec::new());
    loop {
        match parse(&merged) {
            Ok(config) => return (Some(config), faults),
            Err(error) => {
                if !wrong.iter().any(|first| follows(&error, first)) {
                    faults.push(located(&error, given));
                }
                wrong.push(error.option());
                if !leave_out(&mut merged, &error) {
                    return (None, faults);
                }
            }
        }
    }
}

/// Whether an error is no news after one of the other option.
fn follows(error: &Error, first: &str) -> bool {
    let option = error.option();
    let followers: &[&str] = match first {
        // A check may be wrong in itself, or its service may be the one that was left out.
        "--service" if option == "--check" => return error.problem().starts_with(NO_SUCH_SERVICE),
        "--service" => &["--allow-exec", "--check-interval"],
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

/// The fault, with the place in a file if the value comes from one. That of a missing value is the
/// place of what needs it.
fn located(error: &Error, given: &[Given]) -> Fault {
    let of = |option: &str| {
        let name = option.strip_prefix("--")?;
        given.iter().find(|given| given.setting.name == name)
    };
    let needs = || {
        let mut words = error.problem().split([' ', ',', ';', ':']);
        words.find_map(of).filter(|_| error.value().is_none())
    };
    let Some(given) = of(error.option()).or_else(needs) else {
        return Fault {
            at: None,
            setting: None,
            sentence: error.to_string(),
        };
    };
    let mut values = given.values.iter();
    let value = values.find(|value| error.is_about(&value.text));
    let place = value.map_or(&given.key, |value| &value.place);
    let about = value.map_or_else(|| key_of(error.option()), |value| value.shown.clone());
    let problem: Vec<String> = error.problem().split(' ').map(key_of).collect();
    Fault {
        at: Some(place.order()),
        setting: Some(given.setting.name),
        sentence: format!("{place}: {about}: {}", problem.join(" ")),
    }
}

/// The word; an option becomes its key. A check is written below its service, which is not named
/// again.
fn key_of(word: &str) -> String {
    let word = word.strip_prefix("SERVICE=").unwrap_or(word);
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

    /// The files that were read, in their order.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// A sentence about the setting with this name, with the place of its value if that is in a
    /// file.
    pub(crate) fn located(&self, name: &str, sentence: &str) -> String {
        let mut given = self.given.iter();
        match given.find(|given| given.setting.name == name) {
            Some(given) => {
                let place = given
                    .values
                    .first()
                    .map_or(&given.key, |value| &value.place);
                format!("{place}: {sentence}")
            }
            None => sentence.to_owned(),
        }
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
