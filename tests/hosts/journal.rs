//! The journal of systemd, which reads each line with its fields.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;

use crate::harness::{Look as _, SLACK, eventually};
use crate::network::Network;

#[test]
fn journal_gets_lines_with_fields_and_stderr_those_that_it_does_not_take() {
    let Some(network) = Network::new() else {
        return;
    };
    let run = network.root().join("run/systemd/journal");
    fs::create_dir_all(&run).unwrap();
    let journal = UnixDatagram::bind(run.join("socket")).unwrap();
    journal.set_read_timeout(Some(SLACK)).unwrap();
    let stream = |name: &str| {
        let log = File::create(network.world().path(&format!("{name}.log"))).unwrap();
        let log = log.metadata().unwrap();
        format!("JOURNAL_STREAM={}:{}", log.dev(), log.ino())
    };
    let host = network.host("host");
    let native = host.start_with("native", "native", &stream("native"), &[]);
    let at = native.addr.clone();
    let args = [
        "--native",
        &at,
        "--name",
        "pump",
        "--listen",
        "/ip4/127.0.0.1/tcp/0",
    ];
    let mut node = host.start("node", "node", &args);
    node.until("its lease", SLACK, |s| s.is_under_native(&native));
    let heard = || {
        let mut buffer = [0; 8192];
        let length = journal.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let taken_in = eventually("the line", SLACK, || {
        Some(heard()).filter(|line| line.contains("\nOC_CODE=taken-in\n"))
    });
    for field in [
        "PRIORITY=6\nSYSLOG_IDENTIFIER=oc-discovery\n",
        &format!("\nOC_PEER={}\n", node.id),
        "\nOC_ROLE=node\nOC_PEER",
        "\nOC_NAME=pump\nOC_ADDR=127.0.0.1\n",
        "\nMESSAGE=takes node pump (",
    ] {
        assert!(taken_in.contains(field), "{taken_in}");
    }
    assert!(
        !native.log().contains("takes node pump"),
        "{}",
        native.log()
    );

    // A journal that is away: its reader of stderr gets the lines.
    fs::remove_file(run.join("socket")).unwrap();
    node.kill();
    native.logs("<6>node pump (");
}
