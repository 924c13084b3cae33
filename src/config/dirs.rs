//! The directories of a daemon, as the environment gives them.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{Error, Role};

/// The directory in which services that the system starts keep their data. It has a directory for
/// each role, which the packages set up.
const SYSTEM_STATE: &str = "/var/lib/oc-discovery";

/// Looks up an environment variable. It is a parameter, so that tests need not change the
/// environment of their own process.
pub(crate) type EnvVars<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The default data directories of the daemons of each role: the places where a client looks for a
/// daemon. `$STATE_DIRECTORY` comes first if it is set, those of the services that the packages
/// install come last.
pub(crate) fn default_data_dirs(env: EnvVars<'_>) -> Vec<PathBuf> {
    let homes = Role::ALL
        .iter()
        .filter_map(|role| home_data_dir(*role, env));
    let services = Role::ALL.map(|role| PathBuf::from(SYSTEM_STATE).join(role.name()));
    state_directory(env)
        .into_iter()
        .chain(homes)
        .chain(services)
        .collect()
}

pub(super) fn data_dir(
    role: Role,
    value: Option<&str>,
    env: EnvVars<'_>,
) -> Result<PathBuf, Error> {
    match value {
        Some(dir) => Ok(PathBuf::from(dir)),
        None => state_directory(env)
            .or_else(|| home_data_dir(role, env))
            .ok_or_else(|| {
                Error::bare(
                    "--data-dir",
                    "give a directory, since none of $STATE_DIRECTORY, $XDG_STATE_HOME and $HOME \
                     names an absolute path",
                )
            }),
    }
}

/// `$STATE_DIRECTORY` as systemd sets it: absolute paths, separated by colons; the first is that of
/// this process.
fn state_directory(env: EnvVars<'_>) -> Option<PathBuf> {
    let value = env("STATE_DIRECTORY")?;
    std::env::split_paths(&value)
        .next()
        .filter(|dir| dir.is_absolute())
}

/// The XDG Base Directory Specification requires that a relative path is ignored.
fn home_data_dir(role: Role, env: EnvVars<'_>) -> Option<PathBuf> {
    let absolute = |variable| {
        env(variable)
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
    };
    let state =
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("oc-discovery").join(role.name()))
}
