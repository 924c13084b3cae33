//! A program with a native and two nodes in it: one offers a service, the other finds it, lists it
//! and sees it leave.
//!
//! In a real system each node is in a program of its own, on a device of its own, and the native
//! runs on another host: a node is given only its address. Run it:
//!
//! ```text
//! cargo run --no-default-features --features embed --example embedded
//! ```

use std::time::{Duration, Instant};

use oc_discovery::embed::{Discovery, Error, Event, Filter, Role};
use smol::Timer;

fn main() -> Result<(), Error> {
    // Any executor can be used, because the nodes run on threads of their own.
    smol::block_on(example())
}

async fn example() -> Result<(), Error> {
    let native = Discovery::builder()
        .role(Role::Native)
        .listen("/ip4/127.0.0.1/tcp/0")
        .spawn()
        .await?;
    let pump = node(&native, "pump-3")
        .service("http", 8080)
        .spawn()
        .await?;
    let panel = node(&native, "panel").spawn().await?;

    let begin = Instant::now();
    let found = loop {
        let found = panel.find("pump-3").await?;
        if !found.records.is_empty() {
            break found;
        }
        // It has just started, and is found as soon as it has a lease.
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "pump-3 is not found"
        );
        Timer::after(Duration::from_millis(100)).await;
    };
    for record in found.records {
        println!("{} is {}", record.name, record.peer_id);
        for service in &record.services {
            println!("  {}: {:?}", service.name, record.addresses_of(service));
        }
    }

    let offering = || Filter::all().service("http");
    let list = panel.nodes(offering()).await?;
    for node in &list.nodes {
        println!("{} is {:?}", node.name, node.state);
    }
    println!("the list is complete: {}", list.complete);

    // First come those that are there, then each change.
    let mut watch = panel.watch(offering()).await?;
    if let Event::Present(node) = watch.next().await? {
        println!("{} is there", node.name);
    }

    // Gives up the lease, so that it is not found from now on.
    pump.close().await;
    loop {
        match watch.next().await? {
            Event::Left(node) => break println!("{} has left", node.name),
            event => println!("{event:?}"),
        }
    }
    match pump.find("panel").await {
        Err(Error::Closed) => println!("pump-3 is closed"),
        other => println!("{other:?}"),
    }
    Ok(())
}

fn node(native: &Discovery, name: &str) -> oc_discovery::embed::Builder {
    Discovery::builder()
        .native(&native.addresses()[0])
        .listen("/ip4/127.0.0.1/tcp/0")
        .name(name)
}
