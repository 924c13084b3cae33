//! Hosts with networks of their own, on this machine: a network namespace for each, joined by
//! cables and switches.
//!
//! ```text
//!  namespaces of one test (unshare): user, mount, and the net of the switches
//!    ├─ switch "lan" (a bridge) ── port n0-eth0 ┄ cable (a veth pair) ┄ eth0 of host "native"
//!    │                          └─ port n1-eth0 ┄ cable ┄ eth0 of host "indexer"
//!    └─ /run/netns/native, /run/netns/indexer
//! ```
//!
//! It does not need root, and is not visible outside. Invariants: everything ends with the
//! [`Network`]; tests do not affect one another. If the system forbids such namespaces, a test
//! prints this and is skipped, unless `OC_DISCOVERY_HOSTS=required` is set, as CI does: then it
//! fails.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _, pipe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::RecvTimeoutError;

use crate::harness::{Peer, SLACK, World, ended, lines_of};

/// Prepares the namespaces and waits for the end of its input.
const KEEPER: &str = "set -e; mount -t tmpfs tmpfs /run; mkdir /run/netns; ip link set lo up; \
                      echo ready; exec cat >/dev/null";

/// The hosts, switches and cables of one test.
pub(crate) struct Network {
    /// The process that holds the namespaces of the network.
    keeper: Child,
    world: World,
}

impl Network {
    /// A network without hosts. If the system forbids namespaces, prints a message and returns
    /// `None`.
    pub(crate) fn new() -> Option<Self> {
        Self::with_tools(&[])
    }

    /// A network for a test that needs these programs. If one is missing, as without namespaces.
    pub(crate) fn with_tools(tools: &[&str]) -> Option<Self> {
        let is_there = |tool: &&str| {
            let found = Command::new("sh")
                .args(["-c", &format!("command -v {tool}")])
                .output();
            found.is_ok_and(|found| found.status.success())
        };
        let network = match tools.iter().find(|tool| !is_there(tool)) {
            None => Self::unshared(),
            Some(tool) => Err(format!(
                "there is no program {tool}; `.ci/tools` installs it"
            )),
        };
        match network {
            Ok(network) => Some(network),
            Err(why) if std::env::var_os("OC_DISCOVERY_HOSTS").is_some_and(|v| v == "required") => {
                panic!("tests with hosts of their own are required, and cannot run: {why}")
            }
            Err(why) => {
                // This does not use a macro, because the output of macros is shown only if the test
                // fails.
                let _ = writeln!(io::stderr(), "SKIPPED, no hosts for the test: {why}");
                None
            }
        }
    }

