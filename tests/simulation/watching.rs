//! Watches: an operator follows all nodes, over streams to the servers that may list them.
//!
//! Rules: a node is said to be there once, until it is said to be gone; what has changed or is gone
//! was said to be there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use oc_discovery::protocol::{
    Addrs, Filter, PeerId, Presence,
    watch::{ChangedNode, ReaderId, WatchAction, WatcherId, Watches, client::Said},
};

use crate::{
    device::DeviceNo,
    frames::{Frame, Seals, bodies},
    invariants::ensure,
    network::{End, Input, StreamKey},
    world::World,
};

/// The watches of a process: one reader, a few watchers.
pub type Table = Watches<1, 64, 8>;

/// Made at compile time, because it is large for a stack.
pub const NO_WATCHES: Table = Table::new();

/// The watch streams of a process, and what its reader knows.
#[derive(Debug, Default)]
pub struct Watching {
    /// Own streams.
    pub out: BTreeMap<StreamKey, Own>,
    /// Streams that others opened here.
    pub inbound: BTreeMap<StreamKey, WatcherId>,
    there: BTreeSet<PeerId>,
    /// How each node went that was there and is gone.
    went: BTreeMap<PeerId, Presence>,
    silent: Option<usize>,
}

/// An own stream.
#[derive(Debug)]
pub struct Own {
    of: (ReaderId, PeerId),
    /// Frames that have arrived, and whether the next one is read as soon as it is here.
    frames: VecDeque<Vec<u8>>,
    reads_on: bool,
}

impl Watching {
    /// Whether the reader knows that the node is there.
    pub fn tells(&self, node: &PeerId) -> bool {
        self.there.contains(node)
    }

    /// Whether the reader knows that the node has left.
    pub fn tells_left(&self, node: &PeerId) -> bool {
        self.went.get(node) == Some(&Presence::Left)
    }

    /// Whether all servers have caught up, and none is silent.
    pub fn has_caught_up(&self) -> bool {
        self.silent == Some(0)
    }

    /// Takes what is said of a node that is there.
    fn say(&mut self, node: &ChangedNode<'_>) -> Result<(), &'static str> {
        self.went.remove(&node.record.peer);
        let is_new = match node.said {
            Said::Present => self.there.insert(node.record.peer),
            Said::Changed => self.there.contains(&node.record.peer),
            Said::Excluded => self.there.remove(&node.record.peer),
        };
        match is_new {
            true => Ok(()),
            false => Err("a watch says what its reader knows, or what it cannot know"),
        }
    }

    /// Takes note that a node is gone.
    fn gone(&mut self, node: &PeerId, how: Presence) -> Result<(), &'static str> {
        self.went.insert(*node, how);
        match self.there.remove(node) {
            true => Ok(()),
            false => Err("a watch says that a node is gone which was not there"),
        }
    }
}

impl World {
    /// The operator of a device begins to watch all nodes.
    pub fn watch(&mut self, no: DeviceNo) -> Result<(), String> {
        let seed = self.rng.bits();
        let device = &mut self.devices[no];
        let now = device.instant(self.now);
        let watches = device.endpoint.watches_mut();
        let reader = watches.read(now, seed, Filter::default());
        reader.ok_or("this device watches already")?;
        self.step(no, Vec::new())
    }

    /// Carries out an action that is about a watch.
    pub fn act_on_watch(&mut self, no: DeviceNo, action: WatchAction) -> Result<(), String> {
        let device = &mut self.devices[no];
        let now = device.instant(self.now);
        match action {
            WatchAction::Open {
                reader,
                server,
                addrs,
            } => self.open_watch(no, (reader, server), &addrs)?,
            WatchAction::ReadOn { reader, server } => {
                let mut own = device.watching.out.iter_mut();
                if let Some((&key, own)) = own.find(|(_, own)| own.of == (reader, server)) {
                    own.reads_on = true;
                    return self.read_on(no, key);
                }
            }
            WatchAction::Hear { reader } => {
                let (watching, mut said) = (&mut device.watching, Ok(()));
                let watches = device.endpoint.watches_mut();
                watches.hear_own(now, reader, &mut |node| said = said.and(watching.say(node)));
                return said.or_else(|rule| ensure(false, no, rule));
            }
            WatchAction::Gone { ref peer, how, .. } => {
                let gone = device.watching.gone(peer, how);
                return gone.or_else(|rule| ensure(false, no, rule));
            }
            WatchAction::CaughtUp { reader, .. } => {
                let watch = device.endpoint.watches().of(reader);
                device.watching.silent = watch.map(|(_, watch)| watch.silent().count());
            }
            WatchAction::Notify { watcher } => {
                let frames = device.endpoint.watches().frames().to_vec();
                let stream = watcher.0 as StreamKey;
                self.send_on(stream, End::Client, Input::Notices { stream, frames });
            }
            WatchAction::Dismiss { watcher } => {
                let stream = watcher.0 as StreamKey;
                device.watching.inbound.remove(&stream);
                self.end_stream(stream, End::Server);
            }
            WatchAction::Behind { .. } => {
                return Err(format!("device {no} has a reader that is behind"));
            }
        }
        Ok(())
    }

