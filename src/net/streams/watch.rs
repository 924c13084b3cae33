//! Watch streams (PROTOCOL.md, section 5): a server tells its peer of changes, for as long as the
//! peer listens.
//!
//! ```text
//!  we watch                                    a peer watches us
//!    Ask ──▶ Held ──frame──▶ Told              Asked ◀──frame── Served ◀── Tell
//!             ▲─────────────── More            Written ◀──────────┘
//! ```
//!
//! Both directions go one step at a time: the next frame is read only when the loop asks for more,
//! and the next frames are given only when the last ones are written. So nothing is queued here,
//! whatever one side sends or fails to read.
//!
//! Bounds for each connection: [`MAX_WATCHES`] streams in each direction. A connection without one
//! pays for a pointer.

use std::{
    collections::VecDeque,
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_timer::Delay;
use libp2p::{Stream, swarm::ConnectionId};

use super::{
    Event, Streams,
    handler::{Command, is_malformed},
    heartbeat::Frames,
    traced,
};
use crate::{
    net::frames,
    protocol::{
        PeerId,
        watch::{WatchId, WatcherId},
    },
};

/// Streams that one connection carries at most, in each direction; one more is reset.
const MAX_WATCHES: usize = 4;
/// How long an opened stream may wait for its first frame, which says what is watched.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connection is told to do.
#[derive(Debug)]
pub(crate) enum WatchCommand {
    /// Open a stream and send this frame's body.
    Ask { watch: WatchId, body: Vec<u8> },
    /// Read the next frame of our stream.
    More { watch: WatchId },
    /// End our stream.
    Stop { watch: WatchId },
    /// Write these frames on a peer's stream.
    Tell { watcher: WatcherId, frames: Vec<u8> },
    /// End a peer's stream.
    Dismiss { watcher: WatcherId },
}

/// What happens on watch streams.
#[derive(Debug)]
pub(crate) enum WatchEvent {
    /// A peer asks to be told of changes: the body of its frame.
    Asked {
        watcher: WatcherId,
        peer: PeerId,
        body: Vec<u8>,
    },
    /// The frames that were given last are written.
    Written { watcher: WatcherId },
    /// A peer's stream is over. `why` is given if it sent what cannot be read.
    Left {
        watcher: WatcherId,
        peer: PeerId,
        why: Option<String>,
    },
    /// A notification of a server: the body of its frame. The next comes after
    /// [`Streams::watch_on`].
    Told { watch: WatchId, body: Vec<u8> },
    /// Our stream is over, or could not be opened, and why.
    Ended { watch: WatchId, why: String },
}

/// A peer's stream.
struct Served {
    watcher: WatcherId,
    peer: PeerId,
    frames: Frames,
    /// The time by which the peer must have said what it watches; `None` once it has.
    unasked: Option<Delay>,
    /// Frames were given that are not written yet.
    writes: bool,
}

impl Served {
    /// What happened on the stream; an error if it is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<WatchEvent>> {
        if self.frames.poll_write(cx)?.is_pending() {
            return Poll::Pending;
        }
        let watcher = self.watcher;
        if std::mem::take(&mut self.writes) {
            return Poll::Ready(Ok(WatchEvent::Written { watcher }));
        }
        match (self.frames.poll_frame(cx)?, &mut self.unasked) {
            (Poll::Ready(body), Some(_)) => {
                self.unasked = None;
                let peer = self.peer;
                Poll::Ready(Ok(WatchEvent::Asked {
                    watcher,
                    peer,
                    body,
                }))
            }
            // A watcher sends nothing more.
            (Poll::Ready(_), None) => {
                let why = "a watcher sends one frame only";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)))
            }
            (Poll::Pending, Some(limit)) => Pin::new(limit)
                .poll(cx)
                .map(|()| Err(io::ErrorKind::TimedOut.into())),
            (Poll::Pending, None) => Poll::Pending,
        }
    }
}

/// A stream of ours.
struct Held {
    watch: WatchId,
    /// The frame to be sent first; then the stream.
    state: Result<Frames, Vec<u8>>,
    /// The next frame may be read.
    reads: bool,
}

impl Held {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<WatchEvent>> {
        let Ok(frames) = &mut self.state else {
            return Poll::Pending;
        };
        if frames.poll_write(cx)?.is_pending() || !self.reads {
            return Poll::Pending;
        }
        let watch = self.watch;
        frames.poll_frame(cx).map_ok(|body| {
            self.reads = false;
            WatchEvent::Told { watch, body }
        })
    }
}

/// The watch streams of one connection.
#[derive(Default)]
pub(super) struct Watches {
    served: Vec<Served>,
    held: Vec<Held>,
    /// Ends of streams that were not reported yet.
    ended: VecDeque<WatchEvent>,
}

