//! What the steps of the demo do and look for: they show the diagram of the native's three loops.
//!
//! Every poll asks the processes themselves, over the same control socket as `oc-discovery status`.

mod steps;

use std::path::Path;
use std::time::Duration;

use super::stage::Stage;
use super::{Sight, Tempo};
use crate::config::Role;
use crate::daemon::client::{self, NameOrPeerId, OperatorRequest};
use crate::daemon::status::{Found, LiveIndexer, Source, Status, counted};

pub(super) use steps::STORY;

/// The native's process.
pub(super) const NATIVE: &str = "native";
const INDEXERS: [&str; 2] = ["indexer-1", "indexer-2"];
const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// Extra time for a machine under load, in addition to what follows from the intervals.
const SLACK: Duration = Duration::from_secs(10);
/// How long one poll waits for one process.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long one poll waits for a lookup.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(6);

/// What the earlier steps have found out.
pub(super) struct Play<'a> {
    executable: &'a Path,
    stage: &'a Stage,
    tempo: Tempo,
    /// The native's address for the other processes, with `/p2p`. Empty until the native is up.
    native: String,
    silent: Option<Silent>,
}

/// The indexer that was stopped.
#[derive(Clone)]
struct Silent {
    process: &'static str,
    peer_id: String,
    /// The nodes that held a lease with it.
    nodes: Vec<&'static str>,
}

