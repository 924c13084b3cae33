//! A closed network: who has a grant takes part, who has none or another one is told why, and who
//! is revoked at one native is gone everywhere.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use libp2p::identity::Keypair;
use oc_discovery::embed::Status;
use rustix::process::Signal;
use std::io::Write as _;

use super::harness::{Look, Peer, SLACK, World, ended, eventually, with_natives};

/// A network with its key.
struct Network<'w> {
    world: &'w World,
    key: String,
    id: String,
}

/// Runs a command that must succeed; its first line.
fn line(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oc-discovery"));
    let output = ended(command.args(args));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{args:?}: {said}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    stdout.lines().next().unwrap_or_default().to_owned()
}

impl<'w> Network<'w> {
    fn new(world: &'w World) -> Self {
        let dir = world.path("club");
        let said = line(&["network", "new", dir.to_str().unwrap()]);
        let key = dir.join("network.key").to_str().unwrap().to_owned();
        let words = said.split_whitespace();
        let id = words.into_iter().find(|word| word.starts_with("12D3KooW"));
        let id = id.unwrap_or_else(|| panic!("{said}")).to_owned();
        Self { world, key, id }
    }

    /// A device with an identity; its peer id.
    fn device(&self, name: &str) -> String {
        let dir = self.world.path(name);
        fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
        let key = Keypair::generate_ed25519();
        let mut options = fs::File::options();
        let file = options.write(true).create_new(true).mode(0o600);
        let mut file = file.open(dir.join("identity")).unwrap();
        file.write_all(&key.to_protobuf_encoding().unwrap())
            .unwrap();
        key.public().to_peer_id().to_string()
    }

    /// Puts a grant into the device's directory.
    fn grant(&self, name: &str, id: &str, args: &[&str]) {
        let all = [&["network", "grant", "--key", &self.key], args, &[id]].concat();
        fs::write(self.world.path(name).join("grant"), line(&all)).unwrap();
    }

    /// A device with a grant.
    fn member(&self, name: &str, args: &[&str]) -> String {
        let id = self.device(name);
        self.grant(name, &id, args);
        id
    }

    /// Starts a process in this network.
    fn start(&self, role: &str, name: &'static str, natives: &[&Peer], args: &[&str]) -> Peer {
        let args = [&["--network", &self.id], args].concat();
        self.world.start(role, name, &with_natives(natives, &args))
    }

    /// The list that revokes this peer, in a file.
    fn revoke(&self, id: &str) -> String {
        let list = line(&["network", "revoke", "--key", &self.key, id]);
        let file = self.world.path("list");
        fs::write(&file, list).unwrap();
        file.to_str().unwrap().to_owned()
    }
}

fn problem(status: &Status, code: &str, about: &str) -> bool {
    let mut problems = status.problems.iter();
    problems.any(|problem| problem.code == code && problem.what.contains(about))
}

/// What a node is told that gets no lease.
fn is_told(peer: &Peer, why: &str) {
    peer.until(why, SLACK, |s| {
        s.leases.is_empty() && s.troubles.iter().any(|trouble| trouble.what.contains(why))
    });
}

#[test]
fn members_find_each_other_and_others_are_told_on_both_sides_why_they_do_not() {
    let world = World::new();
    let club = Network::new(&world);
    club.member("native", &["--role", "native"]);
    club.member("indexer", &["--role", "indexer"]);
    club.member("node", &["--role", "node", "--name", "*.roof"]);
    club.member("asker", &["--role", "node"]);
    let native = club.start("native", "native", &[], &[]);
    let indexer = club.start("indexer", "indexer", &[&native], &[]);
    native.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    let node = club.start("node", "node", &[&native], &["--name", "cam.roof"]);
    let asker = club.start("node", "asker", &[&native], &["--name", "asker"]);
    for node in [&node, &asker] {
        node.until("its lease", SLACK, |s| s.holds_lease_of(&indexer));
    }
    eventually("it is found", SLACK, || {
        let found = world.ask(&asker, "find", &["cam.roof"]);
        (found.code == Some(0)).then_some(())
    });
    // One that does not know of grants.
    let stranger = world.node("stranger", &[&native], &["--name", "stranger"]);
    is_told(&stranger, "no grant of this network was shown");
    // A name that a grant has is nobody else's.
    club.member("squatter", &["--role", "node"]);
    let squatter = club.start("node", "squatter", &[&native], &["--name", "x.roof"]);
    is_told(&squatter, "the grant of another peer has the name");
    indexer.until("the stranger is told of", SLACK, |s| {
        problem(s, "no-grant", stranger.short_id())
    });
    indexer.until("the squatter is told of", SLACK, |s| {
        problem(s, "wrong-grant", squatter.short_id())
    });
    for refused in [&stranger, &squatter] {
        assert!(indexer.status().stream_record(refused).is_none());
        assert!(native.status().stream_record(refused).is_none());
    }
    // A member deals with no server that has no grant.
    let open = world.native("open", &[]);
    club.member("lost", &["--role", "node"]);
    let lost = club.start("node", "lost", &[&open], &["--name", "lost"]);
    is_told(&lost, "no grant of this network was shown");
    let network = node.status().network.unwrap();
    assert!(network.closed && network.id == club.id, "{network:?}");
    assert_eq!(network.names, ["*.roof"]);
}

