//! The other end of a connection: its user, and whether it is still there.
//!
//! Invariant: nothing here reads or writes the content of the connection.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Uid;
use smol::{Async, future};

use crate::net::executor::{Left, ReadySet, Way};

/// The user at the other end of a UNIX socket. Its process may be in another pid namespace, for
/// example if the daemon runs in a container. Then the system returns 0 as its pid, which `rustix`
/// 1.1 treats as an error.
#[expect(
    unsafe_code,
    reason = "neither the standard library nor rustix has a call for it that knows a pid of 0"
)]
pub(in crate::daemon) fn uid_of(socket: impl AsFd) -> io::Result<Uid> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: libc::uid_t::MAX,
        gid: libc::gid_t::MAX,
    };
    let size = size_of::<libc::ucred>();
    let mut length = libc::socklen_t::try_from(size).map_err(io::Error::other)?;
    // SAFETY: the socket is open during the call, which writes at most `length` bytes to `peer`.
    // Its fields are integers, so any bytes are valid.
    let got = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    match got {
        0 => Ok(Uid::from_raw(peer.uid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the user `peer` may ask a process of the user `own`.
pub(super) fn may_ask(peer: Uid, own: Uid) -> bool {
    peer == own || peer.is_root()
}

/// Ends when the client has closed.
pub(super) async fn closed(stream: &Async<UnixStream>) {
    let watched = ReadySet::of_this_thread().and_then(|set| set.watch(stream));
    let Ok(watched) = watched else {
        return future::pending().await;
    };
    let look = |stream: &&Async<UnixStream>| match has_closed(stream)? {
        true => Ok(((), Left::Maybe)),
        false => Err(io::ErrorKind::WouldBlock.into()),
    };
    let _ = future::poll_fn(|cx| watched.poll(Way::Read, cx, look)).await;
}

/// Whether the client has closed. A client that has only ended its request (shutdown(2)) still
/// reads.
///
/// # Errors
/// The errors of poll(2).
pub(super) fn has_closed(stream: &Async<UnixStream>) -> io::Result<bool> {
    // No event is requested, because the system always reports a hang-up or an error.
    let mut polled = [PollFd::new(stream, PollFlags::empty())];
    Ok(poll(&mut polled, Some(&Timespec::default()))? > 0)
}
