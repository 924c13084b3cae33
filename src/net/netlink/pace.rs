//! Rate limits for changes of the host: changes that come by the hundred are joined.
//!
//! Invariant: no change is lost: one that has to wait is passed on after the pause, together with
//! the later ones.

use std::{future::Future, pin::Pin, task::Context};

use futures_timer::Delay;

use super::PAUSE;

/// Changes of addresses within one [`PAUSE`] that are passed on one by one.
pub(super) const BURST: u8 = 8;

/// Changes of addresses are passed on at once, up to [`BURST`] of them in a [`PAUSE`]. If there are
/// more (containers come and go by the hundred), those of one pause are passed on as one change,
/// until there was a pause without any. The reason is that each change makes the program check its
/// connections, sign a record, and retry peers that did not answer.
#[derive(Debug, Default)]
pub(super) struct Storm {
    pub(super) passed: u8,
    pub(super) waiting: bool,
    pub(super) pause: Option<Delay>,
}

/// When and how a change is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passes {
    AsItIs,
    /// Now, together with the earlier ones.
    Joined,
    /// After the pause.
    Later,
}

impl Storm {
    /// Whether a pause in which a change had to wait is over now.
    pub(super) fn pauses(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(pause) = &mut self.pause
            && Pin::new(pause).poll(cx).is_ready()
        {
            self.pause = None;
        }
        self.pause.is_none() && self.waiting
    }

    /// Takes a change: the addresses differ from those that were passed on.
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
            // The storm goes on until there was a pause without changes.
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

/// What was added besides addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    pub(super) link: bool,
    pub(super) route: bool,
}

/// News that are passed on at most once in a [`PAUSE`]: a router may add hundreds of routes a
/// second, and each would make the program retry peers that did not answer.
#[derive(Debug, Default)]
pub(super) struct Paced {
    pub(super) waiting: News,
    /// The pause before they may be passed on.
    pub(super) pause: Option<Delay>,
}

impl Paced {
    /// Whether waiting news may be passed on now.
    pub(super) fn are_due(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(pause) = &mut self.pause
            && Pin::new(pause).poll(cx).is_ready()
        {
            self.pause = None;
        }
        self.pause.is_none() && self.waiting != News::default()
    }

    /// Adds news, and returns those that may be passed on now.
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
