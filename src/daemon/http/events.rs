//! Changes as server-sent events (WHATWG HTML, section 9.2): first the nodes that are there, then
//! each change.
//!
//! Each event is a line of `watch --json`. A client that comes again (`Last-Event-ID`) gets what is
//! there once more, because changes are not kept.

use std::{fmt::Write as _, io, pin::pin, time::Duration};

use async_io::Timer;
use smol::{
    future::{or, pending, poll_once},
    io::AsyncReadExt as _,
};

use super::{
    Client, Desk, PIECE,
    answer::{After, Answer, Length, NOTHING, head},
    query,
    request::{HttpRequest, Method},
    routes::{NO_ANSWER, refused},
};
use crate::daemon::{
    request::{self, Call, Part, Reading},
    status::Refusal,
};

/// After so much silence there is a comment, so that nothing on the way takes the connection for
/// dead, and a dead one is noticed.
const BEAT: Duration = Duration::from_secs(15);
/// A client that has closed its direction may still read, or has gone. It gets a comment at once,
/// and again after so much silence: if it has gone, its host refuses the first one, and the second
/// one ends the connection.
const HALF_BEAT: Duration = Duration::from_secs(2);
/// When a client comes again after the end of a stream, ms.
const RETRY: &str = "retry: 3000\n\n";
/// No proxy keeps the events back.
const AT_ONCE: &str = "X-Accel-Buffering: no\r\n";

/// What comes next.
enum Next {
    Part(Option<Result<Part, Refusal>>),
    Beat,
    /// The client has closed its direction.
    HalfClosed,
    Left,
}

impl Desk {
    /// Answers with events until the client leaves.
    pub(super) async fn tell(
        &self,
        client: &Client<'_>,
        request: &HttpRequest,
        after: After,
    ) -> io::Result<After> {
        let (reading, first, _place) = match self.watch(request).await {
            Ok(begun) => begun,
            Err(answer) => {
                client.answer(request.method, &answer, after).await?;
                return Ok(after);
            }
        };
        let length = (Length::Open, After::Close);
        let begin = head(200, ("text/event-stream", NOTHING), length, AT_ONCE);
        client.send(begin.as_bytes()).await?;
        if request.method == Method::Get {
            pass_on(&reading, first, client).await?;
        }
        Ok(After::Close)
    }

    /// Begins a watch, and takes its first part if there is one already.
    async fn watch(
        &self,
        request: &HttpRequest,
    ) -> Result<(Reading, Option<Part>, super::Place), Answer> {
        let filter = query::filter(&request.query).map_err(|why| Answer::error(400, &why))?;
        let place = self.stream()?;
        let reading = request::watch(&self.events, filter.nodes).await;
        let reading = reading.ok_or_else(|| Answer::again(NO_ANSWER))?;
        // Calls are answered in their order: when this one is, a refusal has come.
        self.ask(Call::Turn).await?;
        match poll_once(reading.next()).await {
            None => Ok((reading, None, place)),
            Some(Some(Ok(part))) => Ok((reading, Some(part), place)),
            Some(Some(Err(refusal))) => Err(refused(&refusal)),
            Some(None) => Err(Answer::again(NO_ANSWER)),
        }
    }
}

/// Sends events until the client or the watch ends.
async fn pass_on(reading: &Reading, first: Option<Part>, client: &Client<'_>) -> io::Result<()> {
    let (mut stream, mut room) = (client.stream, [0; 1]);
    // One for all events. A client has nothing to say any more, so whatever comes is its end. Only
    // the end of what it says is none.
    let mut is_half = false;
    let mut left = pin!(stream.read(&mut room));
    let mut text = String::from(RETRY);
    let mut number = 0_u64;
    let mut next = match first {
        Some(part) => Next::Part(Some(Ok(part))),
        // The client sees at once that it is heard.
        None => Next::Beat,
    };
    loop {
        match next {
            Next::Part(Some(Ok(part))) => {
                number += 1;
                let _ = write!(text, "id: {number}\ndata: {}\n\n", part.to_json());
            }
            Next::Part(Some(Err(_)) | None) | Next::Left => return Ok(()),
            Next::Beat => text.push_str(":\n\n"),
            Next::HalfClosed => {
                is_half = true;
                text.push_str(":\n\n");
            }
        }
        let more = match text.len() < PIECE {
            true => poll_once(reading.next()).await,
            false => None,
        };
        next = match more {
            Some(part) => Next::Part(part),
            None => {
                client.send(text.as_bytes()).await?;
                text.clear();
                let part = async { Next::Part(reading.next().await) };
                let beat = async {
                    Timer::after(if is_half { HALF_BEAT } else { BEAT }).await;
                    Next::Beat
                };
                let left = async {
                    match is_half {
                        true => pending().await,
                        false if matches!(left.as_mut().await, Ok(0)) => Next::HalfClosed,
                        false => Next::Left,
                    }
                };
                or(left, or(part, beat)).await
            }
        };
    }
}
