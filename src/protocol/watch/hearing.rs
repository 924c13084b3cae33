//! What a frame of a server says: a record is opened, and what its node's watch has to say of it is
//! said while the record is at hand.

use core::{fmt, time::Duration};

use super::{
    client::{Said, Sighting, Statement, Watch},
    fingerprint,
};
use crate::protocol::{
    Filter, Instant, PeerId, Presence, Subject,
    codec::{
        DecodeError,
        frame::{MAX_FRAME, header},
        record::{Kind, Record, RecordError, Verifier, open},
        watch::{Notice, decode_notice},
    },
};

/// What is said at once of a node that is there.
#[derive(Clone, Copy, Debug)]
pub struct ChangedNode<'a> {
    /// What is new.
    pub said: Said,
    /// Its record.
    pub record: &'a Record<'a>,
    /// How long ago its server heard it.
    pub age: Duration,
}

/// Why a frame of a server cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub enum NoticeError {
    /// It is no notice.
    Frame(DecodeError),
    /// Its record does not verify.
    Record(RecordError),
}

impl fmt::Display for NoticeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(why) => why.fmt(f),
            Self::Record(why) => why.fmt(f),
        }
    }
}

impl core::error::Error for NoticeError {}

/// Opens an envelope and gives its record to the function.
pub(super) type Open<'a> =
    &'a dyn Fn(&[u8], &mut dyn FnMut(&Record<'_>)) -> Result<(), RecordError>;

/// Opens an envelope. The record of a peer that is no member of the closed network is passed over:
/// its server may not know yet.
pub(super) fn open_of_member(
    verifier: &impl Verifier,
    envelope: &[u8],
    read: &mut dyn FnMut(&Record<'_>),
) -> Result<(), RecordError> {
    match open(verifier, Kind::Node, envelope, |record| read(record)) {
        Err(RecordError::Denied(_)) => Ok(()),
        opened => opened,
    }
}

/// Takes what a server says.
pub(super) fn hear<const K: usize>(
    watch: &mut Watch<K>,
    (now, server): (Instant, &PeerId),
    filter: &Filter,
    body: &[u8],
    open: Open<'_>,
    say: &mut dyn FnMut(&ChangedNode<'_>),
) -> Result<(), NoticeError> {
    match decode_notice(body).map_err(NoticeError::Frame)? {
        None => {}
        Some(Notice::CaughtUp) => _ = watch.hear(now, server, Statement::CaughtUp),
        Some(Notice::Gone(entry)) => {
            let mut gone = |peer: &PeerId, how| {
                watch.hear(now, server, Statement::Gone { peer, how });
            };
            match entry.subject {
                // It is with another server, or is one.
                Subject::Named { ref peer, name: "" } if entry.presence == Presence::Left => {
                    gone(peer, Presence::Alive);
                }
                Subject::Named { ref peer, .. } => gone(peer, entry.presence),
                Subject::Signed(envelope) => {
                    open(envelope, &mut |record| gone(&record.peer, entry.presence))
                        .map_err(NoticeError::Record)?;
                }
            }
        }
        Some(Notice::Present(entry) | Notice::Changed(entry)) => {
            let Subject::Signed(envelope) = entry.subject else {
                return Ok(());
            };
            let mut here = |record: &Record<'_>| {
                let info = record.info();
                let sighting = Sighting {
                    peer: &info.peer,
                    name: &info.name,
                    sequence: info.sequence,
                    contents: fingerprint(record),
                    is_meant: filter.admits(record),
                };
                if let Some(said) = watch.hear(now, server, Statement::Here(sighting)) {
                    let age = entry.age;
                    say(&ChangedNode { said, record, age });
                }
            };
            open(envelope, &mut here).map_err(NoticeError::Record)?;
        }
    }
    Ok(())
}

/// The bodies of whole frames.
pub(super) fn bodies(mut frames: &[u8]) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        let header = header(frames, MAX_FRAME).ok()??;
        let (frame, rest) = frames.split_at_checked(header.frame())?;
        frames = rest;
        frame.get(header.length..)
    })
}