/// The status of every node.
type Nodes = Vec<(&'static str, Status)>;

/// The first lines that a process prints.
struct Greeting {
    peer_id: String,
    /// Its address, with `/p2p`.
    listening_on: String,
}

impl<'a> Play<'a> {
    pub(super) fn new(executable: &'a Path, stage: &'a Stage, tempo: Tempo) -> Self {
        Play {
            executable,
            stage,
            tempo,
            native: String::new(),
            silent: None,
        }
    }

    pub(super) fn stage(&self) -> &'a Stage {
        self.stage
    }

    pub(super) fn tempo(&self) -> &Tempo {
        &self.tempo
    }

    fn start_native(&mut self) -> Result<(), String> {
        self.start(Role::Native, NATIVE)
    }

    fn start_all(&mut self, role: Role, processes: &[&'static str]) -> Result<(), String> {
        processes
            .iter()
            .try_for_each(|process| self.start(role, process))
    }

    fn start(&self, role: Role, process: &'static str) -> Result<(), String> {
        let tempo = &self.tempo;
        let millis = |duration: Duration| format!("{}ms", duration.as_millis());
        let dir = self.stage.data_dir(process);
        let dir = dir.to_str().ok_or("the temporary directory is not UTF-8")?;
        let mut args: Vec<String> = vec![role.to_string()];
        let mut option = |name: &str, value: &str| args.extend([name.into(), value.into()]);
        option("--data-dir", dir);
        option("--listen", "/ip4/127.0.0.1/tcp/0");
        option("--lease", &millis(tempo.lease));
        option("--beat-interval", &millis(tempo.beat));
        option("--offload-interval", &millis(tempo.loops));
        option("--refresh-interval", &millis(tempo.loops));
        option("--gc-interval", &millis(tempo.gc));
        option("--connect-interval", &millis(tempo.connect));
        if role != Role::Native {
            option("--native", &self.native);
        }
        if role == Role::Node {
            option("--name", process);
            option("--service", "http=8080");
            #[cfg(feature = "dns")]
            option("--dns", "127.0.0.1:0");
            // One lease each, so that the nodes of a silent indexer have no other lease.
            option("--min-indexers", "1");
        }
        self.stage
            .start(process, self.executable, args)
            .map_err(|error| format!("{process} cannot be started: {error}"))
    }

    fn native_up(&mut self) -> Sight {
        let status = match self.status(NATIVE) {
            Ok(status) => status,
            Err(sight) => return sight,
        };
        let greeting = match self.greeting(NATIVE) {
            Ok(greeting) => greeting,
            Err(sight) => return sight,
        };
        if status.role != Role::Native || status.peer_id != greeting.peer_id {
            return Sight::NotYet(NATIVE, format!("a {} {}", status.role, status.peer_id));
        }
        let parts: Vec<&str> = greeting.listening_on.split('/').collect();
        let saw = match parts.as_slice() {
            [_, _, ip, _, port, ..] => format!("it, listening on {ip}:{port}"),
            _ => format!("it on {}", greeting.listening_on),
        };
        self.native = greeting.listening_on;
        Sight::Seen(saw)
    }

    fn nodes_taken_in(&mut self) -> Sight {
        let (native, nodes) = match self.native_and_nodes() {
            Ok(all) => all,
            Err(sight) => return sight,
        };
        for (process, node) in &nodes {
            let with_native = |peer: &str| peer == native.peer_id;
            if !node
                .leases
                .iter()
                .any(|lease| lease.role == Role::Native && with_native(&lease.peer_id))
            {
                return Sight::NotYet(process, format!("{process} without the native's lease"));
            }
            if !is_responsible_for(&native, node) {
                return Sight::NotYet(NATIVE, format!("{process} not in `responsible_peers`"));
            }
        }
        Sight::Seen(format!(
            "{} taken in, each under the native's own lease",
            counted(&native.responsible_peers.len(), "node")
        ))
    }

    fn indexers_live(&mut self) -> Sight {
        let native = match self.status(NATIVE) {
            Ok(native) => native,
            Err(sight) => return sight,
        };
        let mut ids = Vec::new();
        for process in INDEXERS {
            match self.greeting(process) {
                Ok(greeting) => ids.push((process, greeting.peer_id)),
                Err(sight) => return sight,
            }
        }
        for (process, id) in &ids {
            if live(&native, id).is_none() {
                return Sight::NotYet(process, format!("{process} not in `live_indexers`"));
            }
        }
        Sight::Seen(format!("{} there", INDEXERS.join(" and ")))
    }

    fn nodes_offloaded(&mut self) -> Sight {
        let (native, nodes) = match self.native_and_nodes() {
            Ok(all) => all,
            Err(sight) => return sight,
        };
        let left = native.responsible_peers.len();
        if left > 0 {
            return Sight::NotYet(
                NATIVE,
                format!("{} still with the native", counted(&left, "node")),
            );
        }
        let mut places = Vec::new();
        for (process, node) in &nodes {
            match self.indexer_of(node, None) {
                Some(indexer) => places.push(format!("{process} on {indexer}")),
                None => {
                    let saw = format!("{process} under no indexer's lease");
                    return Sight::NotYet(process, saw);
                }
            }
        }
        Sight::Seen(places.join(", "))
    }

    fn silence(&mut self) -> Result<(), String> {
        let mut choice: Option<Silent> = None;
        for process in INDEXERS {
            let Ok(Greeting { peer_id, .. }) = self.greeting(process) else {
                return Err(format!("{process} has not said its peer id"));
            };
            let with_it = |node: &&'static str| {
                self.status(node)
                    .is_ok_and(|status| status.leases.iter().any(|lease| lease.peer_id == peer_id))
            };
            let nodes: Vec<_> = NODES.into_iter().filter(with_it).collect();
            if choice
                .as_ref()
                .is_none_or(|best| best.nodes.len() < nodes.len())
            {
                choice = Some(Silent {
                    process,
                    peer_id,
                    nodes,
                });
            }
        }
        let silent = choice.ok_or("there is no indexer")?;
        if silent.nodes.is_empty() {
            return Err("no node is with an indexer any more".into());
        }
        self.stage
            .freeze(silent.process)
            .map_err(|error| format!("{} cannot be stopped: {error}", silent.process))?;
        self.silent = Some(silent);
        Ok(())
    }

    fn silent(&mut self) -> Sight {
        let Some(silent) = &self.silent else {
            return Sight::NotYet(NATIVE, "no indexer chosen".into());
        };
        if self.stage.is_frozen(silent.process) {
            let nodes = silent.nodes.join(" and ");
            return Sight::Seen(format!("{} frozen, the indexer of {nodes}", silent.process));
        }
        Sight::NotYet(silent.process, format!("{} still running", silent.process))
    }

    fn stream_collected(&mut self) -> Sight {
        self.watch_silent(|native, silent| {
            let name = silent.process;
            let record = native
                .stream_records
                .iter()
                .find(|record| record.peer_id == silent.peer_id);
            match (record, live(native, &silent.peer_id)) {
                (Some(record), _) => Err(format!(
                    "{name}'s stream record, last seen {} ms ago, {} ms from its end",
                    record.last_seen_ms, record.expires_in_ms
                )),
                (None, None) => Err(format!("neither stream record nor entry of {name}")),
                (None, Some(entry)) => Ok(format!(
                    "no stream record of {name}, and its entry with {} ms to live",
                    entry.expires_in_ms
                )),
            }
        })
    }

    fn entry_refreshed(&mut self) -> Sight {
        self.watch_silent(|native, silent| {
            let name = silent.process;
            match live(native, &silent.peer_id) {
                Some(entry) if entry.source == Source::Dht => Ok(format!(
                    "{name}'s entry with source `dht` and {} ms to live",
                    entry.expires_in_ms
                )),
                Some(entry) => Err(format!(
                    "{name}'s entry as its last beat left it, with {} ms to live",
                    entry.expires_in_ms
                )),
                None => Err(format!("no entry of {name}")),
            }
        })
    }

    fn entry_run_out(&mut self) -> Sight {
        self.watch_silent(|native, silent| {
            let name = silent.process;
            match live(native, &silent.peer_id) {
                Some(entry) => Err(format!(
                    "{name}'s entry with {} ms to live",
                    entry.expires_in_ms
                )),
                None => {
                    let live = native.live_indexers.len();
                    let live = counted(&live, "live indexer");
                    Ok(format!("{live}, {name} not among them"))
                }
            }
        })
    }

    fn nodes_elsewhere(&mut self) -> Sight {
        let Some(silent) = self.silent.clone() else {
            return Sight::NotYet(NATIVE, "no indexer chosen".into());
        };
        let (_, nodes) = match self.native_and_nodes() {
            Ok(all) => all,
            Err(sight) => return sight,
        };
        let mut places = Vec::new();
        for (process, node) in &nodes {
            let mut leases = node.leases.iter();
            if leases.any(|lease| lease.peer_id == silent.peer_id) {
                let saw = format!("{process} still with {}", silent.process);
                return Sight::NotYet(process, saw);
            }
            match self.indexer_of(node, Some(&silent)) {
                Some(place) => places.push(format!("{process} on {place}")),
                None => return Sight::NotYet(process, format!("{process} under no lease")),
            }
        }
        let moved = silent.nodes.join(" and ");
        Sight::Seen(format!("{moved} moved: {}", places.join(", ")))
    }

    fn found(&mut self) -> Sight {
        let [wanted, .., asker] = NODES;
        let asked = NameOrPeerId::parse(wanted).map_err(|error| error.to_string());
        let dir = self.stage.data_dir(asker);
        let answer = asked.and_then(|name| {
            client::ask::<Found>(&dir, &OperatorRequest::Find(name), LOOKUP_PATIENCE)
                .map_err(|error| error.to_string())
        });
        match answer.map(|answer| answer.value.service_addr(Some("http"))) {
            Ok(Some(addr)) => {
                Sight::Seen(format!("{asker} say that http of {wanted} is at {addr}"))
            }
            Ok(None) => Sight::NotYet(asker, format!("{asker} find no {wanted}")),
            Err(error) => Sight::NotYet(asker, error),
        }
    }

    #[cfg(feature = "dns")]
    fn resolved(&mut self) -> Sight {
        let [wanted, .., asker] = NODES;
        let name = format!("{wanted}.oc.internal");
        let stdout = self.stage.stdout(asker);
        let mut lines = stdout.lines();
        let at = lines.find_map(|line| line.strip_prefix("answers DNS for oc.internal on "));
        let Some(Ok(at)) = at.map(str::parse) else {
            return Sight::NotYet(asker, format!("{asker} not answering DNS"));
        };
        match crate::net::dns::ask_at(at, &name, LOOKUP_PATIENCE) {
            Ok(ips) if !ips.is_empty() => Sight::Seen(format!("{name} at {ips:?}, asked at {at}")),
            Ok(_) => Sight::NotYet(asker, format!("no address of {name}")),
            Err(error) => Sight::NotYet(asker, format!("no answer about {name}: {error}")),
        }
    }

    fn watch_silent(&self, judge: impl Fn(&Status, &Silent) -> Result<String, String>) -> Sight {
        let Some(silent) = &self.silent else {
            return Sight::NotYet(NATIVE, "no indexer chosen".into());
        };
        match self.status(NATIVE).map(|native| judge(&native, silent)) {
            Ok(Ok(saw)) => Sight::Seen(saw),
            Ok(Err(saw)) => Sight::NotYet(NATIVE, saw),
            Err(sight) => sight,
        }
    }

    fn native_and_nodes(&self) -> Result<(Status, Nodes), Sight> {
        let nodes = NODES
            .into_iter()
            .map(|process| Ok((process, self.status(process)?)))
            .collect::<Result<_, Sight>>()?;
        Ok((self.status(NATIVE)?, nodes))
    }

    fn status(&self, process: &'static str) -> Result<Status, Sight> {
        let dir = self.stage.data_dir(process);
        client::ask(&dir, &OperatorRequest::Status, PATIENCE)
            .map(|answer| answer.value)
            .map_err(|error| Sight::NotYet(process, error.to_string()))
    }

    /// What a process has printed on stdout, if it is ready.
    fn greeting(&self, process: &'static str) -> Result<Greeting, Sight> {
        let stdout = self.stage.stdout(process);
        let after = |start: &str| {
            let mut lines = stdout.lines();
            lines.find_map(|line| line.strip_prefix(start).map(str::to_owned))
        };
        match (after("peer id "), after("listening on "), after("ready")) {
            (Some(peer_id), Some(listening_on), Some(_)) => Ok(Greeting {
                peer_id,
                listening_on,
            }),
            _ => Err(Sight::NotYet(process, format!("{process} not ready"))),
        }
    }

    /// The process of an indexer with which the node holds a lease, other than `but`.
    fn indexer_of(&self, node: &Status, but: Option<&Silent>) -> Option<&'static str> {
        INDEXERS
            .into_iter()
            .filter(|process| but.is_none_or(|silent| silent.process != *process))
            .find(|process| {
                self.greeting(process).is_ok_and(|greeting| {
                    let mut leases = node.leases.iter();
                    leases.any(|lease| {
                        lease.role == Role::Indexer && lease.peer_id == greeting.peer_id
                    })
                })
            })
    }
}

fn is_responsible_for(native: &Status, node: &Status) -> bool {
    let mut peers = native.responsible_peers.iter();
    peers.any(|peer| peer.peer_id == node.peer_id)
}

fn live<'s>(native: &'s Status, peer_id: &str) -> Option<&'s LiveIndexer> {
    let mut entries = native.live_indexers.iter();
    entries.find(|entry| entry.peer_id == peer_id)
}

#[cfg(test)]
mod tests;
