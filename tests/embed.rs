//! Several embedded processes in this one: they find each other, and end.

use std::future::Future;
use std::time::{Duration, Instant};

use oc_discovery::embed::{
    Builder, Discovery, Error, Event, Filter, FoundRecord, NodeList, NodeRow, NodeState, Role,
    Watch,
};
use smol::future::or;

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

fn run<T>(test: impl Future<Output = T>) -> T {
    smol::block_on(or(test, async {
        smol::Timer::after(LIMIT).await;
        panic!("not done within {LIMIT:?}");
    }))
}

fn on_loopback() -> Builder {
    Discovery::builder().listen("/ip4/127.0.0.1/tcp/0")
}

async fn native() -> Discovery {
    on_loopback().role(Role::Native).spawn().await.unwrap()
}

fn node(native: &Discovery, name: &str) -> Builder {
    let native = native.addresses()[0].as_str();
    on_loopback()
        .native(native)
        .name(name)
        .connect_interval(Duration::from_millis(100))
}

/// Asks until a node has the name, because leases come a moment after the start.
async fn found(asked: &Discovery, name: &str) -> FoundRecord {
    loop {
        let mut records = asked.find(name).await.unwrap().records;
        if !records.is_empty() {
            return records.remove(0);
        }
        smol::Timer::after(Duration::from_millis(50)).await;
    }
}

#[test]
fn two_nodes_of_one_process_find_each_others_services() {
    run(async {
        let native = native().await;
        let lamp = node(&native, "lamp").service("http", 8080).spawn();
        let pump = node(&native, "pump").udp_service("coap", 5683).spawn();
        let (lamp, pump) = (lamp.await.unwrap(), pump.await.unwrap());
        assert_ne!(lamp.peer_id(), pump.peer_id());

        let seen = found(&lamp, "pump").await;
        assert_eq!(seen.peer_id, pump.peer_id());
        assert_eq!(seen.addresses_of(&seen.services[0]), ["127.0.0.1:5683"]);
        let seen = found(&pump, "Lamp").await;
        assert_eq!(seen.peer_id, lamp.peer_id());
        assert_eq!(seen.addresses_of(&seen.services[0]), ["127.0.0.1:8080"]);
        assert!(found(&native, lamp.peer_id()).await.name == "lamp");

        let leases = pump.status().await.unwrap().leases;
        assert_eq!(leases[0].peer_id, native.peer_id());
    });
}

#[test]
fn indexers_are_listed_wherever_one_asks() {
    run(async {
        let native = native().await;
        let indexer = on_loopback()
            .role(Role::Indexer)
            .native(native.addresses()[0].as_str())
            .spawn()
            .await
            .unwrap();
        let node = node(&native, "lamp").spawn().await.unwrap();
        for asked in [&native, &indexer, &node] {
            let listed = loop {
                let listed = asked.indexers().await.unwrap().indexers;
                if !listed.is_empty() {
                    break listed;
                }
                smol::Timer::after(Duration::from_millis(50)).await;
            };
            assert_eq!(listed[0].peer_id, indexer.peer_id());
        }
    });
}

/// Asks until the list has this many nodes.
async fn listed(asked: &Discovery, filter: Filter, nodes: usize) -> NodeList {
    loop {
        let list = asked.nodes(filter.clone()).await.unwrap();
        if list.nodes.len() == nodes {
            return list;
        }
        smol::Timer::after(Duration::from_millis(50)).await;
    }
}

fn names(list: &NodeList) -> Vec<&str> {
    let mut names: Vec<_> = list.nodes.iter().map(|node| node.name.as_str()).collect();
    names.sort_unstable();
    names
}

#[test]
fn nodes_are_listed_by_service_tag_name_and_state_with_how_complete_that_is() {
    run(async {
        let native = native().await;
        let lamp = node(&native, "lamp-1").service("http", 8080).spawn();
        let lamp = lamp.await.unwrap();
        let pump = node(&native, "pump-1").tag("site", "roof").spawn();
        let pump = pump.await.unwrap();

        let all = listed(&pump, Filter::all(), 2).await;
        assert_eq!(names(&all), ["lamp-1", "pump-1"]);
        assert!(all.complete && !all.more, "{all:?}");
        assert_eq!((all.asked, all.answered, all.shortfall()), (1, 1, None));
        for (filter, name) in [
            (Filter::all().service("http"), "lamp-1"),
            (Filter::all().tag("site", "roof"), "pump-1"),
            (Filter::all().name_prefix("pu"), "pump-1"),
        ] {
            assert_eq!(names(&native.nodes(filter).await.unwrap()), [name]);
        }
        let listed_lamp = native.nodes(Filter::all().service("http")).await.unwrap();
        let row = &listed_lamp.nodes[0];
        assert_eq!(row.addresses_of(&row.services[0]), ["127.0.0.1:8080"]);
        assert_eq!(
            (row.state, row.peer_id.as_str()),
            (NodeState::Alive, lamp.peer_id())
        );

        lamp.close().await;
        let gone = listed(&pump, Filter::all().state(NodeState::Left), 1).await;
        assert_eq!(names(&gone), ["lamp-1"]);
    });
}

