//! The verdict for each role, on both sides of each bound.

use super::*;

fn facts(role: Role, change: impl Fn(&mut Facts)) -> Facts {
    let mut facts = Facts::of(role);
    facts.uptime_ms = GRACE_MS;
    facts.wanted = 2;
    change(&mut facts);
    facts
}

fn said(facts: &Facts) -> String {
    Verdict::of(facts, &[]).to_string()
}

fn problem(severity: Severity, what: &str) -> Problem {
    Problem {
        code: "a".into(),
        severity,
        what: what.into(),
        hint: "mend it".into(),
        since_ms: 0,
        count: 1,
    }
}

fn failing(role: Role, at: &str, for_ms: u64) -> FailingServer {
    FailingServer {
        role,
        at: at.into(),
        for_ms,
        how: "unreachable",
        why: "refused".into(),
    }
}

#[test]
fn native_needs_an_indexer_and_the_other_natives() {
    let native = |alive, with, nodes| {
        said(&facts(Role::Native, |f| {
            (f.indexers.alive, f.with_natives, f.nodes) = (alive, with, nodes);
        }))
    };
    assert_eq!(
        native(2, 2, 12),
        "OK native: 2 indexers alive, 12 nodes taken in"
    );
    assert_eq!(
        native(1, 2, 0),
        "OK native: 1 indexer alive, 0 nodes taken in"
    );
    let none = "DEGRADED native: no indexer is alive, 1 node taken in";
    assert_eq!(native(0, 2, 1), none);
    let alone = "DEGRADED native: 1 of 2 leases with other natives";
    assert_eq!(native(1, 1, 0), alone);
}

#[test]
fn native_tells_of_indexers_what_it_has_observed() {
    let native = |alive, silent, dht_only| {
        said(&facts(Role::Native, |f| {
            f.with_natives = 2;
            f.indexers = Indexers {
                alive,
                silent,
                silent_ms: 41_999,
                dht_only,
                ..Indexers::default()
            };
        }))
    };
    for (seen, told) in [
        (
            native(1, 1, 0),
            "OK native: 1 indexer alive, 1 silent for 41 s, 0 nodes taken in",
        ),
        (
            native(1, 0, 2),
            "OK native: 1 indexer alive, 2 known by the DHT only, 0 nodes taken in",
        ),
        (
            native(0, 1, 1),
            "DEGRADED native: no indexer is alive, 1 silent for 41 s, 1 known by the DHT only, 0 nodes taken in",
        ),
        (
            native(0, 0, 1),
            "DEGRADED native: no indexer holds a lease here, 1 known by the DHT only (give them this native, too), 0 nodes taken in",
        ),
        (
            native(0, 0, 0),
            "DEGRADED native: no indexer is alive, 0 nodes taken in",
        ),
    ] {
        assert_eq!(seen, told);
    }
}

#[test]
fn native_says_about_how_many_nodes_have_the_leases_that_indexers_report() {
    let native = |leases, most_leases| {
        said(&facts(Role::Native, |f| {
            f.with_natives = 2;
            f.indexers = Indexers {
                alive: 2,
                leases,
                most_leases,
                ..Indexers::default()
            };
        }))
    };
    for (seen, nodes) in [
        (native(24, 12), "about 12 nodes (24 leases at indexers)"),
        (native(24, 20), "about 20 nodes (24 leases at indexers)"),
        (native(1, 1), "1 node (1 lease at indexers)"),
        (native(12, 12), "12 nodes (12 leases at indexers)"),
    ] {
        let told = format!("OK native: 2 indexers alive, {nodes}, 0 nodes taken in");
        assert_eq!(seen, told);
    }
}

