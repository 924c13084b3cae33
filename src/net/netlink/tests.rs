use super::{pace::BURST, *};

#[test]
fn the_kernel_tells_of_loopback_and_of_no_link_local_address() {
    let host = Host::of_this_thread();
    assert!(host.is_known());
    let addresses = host.addresses();
    assert!(addresses.iter().any(|address| address.ip.is_loopback()));
    assert!(
        addresses
            .iter()
            .all(|address| !host::is_link_local(address.ip))
    );
    assert!(host.has([127, 0, 0, 1].into()));
}

#[test]
fn lost_messages_lead_to_another_dump() {
    let mut state = State::default();
    let mut link = Netlink::open().unwrap();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    link.poll(&mut cx, &mut state);
    assert!(!state.usable().is_empty() && link.dump.is_none());
    let known = state.usable();

    state = State::default();
    link.again();
    assert!(link.due.is_some());
    link.due = Some(Delay::new(Duration::ZERO));
    crate::net::executor::waits::block_on(std::future::poll_fn(|cx| {
        link.poll(cx, &mut state);
        match link.due.is_none() && link.dump.is_none() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }));
    assert_eq!(state.usable(), known);
}

#[test]
fn news_of_routes_are_passed_on_at_once_and_then_gathered() {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let (none, route) = (
        News::default(),
        News {
            link: false,
            route: true,
        },
    );
    let mut news = Paced::default();
    assert_eq!(news.take(none, &mut cx), none);
    assert_eq!(news.take(route, &mut cx), route);
    for _ in 0..100 {
        assert_eq!(news.take(route, &mut cx), none);
        assert!(!news.are_due(&mut cx));
    }
    news.pause = Some(Delay::new(Duration::ZERO));
    crate::net::executor::waits::block_on(std::future::poll_fn(|cx| match news.are_due(cx) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    }));
    assert_eq!(news.take(none, &mut cx), route);
    assert_eq!(news.take(none, &mut cx), none);
}

#[test]
fn a_storm_of_addresses_is_passed_on_once_a_pause_until_one_was_quiet() {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut storm = Storm::default();
    for _ in 0..BURST {
        assert_eq!(storm.take(&mut cx), Passes::AsItIs);
    }
    for _ in 0..3 {
        for _ in 0..500 {
            assert_eq!(storm.take(&mut cx), Passes::Later);
            assert!(!storm.pauses(&mut cx));
        }
        storm.pause = None;
        assert!(storm.pauses(&mut cx));
        assert_eq!(storm.take(&mut cx), Passes::Joined);
        assert!(!storm.pauses(&mut cx));
    }
    storm.pause = None;
    assert!(!storm.pauses(&mut cx), "it was quiet");
    assert_eq!(storm.take(&mut cx), Passes::AsItIs);
}

#[test]
fn addresses_that_came_in_a_storm_are_seen_after_it() {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut inner = Inner {
        link: Some(Netlink::open().unwrap()),
        ..Inner::default()
    };
    while inner.poll(&mut cx).is_some() {}
    let mut set = |inner: &mut Inner, n: u8| {
        inner.state = State::fixed(&[&format!("192.0.2.{n}")]);
        inner.news.waiting.route = true;
        inner.news.pause = None;
        inner.poll(&mut cx).expect("a route came")
    };
    inner.storm = Storm::default();
    for n in 1..=BURST {
        assert_eq!(set(&mut inner, n).new.len(), 1);
    }
    let generation = inner.generation;
    assert!(set(&mut inner, 100).new.is_empty());
    assert_eq!(inner.generation, generation);
    inner.storm.pause = None;
    let change = inner.poll(&mut Context::from_waker(std::task::Waker::noop()));
    let change = change.expect("the pause is over");
    assert!(change.joined && change.new[0].ip.to_string() == "192.0.2.100");
    assert_eq!(inner.generation, generation + 1);
}

#[test]
fn the_own_ends_of_dialled_connections_are_bounded_and_the_last_one_counts() {
    let host = Host::unknown();
    let remote = |n: usize| format!("/ip4/192.0.2.1/tcp/{}", n + 1).parse().unwrap();
    for n in 0..MAX_DIALLED + 1 {
        host.dialled(remote(n), [10, 0, 0, 1].into());
    }
    assert_eq!(host.local_end(&remote(0)), None);
    host.dialled(remote(1), [10, 0, 0, 2].into());
    assert_eq!(host.local_end(&remote(1)), Some([10, 0, 0, 2].into()));
    assert_eq!(host.inner().dialled.len(), MAX_DIALLED);
}