#[test]
fn list_of_a_node_whose_server_is_gone_is_incomplete_and_says_so() {
    run(async {
        let native = native().await;
        let lamp = node(&native, "lamp").spawn().await.unwrap();
        listed(&lamp, Filter::all(), 1).await;
        let id = native.peer_id().to_owned();
        native.close().await;
        let list = lamp.nodes(Filter::all()).await.unwrap();
        assert!(!list.complete && list.shortfall().is_some(), "{list:?}");
        assert_eq!(list.silent, [id]);
    });
}

/// The next event that is about a node.
async fn change(watch: &mut Watch) -> Event {
    loop {
        match watch.next().await.unwrap() {
            Event::CaughtUp { .. } => {}
            event => return event,
        }
    }
}

#[test]
fn a_watch_tells_who_is_there_and_then_each_change() {
    run(async {
        let native = native().await;
        let lamp = node(&native, "lamp").spawn().await.unwrap();
        listed(&lamp, Filter::all(), 1).await;
        let mut watch = lamp.watch(Filter::all()).await.unwrap();
        let present = |event: Event, name: &str| match event {
            Event::Present(NodeRow { name: is, .. }) => assert_eq!(is, name),
            other => panic!("{other:?}"),
        };
        present(watch.next().await.unwrap(), "lamp");
        match watch.next().await.unwrap() {
            Event::CaughtUp { silent, .. } => assert!(silent.is_empty()),
            other => panic!("{other:?}"),
        }
        let pump = node(&native, "pump").spawn().await.unwrap();
        present(change(&mut watch).await, "pump");
        pump.close().await;
        match change(&mut watch).await {
            Event::Left(row) => assert_eq!(row.peer_id, pump.peer_id()),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_watch_that_is_dropped_gives_its_place_up_and_a_fifth_one_is_told_to_come_back() {
    run(async {
        let native = native().await;
        let mut open = Vec::new();
        for _ in 0..4 {
            let mut watch = native.watch(Filter::all()).await.unwrap();
            watch.next().await.unwrap();
            open.push(watch);
        }
        let mut fifth = native.watch(Filter::all()).await.unwrap();
        assert_eq!(fifth.next().await, Err(Error::Busy));
        assert_eq!(fifth.next().await, Err(Error::Busy));
        open.pop();
        let mut fifth = native.watch(Filter::all()).await.unwrap();
        fifth.next().await.unwrap();
    });
}

#[test]
fn a_watch_keeps_its_process_until_that_is_closed() {
    run(async {
        let native = native().await;
        let clone = native.clone();
        let mut watch = native.watch(Filter::all()).await.unwrap();
        drop(native);
        watch.next().await.unwrap();
        clone.close().await;
        assert_eq!(watch.next().await, Err(Error::Closed));
        assert_eq!(clone.nodes(Filter::all()).await, Err(Error::Closed));
        assert!(matches!(
            clone.watch(Filter::all()).await,
            Err(Error::Closed)
        ));
    });
}

#[test]
fn one_that_is_closed_has_given_its_lease_up_and_answers_no_more() {
    run(async {
        let native = native().await;
        let lamp = node(&native, "lamp").spawn().await.unwrap();
        found(&native, "lamp").await;
        let clone = lamp.clone();
        let begin = Instant::now();
        lamp.close().await;
        assert!(begin.elapsed() < Duration::from_secs(5));
        // Its lease of 90 s would have kept it there.
        assert_eq!(native.find("lamp").await.unwrap().records, []);
        assert_eq!(clone.find("lamp").await, Err(Error::Closed));
        assert_eq!(clone.status().await, Err(Error::Closed));
    });
}

#[test]
fn dropping_the_last_clone_gives_the_lease_up() {
    run(async {
        let native = native().await;
        let lamp = node(&native, "lamp").spawn().await.unwrap();
        found(&native, "lamp").await;
        let clone = lamp.clone();
        drop(lamp);
        assert!(clone.status().await.is_ok());
        drop(clone);
        while !native.find("lamp").await.unwrap().records.is_empty() {
            smol::Timer::after(Duration::from_millis(50)).await;
        }
    });
}

#[test]
fn what_cannot_be_is_an_error_to_be_matched() {
    run(async {
        let setting = |builder: Builder| async {
            match builder.spawn().await {
                Err(Error::Setting { setting, reason }) => (setting, reason),
                other => panic!("{other:?}"),
            }
        };
        let (name, why) = setting(on_loopback().service("http", 0)).await;
        assert!(name == "service" && why.contains("1 to 65535"), "{why}");
        let (name, why) = setting(on_loopback().native("192.0.2.1:4820")).await;
        assert!(name == "native" && why.contains("multiaddress"), "{why}");
        let (name, why) = setting(on_loopback().role(Role::Indexer).name("x")).await;
        assert!(name == "name" && why.contains("only a node"), "{why}");
        let (name, why) = setting(on_loopback().data_dir("")).await;
        assert!(name == "data_dir" && why.contains("a directory"), "{why}");
        let (name, why) = setting(on_loopback().announce_only()).await;
        assert!(
            name == "announce_only" && why.contains("at least one"),
            "{why}"
        );
        let (name, why) = setting(on_loopback().tag("a=b", "c")).await;
        assert!(name == "tag" && why.contains("no ="), "{why}");
        for number in [0, 9] {
            let (name, why) = setting(on_loopback().min_indexers(number)).await;
            assert!(name == "min_indexers" && why.starts_with(name), "{why}");
        }
        for interval in [Duration::from_millis(99), Duration::from_millis(3_600_001)] {
            let (name, why) = setting(on_loopback().connect_interval(interval)).await;
            assert!(
                name == "connect_interval" && why.contains("100ms to 1h"),
                "{why}"
            );
        }
        let (name, why) = setting(on_loopback().connections(3)).await;
        assert!(name == "connections" && why.contains("from 4 to"), "{why}");

        let native = native().await;
        let taken = native.addresses()[0].split("/p2p").next().unwrap();
        let second = Discovery::builder().role(Role::Native).listen(taken);
        assert!(matches!(second.spawn().await, Err(Error::Start(_))));

        for (filter, name) in [
            (Filter::all().service("HTTP"), "service"),
            (Filter::all().tag("a=b", "c"), "tag"),
            (Filter::all().tag("", "c"), "tag"),
            (Filter::all().name_prefix("Lamp"), "name_prefix"),
        ] {
            let why = native.nodes(filter.clone()).await.unwrap_err();
            match &why {
                Error::Setting { setting, reason } => {
                    assert!(*setting == name && reason.starts_with(name), "{why:?}");
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(native.watch(filter).await.unwrap_err(), why);
        }

        let text = "no name";
        let refused = Err(Error::NotAName(text.into()));
        assert_eq!(native.find(text).await, refused);
    });
}

#[test]
fn connections_are_bounded_by_what_the_program_says_and_by_its_limit_of_descriptors() {
    run(async {
        let native = on_loopback().role(Role::Native).connections(4).spawn();
        let native = native.await.unwrap();
        assert_eq!(connections(&native).await, 4);
    });
    // Each limit is tested in a process of its own.
    in_a_program_with_descriptors(100, "part_of_the_limit_is_enough");
    in_a_program_with_descriptors(20, "too_low_a_limit_is_an_error");
    in_a_program_with_descriptors(20, "no_descriptor_left_is_an_error");
}

async fn connections(of: &Discovery) -> u64 {
    let tables = of.status().await.unwrap().tables;
    let connections = tables.iter().find(|table| table.name == "connections");
    connections.unwrap().capacity
}

fn in_a_program_with_descriptors(limit: u32, test: &str) {
    let child = std::process::Command::new("sh")
        .args(["-c", "ulimit -n $0 && exec \"$@\""])
        .arg(limit.to_string())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", test])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(said.contains("1 passed"), "{child:?}");
}

#[test]
#[ignore = "it runs in a process with a limit of its own"]
fn part_of_the_limit_is_enough() {
    run(async {
        let native = native().await;
        assert!((4..90).contains(&connections(&native).await));
        let lamp = node(&native, "lamp").spawn().await.unwrap();
        assert_eq!(found(&native, "lamp").await.peer_id, lamp.peer_id());
    });
}

#[test]
#[ignore = "it runs in a process with a limit of its own"]
fn too_low_a_limit_is_an_error() {
    let why = start_error();
    assert!(why.contains("the limit of 20 file descriptors"), "{why}");
}

#[test]
#[ignore = "it runs in a process with a limit of its own"]
fn no_descriptor_left_is_an_error() {
    let open = || std::fs::File::open("/dev/null").ok();
    let all: Vec<_> = std::iter::from_fn(open).collect();
    let why = start_error();
    assert!(why.contains("the limit of 20 file descriptors"), "{why}");
    drop(all);
}

/// Waits without a reactor, which would need descriptors itself.
fn start_error() -> String {
    match smol::future::block_on(on_loopback().spawn()) {
        Err(Error::Start(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn identity_is_kept_where_there_is_a_directory_and_one_process_has_it() {
    run(async {
        let unique = format!("oc-discovery-embed-{}", std::process::id());
        let dir = std::env::temp_dir().join(unique);
        let start = || on_loopback().role(Role::Native).data_dir(&dir).spawn();
        let first = start().await.unwrap();
        let id = first.peer_id().to_owned();
        assert!(matches!(start().await, Err(Error::Start(_))));
        first.close().await;
        let second = start().await.unwrap();
        assert_eq!(second.peer_id(), id);
        second.close().await;
        std::fs::remove_dir_all(dir).unwrap();
    });
}
