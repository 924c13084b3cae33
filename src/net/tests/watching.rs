//! Watch streams.

use super::world::World;
use crate::{
    net::{NetEvent, WatchEvent, executor::waits::block_on},
    protocol::{
        Filter, Name, Role,
        codec::{frame::MAX_FRAME, watch::decode_ask},
        watch::{WatchId, WatcherId},
    },
};

fn watch(world: &mut World, from: usize, to: usize, id: u64) {
    let (peer, addrs) = (world.id(to), world.0[to].addrs.clone());
    let filter = Filter::new(None, Name::try_from("pump").unwrap());
    world.net(from).watch(peer, &addrs, WatchId(id), &filter);
}

/// The next event of a watch stream, and the peer that has it.
async fn next(world: &mut World) -> (usize, WatchEvent) {
    let is_watch = |_: &mut World, at, event| match event {
        NetEvent::Watch(event) => Some((at, event)),
        _ => None,
    };
    world.until(is_watch).await
}

/// Makes 1 watch 0. Returns the watcher at 0.
async fn watched(world: &mut World, id: u64) -> WatcherId {
    watch(world, 1, 0, id);
    match next(world).await {
        (0, WatchEvent::Asked { watcher, body, .. }) => {
            let filter = decode_ask(&body).unwrap();
            assert!(filter.admits_name("pump-3") && !filter.admits_name("fan"));
            watcher
        }
        other => panic!("{other:?}"),
    }
}

/// A frame with a body of this length, and of these bytes.
fn frame(byte: u8, length: usize) -> Vec<u8> {
    crate::net::frames::frame(&vec![byte; length])
}

#[test]
fn frames_come_one_by_one_as_they_are_asked_for() {
    block_on(async {
        let mut world = World::new(&[Role::Indexer, Role::Node]).await;
        let watcher = watched(&mut world, 5).await;
        let frames = [frame(1, 3), frame(2, MAX_FRAME)].concat();
        world.net(0).tell_watcher(watcher, &frames);
        let (mut told, mut is_written) = (Vec::new(), false);
        while told.len() < 2 || !is_written {
            match next(&mut world).await {
                (0, WatchEvent::Written { watcher: it }) => {
                    assert_eq!(it, watcher);
                    is_written = true;
                }
                (1, WatchEvent::Told { watch, body }) => {
                    assert_eq!(watch, WatchId(5));
                    told.push(body);
                    world.net(1).watch_on(watch);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(told, [vec![1; 3], vec![2; MAX_FRAME]]);
    });
}

#[test]
fn a_stream_that_one_side_ends_is_over_at_the_other() {
    block_on(async {
        let mut world = World::new(&[Role::Indexer, Role::Node]).await;
        let first = watched(&mut world, 1).await;
        world.net(0).dismiss_watcher(first);
        match next(&mut world).await {
            (1, WatchEvent::Ended { watch, .. }) => assert_eq!(watch, WatchId(1)),
            other => panic!("{other:?}"),
        }
        let second = watched(&mut world, 2).await;
        world.net(1).unwatch(WatchId(2));
        match next(&mut world).await {
            (0, WatchEvent::Left { watcher, .. }) => assert_eq!(watcher, second),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn four_watches_fit_a_connection_and_the_fifth_ends() {
    block_on(async {
        let mut world = World::new(&[Role::Indexer, Role::Node]).await;
        for id in 1..=4 {
            watched(&mut world, id).await;
        }
        watch(&mut world, 1, 0, 5);
        match next(&mut world).await {
            (1, WatchEvent::Ended { watch, .. }) => assert_eq!(watch, WatchId(5)),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn who_serves_nobody_cannot_be_watched() {
    block_on(async {
        let mut world = World::new(&[Role::Node, Role::Node]).await;
        watch(&mut world, 1, 0, 1);
        match next(&mut world).await {
            (1, WatchEvent::Ended { why, .. }) => assert!(why.contains("does not speak"), "{why}"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_server_that_cannot_be_reached_ends_the_watch() {
    block_on(async {
        let mut world = World::new(&[Role::Indexer, Role::Node]).await;
        drop(world.0.remove(0));
        let gone = crate::protocol::PeerId::from_bytes([9; 32]);
        let addrs = world.0[0].addrs.clone();
        world
            .net(0)
            .watch(gone, &addrs, WatchId(1), &Filter::default());
        match next(&mut world).await {
            (0, WatchEvent::Ended { watch, .. }) => assert_eq!(watch, WatchId(1)),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_watcher_that_says_more_than_what_it_watches_loses_its_stream() {
    block_on(async {
        let mut world = World::new(&[Role::Indexer]).await;
        let to = world.multiaddr(0);
        let talk = async {
            let raw = super::world::Raw::connect(77, to).await;
            let mut stream = raw.open("/oc/watch/1.0.0").await;
            super::world::send(&mut stream, &[0xa0]).await;
            super::world::send(&mut stream, &[0xa0]).await;
            super::world::ends(std::pin::pin!(stream)).await
        };
        let mut seen = Vec::new();
        let ended = world
            .meanwhile(talk, |_, _, event| {
                if let NetEvent::Watch(event) = event {
                    seen.push(event);
                }
            })
            .await;
        assert!(ended);
        assert!(
            matches!(
                &seen[..],
                [WatchEvent::Asked { .. }, WatchEvent::Left { .. }]
            ),
            "{seen:?}"
        );
    });
}
