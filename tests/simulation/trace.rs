//! The events of a run: a hash to compare two runs, a log of all events, or the last events before
//! a failure.

use std::{
    collections::VecDeque,
    fmt::{self, Debug, Write as _},
    io::Write as _,
};

/// Lines that a shortened trail has.
const TRAIL: usize = 60;

/// How events are kept.
pub enum Trace {
    /// Nothing: the fastest.
    Off,
    /// A hash of all.
    Hash(Fnv),
    /// Each is printed on stderr.
    Log,
    /// The last few.
    Trail(VecDeque<String>),
}

impl Trace {
    /// A trace that hashes.
    pub fn hash() -> Self {
        Self::Hash(Fnv::new())
    }

    /// A trace that keeps the last events.
    pub fn trail() -> Self {
        Self::Trail(VecDeque::new())
    }

    /// Adds an event.
    pub fn note(&mut self, now: u64, event: &dyn Debug) {
        match self {
            Self::Off => {}
            // Writing to a hash cannot fail.
            Self::Hash(hash) => drop(write!(hash, "{now}{event:?}")),
            // Not `eprintln`, because its output is hidden if the test passes. An error in writing
            // the log is ignored.
            Self::Log => drop(writeln!(std::io::stderr(), "{now:>7} {event:?}")),
            Self::Trail(lines) => {
                if lines.len() == TRAIL {
                    lines.pop_front();
                }
                let line = format!("{now:>7} {event:?}");
                // The effects of a timer have lines of their own.
                if !line.contains(" Wake {") {
                    lines.push_back(line);
                }
            }
        }
    }

    /// The hash; 0 if none was made.
    pub fn value(&self) -> u64 {
        match self {
            Self::Hash(hash) => hash.0,
            _ => 0,
        }
    }
}

/// The FNV-1a hash of what is written to it.
pub struct Fnv(pub u64);

impl Fnv {
    /// The hash of nothing.
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Takes more bytes in.
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add(text.as_bytes());
        Ok(())
    }
}
