//! What can go wrong with an embedded node.

use std::fmt;

use crate::{config, daemon, protocol::watch::server::READER_PATIENCE};

/// Why something was not done. Its text is one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The builder or the filter was given a value that cannot be used.
    Setting {
        /// The method of the builder, or of the filter.
        setting: &'static str,
        /// The value, its bound and what to do.
        reason: String,
    },
    /// It cannot start because of the data directory, the key file, or a listen address.
    Start(String),
    /// What was looked for is neither a name, 1 to 63 of `a-z 0-9 - .`, nor a peer id.
    NotAName(String),
    /// Too many lookups, lists or watches at once: try again in a moment.
    Busy,
    /// The changes of a watch were not read for [`READER_PATIENCE`], so it has ended: watch again,
    /// and what is there then is told anew.
    Behind,
    /// The process was closed, or is being closed.
    Closed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting { reason, .. } => f.write_str(reason),
            Self::Start(reason) => write!(f, "the node cannot start: {reason}"),
            Self::NotAName(text) => write!(
                f,
                "{text:?} is neither a name, which is 1 to 63 of a-z 0-9 - ., nor a peer id"
            ),
            Self::Busy => {
                f.write_str("too many lookups, lists or watches at once: try again in a moment")
            }
            Self::Behind => write!(
                f,
                "the changes were not read for {} s: watch again, and read faster or with a filter",
                READER_PATIENCE.as_secs()
            ),
            Self::Closed => f.write_str("the node was closed"),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    /// A tag has this key, which would be read as another one.
    pub(super) fn wrong_key(key: &str) -> Self {
        Self::Setting {
            setting: "tag",
            reason: format!("tag {key:?}: a key has no =; leave it out"),
        }
    }
}

impl From<config::Error> for Error {
    fn from(error: config::Error) -> Self {
        // The others have one word as an option.
        let setting = match error.option() {
            "--announce-only" => "announce_only",
            "--connect-interval" => "connect_interval",
            "--data-dir" => "data_dir",
            "--min-indexers" => "min_indexers",
            option => option.trim_start_matches('-'),
        };
        Self::Setting {
            setting,
            reason: error.with_name(setting),
        }
    }
}

impl From<daemon::Error> for Error {
    fn from(error: daemon::Error) -> Self {
        Self::Start(error.to_string())
    }
}
