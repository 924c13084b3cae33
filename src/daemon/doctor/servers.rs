//! The servers of a daemon, by what they say and by cause: each cause once, with what to type.

use std::net::ToSocketAddrs as _;

use libp2p::{Multiaddr, multiaddr::Protocol};

use super::Diagnosis;
use crate::{
    config::Role,
    daemon::{
        mistakes::RESET,
        report::host_and_port,
        status::{
            Plain, Server, ServerState, Severity, Source, Status, VerdictState, explains, is_named,
        },
    },
    protocol::rivals::SAME_IDENTITY,
};

const UNFOUND: &str = "no server grants a lease, so no peer can find this process";

/// Looks at the servers of the daemon, and at the leases that they grant. `indexers`: how many the
/// natives know, where a node lacks leases.
pub(super) fn look_at_servers(report: &mut Diagnosis, status: &Status, indexers: Option<usize>) {
    look_at_names(report, status);
    let mut is_explained = status.problems.iter().any(explains);
    for server in &status.servers {
        is_explained |= look_at_server(report, status, server);
    }
    look_at_leases(report, status, indexers, is_explained);
}

/// Whether a node holds fewer leases with indexers than it wants.
pub(super) fn lacks_indexers(status: &Status) -> bool {
    let of_indexers = status.leases.iter().filter(|it| it.role == Role::Indexer);
    let held = u64::try_from(of_indexers.count()).unwrap_or(u64::MAX);
    status.role == Role::Node && held < status.wanted_leases
}

/// Whether this host finds the addresses of natives that have a name.
fn look_at_names(report: &mut Diagnosis, status: &Status) {
    let is_name = |part: &Protocol<'_>| {
        matches!(
            part,
            Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_)
        )
    };
    let natives = status.natives.iter();
    let natives = natives.filter_map(|native| native.parse::<Multiaddr>().ok());
    for addr in natives.filter(|addr| addr.iter().next().is_some_and(|part| is_name(&part))) {
        let at = host_and_port(&addr);
        if let Err(error) = at.to_socket_addrs() {
            let what = format!("the name of the native {at} is not resolved: {error}");
            let hint = "getent ahosts NAME, and /etc/resolv.conf";
            report.wrong("native", Severity::Warning, what, hint);
        }
    }
}

/// Looks at one server. Returns whether it is wrong, and says so.
fn look_at_server(report: &mut Diagnosis, status: &Status, server: &Server) -> bool {
    let at = server.addr.as_deref().unwrap_or("no known address");
    let mut problems = status.problems.iter().filter(|problem| explains(problem));
    let is_problem = problems.any(|problem| is_named(at, &problem.what));
    let what = format!("{} at {at}", server.role);
    match (server.state, &server.last_error) {
        (ServerState::Granted, _) => report.good("server", format!("{what} grants a lease")),
        // It is named below, with what to type.
        (ServerState::NoNative, _) => report.say("server", "note", format!("{what} is none")),
        // A problem names the cause. A node tries the indexers that natives offer: whether it holds
        // a lease is looked at below.
        (_, Some(_)) if is_problem => {
            let what = format!("{what} grants no lease: the cause is named below");
            report.say("server", "note", what);
        }
        (_, Some(why)) if server.role == Role::Indexer => {
            report.say("server", "note", format!("{what}: {}", Plain(why)));
        }
        (_, Some(why)) => {
            let (what, hint) = (format!("{what}: {}", Plain(why)), hint_for(why, at));
            report.wrong("server", Severity::Warning, what, &hint);
            return true;
        }
        (ServerState::Idle, None) => report.good("server", format!("{what} is known")),
        (_, None) => report.say("server", "note", format!("{what} is being tried")),
    }
    false
}

