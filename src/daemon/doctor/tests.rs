//! What is said of each thing, and whether it counts as wrong.

use std::fs;

use super::*;
use crate::config::Role;

#[test]
fn file_system_is_full_without_room_for_a_state_or_for_a_file() {
    for (bytes, files, free_files, full) in [
        (NEEDED_BYTES, 9, 1, false),
        (NEEDED_BYTES - 1, 9, 1, true),
        (NEEDED_BYTES, 9, 0, true),
        (NEEDED_BYTES, 0, 0, false),
    ] {
        assert_eq!(is_full(bytes, files, free_files), full, "{bytes} {files}");
    }
}

pub(super) fn empty() -> Diagnosis {
    Diagnosis {
        schema: 1,
        ok: true,
        data_dir: None,
        findings: Vec::new(),
    }
}

#[test]
fn each_wrong_thing_has_what_to_type_and_is_counted() {
    let mut report = empty();
    report.good("key", "its fingerprint is 00ff");
    assert!(report.is_ok());
    assert!(report.to_string().ends_with("nothing is wrong"));
    report.wrong(
        "data-dir-open",
        Severity::Warning,
        "it is\nopen",
        "chmod 700 DIR",
    );
    assert!(!report.is_ok());
    assert_eq!(
        report.to_string(),
        "ok        key: its fingerprint is 00ff\n\
         warning   data-dir-open: it is\\nopen\n          → chmod 700 DIR\n\
         1 thing is wrong"
    );
}

#[test]
fn what_is_seen_from_outside_and_by_the_daemon_is_said_once() {
    let (status, mut report) = (example(), empty());
    let code = &status.problems[0].code;
    report.wrong(code, Severity::Warning, "seen from outside", "mend it");
    look_at_daemon(&mut report, &status, None);
    let said = report.findings.iter().filter(|one| one.about == *code);
    assert_eq!(said.count(), 1, "{report}");
}

#[test]
fn report_keeps_every_field_of_the_interface() {
    let mut report = empty();
    report.wrong("daemon", Severity::Critical, "away", "start it");
    report.say("key", "note", "none");
    assert_eq!(
        report.to_json(),
        concat!(
            r#"{"schema":1,"ok":false,"data_dir":null,"findings":["#,
            r#"{"about":"daemon","state":"critical","what":"away","hint":"start it"},"#,
            r#"{"about":"key","state":"note","what":"none","hint":null}]}"#
        )
    );
}

fn example() -> Status {
    json::from_str(include_str!("../status/example.json")).unwrap()
}

#[test]
fn what_degrades_the_verdict_is_wrong_even_if_no_other_finding_names_it() {
    for (state, is_right) in [
        (VerdictState::Ok, true),
        (VerdictState::Starting, true),
        (VerdictState::Degraded, false),
        (VerdictState::Critical, false),
    ] {
        let (mut status, mut report) = (example(), empty());
        status.verdict.state = state;
        look_at_verdict(&mut report, &status);
        assert_eq!(report.is_ok(), is_right, "{report}");
        look_at_verdict(&mut report, &status);
        assert!(report.findings.len() <= 1, "it is said once: {report}");
    }
}

#[test]
fn answer_of_a_dial_back_has_its_age_in_every_role() {
    for role in [Role::Node, Role::Indexer, Role::Native] {
        let (mut status, mut report) = (example(), empty());
        status.role = role;
        look_at_reach(&mut report, &status);
        let text = report.to_string();
        assert!(text.contains("reachable: from outside: no"), "{text}");
        assert!(text.contains("2 min ago"), "{text}");
    }
}

#[test]
fn directory_of_another_user_is_no_fault() {
    let scratch = crate::daemon::testdir::TestDir::new();
    let mut report = empty();
    let closed = Err(io::ErrorKind::PermissionDenied.into());
    look_at_files(&mut report, scratch.path(), closed);
    assert!(report.is_ok(), "{report}");
    assert!(report.to_string().contains("not for this user"), "{report}");
    look_at_files(&mut report, scratch.path(), Ok(()));
    assert!(!report.is_ok(), "there is no identity: {report}");
}

#[test]
fn without_a_daemon_the_directory_is_looked_at_and_that_none_runs_is_wrong() {
    let scratch = crate::daemon::testdir::TestDir::new();
    let report = examine(Some(scratch.path()), &|_| None).unwrap();
    assert!(!report.is_ok());
    let text = report.to_string();
    for part in [
        "critical  daemon: no daemon runs on",
        "identity: there is no identity",
        "clock",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_new_identity_is_noted_with_those_beside_it_and_an_old_one_is_not() {
    let scratch = crate::daemon::testdir::TestDir::new();
    let [dir, other] = ["nodee", "node"].map(|name| scratch.path().join(name));
    for dir in [&dir, &other] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join(storage::identity::IDENTITY), "").unwrap();
    }
    let told = || {
        let mut report = empty();
        look_at_age(&mut report, &dir);
        report.to_string()
    };
    let fresh = told();
    for part in [
        "note",
        "--data-dir was mistyped",
        &*other.display().to_string(),
    ] {
        assert!(fresh.contains(part), "{fresh}");
    }
    let identity = fs::File::open(dir.join(storage::identity::IDENTITY)).unwrap();
    let made = |ago| {
        identity
            .set_modified(std::time::SystemTime::now() - ago)
            .unwrap()
    };
    made(FRESH - Duration::from_secs(60));
    assert!(!told().starts_with("nothing"));
    made(FRESH);
    assert!(told().starts_with("nothing"), "{}", told());
}