impl Watches {
    /// Whether there is nothing left to do.
    pub(super) fn is_idle(&self) -> bool {
        self.served.is_empty() && self.held.is_empty() && self.ended.is_empty()
    }

    /// Takes a stream that the peer opened. If there are too many, it is reset.
    pub(super) fn accept(&mut self, io: Stream, watcher: WatcherId, peer: PeerId) {
        if self.served.len() < MAX_WATCHES {
            self.served.push(Served {
                watcher,
                peer,
                frames: Frames::new(io),
                unasked: Some(Delay::new(ASK_TIMEOUT)),
                writes: false,
            });
        }
    }

    /// Carries out a command. Returns the stream that is to be opened for it.
    pub(super) fn on_command(&mut self, command: WatchCommand) -> Option<WatchId> {
        match command {
            WatchCommand::Ask { watch, body } => {
                if self.held.len() == MAX_WATCHES {
                    let why = format!("{MAX_WATCHES} watches of it are open already");
                    self.ended.push_back(WatchEvent::Ended { watch, why });
                    return None;
                }
                self.held.push(Held {
                    watch,
                    state: Err(body),
                    reads: true,
                });
                return Some(watch);
            }
            WatchCommand::More { watch } => {
                let held = self.held.iter_mut().find(|held| held.watch == watch);
                held.into_iter().for_each(|held| held.reads = true);
            }
            WatchCommand::Stop { watch } => self.held.retain(|held| held.watch != watch),
            WatchCommand::Tell { watcher, frames } => {
                let mut served = self.served.iter_mut();
                if let Some(served) = served.find(|served| served.watcher == watcher) {
                    // There is room, because the loop waits for the last frames to be written. If
                    // it did not, the core closes the watcher for its silence.
                    served.writes = served.frames.send(frames).is_ok();
                }
            }
            WatchCommand::Dismiss { watcher } => {
                self.served.retain(|served| served.watcher != watcher);
            }
        }
        None
    }

    /// Takes the stream that was opened. If it is no longer wanted, it is reset.
    pub(super) fn opened(&mut self, io: Stream, watch: WatchId) {
        let Some(held) = self.held.iter_mut().find(|held| held.watch == watch) else {
            return;
        };
        if let Err(body) = &held.state {
            let mut frames = Frames::new(io);
            // There is room for the first frame.
            let _ = frames.send(frames::frame(body));
            held.state = Ok(frames);
        }
    }

    /// Takes note that the stream could not be opened.
    pub(super) fn not_opened(&mut self, watch: WatchId, why: String) {
        let before = self.held.len();
        self.held.retain(|held| held.watch != watch);
        if self.held.len() < before {
            self.ended.push_back(WatchEvent::Ended { watch, why });
        }
    }

    /// The next event of a stream.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Option<WatchEvent> {
        if let Some(ended) = self.ended.pop_front() {
            return Some(ended);
        }
        for at in 0..self.served.len() {
            let served = self.served.get_mut(at)?;
            let (watcher, peer) = (served.watcher, served.peer);
            match served.poll(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(event)) => return Some(event),
                Poll::Ready(Err(error)) => {
                    self.served.remove(at);
                    let why = is_malformed(&error).then(|| error.to_string());
                    return Some(WatchEvent::Left { watcher, peer, why });
                }
            }
        }
        for at in 0..self.held.len() {
            let held = self.held.get_mut(at)?;
            let watch = held.watch;
            match held.poll(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(event)) => return Some(event),
                Poll::Ready(Err(why)) => {
                    self.held.remove(at);
                    let why = why.to_string();
                    return Some(WatchEvent::Ended { watch, why });
                }
            }
        }
        None
    }
}

/// The peers and connections of all watch streams.
#[derive(Default)]
pub(super) struct Routes {
    served: Vec<(WatcherId, PeerId, ConnectionId)>,
    /// Without a connection while one is being made.
    held: Vec<(WatchId, PeerId, Option<ConnectionId>)>,
}

impl Routes {
    /// Removes the streams of a connection that has ended, and returns the ends of them.
    fn lost(&mut self, connection: ConnectionId) -> Vec<WatchEvent> {
        let served = self.served.extract_if(.., |(.., on)| *on == connection);
        let left = served.map(|(watcher, peer, _)| {
            let why = None;
            WatchEvent::Left { watcher, peer, why }
        });
        let held = self.held.extract_if(.., |(.., on)| *on == Some(connection));
        let ended = held.map(|(watch, ..)| WatchEvent::Ended {
            watch,
            why: "the connection was closed".to_owned(),
        });
        left.chain(ended).collect()
    }