    fn unshared() -> Result<Self, String> {
        let mut keeper = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "--mount"])
            .args(["sh", "-c", KEEPER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}; it comes with util-linux"))?;
        let lines = lines_of(keeper.stdout.take().unwrap());
        // From here on the keeper ends with this value in any case.
        let mut network = Self {
            keeper,
            world: World::new(),
        };
        match lines.recv_timeout(SLACK) {
            Ok((_, line)) if line == "ready" => Ok(network),
            Ok((_, line)) => Err(line),
            Err(RecvTimeoutError::Timeout) => Err(format!("unshare: not done within {SLACK:?}")),
            Err(RecvTimeoutError::Disconnected) => {
                let mut why = String::new();
                let _ = network
                    .keeper
                    .stderr
                    .take()
                    .unwrap()
                    .read_to_string(&mut why);
                Err(format!("{}; `ip` comes with iproute2", why.trim()))
            }
        }
    }

    /// The directory and the clients of the test.
    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    /// The root directory that its hosts see.
    pub(crate) fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.keeper.id()))
    }

    /// A host with only loopback.
    pub(crate) fn host(&self, name: &'static str) -> Host<'_> {
        self.ip(&[&format!("netns add {name}")]);
        let host = Host {
            network: self,
            name,
        };
        host.ip(&["link set lo up"]);
        host
    }

    /// A switch without cables.
    pub(crate) fn switch(&self, name: &'static str) -> Switch<'_> {
        self.ip(&[
            &format!("link add {name} type bridge"),
            &format!("link set {name} up"),
        ]);
        Switch {
            network: self,
            name,
        }
    }

    /// Sets the addresses of names, on all hosts.
    pub(crate) fn names(&self, lines: &str) {
        self.file("/etc/hosts", lines);
    }

    /// Sets what is in a file of the system, on all hosts.
    pub(crate) fn file(&self, path: &str, content: &str) {
        let file = self.world.path(&path.replace('/', "_"));
        std::fs::write(&file, content).unwrap();
        let mut mount = command(&self.inside(None), Path::new("mount"));
        let mounted = mount.args(["--bind".as_ref(), file.as_os_str(), path.as_ref()]);
        assert!(mounted.status().unwrap().success());
    }

    /// Runs `ip` in the namespace of the switches.
    fn ip(&self, lines: &[&str]) {
        ip(&self.inside(None), lines);
    }

    /// The prefix of a command that runs on this host, or in the namespace of the switches.
    fn inside(&self, host: Option<&str>) -> Vec<OsString> {
        let keeper = self.keeper.id().to_string();
        let enter = ["nsenter", "--preserve-credentials", "--user", "--mount"];
        let mut words: Vec<OsString> = enter.map(OsString::from).into();
        words.extend(["--net", "--target", &keeper].map(OsString::from));
        if let Some(host) = host {
            words.push("nsenter".into());
            words.push(format!("--net=/run/netns/{host}").into());
        }
        words
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// A host of a [`Network`].
#[derive(Clone, Copy)]
pub(crate) struct Host<'a> {
    network: &'a Network,
    name: &'static str,
}

impl Host<'_> {
    /// Runs lines of `ip` on the host.
    pub(crate) fn ip(&self, lines: &[&str]) {
        ip(&self.inside(), lines);
    }

    /// Sets a kernel parameter of the host's network.
    pub(crate) fn sysctl(&self, key: &str, value: &str) {
        let set = format!("echo {value} > /proc/sys/{}", key.replace('.', "/"));
        let status = command(&self.inside(), Path::new("sh"))
            .args(["-c", &set])
            .status()
            .unwrap();
        assert!(status.success(), "{set}");
    }

    /// Adds a bridge with a port that is up, as container engines do. Its address counts as one of
    /// the host's.
    pub(crate) fn bridge(&self, name: &str, address: &str) {
        self.ip(&[
            &format!("link add {name} type bridge"),
            &format!("link add {name}-in type veth peer name {name}-out"),
            &format!("link set {name}-in master {name} up"),
            &format!("link set {name}-out up"),
            &format!("addr add {address} dev {name}"),
            &format!("link set {name} up"),
        ]);
    }

    /// Starts a daemon on the host and waits until it is ready. It listens on the addresses in
    /// `args`, or on its default ones.
    pub(crate) fn start(&self, role: &str, name: &'static str, args: &[&str]) -> Peer {
        let world = self.network.world();
        world.start_inside(&self.inside(), role, name, args)
    }

    /// The same with a variable in its environment, `NAME=VALUE`.
    pub(crate) fn start_with(
        &self,
        role: &str,
        name: &'static str,
        variable: &str,
        args: &[&str],
    ) -> Peer {
        let mut inside = self.inside();
        inside.extend(["env", variable].map(OsString::from));
        self.network.world().start_inside(&inside, role, name, args)
    }

    /// Starts a daemon on the host that is expected to end by itself, and waits for that.
    pub(crate) fn start_in_vain(&self, role: &str, name: &str, args: &[&str]) -> Output {
        let world = self.network.world();
        let own = world.line(role, &world.path(name), args);
        let mut command = command(&self.inside(), Path::new(own.get_program()));
        ended(command.args(own.get_args()))
    }

    /// A command on the host.
    pub(crate) fn command(&self, program: &str) -> Command {
        command(&self.inside(), Path::new(program))
    }

    fn inside(&self) -> Vec<OsString> {
        self.network.inside(Some(self.name))
    }
}

/// Another program in the foreground, which ends with the test.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A switch of a [`Network`].
#[derive(Clone, Copy)]
pub(crate) struct Switch<'a> {
    network: &'a Network,
    name: &'static str,
}

impl Switch<'_> {
    /// Plugs a cable in: the host's interface `name`, which is up and has these addresses.
    pub(crate) fn plug(&self, host: &Host<'_>, name: &str, addresses: &[&str]) {
        let port = port(host, name);
        self.network.ip(&[
            &format!(
                "link add {port} type veth peer name {name} netns {}",
                host.name
            ),
            &format!("link set {port} master {} up", self.name),
        ]);
        let all = addresses.iter().map(|address| match address.contains(':') {
            true => format!("addr add {address} dev {name} nodad"),
            false => format!("addr add {address} dev {name}"),
        });
        let mut lines: Vec<_> = all.collect();
        lines.push(format!("link set {name} up"));
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        host.ip(&lines);
    }

    /// Unplugs the cable, so that the host's interface has no carrier.
    pub(crate) fn pull(&self, host: &Host<'_>, name: &str) {
        self.network
            .ip(&[&format!("link set {} down", port(host, name))]);
    }

    /// Plugs the cable in again.
    pub(crate) fn push(&self, host: &Host<'_>, name: &str) {
        self.network
            .ip(&[&format!("link set {} up", port(host, name))]);
    }
}

/// The switch's end of the cable, at most 15 bytes long.
fn port(host: &Host<'_>, interface: &str) -> String {
    format!("{:.6}-{interface:.8}", host.name)
}

fn command(inside: &[OsString], program: &Path) -> Command {
    let mut words = inside.iter();
    let mut command = Command::new(words.next().unwrap());
    command.args(words).arg(program);
    command
}

fn ip(inside: &[OsString], lines: &[&str]) {
    // A pipe has room for these few lines.
    let (stdin, mut batch) = pipe().unwrap();
    for line in lines {
        writeln!(batch, "{line}").unwrap();
    }
    drop(batch);
    let mut ip = command(inside, Path::new("ip"));
    let output = ended(ip.args(["-batch", "-"]).stdin(stdin));
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {lines:?}: {why}");
}