#[test]
fn obstacle_is_what_keeps_a_process_from_its_work_even_in_its_first_minute() {
    let of = |role, change: &dyn Fn(&mut Facts)| Verdict::of(&facts(role, change), &[]).obstacle;
    assert_eq!(
        of(Role::Native, &|_| ()),
        None,
        "it can do without indexers"
    );
    let stuck = |f: &mut Facts| f.loops = vec![("gc", 30_000, 90_001)];
    let why = "the gc loop has not run for 1 min";
    assert_eq!(of(Role::Native, &stuck).as_deref(), Some(why));
    let young = |f: &mut Facts| f.uptime_ms = 0;
    let why = "no native grants a lease";
    assert_eq!(of(Role::Indexer, &young).as_deref(), Some(why));
    assert_eq!(of(Role::Indexer, &|f| f.with_natives = 1), None);
    let why = "no server grants a lease";
    assert_eq!(of(Role::Node, &young).as_deref(), Some(why));
    assert_eq!(of(Role::Node, &|f| f.with_natives = 1), None);
}

#[test]
fn what_a_problem_says_is_not_said_twice() {
    let native = failing(Role::Native, "203.0.113.7:4820", 240_000);
    let told = |wanted, code: &str| {
        let indexer = facts(Role::Indexer, |f| {
            f.wanted = wanted;
            f.failing_servers = vec![native.clone()];
        });
        let problem = Problem {
            code: code.into(),
            ..problem(Severity::Critical, "the key is another")
        };
        Verdict::of(&indexer, &[problem]).to_string()
    };
    assert_eq!(
        told(1, "handshake-refused"),
        "CRITICAL indexer: 0 of 1 lease; the key is another"
    );
    assert_eq!(
        told(0, "no-native-known"),
        "CRITICAL indexer: the key is another"
    );
    let other = told(1, "data-dir-gone");
    assert!(other.contains("unreachable for 4 min (refused)"), "{other}");
}

#[test]
fn native_without_others_wants_no_lease() {
    let first = facts(Role::Native, |f| (f.wanted, f.indexers.alive) = (0, 1));
    assert_eq!(Verdict::of(&first, &[]).state, VerdictState::Ok);
}

#[test]
fn indexer_without_a_lease_is_critical_and_with_some_degraded() {
    let indexer = |held, wanted| {
        said(&facts(Role::Indexer, |f| {
            (f.with_natives, f.wanted, f.nodes) = (held, wanted, 12);
        }))
    };
    assert_eq!(indexer(2, 2), "OK indexer: 2 of 2 leases, 12 nodes");
    assert_eq!(indexer(1, 2), "DEGRADED indexer: 1 of 2 leases");
    assert_eq!(indexer(0, 2), "CRITICAL indexer: 0 of 2 leases");
    assert_eq!(indexer(1, 1), "OK indexer: 1 of 1 lease, 12 nodes");
    assert_eq!(indexer(0, 0), "CRITICAL indexer: no native is known");
}

#[test]
fn node_without_a_lease_is_critical_and_with_fewer_than_it_wants_degraded() {
    let node = |indexers, natives| {
        said(&facts(Role::Node, |f| {
            (f.with_indexers, f.with_natives) = (indexers, natives);
        }))
    };
    assert_eq!(node(3, 0), "OK node: 2 of 2 leases");
    assert_eq!(node(2, 0), "OK node: 2 of 2 leases");
    assert_eq!(node(1, 1), "DEGRADED node: 1 of 2 leases");
    let taken_in = "DEGRADED node: no lease with an indexer: a native has taken it in";
    assert_eq!(node(0, 1), taken_in);
    assert_eq!(node(0, 0), "CRITICAL node: 0 of 2 leases");
}

#[test]
fn loop_that_has_not_run_for_three_intervals_is_critical() {
    for role in [Role::Native, Role::Indexer] {
        let with = |age| {
            facts(role, |f| {
                (f.indexers.alive, f.with_natives) = (1, 2);
                f.loops = vec![("gc", 30_000, age), ("offload", 60_000, 0)];
            })
        };
        let ok = Verdict::of(&with(90_000), &[]);
        assert_eq!(ok.state, VerdictState::Ok, "{ok}");
        let stuck = format!("CRITICAL {role}: the gc loop has not run for 1 min");
        assert_eq!(said(&with(90_001)), stuck);
    }
}

