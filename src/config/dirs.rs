//! The directories of a daemon, as the environment gives them.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{Error, Role};

/// The directory in which services that the system starts keep their data. It has a directory for
/// each role, which the packages set up.
const SYSTEM_STATE: &str = "/var/lib/oc-discovery";
/// The directory in which these services have their control sockets, one for each role, for the
/// users of their group: these cannot enter the data directories.
const SYSTEM_RUNTIME: &str = "/run/oc-discovery";

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

/// The directories in which the services that the packages install have control sockets for the
/// users of their group.
pub(crate) fn service_socket_dirs() -> [PathBuf; 3] {
    Role::ALL.map(|role| PathBuf::from(SYSTEM_RUNTIME).join(role.name()))
}

/// The directory of the control socket for the group of the service that has this data directory.
pub(crate) fn socket_dir_of(data_dir: &Path) -> Option<PathBuf> {
    let role = Role::ALL
        .into_iter()
        .find(|role| data_dir == Path::new(SYSTEM_STATE).join(role.name()))?;
    Some(PathBuf::from(SYSTEM_RUNTIME).join(role.name()))
}

/// The directory for a control socket that the group of the process may use: `$RUNTIME_DIRECTORY`
/// if its mode is 0750, which an administrator has to choose.
pub(crate) fn group_socket_dir(env: EnvVars<'_>) -> Option<PathBuf> {
    first_dir(env, "RUNTIME_DIRECTORY").filter(|dir| {
        let metadata = std::fs::metadata(dir);
        metadata.is_ok_and(|it| it.permissions().mode() & 0o777 == 0o750)
    })
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

fn state_directory(env: EnvVars<'_>) -> Option<PathBuf> {
    first_dir(env, "STATE_DIRECTORY")
}

/// A variable as systemd sets it: absolute paths, separated by colons; the first is that of this
/// process.
fn first_dir(env: EnvVars<'_>, variable: &str) -> Option<PathBuf> {
    let value = env(variable)?;
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
