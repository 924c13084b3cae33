//! A bridge to the local links' own discovery: services that are found in the network are
//! announced there by multicast DNS, and what devices announce there is listed in the own record
//! ([`browse`]). When and under which names is decided by
//! [`protocol::dns_sd`](crate::protocol::dns_sd).
//!
//! ```text
//!  the loop ── rows of a watch ──▶ Desk ── offers ──▶ protocol::dns_sd ── what to say ─┐
//!  links ───── packets ──────────▶  │                                                  ▼
//!                                   └──────────────────────── records ──▶ messages ─▶ links
//! ```
//!
//! Invariants: it is a client of the loop, with one watch, and of that loop nothing waits for it; a
//! link is notified of a service only with addresses that its devices can reach; what is announced
//! is withdrawn when the node is gone, and when the process ends.

mod browse;
mod desk;

use std::{cell::RefCell, net::SocketAddr, rc::Rc, time::Duration};

use async_io::Timer;
use smol::{
    channel::{Receiver, Sender, bounded},
    future::or,
};

use self::{browse::Browse, desk::Desk};
use super::{
    clock,
    request::{CallEvent, Part, Parts, PartsCall, has_room_again},
    status::Refusal,
};
use crate::{
    net::{
        executor,
        mdns::{links::Links, service::read},
        netlink::Host,
    },
    protocol::{Instant, TableStats, codec::service::ServiceName, dns_sd::LinkSet},
};

/// Packets that were heard and not looked at yet; more are dropped.
const MAX_PACKETS: usize = 16;
/// The pause before the watch is begun again, if it was refused or has ended, or if there is room
/// for more services.
const WATCH_PAUSE: Duration = Duration::from_secs(5);

/// A packet, its sender, and the links that it may be from.
type Received = (Vec<u8>, SocketAddr, LinkSet);

/// The bridge of this process.
pub(super) struct Bridge {
    desk: Rc<RefCell<Desk>>,
    calls: Receiver<CallEvent>,
    changed: Sender<()>,
    generation: u64,
}

impl Bridge {
    /// Tells the links of the services `to` them from now on, and lists those `from` them, if the
    /// loop takes its calls.
    pub(super) fn start(to: &[ServiceName], from: &[ServiceName]) -> Self {
        let (heard, packets) = bounded::<Received>(MAX_PACKETS);
        let links = Links::new(Rc::new(move |packet, from, links| {
            let _ = heard.try_send((packet.to_vec(), from, links));
        }));
        let (call, calls) = bounded(2);
        let (changed, changes) = bounded(1);
        let desk = Rc::new(RefCell::new(Desk::new(now(), to, from, links)));
        executor::spawn(run(desk.clone(), packets, changes, call));
        Self {
            desk,
            calls,
            changed,
            // Another one than that of the host, so that the links are joined at first.
            generation: u64::MAX,
        }
    }

    /// The next call to the loop. Cancel-safe.
    pub(super) async fn next(&self) -> CallEvent {
        match self.calls.recv().await {
            Ok(call) => call,
            Err(_) => std::future::pending().await,
        }
    }

    /// The loop has made a turn: the links of the host may be others.
    pub(super) fn turned(&mut self) {
        let generation = Host::of_this_thread().generation();
        if generation != self.generation && self.changed.try_send(()).is_ok() {
            self.generation = generation;
        }
    }

    /// Tells the links that all services are gone.
    pub(super) fn leave(&self) {
        self.desk.borrow_mut().leave();
    }

    /// The statistics for `status`.
    pub(super) fn stats(&self) -> Vec<TableStats> {
        let desk = self.desk.borrow();
        let advertised = (!desk.services.is_empty()).then(|| desk.adverts.stats());
        let heard = desk.browse.as_ref().map(Browse::stats);
        advertised.into_iter().chain(heard).collect()
    }
}

/// What the task waits for.
enum Event {
    Packet(Received),
    Links,
    Part(Option<Result<Part, Refusal>>),
    Timer,
}

async fn run(
    desk: Rc<RefCell<Desk>>,
    packets: Receiver<Received>,
    changes: Receiver<()>,
    call: Sender<CallEvent>,
) {
    let mut parts: Option<Receiver<Result<Part, Refusal>>> = None;
    let mut watch_at = now();
    let watches = !desk.borrow().services.is_empty();
    loop {
        if watches && parts.is_none() && now() >= watch_at {
            let (way_back, new) = Parts::new();
            let query = desk.borrow_mut().watch();
            let watch = PartsCall::Watch(query);
            if call
                .send(CallEvent::MadeInParts(watch, way_back))
                .await
                .is_err()
            {
                return;
            }
            parts = Some(new);
        }
        let mut due = desk.borrow_mut().speak(now());
        let news = desk
            .borrow_mut()
            .browse
            .as_mut()
            .and_then(|it| it.news(now()));
        if let Some(news) = news {
            let _ = call.send(CallEvent::Devices(news)).await;
        }
        if watches && parts.is_none() {
            due = Some(due.map_or(watch_at, |due| due.min(watch_at)));
        }
        let timer = async {
            match due {
                Some(due) => Timer::after(due - now()).await,
                None => std::future::pending().await,
            };
            Event::Timer
        };
        let part = async {
            match &parts {
                Some(parts) => Event::Part(parts.recv().await.ok()),
                None => std::future::pending().await,
            }
        };
        let link = or(
            recv(&packets, Event::Packet),
            recv(&changes, |()| Event::Links),
        );
        match or(or(link, part), timer).await {
            Event::Packet((bytes, from, links)) => {
                if let Some(packet) = read(&bytes) {
                    desk.borrow_mut().hear(now(), &packet, from, links);
                }
            }
            Event::Links => desk.borrow_mut().join(now()),
            Event::Part(Some(Ok(part))) => {
                let is_stale = desk.borrow_mut().take(now(), part);
                let left = parts.as_ref().map_or(0, Receiver::len);
                if has_room_again(left + 1, left) {
                    let _ = call.send(CallEvent::Room).await;
                }
                if is_stale {
                    (parts, watch_at) = (None, now() + WATCH_PAUSE);
                }
            }
            Event::Part(_) => (parts, watch_at) = (None, now() + WATCH_PAUSE),
            Event::Timer => {}
        }
    }
}

async fn recv<T>(from: &Receiver<T>, event: impl FnOnce(T) -> Event) -> Event {
    match from.recv().await {
        Ok(one) => event(one),
        Err(_) => std::future::pending().await,
    }
}

fn now() -> Instant {
    Instant::from_millis(clock::boottime())
}