    fn connection_of(&self, watch: WatchId) -> Option<(PeerId, ConnectionId)> {
        let held = self.held.iter().find(|(held, ..)| *held == watch);
        held.and_then(|(_, peer, on)| Some((*peer, (*on)?)))
    }
}

impl Streams {
    /// Opens a watch stream with this first frame. It ends in [`WatchEvent::Ended`], unless we end
    /// it.
    pub(crate) fn watch(
        &mut self,
        server: PeerId,
        addrs: Vec<libp2p::Multiaddr>,
        watch: WatchId,
        body: Vec<u8>,
    ) {
        traced("sends watch", watch.0, &server, &body);
        self.watches.held.push((watch, server, None));
        let ask = WatchCommand::Ask { watch, body };
        self.reach(server, addrs, Command::Watch(ask));
    }

    /// Reads the next frame of our stream.
    pub(crate) fn watch_on(&mut self, watch: WatchId) {
        if let Some((server, connection)) = self.watches.connection_of(watch) {
            let more = Command::Watch(WatchCommand::More { watch });
            self.notify(server, connection, more);
        }
    }

    /// Ends our stream. No event follows.
    pub(crate) fn unwatch(&mut self, watch: WatchId) {
        self.waiting.retain(|(_, command)| {
            !matches!(command, Command::Watch(WatchCommand::Ask { watch: it, .. }) if *it == watch)
        });
        if let Some((server, connection)) = self.watches.connection_of(watch) {
            let stop = Command::Watch(WatchCommand::Stop { watch });
            self.notify(server, connection, stop);
        }
        self.watches.held.retain(|(held, ..)| *held != watch);
    }

    /// Writes frames on a peer's stream, the last of which are written.
    pub(crate) fn tell_watcher(&mut self, watcher: WatcherId, frames: Vec<u8>) {
        let mut served = self.watches.served.iter();
        if let Some(&(_, peer, on)) = served.find(|(it, ..)| *it == watcher) {
            traced("sends frames of watch", watcher.0, &peer, &frames);
            let tell = WatchCommand::Tell { watcher, frames };
            self.notify(peer, on, Command::Watch(tell));
        }
    }

    /// Ends a peer's stream. No event follows.
    pub(crate) fn dismiss_watcher(&mut self, watcher: WatcherId) {
        let mut served = self
            .watches
            .served
            .extract_if(.., |(it, ..)| *it == watcher);
        if let Some((_, peer, on)) = served.next() {
            drop(served);
            let dismiss = WatchCommand::Dismiss { watcher };
            self.notify(peer, on, Command::Watch(dismiss));
        }
    }

    /// Takes note that the command goes over this connection.
    pub(super) fn watch_goes_over(&mut self, command: &WatchCommand, connection: ConnectionId) {
        if let WatchCommand::Ask { watch, .. } = command {
            let mut held = self.watches.held.iter_mut();
            let held = held.find(|(held, ..)| held == watch);
            held.into_iter().for_each(|(.., on)| *on = Some(connection));
        }
    }

    /// Takes note that there is no connection for the command.
    pub(super) fn watch_failed(&mut self, command: WatchCommand, why: &str) {
        if let WatchCommand::Ask { watch, .. } = command {
            self.watches.held.retain(|(held, ..)| *held != watch);
            let why = why.to_owned();
            self.happened(Event::Watch(WatchEvent::Ended { watch, why }));
        }
    }

    /// Reports the end of the streams on a connection that has ended.
    pub(super) fn watches_lost(&mut self, connection: ConnectionId) {
        for event in self.watches.lost(connection) {
            self.happened(Event::Watch(event));
        }
    }

    /// Takes an event of a connection. `None` if it is of a stream that was given up.
    pub(super) fn watch_happened(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: WatchEvent,
    ) -> Option<Event> {
        let Routes { served, held } = &mut self.watches;
        let is_known = match &event {
            WatchEvent::Asked { watcher, body, .. } => {
                traced("got watch", watcher.0, &peer, body);
                served.push((*watcher, peer, connection));
                true
            }
            WatchEvent::Written { watcher } => served.iter().any(|(it, ..)| it == watcher),
            WatchEvent::Left { watcher, .. } => {
                let mut left = served.extract_if(.., |(it, ..)| it == watcher);
                left.next().is_some()
            }
            WatchEvent::Told { watch, body } => {
                traced("got frame of watch", watch.0, &peer, body);
                held.iter().any(|(it, ..)| it == watch)
            }
            WatchEvent::Ended { watch, .. } => {
                let mut ended = held.extract_if(.., |(it, ..)| it == watch);
                ended.next().is_some()
            }
        };
        is_known.then_some(Event::Watch(event))
    }
}