    fn open_watch(
        &mut self,
        no: DeviceNo,
        of: (ReaderId, PeerId),
        addrs: &Addrs,
    ) -> Result<(), String> {
        let device = &mut self.devices[no];
        let old = device.watching.out.extract_if(.., |_, own| own.of == of);
        let old: Vec<_> = old.map(|(stream, _)| stream).collect();
        let reader = device.endpoint.watches().of(of.0);
        let (filter, _) = reader.ok_or("a stream is opened for no reader")?;
        let frame = Frame::watch(filter)?;
        old.into_iter()
            .for_each(|stream| self.end_stream(stream, End::Client));
        let stream = self.open(no, of.1, addrs, false);
        let own = Own {
            of,
            frames: VecDeque::new(),
            reads_on: true,
        };
        self.devices[no].watching.out.insert(stream, own);
        self.send_on(stream, End::Server, Input::Watch { stream, frame });
        Ok(())
    }

    fn send_on(&mut self, stream: StreamKey, to: End, input: Input) {
        let ends = &self.network.streams[stream];
        let process = match to {
            End::Client => ends.client,
            End::Server => ends.server,
        };
        let arrives = self.network.pass_on(self.now, stream, to, &mut self.rng);
        if let Some(at) = arrives {
            self.send(at, process, input);
        }
    }

    /// A peer asks to be told of changes.
    pub fn take_watch(
        &mut self,
        no: DeviceNo,
        stream: StreamKey,
        frame: &Frame,
    ) -> Result<(), String> {
        let client = self.devices[self.network.streams[stream].client.0].peer;
        let (filter, watcher) = (frame.read_watch()?, WatcherId(stream as u64));
        let device = &mut self.devices[no];
        let now = device.instant(self.now);
        match device.endpoint.watched_by(now, (client, watcher), filter) {
            true => _ = device.watching.inbound.insert(stream, watcher),
            false => self.end_stream(stream, End::Server),
        }
        Ok(())
    }

    /// Frames of a server have arrived.
    pub fn take_notices(
        &mut self,
        no: DeviceNo,
        stream: StreamKey,
        frames: &[u8],
    ) -> Result<(), String> {
        let frames = bodies(frames)?;
        match self.devices[no].watching.out.get_mut(&stream) {
            Some(own) => own.frames.extend(frames),
            None => return Ok(()),
        }
        self.read_on(no, stream)
    }

    /// Reads the next frame, if it is to be read. When the last one is read, the server may write.
    fn read_on(&mut self, no: DeviceNo, stream: StreamKey) -> Result<(), String> {
        let device = &mut self.devices[no];
        let now = device.instant(self.now);
        let Some(own) = device.watching.out.get_mut(&stream) else {
            return Ok(());
        };
        let Some(body) = own.frames.pop_front_if(|_| own.reads_on) else {
            return Ok(());
        };
        own.reads_on = false;
        let ((reader, server), is_last) = (own.of, own.frames.is_empty());
        let (watching, mut said) = (&mut device.watching, Ok(()));
        let say = &mut |node: &ChangedNode<'_>| said = said.and(watching.say(node));
        let watches = device.endpoint.watches_mut();
        let told = watches.told(now, (reader, &server), &body, &Seals, say);
        told.map_err(|why| format!("device {no}: a notice cannot be read: {why}"))?;
        said.or_else(|rule| ensure(false, no, rule))?;
        if is_last {
            self.send_on(stream, End::Server, Input::Written { stream });
        }
        Ok(())
    }

    /// What a watcher was sent is written.
    pub fn take_written(&mut self, no: DeviceNo, stream: StreamKey) {
        let device = &mut self.devices[no];
        if let Some(watcher) = device.watching.inbound.get(&stream) {
            let watches = device.endpoint.watches_mut();
            watches.watchers().written(*watcher);
        }
    }

    /// Processes the end of a watch stream.
    pub fn take_watch_end(&mut self, no: DeviceNo, stream: StreamKey) {
        let device = &mut self.devices[no];
        let now = device.instant(self.now);
        let watches = device.endpoint.watches_mut();
        if let Some(Own { of, .. }) = device.watching.out.remove(&stream) {
            watches.ended(now, (of.0, &of.1));
        }
        if let Some(watcher) = device.watching.inbound.remove(&stream) {
            watches.watchers().leave(watcher);
        }
    }
}