/// Looks at the leases held. `is_explained`: what keeps it from one is counted already.
fn look_at_leases(
    report: &mut Diagnosis,
    status: &Status,
    indexers: Option<usize>,
    is_explained: bool,
) {
    match (status.role, status.leases.len()) {
        (Role::Native, _) => look_for_lack(report, status, indexers, is_explained),
        // It follows from what is counted already.
        (_, 0) if is_explained => {
            report.ok = false;
            report.say(
                "lease",
                "critical",
                format!("{UNFOUND}, for the reason said here"),
            );
        }
        (_, 0) => report.wrong(
            "lease",
            Severity::Critical,
            UNFOUND,
            "wait for a minute; then `oc-discovery status`, and the log, say what it waits for",
        ),
        (_, leases) => {
            report.good("lease", format!("{leases} held"));
            look_for_lack(report, status, indexers, is_explained);
        }
    }
}

/// Looks whether it holds fewer leases than it wants, or with a native alone, or knows no indexer.
/// `is_explained`: a server that fails was told of.
fn look_for_lack(
    report: &mut Diagnosis,
    status: &Status,
    indexers: Option<usize>,
    is_explained: bool,
) {
    let of = |role| status.leases.iter().filter(move |it| it.role == role);
    let wanted = status.wanted_leases;
    let are_enough = indexers.is_some_and(|known| wanted <= u64::try_from(known).unwrap_or(0));
    let (what, hint) = match status.role {
        Role::Node if of(Role::Indexer).count() == 0 => (
            "no lease with an indexer: a native has taken it in".to_owned(),
            "`oc-discovery indexers` shows those that the natives know: start one, or see the log for why they fail",
        ),
        Role::Node if are_enough => (
            few(of(Role::Indexer).count(), wanted, "indexers"),
            "the natives know enough of them: wait for the next try, which `oc-discovery status` tells; if it stays so, \
             the log says why they grant none",
        ),
        Role::Node => (
            few(of(Role::Indexer).count(), wanted, "indexers"),
            "`oc-discovery indexers` shows those that the natives know: start another one, or want fewer leases with \
             --min-indexers",
        ),
        Role::Native
            if !status
                .live_indexers
                .iter()
                .any(|it| it.source == Source::Heartbeat) =>
        {
            (
                "no indexer beats to this native".to_owned(),
                match status.live_indexers.is_empty() {
                    true => {
                        "start one: `oc-discovery indexer` with the option that `oc-discovery status` shows here"
                    }
                    false => {
                        "indexers are known by the DHT only: give them this native beside their others, with the \
                              option that `oc-discovery status` shows here"
                    }
                },
            )
        }
        Role::Indexer | Role::Native => (
            few(of(Role::Native).count(), wanted, "natives"),
            "`oc-discovery status`, and the log, say what it waits for",
        ),
    };
    match status.verdict.state {
        _ if what.is_empty() => {}
        VerdictState::Ok => {}
        // It has just started.
        VerdictState::Starting => report.say("lease", "note", what),
        _ if is_explained && status.role != Role::Node => report.say("lease", "note", what),
        VerdictState::Degraded | VerdictState::Critical => {
            report.wrong("lease", Severity::Warning, what, hint);
        }
    }
}

/// Says that so many of the wanted leases are held; empty if all are.
fn few(held: usize, wanted: u64, with: &str) -> String {
    match u64::try_from(held).is_ok_and(|held| held < wanted) {
        true => format!("{held} of {wanted} leases with {with}"),
        false => String::new(),
    }
}

