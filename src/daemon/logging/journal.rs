//! Lines to the journal of systemd by its own protocol, with fields: one datagram for each
//! (systemd.io/JOURNAL_NATIVE_PROTOCOL).
//!
//! ```text
//!  line ──▶ /run/systemd/journal/socket: MESSAGE, PRIORITY, SYSLOG_IDENTIFIER, OC_CODE, OC_PEER, …
//!    └─ it has no room, or is not there ─▶ stderr, which the journal reads too: `<6>text`
//! ```
//!
//! Invariants: sending never waits; a field has one line, because control characters are escaped;
//! only our own lines have fields, so that their names are ours.
//!
//! This is own code because `systemd-journal-logger` waits for the journal, and passes large
//! messages in files of memory, which a line of 4096 bytes needs not.

use std::fmt::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use log::{
    Record,
    kv::{self, Key, Value, VisitSource},
};

use super::{
    is_ours,
    line::{Escaped, priority},
};

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// The name of the program in the journal.
const IDENTIFIER: &str = "oc-discovery";

/// A sender to the journal.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// The journal of this system; `None` if there is no socket to be had.
    pub(super) fn of_system() -> Option<Self> {
        Self::at(Path::new(SOCKET))
    }

    fn at(path: &Path) -> Option<Self> {
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(Self {
            socket,
            path: path.to_path_buf(),
        })
    }

    /// Sends a record, whose line is `text`. Returns whether the journal has taken it.
    pub(super) fn send(&self, record: &Record<'_>, text: &str) -> bool {
        let mut message = String::new();
        let made = message_of(&mut message, record, text);
        // A journal that starts again has a new socket at the same place.
        made.is_ok() && self.socket.send_to(message.as_bytes(), &self.path).is_ok()
    }
}

/// Writes the datagram of a record. `text`: its line, with or without its end.
fn message_of(out: &mut String, record: &Record<'_>, text: &str) -> fmt::Result {
    let priority = priority(record.level());
    write!(out, "PRIORITY={priority}\nSYSLOG_IDENTIFIER={IDENTIFIER}\n")?;
    fields(record, |key, value| {
        out.push_str("OC_");
        out.extend(key.chars().map(|c| c.to_ascii_uppercase()));
        out.push('=');
        // What is written to a String is there.
        let _ = write!(Escaped(out), "{value}");
        out.push('\n');
    });
    writeln!(out, "MESSAGE={}", text.trim_end_matches('\n'))
}

/// Calls `tell` for each field of one of our own lines.
pub(super) fn fields(record: &Record<'_>, tell: impl FnMut(&str, &Value<'_>)) {
    struct Teller<F>(F);
    impl<'kvs, F: FnMut(&str, &Value<'_>)> VisitSource<'kvs> for Teller<F> {
        fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
            (self.0)(key.as_str(), &value);
            Ok(())
        }
    }
    if is_ours(record.target()) {
        // The teller never fails.
        let _ = record.key_values().visit(&mut Teller(tell));
    }
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;
    use crate::daemon::testdir::TestDir;
    use crate::net::each::About;

    /// Calls `check` with a record of this target.
    fn with_record<T>(target: &str, about: &About, check: impl FnOnce(&Record<'_>) -> T) -> T {
        let mut record = Record::builder();
        let record = record.target(target).level(Level::Warn);
        check(&record.key_values(about).build())
    }

    fn pump() -> About {
        About {
            code: "lost",
            role: "node",
            peer: "12D3".into(),
            name: "pu\nmp".into(),
            addr: String::new(),
        }
    }

    #[test]
    fn journal_gets_the_line_and_its_fields_in_one_datagram() {
        let dir = TestDir::new();
        let path = dir.path().join("socket");
        let journal = Journal::at(&path).unwrap();
        let send = || with_record("oc_discovery::each", &pump(), |it| journal.send(it, "a\n"));
        assert!(!send(), "there is no socket yet");
        let reader = UnixDatagram::bind(&path).unwrap();
        assert!(send());
        let mut buffer = [0; 512];
        let length = reader.recv(&mut buffer).unwrap();
        let expected = "PRIORITY=4\nSYSLOG_IDENTIFIER=oc-discovery\nOC_CODE=lost\nOC_ROLE=node\n\
                        OC_PEER=12D3\nOC_NAME=pu\\nmp\nMESSAGE=a\n";
        assert_eq!(std::str::from_utf8(&buffer[..length]), Ok(expected));
    }

    #[test]
    fn journal_that_does_not_read_gets_no_more_and_nothing_waits() {
        let dir = TestDir::new();
        let path = dir.path().join("socket");
        let _reader = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::at(&path).unwrap();
        let send = |_: &u32| with_record("oc_discovery", &pump(), |it| journal.send(it, "a"));
        // The system's queue holds a few hundred datagrams at most.
        let taken = (0..5_000).take_while(send).count();
        assert!((1..5_000).contains(&taken), "{taken}");
    }

    #[test]
    fn line_of_a_library_has_no_fields() {
        let seen = |target| {
            with_record(target, &pump(), |record| {
                let mut seen = 0;
                fields(record, |_, _| seen += 1);
                seen
            })
        };
        assert_eq!((seen("oc_discovery"), seen("yamux")), (4, 0));
    }
}