#[test]
fn process_may_lack_leases_in_its_first_minute_but_may_have_no_problem() {
    let at = |role, uptime_ms| facts(role, |f| f.uptime_ms = uptime_ms);
    for (role, what) in [
        (Role::Native, "no indexer is alive, 0 nodes taken in"),
        (Role::Indexer, "0 of 2 leases"),
        (Role::Node, "0 of 2 leases"),
    ] {
        let before = at(role, GRACE_MS - 1);
        assert_eq!(said(&before), format!("STARTING {role}: {what}"));
        let after = Verdict::of(&at(role, GRACE_MS), &[]);
        assert!(after.state > VerdictState::Starting, "{after}");
        let wrong_key = [problem(Severity::Critical, "another key")];
        let verdict = Verdict::of(&before, &wrong_key);
        assert_eq!(verdict.state, VerdictState::Critical);
    }
}

#[test]
fn problems_count_and_the_worst_is_told_first() {
    let node = facts(Role::Node, |f| f.with_indexers = 2);
    let verdict = |problems: &[Problem]| Verdict::of(&node, problems).to_string();
    let warning = problem(Severity::Warning, "the key can be read by others");
    let critical = problem(Severity::Critical, "the data directory has gone");
    let degraded = "DEGRADED node: the key can be read by others";
    assert_eq!(verdict(std::slice::from_ref(&warning)), degraded);
    let both = "CRITICAL node: the data directory has gone; the key can be read by others";
    assert_eq!(verdict(&[warning.clone(), critical.clone()]), both);
    let more = [warning.clone(), critical, warning.clone(), warning];
    assert_eq!(verdict(&more), format!("{both}; and 2 more"));
}

#[test]
fn node_is_degraded_while_a_service_fails_its_check() {
    let node = facts(Role::Node, |f| {
        f.with_indexers = 2;
        f.failing_services = vec!["http\u{1b}".into()];
    });
    let told = r"DEGRADED node: service http\u{1b} fails its check";
    assert_eq!(said(&node), told);
}

#[test]
fn lack_is_explained_by_the_native_that_fails_longest() {
    let node = |servers: &[FailingServer]| {
        said(&facts(Role::Node, |f| {
            f.with_indexers = 1;
            f.failing_servers = servers.to_vec();
        }))
    };
    let native = failing(Role::Native, "203.0.113.7:4820", 240_000);
    let one =
        "DEGRADED node: 1 of 2 leases; native 203.0.113.7:4820 unreachable for 4 min (refused)";
    assert_eq!(node(std::slice::from_ref(&native)), one);
    let indexer = failing(Role::Indexer, "192.0.2.1:4821", 900_000);
    let later = failing(Role::Native, "192.0.2.2:4820", 1_000);
    let two_more = format!("{one}, and 2 more");
    assert_eq!(node(&[indexer, native, later]), two_more);
}

#[test]
fn a_lack_of_leases_says_when_the_next_try_is() {
    let node = |next_try_ms| {
        said(&facts(Role::Node, |f| {
            (f.with_indexers, f.next_try_ms) = (1, next_try_ms);
        }))
    };
    for (ms, told) in [
        (None, ""),
        (Some(0), "; tries again now"),
        (Some(1), "; next try in 1 s"),
        (Some(1_000), "; next try in 1 s"),
        (Some(1_001), "; next try in 2 s"),
    ] {
        assert_eq!(node(ms), format!("DEGRADED node: 1 of 2 leases{told}"));
    }
    let enough = facts(Role::Node, |f| {
        (f.with_indexers, f.next_try_ms) = (2, Some(9_000));
    });
    assert_eq!(said(&enough), "OK node: 2 of 2 leases");
}