#[test]
fn a_grant_that_would_be_refused_everywhere_ends_the_start_with_what_to_do() {
    let world = World::new();
    let club = Network::new(&world);
    let network = ["--network", &club.id, "--name", "cam"];
    let vain = |name: &str, args: &[&str]| {
        let output = world.start_in_vain("node", name, args);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let id = club.device("node");
    let said = vain("node", &network);
    assert!(
        said.contains("there is no grant") && said.contains(&id),
        "{said}"
    );
    for (grant, why) in [
        (&["--role", "indexer"][..], "does not allow the role node"),
        (
            &["--role", "node", "--name", "fan"],
            "does not allow the name \"cam\", only fan",
        ),
    ] {
        club.grant("node", &id, grant);
        let said = vain("node", &network);
        assert!(said.contains(why) && said.contains("/grant:"), "{said}");
    }
    let other = club.device("other");
    club.grant("node", &other, &["--role", "node"]);
    let said = vain("node", &network);
    assert!(
        said.contains(&format!("it is for {other}, another peer")),
        "{said}"
    );
    club.grant("node", &id, &["--role", "node"]);
    let said = vain("node", &["--network", &other, "--name", "cam"]);
    assert!(said.contains("it is a grant of the network"), "{said}");
    fs::write(world.path("node").join("grant"), "nothing").unwrap();
    let said = vain("node", &network);
    assert!(said.contains("it is no grant"), "{said}");
}

#[test]
fn who_is_revoked_at_one_native_is_gone_everywhere_and_stays_so_after_a_restart() {
    let world = World::new();
    let club = Network::new(&world);
    for name in ["one", "two"] {
        club.member(name, &["--role", "native"]);
    }
    let one = club.start("native", "one", &[], &[]);
    let mut two = club.start("native", "two", &[&one], &[]);
    club.member("indexer", &["--role", "indexer"]);
    let indexer = club.start("indexer", "indexer", &[&one, &two], &[]);
    two.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    let stolen = club.member("stolen", &["--role", "node"]);
    let thief = club.start("node", "stolen", &[&two], &["--name", "stolen"]);
    club.member("asker", &["--role", "node"]);
    let asker = club.start("node", "asker", &[&two], &["--name", "asker"]);
    for node in [&thief, &asker] {
        node.until("its lease", SLACK, |s| s.holds_lease_of(&indexer));
    }
    let list = club.revoke(&stolen);
    let answer = world.ask(&one, "revoke", &[&list]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    for peer in [&one, &two, &indexer, &asker] {
        peer.until("the list", SLACK, |s| {
            s.network
                .as_ref()
                .is_some_and(|network| network.revoked == 1)
        });
    }
    assert!(indexer.status().stream_record(&thief).is_none());
    assert_ne!(world.ask(&asker, "find", &["stolen"]).code, Some(0));
    is_told(&thief, "the key of the network has revoked it");
    indexer.until("it is told of", SLACK, |s| {
        problem(s, "revoked", thief.short_id())
    });
    // The list is on the disk.
    two.end(Signal::TERM);
    let two = club.start("native", "two", &[], &[]);
    let network = two.status().network.unwrap();
    assert_eq!((network.revoked, network.closed), (1, true));
    // An older list changes nothing, and the same one is no error.
    let again = world.ask(&one, "revoke", &[&list]);
    assert!(again.stdout.contains("taken before"), "{again:?}");
    let damaged = world.path("damaged");
    fs::write(&damaged, "AAAA").unwrap();
    let answer = world.ask(&one, "revoke", &[damaged.to_str().unwrap()]);
    assert_eq!(answer.code, Some(1));
    assert!(answer.stderr.contains("no revocation list"), "{answer:?}");
}

#[test]
fn a_network_is_closed_while_it_runs_without_a_moment_in_which_a_node_is_not_found() {
    let world = World::new();
    let club = Network::new(&world);
    let names = ["native", "indexer", "cam", "asker"];
    let roles = ["native", "indexer", "node", "node"];
    let ids = names.map(|name| club.device(name));
    let file = |name: &str| world.path(&format!("{name}.toml"));
    for name in names {
        fs::write(file(name), "").unwrap();
    }
    let config = |name: &str| {
        [
            "--config".to_owned(),
            file(name).to_str().unwrap().to_owned(),
        ]
    };
    let start = |role: &str, name: &'static str, natives: &[&Peer], more: &[&str]| {
        let config = config(name);
        let config: Vec<&str> = config.iter().map(String::as_str).collect();
        let args = [&config[..], more].concat();
        world.start(role, name, &with_natives(natives, &args))
    };
    let native = start("native", "native", &[], &[]);
    let indexer = start("indexer", "indexer", &[&native], &[]);
    native.until("the indexer", SLACK, |s| s.live(&indexer).is_some());
    let cam = start("node", "cam", &[&native], &["--name", "cam"]);
    let asker = start("node", "asker", &[&native], &["--name", "asker"]);
    for node in [&cam, &asker] {
        node.until("its lease", SLACK, |s| s.holds_lease_of(&indexer));
    }
    let peers = [&native, &indexer, &cam, &asker];
    let is_over = AtomicBool::new(false);
    let dir = asker.dir().to_owned();
    thread::scope(|scope| {
        let looks = scope.spawn(|| {
            let mut looks = 0;
            while !is_over.load(Ordering::Relaxed) {
                let mut find = Command::new(env!("CARGO_BIN_EXE_oc-discovery"));
                find.args(["find", "cam", "--data-dir"]).arg(&dir);
                let found = ended(&mut find);
                let said = String::from_utf8(found.stdout).unwrap();
                assert!(said.starts_with("cam "), "look {looks}: {said}");
                looks += 1;
            }
            looks
        });
        // Each device gets its grant, and takes it over.
        for ((name, role), (id, peer)) in names.iter().zip(roles).zip(ids.iter().zip(peers)) {
            club.grant(name, id, &["--role", role]);
            let answer = world.ask::<&str>(peer, "reload", &[]);
            assert_eq!(answer.code, Some(0), "{answer:?}");
            peer.until("its grant", SLACK, |s| s.network.is_some());
        }
        // Then the network is closed.
        for (name, peer) in names.iter().zip(peers) {
            fs::write(file(name), format!("network = \"{}\"\n", club.id)).unwrap();
            let answer = world.ask::<&str>(peer, "reload", &[]);
            assert_eq!(answer.code, Some(0), "{answer:?}");
            peer.until("closed", SLACK, |s| {
                s.network.as_ref().is_some_and(|it| it.closed)
            });
        }
        for node in [&cam, &asker] {
            node.until("its lease", SLACK, |s| s.holds_lease_of(&indexer));
        }
        indexer.until("its members", SLACK, |s| {
            s.network
                .as_ref()
                .is_some_and(|network| network.members >= 3)
        });
        // Some beats later it is as before.
        indexer.until_runs("gc", 2);
        is_over.store(true, Ordering::Relaxed);
        assert!(looks.join().unwrap() > 5);
    });
    // Its servers are in the routing tables again, so answers are complete.
    for peer in peers {
        eventually("a complete answer", SLACK, || {
            let mut find = Command::new(env!("CARGO_BIN_EXE_oc-discovery"));
            find.args(["find", "cam", "--data-dir"]).arg(peer.dir());
            let answer = ended(&mut find);
            answer.status.success().then_some(())
        });
    }
    let stranger = world.node("stranger", &[&native], &["--name", "stranger"]);
    is_told(&stranger, "no grant of this network was shown");
}
