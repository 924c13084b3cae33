//! What is wrong, and the servers of this process, as `status` has them.

use miniserde::{Deserialize, Serialize};

use crate::config::Role;

/// Something that is wrong, by its name, with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Problem {
    /// Its name, for programs: lower-case words with hyphens.
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, one sentence for people.
    pub what: String,
    /// What to do about it, or to type.
    pub hint: String,
    /// Time since it began, ms.
    pub since_ms: u64,
    /// How often it has happened since then.
    pub count: u64,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Severity {
    /// Something of others, which any stranger can cause: the process does its work.
    #[serde(rename = "notice")]
    Notice,
    /// The process does its work, but something is not as it should be.
    #[serde(rename = "warning")]
    Warning,
    /// The process cannot do its work, or soon cannot.
    #[serde(rename = "critical")]
    Critical,
}

#[cfg(feature = "program")]
impl Severity {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Notice, Self::Warning, Self::Critical];

    /// Its name, as in JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// A server of this process: a native that it knows, or an indexer with which it holds or seeks a
/// lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Server {
    /// Its peer id, in base58.
    pub peer_id: String,
    /// What it is.
    pub role: Role,
    /// Its first address as `HOST:PORT`; `None` if it has none.
    pub addr: Option<String>,
    /// What there is with it.
    pub state: ServerState,
    /// Time until the lease expires, ms; `None` if there is none.
    pub expires_in_ms: Option<u64>,
    /// Why it grants no lease, or did not the last time, for people; `None` since it granted one.
    pub last_error: Option<String>,
    /// Time since the first failure after the last lease was granted, ms; `None`: no failure.
    pub failing_ms: Option<u64>,
    /// Time until it is tried again, ms; `None` if that is not awaited.
    pub next_try_ms: Option<u64>,
}

/// What there is with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ServerState {
    /// It grants a lease, and answers.
    #[serde(rename = "granted")]
    Granted,
    /// The lease still lasts, but the server does not answer or its stream has ended.
    #[serde(rename = "silent")]
    Silent,
    /// It was asked for a lease and has not answered yet.
    #[serde(rename = "trying")]
    Trying,
    /// It grants no lease, and is tried again later.
    #[serde(rename = "waiting")]
    Waiting,
    /// It is configured as a native, and is an indexer or a node.
    #[serde(rename = "no-native")]
    NoNative,
    /// A native that is asked for indexers, and for no lease while indexers grant some.
    #[serde(rename = "idle")]
    Idle,
}
