//! What the behaviour tells the handler of a connection, and what that tells the behaviour.

use std::io;

use crate::net::{
    Failure, Frame,
    streams::{
        OwnRequestId,
        watch::{WatchCommand, WatchEvent},
    },
};
use crate::protocol::{RequestId, StreamId, Verdict};

/// The place of a beat in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BeatPlace {
    /// It opens a new stream.
    First,
    /// It is sent on the open stream.
    Next,
    /// The same, and its ack ends the stream.
    Last,
}

/// The commands of the behaviour to a connection.
#[derive(Debug)]
pub(crate) enum Command {
    /// Send a beat.
    Beat {
        lease: u64,
        body: Vec<u8>,
        place: BeatPlace,
    },
    /// Drop our heartbeat stream without a last beat.
    DropLease,
    /// Close the peer's heartbeat stream once everything is written.
    Close { stream: StreamId },
    /// Make a directory request.
    Ask { id: OwnRequestId, body: Vec<u8> },
    /// Answer a directory request.
    Respond { id: RequestId, body: Vec<u8> },
    /// Send one ping.
    Probe,
    /// Something for the watch streams.
    Watch(WatchCommand),
}

/// The events of a connection for the behaviour. Rare ones are boxed, because each connection has
/// room for an event in several places.
#[derive(Debug)]
pub(crate) enum Happened {
    /// The peer's heartbeat stream is over. `why` is given if it sent what cannot be read.
    StreamClosed {
        stream: StreamId,
        why: Option<String>,
    },
    /// An ack of our beat.
    Ack { lease: u64, body: Vec<u8> },
    /// Our heartbeat stream is over. `why` is given if it could not be opened, or if the server
    /// sent something invalid.
    LeaseClosed {
        lease: u64,
        why: Option<Box<Failure>>,
    },
    /// The peer sent a directory request.
    Request { id: RequestId, body: Vec<u8> },
    /// The peer answered our request, or the request failed.
    Response {
        id: OwnRequestId,
        body: io::Result<Vec<u8>>,
    },
    /// Our ping ended.
    Probed { verdict: Verdict },
    /// Something happened on a watch stream.
    Watch(Box<WatchEvent>),
    /// The peer sent what cannot be read, and why.
    Malformed { frame: Frame, why: String },
    /// The connection, which the peer made, is of no use for too long.
    Unused,
}
