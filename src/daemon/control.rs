//! The control socket, through which the operator's commands reach the loop.
//!
//! It is a file in the data directory. If that is not possible (a read-only file system), it has an
//! abstract name.
//!
//! The socket has mode 0600, and the system reports the user at the other end: only the owner of
//! the process and root are answered. A service may have a directory for its group
//! (`config::group_socket_dir`): then the socket is there, with mode 0660, and the data directory
//! has a link to it. The system lets in the group alone, and the process sees no user that is not
//! in its own namespace, so that the mode decides.
//!
//! What is said over it, and for how long, is in `desk`.

mod desk;
mod parts;
mod peer;

#[cfg(fuzzing)]
pub(crate) use self::desk::fuzz;

use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use smol::channel::{Receiver, bounded};
use smol::lock::Semaphore;
use smol::{Async, future};

use self::desk::{Askers, Desk};
pub(super) use self::peer::uid_of;
use super::client::{SOCKET, socket_name, socket_path};
use super::request::CallEvent;
use super::storage::{DataDir, takes_nothing};
use crate::net::EACH;
use crate::net::executor::{spawn, within};
#[cfg(feature = "http")]
use crate::protocol::TableStats;

/// Clients that are served at once, at most.
pub(super) const MAX_CLIENTS: usize = 40;
/// Events that wait for the loop.
const MAX_EVENTS: usize = 8;
/// The pause after a failed accept, unless a client leaves before: other parts of the process may
/// have the missing descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listening socket. It is removed when this is dropped, which must be before the [`DataDir`]
/// is.
#[derive(Debug)]
pub(crate) struct Control {
    events: Receiver<CallEvent>,
    /// The socket, and the link to it; none of a socket with a name.
    files: Vec<PathBuf>,
    /// What a long path leads through.
    _through: Option<OwnedFd>,
    #[cfg_attr(
        not(feature = "http"),
        expect(dead_code, reason = "only HTTP shows the tables of the socket")
    )]
    desk: Weak<Desk>,
}

impl Control {
    /// As [`Control::bind`]; where the file system takes no socket it has a name instead. If that
    /// is taken there is no socket, and this is logged.
    ///
    /// # Errors
    /// All others of [`Control::bind`], with the path.
    pub(crate) fn bind_if_possible(
        dir: &DataDir,
        group_dir: Option<&Path>,
        places: usize,
    ) -> io::Result<Self> {
        match Self::bind(dir, group_dir, places) {
            Err(error) if takes_nothing(&error) => {
                let bound = bind_name(dir.path());
                let listener = bound.inspect_err(|why| {
                    log::warn!("there is no control socket, neither in the data directory ({error}) nor by name ({why})");
                });
                let (sender, events) = bounded(MAX_EVENTS);
                let desk = Desk::new(sender, places, Askers::Owner);
                let seen = Rc::downgrade(&desk);
                if let Ok(listener) = listener {
                    spawn(serve(listener, desk));
                }
                Ok(Self {
                    events,
                    files: Vec::new(),
                    _through: None,
                    desk: seen,
                })
            }
            Err(error) => {
                let path = group_dir.unwrap_or(dir.path()).join(SOCKET);
                let what = format!("{}: {error}", path.display());
                Err(io::Error::new(error.kind(), what))
            }
            Ok(control) => Ok(control),
        }
    }

    /// Listens on the socket in `dir`, or in the directory for the group, on this thread's
    /// executor, and serves `places` clients at once. This process holds the lock of `dir`, so a
    /// socket that exists there belongs to a process that has ended.
    ///
    /// # Errors
    /// If there is something other than a socket in its place, or the system refuses.
    pub(crate) fn bind(dir: &DataDir, group_dir: Option<&Path>, places: usize) -> io::Result<Self> {
        let (path, through) = socket_path(group_dir.unwrap_or(dir.path()))?;
        remove_stale(&path)?;
        let listener = Async::<UnixListener>::bind(&path)?;
        let (sender, events) = bounded(MAX_EVENTS);
        let (mode, askers) = match group_dir {
            Some(_) => (0o660, Askers::Group),
            None => (0o600, Askers::Owner),
        };
        let desk = Desk::new(sender, places, askers);
        let mut control = Self {
            events,
            files: vec![path.clone()],
            _through: through,
            desk: Rc::downgrade(&desk),
        };
        std::fs::set_permissions(&path, Permissions::from_mode(mode))?;
        if group_dir.is_some() {
            // Without the link, for example on a read-only file system, commands look for the
            // directory of the group themselves.
            let link = dir.path().join(SOCKET);
            if remove_stale(&link).is_ok() && symlink(&path, &link).is_ok() {
                control.files.push(link);
            }
        }
        spawn(serve(listener, desk));
        Ok(control)
    }

    /// The statistics for a `status` that no client of the socket asks for.
    #[cfg(feature = "http")]
    pub(super) fn stats(&self) -> impl Iterator<Item = TableStats> {
        let shares = self.desk.strong_count();
        let desk = self.desk.upgrade();
        desk.into_iter().flat_map(move |desk| desk.tables(shares))
    }

    /// The next event. Cancel-safe.
    pub(super) async fn next(&self) -> CallEvent {
        match self.events.recv().await {
            Ok(event) => event,
            // The task that takes clients in lasts as long as this value.
            Err(_) => future::pending().await,
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Requests that the loop has not taken are dropped, so that their clients get an error.
        self.events.close();
        while self.events.try_recv().is_ok() {}
        // If it fails, the next process removes it.
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
    }
}

fn bind_name(dir: &Path) -> io::Result<Async<UnixListener>> {
    let address = SocketAddr::from_abstract_name(socket_name(dir)?)?;
    Async::new(UnixListener::bind_addr(&address)?)
}

/// Removes only a socket or a link, because a user must have put anything else there.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() || metadata.is_symlink() => {
            std::fs::remove_file(path)
        }
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "it is no socket, and in the place of the control socket: move it away",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Takes clients in, until the process ends.
async fn serve(listener: Async<UnixListener>, desk: Rc<Desk>) {
    let places = Arc::new(Semaphore::new(desk.capacity));
    let (leaves, left) = bounded(1);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let place = match places.try_acquire_arc() {
                    Some(place) => place,
                    None => future::or(places.acquire_arc(), desk.make_room()).await,
                };
                let client = Rc::clone(&desk).converse(stream, desk.silent.enter());
                let leaves = leaves.clone();
                spawn(async move {
                    client.await;
                    drop(place);
                    // If this is full, a client is known to have left.
                    let _ = leaves.try_send(());
                });
                // A line that has arrived already is read before another client is accepted.
                future::yield_now().await;
            }
            Err(error) => {
                log::warn!(
                    target: EACH,
                    "cannot take in a client of the control socket: {error}"
                );
                // A descriptor is missing. A silent client holds one until it is evicted.
                let _ = left.try_recv();
                desk.silent.send_the_longest_away();
                let _ = within(ACCEPT_PAUSE, left.recv()).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
