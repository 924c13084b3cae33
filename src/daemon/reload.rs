//! Takes over a changed configuration while the daemon runs: at SIGHUP, and at the command
//! `reload`.
//!
//! Invariants: a configuration with an error changes nothing; what cannot change without a restart
//! stays as it is and is said; both are problems until a reload finds all in order; what has not
//! changed is not touched, so that no lease, no check and no record suffers from a reload that
//! changes nothing.

use std::fmt;

use miniserde::{Deserialize, Serialize};

use super::{
    driver::Driver, logging, members::own_grant, natives, problems::Mistake, status::Severity,
};
use crate::{
    config::{Config, Faults, Loaded, Setting},
    net::addrs::Announce,
    protocol::{Input, Pace, PeerId, Role},
};

/// What a reload has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reloaded {
    /// What the process has taken over.
    pub(crate) changed: Vec<Change>,
    /// What needs a restart: the process still has the values before.
    pub(crate) needs_restart: Vec<Change>,
    /// What is wrong with the configuration. If it is not empty, nothing has changed.
    pub(crate) errors: Vec<String>,
}

/// A setting that has other values than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// Its key.
    pub(crate) key: String,
    /// The values that the process had.
    pub(crate) before: Vec<String>,
    /// The values that are configured now.
    pub(crate) after: Vec<String>,
}

impl From<Faults> for Reloaded {
    fn from(faults: Faults) -> Self {
        Self {
            changed: Vec::new(),
            needs_restart: Vec::new(),
            errors: faults.sentences,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |values: &[String]| match values.is_empty() {
            true => "nothing".to_owned(),
            false => values.join(", "),
        };
        let Self { key, before, after } = self;
        write!(f, "{key}: {} -> {}", all(before), all(after))
    }
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changed {
            writeln!(f, "{change}")?;
        }
        for change in &self.needs_restart {
            writeln!(f, "{change}: needs a restart, unchanged until then")?;
        }
        match self.changed.is_empty() && self.needs_restart.is_empty() {
            true => writeln!(f, "nothing has changed"),
            false => Ok(()),
        }
    }
}

/// Has the driver take over what it can of `fresh`. Logs it, and says what was done.
pub(super) fn reload(
    driver: &mut Driver<'_>,
    running: &mut Loaded,
    fresh: Result<Loaded, Faults>,
) -> Reloaded {
    let own = driver.env.own;
    let checked = fresh.and_then(|fresh| match own_grant(&fresh.config, &own) {
        Ok(_) => Ok(fresh),
        Err(why) => Err(Faults {
            sentences: vec![why.to_string()],
            is_unread: false,
        }),
    });
    let fresh = match checked {
        Ok(fresh) => fresh,
        Err(faults) => {
            for sentence in &faults.sentences {
                log::error!("the configuration is wrong, nothing has changed: {sentence}");
            }
            driver.files.bad_settings = failed(&faults.sentences);
            driver.look_for_mistakes(driver.env.now());
            return faults.into();
        }
    };
    let (before, after) = (running.config.clone(), &fresh.config);
    let is_kept = |setting: &&'static Setting| match setting.name {
        // The new lease begins with the next start.
        "beat-interval" => after.beat_interval > before.lease / 3,
        // An open network is left by a restart, and so is another one entered.
        "network" => before.network.is_some(),
        _ => !setting.reloads,
    };
    let different = running.differences(&fresh);
    let (kept, taken): (Vec<_>, Vec<_>) = different.into_iter().partition(is_kept);
    let change = |setting: &&'static Setting| Change {
        key: setting.name.to_owned(),
        before: running.values(setting),
        after: fresh.values(setting),
    };
    let mut reloaded = Reloaded {
        changed: taken.iter().map(change).collect(),
        needs_restart: kept.iter().map(change).collect(),
        errors: Vec::new(),
    };
    let now = taken_over(&before, after);
    let had_grant = driver.member.is_some();
    let has_other_grant = driver.reconfigure(&before, &now);
    if has_other_grant && !reloaded.changed.iter().any(|change| change.key == "grant") {
        reloaded.changed.push(Change {
            key: "grant".into(),
            before: had_grant
                .then(|| "another one".into())
                .into_iter()
                .collect(),
            after: vec!["that of the file, shown from now on".into()],
        });
    }
    // The more verbose of the two levels is that of the lines about the reload.
    logging::set_level(before.log.max(now.log));
    reloaded.log();
    driver.files.bad_settings = None;
    driver.files.waits_for_restart = needs_restart(&reloaded.needs_restart, now.role);
    driver.look_for_mistakes(driver.env.now());
    logging::set_level(now.log);
    running.replace(fresh, now, &kept);
    reloaded
}

