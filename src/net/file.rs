//! Opens files that the user names or the system has, and never blocks, even if such a file is a
//! pipe.
//!
//! Opening a pipe waits for a writer, and reading it waits for data. The only loop of the program
//! would wait too.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

/// How long the start of the daemon waits for the content of a pipe.
const PATIENCE: Duration = Duration::from_secs(2);

/// Opens a file to be read. Neither this nor reading it blocks: reading a pipe without data is an
/// error.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

/// The first `max` bytes of a file, or of a pipe (`--psk <(command)`), which must end within 2 s.
///
/// # Errors
/// Errors of the system; `TimedOut` if a pipe does not end in time.
pub(super) fn read_patiently(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    read_within(PATIENCE, path, max)
}

fn read_within(patience: Duration, path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    let mut text = Vec::new();
    let mut file = open(path)?.take(max);
    loop {
        // What was read before an error is in `text`.
        match file.read_to_end(&mut text) {
            Ok(_) => return Ok(text),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let why = "it is a pipe that did not end within 2 s";
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut waiting = [PollFd::from_borrowed_fd(
            file.get_ref().as_fd(),
            PollFlags::IN,
        )];
        match poll(&mut waiting, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Write as _, pipe};
    use std::os::fd::AsRawFd;
    use std::path::PathBuf;
    use std::thread;

    use super::*;

    fn path(fd: &impl AsRawFd) -> PathBuf {
        format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
    }

    #[test]
    fn pipe_is_read_to_its_end_if_it_comes_in_time() {
        let (reader, mut writer) = pipe().unwrap();
        let path = path(&reader);
        let reading = thread::spawn(move || read_patiently(&path, 1024));
        writer.write_all(b"a key, ").unwrap();
        writer.write_all(b"in pieces").unwrap();
        drop(writer);
        assert_eq!(reading.join().unwrap().unwrap(), b"a key, in pieces");
    }

    #[test]
    fn pipe_whose_writer_says_nothing_is_an_error_in_time() {
        let (reader, _writer) = pipe().unwrap();
        let error = read_within(Duration::from_millis(20), &path(&reader), 1024).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = open(&path(&reader)).unwrap().read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn pipe_without_a_writer_is_empty() {
        let (reader, writer) = pipe().unwrap();
        drop(writer);
        assert_eq!(read_patiently(&path(&reader), 1024).unwrap(), b"");
    }
}
