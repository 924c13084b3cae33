//! How fast news of the host are passed on: what comes by the hundred is gathered.

use std::{future::Future, pin::Pin, task::Context};

use futures_timer::Delay;

use super::PAUSE;

/// Changes of addresses in a [`PAUSE`] that are passed on one by one.
pub(super) const BURST: u8 = 8;

/// Changes of addresses are passed on as they come, [`BURST`] of them in a [`PAUSE`]. Where there
/// are more (containers come and go by the hundred), those of a pause are passed on as one, until
/// one was quiet: each is a reason to look at connections, to sign a record and to try again what
/// did not answer.
#[derive(Debug, Default)]
pub(super) struct Storm {
    pub(super) passed: u8,
    pub(super) waiting: bool,
    pub(super) pause: Option<Delay>,
}

/// When a change is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passes {
    AsItIs,
    /// Together with others.
    Joined,
    /// When the pause is over.
    Later,
}

impl Storm {
    /// Whether a pause is over now in which something had to wait.
    pub(super) fn pauses(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(pause) = &mut self.pause
            && Pin::new(pause).poll(cx).is_ready()
        {
            self.pause = None;
        }
        self.pause.is_none() && self.waiting
    }

    /// The addresses are others than those that were passed on.
    pub(super) fn take(&mut self, cx: &mut Context<'_>) -> Passes {
        if self.pause.is_some() && self.passed >= BURST {
            self.waiting = true;
            return Passes::Later;
        }
        let was_waiting = std::mem::take(&mut self.waiting);
        if self.pause.is_none() {
            let mut pause = Delay::new(PAUSE);
            let _ = Pin::new(&mut pause).poll(cx);
            self.pause = Some(pause);
            // The storm goes on until a pause was quiet.
            self.passed = if was_waiting { BURST } else { 0 };
        }
        match was_waiting {
            true => Passes::Joined,
            false => {
                self.passed += 1;
                Passes::AsItIs
            }
        }
    }
}

/// What came beside addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    pub(super) link: bool,
    pub(super) route: bool,
}

/// News that are passed on at most once in a [`PAUSE`]: routers learn of hundreds of routes a
/// second, and each is a reason to try again what did not answer.
#[derive(Debug, Default)]
pub(super) struct Paced {
    pub(super) waiting: News,
    /// Until they may be passed on.
    pub(super) pause: Option<Delay>,
}

impl Paced {
    /// Whether news wait that may be passed on now.
    pub(super) fn are_due(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(pause) = &mut self.pause
            && Pin::new(pause).poll(cx).is_ready()
        {
            self.pause = None;
        }
        self.pause.is_none() && self.waiting != News::default()
    }

    /// Adds news, and gives those that may be passed on now.
    pub(super) fn take(&mut self, news: News, cx: &mut Context<'_>) -> News {
        self.waiting.link |= news.link;
        self.waiting.route |= news.route;
        if !self.are_due(cx) {
            return News::default();
        }
        let mut pause = Delay::new(PAUSE);
        let _ = Pin::new(&mut pause).poll(cx);
        self.pause = Some(pause);
        std::mem::take(&mut self.waiting)
    }
}
