//! Which daemon of this host a command asks: the data directory, and the way to its socket.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::{Error, PATIENCE, SOCKET, connect};
use crate::config::{self, EnvVars};

/// The data directory of the daemon to ask: the given one, or the only default one on which a
/// daemon runs. If there is none, the directory of the only service that this user may ask as a
/// member of its group; so too if the given one is that of a service, and closed to this user.
///
/// # Errors
/// [`Error::NoneRunning`], [`Error::NotOurs`] or [`Error::Several`].
pub(crate) fn locate(given: Option<&Path>, env: EnvVars<'_>) -> Result<PathBuf, Error> {
    if let Some(dir) = given {
        let reach = |dir: &Path| connect(dir, PATIENCE).map(drop);
        return Ok(by_group(dir, reach).unwrap_or_else(|| dir.to_path_buf()));
    }
    let running = config::default_data_dirs(env)
        .into_iter()
        .filter(|dir| connect(dir, PATIENCE).is_ok());
    match only(running.collect()) {
        Err(Error::NoneRunning) => {}
        found => return found,
    }
    locate_by_group(&config::service_socket_dirs()).or_else(|error| {
        let mut dirs = config::default_data_dirs(env).into_iter();
        let gone = dirs.find(|dir| matches!(error, Error::NoneRunning) && is_bound_in(dir));
        gone.ok_or(error)
    })
}

/// Where a member of the group reaches the service of a data directory that the group may not
/// enter.
pub(super) fn by_group(dir: &Path, reach: impl Fn(&Path) -> io::Result<()>) -> Option<PathBuf> {
    let of_group = config::socket_dir_of(dir)?;
    let is_closed = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    (reach(dir).is_err_and(is_closed) && reach(&of_group).is_ok()).then_some(of_group)
}

pub(super) fn locate_by_group(dirs: &[PathBuf]) -> Result<PathBuf, Error> {
    let (mut reached, mut closed) = (Vec::new(), None);
    for dir in dirs {
        match connect(dir, PATIENCE) {
            Ok(_) => reached.push(dir.clone()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => closed = Some(dir),
            Err(_) => {}
        }
    }
    match (only(reached), closed) {
        (Err(Error::NoneRunning), Some(dir)) => Err(Error::NotOurs(dir.clone())),
        (found, _) => found,
    }
}

/// Whether a process holds the control socket of this directory. The system tells it even if the
/// directory was removed, and the socket cannot be reached any more (proc(5), `/proc/net/unix`).
pub(super) fn is_bound_in(dir: &Path) -> bool {
    let Ok(sockets) = std::fs::read("/proc/net/unix") else {
        return false;
    };
    let path = dir.join(SOCKET);
    let path = path.as_os_str().as_bytes();
    let mut lines = sockets.split(|byte| *byte == b'\n');
    lines.any(|line| {
        line.strip_suffix(path)
            .is_some_and(|rest| rest.ends_with(b" "))
    })
}

/// The only one of these directories.
pub(super) fn only(mut dirs: Vec<PathBuf>) -> Result<PathBuf, Error> {
    match (dirs.pop(), dirs.is_empty()) {
        (None, _) => Err(Error::NoneRunning),
        (Some(dir), true) => Ok(dir),
        (Some(dir), false) => {
            dirs.push(dir);
            Err(Error::Several(dirs))
        }
    }
}
