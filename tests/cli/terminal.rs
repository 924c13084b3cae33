//! A terminal for a command: what it writes there is read back.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::process::{Command, Stdio};

/// A pseudo-terminal (pty(7)): the side that reads, and the side of the command.
pub(crate) fn pair(columns: u16) -> (File, OwnedFd) {
    let (mut reader, mut terminal) = (-1, -1);
    let size = libc::winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: both descriptors and the size are valid for the call, and null leaves out the others.
    let made = unsafe {
        libc::openpty(
            &mut reader,
            &mut terminal,
            std::ptr::null_mut(),
            std::ptr::null(),
            &size,
        )
    };
    assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the call above has made these, and they are owned by no other.
    unsafe { (File::from_raw_fd(reader), OwnedFd::from_raw_fd(terminal)) }
}

/// What the command writes on a terminal of so many columns, without its errors.
pub(crate) fn shown(mut command: Command, columns: u16) -> String {
    let (reader, terminal) = pair(columns);
    command.stdout(terminal).stderr(Stdio::null());
    read(command, reader)
}

/// As [`shown`], with its errors.
pub(crate) fn shown_with_errors(mut command: Command, columns: u16) -> String {
    let (reader, terminal) = pair(columns);
    let errors = terminal.try_clone().unwrap();
    command.stdout(terminal).stderr(errors);
    read(command, reader)
}

fn read(mut command: Command, mut reader: File) -> String {
    let mut child = command.spawn().unwrap();
    // The command has the only copy of its side, so that its end ends the reading.
    drop(command);
    let mut bytes = Vec::new();
    match reader.read_to_end(&mut bytes) {
        // The other side is closed.
        Err(error) if error.raw_os_error() == Some(libc::EIO) => {}
        Err(error) if error.kind() == ErrorKind::Interrupted => {}
        read => drop(read.unwrap()),
    }
    child.wait().unwrap();
    String::from_utf8(bytes).unwrap().replace("\r\n", "\n")
}