/// What to do about a server at `HOST:PORT` that fails for this reason.
fn hint_for(why: &str, at: &str) -> String {
    let host = at.rsplit_once(':').map_or(at, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let says = |words: &[&str]| words.iter().any(|word| why.contains(word));
    if says(&["connection refused"]) {
        format!(
            "nothing listens at {at}: is it running there, and is the port right? `oc-discovery status` there shows \
             where it listens"
        )
    } else if says(&["no route", "unreachable"]) {
        format!("this host has no way there: `ip route get {host}`")
    } else if says(&[
        "does not exist",
        "resolve",
        "name server",
        "no address that can be used",
    ]) {
        format!("`getent ahosts {host}`, and /etc/resolv.conf")
    } else if says(&["handshake"]) {
        "is the key the same? compare the fingerprint that `oc-discovery doctor` shows on both"
            .to_owned()
    } else if says(&[SAME_IDENTITY]) {
        RESET.to_owned()
    } else if says(&["another peer", "this process itself"]) {
        "write the address that `oc-discovery status` on the native shows".to_owned()
    } else if says(&["clock"]) {
        "`timedatectl` on both: one of the clocks is wrong".to_owned()
    } else if says(&["accepts the connection"]) {
        format!(
            "what listens at {at} hangs, or is another program: `systemctl status` there, and restart it"
        )
    } else if says(&["timed out", "does not answer"]) {
        format!(
            "the host is off, or a firewall drops it: `ping {host}`, and open TCP to {at} there"
        )
    } else {
        "`oc-discovery doctor` there says more".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use miniserde::json;

    use super::{super::tests::empty, *};
    use crate::daemon::status::Lease;

    /// A daemon with these leases, of those that it wants.
    fn holding(role: Role, leases: &[Role], wanted: u64, state: VerdictState) -> Status {
        let example = include_str!("../status/example.json");
        let mut status: Status = json::from_str(example).unwrap();
        let lease = status.leases.pop().unwrap();
        status.leases = leases
            .iter()
            .map(|role| Lease {
                role: *role,
                ..lease.clone()
            })
            .collect();
        status.servers.clear();
        status.problems.clear();
        (status.role, status.wanted_leases, status.verdict.state) = (role, wanted, state);
        status
    }

    #[test]
    fn fewer_leases_than_wanted_are_wrong_as_in_the_verdict() {
        use Role::{Indexer, Native, Node};
        use VerdictState::{Degraded, Ok, Starting};
        let lease = |role, leases: &[Role], wanted, state| {
            let mut report = empty();
            look_at_servers(&mut report, &holding(role, leases, wanted, state), None);
            let wrong = report.findings.iter().find(|one| one.hint.is_some());
            assert_eq!(report.is_ok(), wrong.is_none());
            wrong.map(|one| one.what.clone())
        };
        let few = "1 of 2 leases with indexers".to_owned();
        assert_eq!(lease(Node, &[Indexer], 2, Degraded), Some(few));
        assert_eq!(lease(Node, &[Indexer], 2, Starting), None);
        assert_eq!(lease(Node, &[Indexer, Indexer], 2, Ok), None);
        assert_eq!(
            lease(Node, &[Indexer, Indexer], 2, Degraded),
            None,
            "another reason"
        );
        let taken_in = "no lease with an indexer: a native has taken it in".to_owned();
        assert_eq!(lease(Node, &[Native], 2, Degraded), Some(taken_in));
        let few = "1 of 2 leases with natives".to_owned();
        assert_eq!(lease(Indexer, &[Native], 2, Degraded), Some(few.clone()));
        assert_eq!(lease(Native, &[Native], 2, Degraded), Some(few));
        let mut alone = holding(Native, &[], 0, Degraded);
        let of_native = |status: &Status| {
            let mut report = empty();
            look_at_servers(&mut report, status, None);
            report.to_string()
        };
        for indexer in &mut alone.live_indexers {
            indexer.source = Source::Dht;
        }
        assert!(!alone.live_indexers.is_empty(), "the example has indexers");
        let of_others = of_native(&alone);
        assert!(of_others.contains("no indexer beats to this native"));
        assert!(of_others.contains("give them this native"), "{of_others}");
        alone.live_indexers.clear();
        let nowhere = of_native(&alone);
        assert!(nowhere.contains("no indexer beats to this native"));
        assert!(nowhere.contains("start one"), "{nowhere}");
    }

    #[test]
    fn another_indexer_is_advised_only_if_the_natives_know_too_few() {
        let status = holding(Role::Node, &[Role::Indexer], 2, VerdictState::Degraded);
        assert!(lacks_indexers(&status));
        for (known, advised) in [
            (None, true),
            (Some(1), true),
            (Some(2), false),
            (Some(3), false),
        ] {
            let mut report = empty();
            look_at_servers(&mut report, &status, known);
            let told = report.to_string();
            assert_eq!(told.contains("start another one"), advised, "{told}");
            assert_eq!(told.contains("wait for the next try"), !advised, "{told}");
            assert!(!report.is_ok());
        }
        let both = [Role::Indexer; 2];
        assert!(!lacks_indexers(&holding(
            Role::Node,
            &both,
            2,
            VerdictState::Ok
        )));
    }

    #[test]
    fn address_is_not_explained_by_one_that_it_begins_or_ends() {
        let what = "native …x at 192.0.2.1:4820 has another key";
        for (at, is) in [
            ("192.0.2.1:4820", true),
            ("192.0.2.1:48", false),
            ("2.0.2.1:4820", false),
        ] {
            assert_eq!(is_named(at, what), is, "{at}");
        }
    }

    #[test]
    fn each_cause_of_a_failure_has_what_to_type() {
        let at = "192.0.2.7:4820";
        for (why, typed) in [
            (
                "cannot be reached at 192.0.2.7:4820: connection refused",
                "is the port right?",
            ),
            (
                "cannot be reached at 192.0.2.7:4820: no route to host",
                "ip route get 192.0.2.7",
            ),
            (
                "cannot be reached at 192.0.2.7:4820: connection timed out",
                "ping 192.0.2.7",
            ),
            ("does not answer", "ping 192.0.2.7"),
            (
                "cannot be reached at 192.0.2.7:4820: accepts the connection, but does not answer",
                "hangs, or is another program",
            ),
            (
                "cannot be reached at /dns4/a: the name a does not exist",
                "getent ahosts",
            ),
            (
                "cannot be reached at x: handshake refused: is the key the same?",
                "fingerprint",
            ),
            (
                "cannot be reached at x: another peer answers, with the id 12",
                "on the native shows",
            ),
            (
                "gives no lease: another device at 192.0.2.9 has your identity",
                "identity reset",
            ),
            ("gives no lease: your clock is ahead", "timedatectl"),
            ("gives no lease: full", "there says more"),
        ] {
            let hint = hint_for(why, at);
            assert!(hint.contains(typed), "{why}: {hint}");
        }
        assert!(hint_for("no route to host", "[2001:db8::1]:4820").ends_with("2001:db8::1`"));
    }

    /// A status whose only server fails, with these problems.
    fn failing(problems: &str) -> Status {
        let status = include_str!("../status/example.json");
        let begin = status.find("\"problems\":").unwrap();
        let end = status.find(",\"servers\":").unwrap();
        let status = format!(
            "{}\"problems\":[{problems}]{}",
            &status[..begin],
            &status[end..]
        );
        let mut status: Status = json::from_str(&status).unwrap();
        status.leases.clear();
        status.role = Role::Indexer;
        status
    }

    #[test]
    fn cause_that_a_problem_names_is_counted_once() {
        let problem = r#"{"code":"handshake-refused","severity":"warning","what":"native at 192.0.2.9:4820 has another key","hint":"compare","since_ms":9,"count":1}"#;
        for (problems, counted) in [("", "server"), (problem, "handshake-refused")] {
            let mut report = empty();
            look_at_servers(&mut report, &failing(problems), None);
            for problem in &failing(problems).problems {
                report.wrong(
                    &problem.code,
                    problem.severity,
                    &*problem.what,
                    &problem.hint,
                );
            }
            let hinted = report.findings.iter().filter(|one| one.hint.is_some());
            let hinted: Vec<&str> = hinted.map(|one| &*one.about).collect();
            assert_eq!(hinted, [counted], "{report}");
            assert!(
                report
                    .to_string()
                    .contains("critical  lease: no server grants a lease")
            );
            assert!(!report.is_ok());
        }
    }
}
