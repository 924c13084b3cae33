//! Answers in parts: a line of JSON for each, as it comes, until the last one.
//!
//! A client that has not taken what was written within [`TAKING`] loses its place. The loop does
//! not wait for it: what the client has not taken waits in a bounded channel.

use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use miniserde::json;
use smol::channel::Receiver;
use smol::io::AsyncWriteExt as _;
use smol::{Async, future};

use super::desk::{Desk, MAX_STREAMS, TAKING, count, ending};
use super::peer::{closed, has_closed};
use crate::daemon::request::{CallEvent, Part, Parts, PartsCall, has_room_again};
use crate::daemon::status::Refusal;
use crate::net::executor::within;
use crate::protocol::TableStats;

/// Parts are written together while they have fewer bytes than this.
const CHUNK_BYTES: usize = 16 * 1024;

impl Desk {
    /// Passes the call to the loop, and its parts to the client until the last one. Returns the
    /// error if it was not passed on.
    pub(super) async fn answer_in_parts(
        &self,
        call: PartsCall,
        stream: &mut Async<UnixStream>,
    ) -> Option<String> {
        let table = self.streams();
        if table.used >= table.capacity {
            count(&self.refused_streams);
            let message = "too many listings and watches are open: close one, or ask again";
            return Some(json::to_string(&Refusal::for_now(message)));
        }
        let _place = Rc::clone(&self.streams);
        if has_closed(stream).unwrap_or(false) {
            return None;
        }
        let (way_back, parts) = Parts::new();
        let asked = CallEvent::MadeInParts(call, way_back);
        if self.events.send(asked).await.is_err() {
            return Some(json::to_string(&ending()));
        }
        let is_over = self.pass_on(&parts, stream, TAKING).await;
        // Dropped first, so that the loop sees that the client has left.
        drop(parts);
        if !is_over {
            let _ = self.events.send(CallEvent::Left).await;
        }
        None
    }

    /// Writes parts until the answer is over. False: the client has left, or it has not taken what
    /// was written within `limit`.
    async fn pass_on(
        &self,
        parts: &Receiver<Result<Part, Refusal>>,
        stream: &Async<UnixStream>,
        limit: Duration,
    ) -> bool {
        // One for all parts: a socket can be watched for this once, until it is closed.
        let mut left = pin!(closed(stream));
        let (mut to, mut is_over) = (stream, false);
        while !is_over {
            // If the loop has dropped its end of the channel, the answer has no last part.
            let next = async { Some(parts.recv().await.unwrap_or_else(|_| Err(ending()))) };
            let left = async {
                left.as_mut().await;
                None
            };
            let mut next = future::or(next, left).await;
            if next.is_none() {
                return false;
            }
            let before = parts.len() + 1;
            let mut lines = String::new();
            while let Some(part) = next.take() {
                is_over = push_line(&mut lines, &part);
                if !is_over && lines.len() < CHUNK_BYTES {
                    next = parts.try_recv().ok();
                }
            }
            if has_room_again(before, parts.len()) {
                let _ = self.events.send(CallEvent::Room).await;
            }
            match within(limit, to.write_all(lines.as_bytes())).await {
                Some(Ok(())) => {}
                Some(Err(_)) => return false,
                None => {
                    count(&self.refused);
                    log::debug!(
                        "a client of the control socket did not take the parts of its answer"
                    );
                    return false;
                }
            }
        }
        true
    }

    /// The places of answers in parts.
    pub(super) fn streams(&self) -> TableStats {
        TableStats {
            name: "control_streams",
            used: Rc::strong_count(&self.streams).saturating_sub(1),
            capacity: MAX_STREAMS.min(self.capacity / 2),
            refused: self.refused_streams.get(),
            evicted: 0,
        }
    }
}

/// Adds the line of a part. Returns whether the answer is over.
fn push_line(lines: &mut String, part: &Result<Part, Refusal>) -> bool {
    let (line, is_last) = match part {
        Ok(part) => (part.to_json(), part.is_last()),
        Err(why) => (json::to_string(why), true),
    };
    lines.push_str(&line);
    lines.push('\n');
    is_last
}

#[cfg(test)]
mod tests;
