//! The checks of services: a service that fails is not found, and one that passes again is found.

use std::net::TcpListener;

use miniserde::json;
use oc_discovery::embed::{CheckState, Found, Status};

use super::harness::{Peer, SLACK, World, eventually};

/// The services of `cam` as another node finds them.
fn found(world: &World, asked: &Peer) -> Vec<String> {
    let answer = world.ask(asked, "find", &["--json", "cam"]);
    let found: Found = json::from_str(&answer.stdout).unwrap();
    let mut records = found.records.into_iter();
    let services = records.next().map_or(Vec::new(), |record| record.services);
    services.into_iter().map(|service| service.name).collect()
}

#[test]
fn service_that_fails_its_check_is_found_again_when_it_passes() {
    let world = World::new();
    let native = world.native("native", &[]);
    let indexer = world.indexer("indexer", &[&native], &[]);
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = service.local_addr().unwrap().port();
    let file = world.path("up");
    std::fs::write(&file, "").unwrap();
    let http = format!("http={port}");
    let exec = format!("log=exec:test -e {}", file.display());
    // No lease is renewed and no record is due while this test runs.
    let cam = [
        "--name",
        "cam",
        "--service",
        &http,
        "--service",
        "log=udp:514",
    ];
    let checks = [
        "--check",
        "http=tcp",
        "--check",
        &exec,
        "--allow-exec",
        "--check-interval",
        "200ms",
    ];
    let cam = world.node("cam", &[&native], &[&cam[..], &checks].concat());
    let asker = world.node("asker", &[&native], &["--name", "asker"]);
    let states = |expected: [CheckState; 2]| {
        move |status: &Status| status.checks.iter().map(|check| check.state).eq(expected)
    };
    cam.until("both to pass", SLACK, states([CheckState::Ok; 2]));
    asker.until("a lease", SLACK, |status| !status.leases.is_empty());
    let is_found = |services: &[&str]| {
        eventually("the services", SLACK, || {
            (found(&world, &asker) == services).then_some(())
        });
    };
    is_found(&["http", "log"]);

    drop(service);
    cam.until(
        "one to fail",
        SLACK,
        states([CheckState::Failing, CheckState::Ok]),
    );
    is_found(&["log"]);
    let status = cam.status();
    let refused = format!("127.0.0.1:{port}: connection refused");
    assert_eq!(status.checks[0].error, Some(refused));

    std::fs::remove_file(&file).unwrap();
    is_found(&[]);
    let _service = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::fs::write(&file, "").unwrap();
    is_found(&["http", "log"]);
    let log = cam.log();
    assert_eq!(log.matches("fails its check (").count(), 2, "{log}");
    assert_eq!(log.matches("it is in the record again").count(), 2, "{log}");
    drop((indexer, native));
}

#[test]
fn service_is_not_in_the_record_before_its_check_has_passed_once() {
    let world = World::new();
    let native = world.native("native", &[]);
    let _indexer = world.indexer("indexer", &[&native], &[]);
    // The first run does not end while this test runs.
    let cam = [
        "--name",
        "cam",
        "--service",
        "http=80",
        "--service",
        "log=udp:514",
        "--check",
        "http=exec:sleep 60",
        "--allow-exec",
    ];
    let cam = world.node("cam", &[&native], &cam);
    cam.until("a lease", SLACK, |status| !status.leases.is_empty());
    eventually("it", SLACK, || {
        let services = found(&world, &cam);
        (!services.is_empty()).then(|| assert_eq!(services, ["log"]))
    });
}
