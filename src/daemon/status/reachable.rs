//! Whether others reach a process, as `status` has it.

use miniserde::{Deserialize, Serialize};

/// What a server has found that was asked to connect to this process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Reachable {
    /// Whether it could.
    pub state: ReachableState,
    /// The address that it dialled, as `HOST:PORT`: that at which it sees this process, with the
    /// port of the best address announced. It says nothing of other addresses. `None` if it has not
    /// dialled.
    pub addr: Option<String>,
    /// The peer id of the server, in base58; `None` if none was asked.
    pub by: Option<String>,
    /// Why it could not, or why that is not known, for people.
    pub reason: Option<String>,
    /// Time since it said so, ms.
    pub age_ms: Option<u64>,
}

/// Whether a server could connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ReachableState {
    /// It could.
    #[serde(rename = "yes")]
    Yes,
    /// It could not.
    #[serde(rename = "no")]
    No,
    /// No server could tell since the addresses are what they are.
    #[serde(rename = "unknown")]
    Unknown,
}

impl Reachable {
    /// One line for people, to be said after "reachable". `status` is that of the same process.
    #[cfg(feature = "program")]
    pub(crate) fn sentence(&self, status: &super::Status) -> String {
        let by = self.by.as_ref().map(|by| {
            let mut servers = status.servers.iter();
            let server = servers.find(|server| server.peer_id == *by);
            let role = server.map_or("server", |server| server.role.name());
            format!("{role} {}", super::short_id(by))
        });
        let age = self
            .age_ms
            .map(|age| format!("{} ago", super::text::Coarse(age)));
        let parts = [self.reason.clone(), by, age, self.addr.clone()];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let (state, parts) = (self.state.word(), parts.join(", "));
        let untried = match self.untried(&status.announced) {
            Some(first) => format!("; {first}, which is announced first, was not tried"),
            None => String::new(),
        };
        format!("from outside: {state} ({parts}){untried}")
    }

    /// The address that others try first, as `HOST:PORT`, if another one was dialled: a server
    /// dials that at which it sees this process.
    #[cfg(feature = "program")]
    fn untried(&self, announced: &[String]) -> Option<String> {
        let dialled = self.addr.as_ref()?;
        let first = super::host_and_port(announced.first()?);
        (first != *dialled).then_some(first)
    }
}

impl ReachableState {
    /// The word for people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(all(test, feature = "program"))]
mod tests {
    use miniserde::json;

    use crate::daemon::status::Status;

    #[test]
    fn address_that_is_announced_first_and_was_not_dialled_is_named() {
        let mut status: Status = json::from_str(include_str!("example.json")).unwrap();
        let reachable = status.reachable.take().unwrap();
        let said = reachable.sentence(&status);
        assert!(said.ends_with("192.0.2.1:4820)"), "{said}");
        status
            .announced
            .insert(0, "/ip4/203.0.113.9/tcp/4820".to_owned());
        let said = reachable.sentence(&status);
        let named = "192.0.2.1:4820); 203.0.113.9:4820, which is announced first, was not tried";
        assert!(said.ends_with(named), "{said}");
    }
}
