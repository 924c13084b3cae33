//! Which path has which answer: those of known length.

use smol::channel::Receiver;

use super::{
    Desk,
    answer::{Answer, JSON, TEXT},
    request::HttpRequest,
};
use crate::{
    daemon::{
        metrics::{Format, render},
        request::{Call, CallAnswer, CallEvent, PendingCall},
        status::{Refusal, Status},
    },
    net::executor::within,
};

/// How long the loop may take for an answer: it gives one in each turn.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Whether a path is answered without the token: these two tell nothing about peers.
pub(super) fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

/// What the operator has to know about an answer that does not come.
pub(super) const NO_ANSWER: &str = "oc-discovery is ending, or is too busy to answer";

impl Desk {
    /// The answer to a request whose length is known before it is sent.
    pub(super) async fn short(&self, request: &HttpRequest) -> Answer {
        match request.path.as_str() {
            "/healthz" => match self.ask(Call::Turn).await {
                Ok(_) => Answer::new(TEXT, &b"ok\n"[..]),
                Err(answer) => answer,
            },
            "/readyz" => match self.status().await {
                Ok(status) => ready(&status),
                Err(answer) => answer,
            },
            "/status.json" => match self.ask(Call::Status(Vec::new())).await {
                Ok(answer) => Answer::new(JSON, answer.to_json().into_bytes()),
                Err(answer) => answer,
            },
            "/metrics" => match self.status().await {
                Ok(status) => {
                    let format = Format::accepted(&request.accept);
                    Answer::new(format.content(), render(&status, format).into_bytes())
                }
                Err(answer) => answer,
            },
            _ => Answer::error(404, "there is nothing here: / lists what there is"),
        }
    }

    async fn status(&self) -> Result<Status, Answer> {
        match self.ask(Call::Status(Vec::new())).await? {
            CallAnswer::Status(status) => Ok(*status),
            _ => Err(Answer::again(NO_ANSWER)),
        }
    }

    /// Has the loop answer.
    pub(super) async fn ask(&self, call: Call) -> Result<CallAnswer, Answer> {
        let (request, answer) = PendingCall::new(call);
        let asked = async {
            self.events.send(CallEvent::Made(request)).await.ok()?;
            received(&answer).await
        };
        match within(PATIENCE, asked).await.flatten() {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(refusal)) => Err(refused(&refusal)),
            None => Err(Answer::again(NO_ANSWER)),
        }
    }
}

async fn received(
    answer: &Receiver<Result<CallAnswer, Refusal>>,
) -> Option<Result<CallAnswer, Refusal>> {
    answer.recv().await.ok()
}

/// The answer to a request that the loop refuses.
pub(super) fn refused(refusal: &Refusal) -> Answer {
    match refusal.again {
        Some(true) => Answer::again(&refusal.error),
        _ => Answer::error(400, &refusal.error),
    }
}

/// Whether a process of this status can do its work.
fn ready(status: &Status) -> Answer {
    match &status.verdict.obstacle {
        None => Answer::new(TEXT, &b"ready\n"[..]),
        Some(why) => Answer::again(&format!("not ready: {why}")),
    }
}