/// The configuration cannot be used. `sentences`: what is wrong, each with its place.
pub(super) fn failed(sentences: &[String]) -> Option<Mistake> {
    let first = sentences.first()?;
    let more = match sentences.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(Mistake {
        code: "reload-failed",
        severity: Severity::Warning,
        // After another reload with other errors it is the same problem, which goes on.
        about: String::new(),
        what: format!("the last reload changed nothing, and a restart would fail: {first}{more}"),
        hint: "correct it, see with `oc-discovery config check FILE` that it is in order, then \
               `oc-discovery reload`"
            .into(),
    })
}

/// The configuration has other values than the process has and can take over.
pub(super) fn needs_restart(changes: &[Change], role: Role) -> Option<Mistake> {
    let keys = keys(changes);
    (!keys.is_empty()).then(|| Mistake {
        code: "restart-needed",
        severity: Severity::Warning,
        about: String::new(),
        what: format!(
            "the configuration has other values, which this process takes over only by a restart: {keys}"
        ),
        hint: format!(
            "restart it when that suits, for example `systemctl restart oc-discovery@{role}`; \
             `oc-discovery reload` shows both values"
        ),
    })
}

/// The keys of all.
fn keys(changes: &[Change]) -> String {
    let keys: Vec<&str> = changes.iter().map(|change| &*change.key).collect();
    keys.join(", ")
}

/// What the process has from now on: what can change is that of `after`.
fn taken_over(before: &Config, after: &Config) -> Config {
    let beat_interval = match after.beat_interval > before.lease / 3 {
        true => before.beat_interval,
        false => after.beat_interval,
    };
    Config {
        natives: after.natives.clone(),
        network: before.network.or(after.network),
        grant: after.grant.clone(),
        announce: after.announce.clone(),
        announce_only: after.announce_only,
        trust_lan: after.trust_lan,
        log: after.log,
        beat_interval,
        offload_interval: after.offload_interval,
        refresh_interval: after.refresh_interval,
        gc_interval: after.gc_interval,
        connect_interval: after.connect_interval,
        tags: after.tags.clone(),
        services: after.services.clone(),
        checks: after.checks.clone(),
        check_interval: after.check_interval,
        ..before.clone()
    }
}

impl Reloaded {
    fn log(&self) {
        let applied = match keys(&self.changed) {
            none if none.is_empty() => "nothing to apply".to_owned(),
            changed => format!("applied {changed}"),
        };
        let waits = match keys(&self.needs_restart) {
            none if none.is_empty() => String::new(),
            keys => format!(", and only a restart takes over {keys}"),
        };
        log::info!("reloaded the configuration: {applied}{waits}");
    }
}

impl Driver<'_> {
    /// Takes over what differs between the two. Returns whether another grant is shown from now on.
    fn reconfigure(&mut self, before: &Config, after: &Config) -> bool {
        let now = self.env.now();
        if pace(before) != pace(after) {
            self.handle(now, Input::Paced(pace(after)));
            self.paced = now;
        }
        let has_other_grant = self.rejoin(after);
        let announced = |config: &Config| Announce {
            first: config.announce.clone(),
            only: config.announce_only,
        };
        if announced(before) != announced(after) {
            self.env.net.set_announce(announced(after));
            self.invite_if_changed(now);
        }
        let described = |c: &Config| (c.tags.clone(), c.services.clone());
        let has_other_checks =
            (&before.checks, before.check_interval) != (&after.checks, after.check_interval);
        let is_described_anew = described(before) != described(after);
        if is_described_anew || has_other_checks {
            self.checks.replace(after, now);
            self.env.endpoint.offer(self.checks.health.offered());
        }
        if is_described_anew {
            self.record.describe(after);
            self.env.endpoint.record_changed();
        }
        if before.natives != after.natives || before.trust_lan != after.trust_lan {
            self.change_natives(before, after);
        }
        has_other_grant
    }

    /// The natives that are given from now on. With none, those that are known stay, as after a
    /// start without natives.
    fn change_natives(&mut self, before: &Config, after: &Config) {
        self.relink(before, after);
        let given = natives::given(&after.natives);
        self.given = natives::Given::of(&after.natives, &self.env.own);
        let was_given = natives::given(&before.natives);
        let by_name = |config: &Config| config.natives.iter().any(|n| n.peer.is_none());
        let is_in = |list: &[natives::Learned], peer: &PeerId| list.iter().any(|n| n.0 == *peer);
        // It is not known which name has led to a native.
        let keeps_named = by_name(before) && by_name(after);
        let keeps_all = after.natives.is_empty() && after.role != Role::Native;
        for peer in self.env.natives() {
            let stays = is_in(&given, &peer) || (keeps_named && !is_in(&was_given, &peer));
            if !keeps_all && !stays {
                self.on_forgotten(peer);
            }
        }
        let is_new = |native: &natives::Learned| !was_given.contains(native);
        for native in given.into_iter().filter(is_new) {
            self.on_learned(native);
        }
    }
}

fn pace(config: &Config) -> Pace {
    Pace {
        beat: config.beat_interval,
        offload: config.offload_interval,
        refresh: config.refresh_interval,
        gc: config.gc_interval,
        connect: config.connect_interval,
    }
}
