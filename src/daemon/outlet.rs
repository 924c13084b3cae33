//! Writes lines to a descriptor that other processes share, without ever waiting.
//!
//! A full pipe, a terminal that was stopped with ^S, or a journal that does not read would block
//! the only loop, and every lease with it. So a line that would block is dropped and counted, and
//! the count is written as soon as there is room again.
//!
//! `O_NONBLOCK` belongs to the open file description, which the parent and its other children
//! share: setting it on the shared one would break their writes. This is done instead:
//!
//! | stderr or stdout is | way |
//! |---|---|
//! | a pipe, a terminal, another device | opened again through `/proc/self/fd`, with an own
//!non-blocking description |
//! | a socket (the journal) | `MSG_DONTWAIT` for each message |
//! | a file | written directly, because a disk does not wait for another process |
//! | a pipe or a device of another user, or no `/proc` | polled for room before each piece |
//!
//! Invariants: no call here waits, except in the last row, where another process may take the room
//! between the check and the write; at most [`LINE_MAX`] bytes are kept; a line that was written in
//! part is completed before any other.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::{Errno, write};
use rustix::net::{SendFlags, send};

/// The longest line in bytes, its end included. A pipe takes this much as a whole or not at all
/// (`PIPE_BUF`, pipe(7)).
pub(super) const LINE_MAX: usize = 4096;

/// Writes `lines` as far as there is room now. Returns whether all of them were written.
pub(super) fn all<F: AsFd>(fd: F, lines: &[String]) -> bool {
    let mut outlet = Outlet::new(fd);
    lines.iter().all(|line| {
        outlet.line(&format!("{line}\n"), |_| String::new());
        outlet.lost == 0 && outlet.rest.is_empty()
    })
}

/// A writer of lines that never waits.
#[derive(Debug)]
pub(super) struct Outlet<F> {
    fd: F,
    way: Way,
    /// The rest of a line that was written in part.
    rest: Vec<u8>,
    lost: u64,
    /// Lines that were lost since the start.
    pub(super) lost_ever: u64,
    /// There was no room, or no reader, for the last line.
    waits: bool,
}

#[derive(Debug)]
enum Way {
    /// An open file description of our own, which does not block.
    Own(OwnedFd),
    Socket,
    File,
    /// One that may block. A pipe with room takes [`LINE_MAX`] bytes; for a device only one byte is
    /// certain.
    Shared {
        piece: usize,
    },
}

impl<F: AsFd> Outlet<F> {
    /// Makes an outlet through `fd`. Its kind is checked once, here.
    pub(super) fn new(fd: F) -> Self {
        let way = way(fd.as_fd());
        Self {
            fd,
            way,
            rest: Vec::new(),
            lost: 0,
            lost_ever: 0,
            waits: false,
        }
    }

    /// Writes a line of at most [`LINE_MAX`] bytes, or counts it as lost. `say` makes the line
    /// about the number of lost lines.
    pub(super) fn line(&mut self, line: &str, say: impl FnOnce(u64) -> String) {
        if !(self.settle(say) && self.take(line.as_bytes())) {
            self.lose();
        }
    }

    fn lose(&mut self) {
        self.lost = self.lost.saturating_add(1);
        self.lost_ever = self.lost_ever.saturating_add(1);
    }

    /// Writes what is pending: the rest of a line, and the number of lost lines. Returns false if
    /// something is still pending.
    pub(super) fn settle(&mut self, say: impl FnOnce(u64) -> String) -> bool {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() && !self.take(&rest) {
            match self.waits {
                true => self.rest = rest,
                false => self.lose(),
            }
        }
        if !self.rest.is_empty() {
            return false;
        }
        if self.lost > 0 {
            if !self.take(say(self.lost).as_bytes()) {
                return false;
            }
            self.lost = 0;
        }
        true
    }

    /// Whether something is pending that may find room later.
    pub(super) fn owes(&self) -> bool {
        self.waits && (self.lost > 0 || !self.rest.is_empty())
    }

    /// Returns true if `bytes` were written, even if only in part. The rest is kept then.
    fn take(&mut self, bytes: &[u8]) -> bool {
        let mut left = bytes;
        let begun = |left: &[u8]| left.len() < bytes.len();
        while !left.is_empty() {
            match self.put(left) {
                Ok(taken) => left = left.get(taken..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(error) => {
                    self.waits = error == Errno::AGAIN;
                    if begun(left) && self.waits {
                        self.rest.extend_from_slice(left);
                    }
                    return begun(left) && self.waits;
                }
            }
        }
        self.waits = false;
        true
    }

    /// Writes some of `bytes`, which must not be empty.
    fn put(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let fd = self.fd.as_fd();
        let taken = match &self.way {
            Way::Own(own) => write(own, bytes),
            Way::Socket => send(fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            Way::File => write(fd, bytes),
            Way::Shared { piece } => {
                if !has_room(fd)? {
                    return Err(Errno::AGAIN);
                }
                write(fd, bytes.get(..*piece).unwrap_or(bytes))
            }
        };
        match taken {
            Ok(0) => Err(Errno::IO),
            taken => taken,
        }
    }
}

fn way(fd: BorrowedFd<'_>) -> Way {
    let Ok(stat) = fstat(fd) else {
        return Way::Shared { piece: 1 };
    };
    let piece = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => return Way::Socket,
        FileType::Fifo => LINE_MAX,
        FileType::CharacterDevice => 1,
        _ => return Way::File,
    };
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match open(path, flags, Mode::empty()) {
        Ok(own) => Way::Own(own),
        Err(_) => Way::Shared { piece },
    }
}

/// Whether there is room. It is true if the reader is gone, because then the write reports this.
fn has_room(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut asked = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    Ok(poll(&mut asked, Some(&Timespec::default()))? > 0)
}

#[cfg(test)]
mod tests;
