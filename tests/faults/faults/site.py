"""Hosts with networks of their own, the daemons on them, and questions to those.

    switch "lan" (a bridge, 10.88.0.0/24)
      |- cable - eth0 of host "hub-a" (10.88.0.1)    a native
      |- cable - eth0 of host "dir-a" (10.88.0.11)   an indexer
      `- cable - eth0 of host "pump-1" (10.88.0.21)  a node

Invariants: what a row waits for is an observed state with a deadline; a host loses nothing but what the row takes from it.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NET = "10.88.0."
CROWD = Path(__file__).with_name("crowd.py")
ROLES = {"hub": "native", "dir": "indexer", "pump": "node"}
# The default intervals, fifteen times faster.
FAST = {
    "--lease": "6s",
    "--beat-interval": "2s",
    "--offload-interval": "2s",
    "--refresh-interval": "2s",
    "--gc-interval": "2s",
    "--connect-interval": "4s",
}


class Broken(Exception):
    """What must hold does not."""


class Missing(Exception):
    """A program that the row needs is not here."""


def sh(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        raise Broken(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


def wait(seconds, what, is_so):
    """Waits until this is so, and gives how long that took, in seconds."""
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        if is_so():
            return time.monotonic() - begin
        time.sleep(0.1)
    raise Broken(f"not within {seconds} s: {what}")


def needs(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Missing(f"there is no program {program}; .ci/tools installs it")


class Host:
    """A network namespace with one cable to the switch."""

    def __init__(self, name, number):
        self.name, self.number, self.addr = name, number, f"{NET}{number}"
        sh("ip", "netns", "add", name)
        self.ip("link set lo up")
        sh("ip", "link", "add", self.port, "type", "veth", "peer", "eth0", "netns", name)
        sh("ip", "link", "set", self.port, "master", "lan", "up")
        self.ip("link set eth0 up")
        self.ip(f"addr add {self.addr}/24 dev eth0")

    @property
    def port(self):
        """The end of its cable at the switch."""
        return f"p{self.number}"

    def ip(self, words):
        return sh("ip", "-n", self.name, *words.split())

    def run(self, *words):
        return sh("ip", "netns", "exec", self.name, *words)

    def nft(self, rule):
        """Adds a rule for packets that come in."""
        self.run("nft", "add", "table", "inet", "faults")
        self.run("nft", "add chain inet faults input { type filter hook input priority 0 ; }")
        self.run("nft", f"add rule inet faults input {rule}")

    def deaf_to(self, *others):
        """Packets of these hosts do not arrive here any more."""
        for other in others:
            self.nft(f"ip saddr {other.addr} drop")

    def heal(self):
        self.run("nft", "flush", "ruleset")


class Daemon:
    """A daemon on a host: its data directory, process and log."""

    def __init__(self, site, host, options, env=None, prefix=()):
        self.site, self.host, self.role = site, host, ROLES[host.name.split("-")[0]]
        self.dir = site.place / host.name
        self.options, self.env, self.prefix = options, env, list(prefix)
        self.log, self.is_meant_to_end = site.place / f"{host.name}.log", False

    def command(self):
        words = ["ip", "netns", "exec", self.host.name, *self.prefix, self.site.program, self.role, "--no-mdns"]
        words += ["--data-dir", self.dir, *self.options]
        words += ["--name", self.host.name] if self.role == "node" else []
        return [str(word) for word in words]

    def start(self, **kept):
        begin, env = self.log.stat().st_size if self.log.exists() else 0, os.environ | (self.env or {})
        with open(self.log, "ab") as log:
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log} | kept
            self.process = subprocess.Popen(self.command(), env=env, **streams)
        self.is_meant_to_end = False
        if not kept:
            wait(20, f"{self.host.name} is ready", lambda: b"\nready\n" in self.log.read_bytes()[begin:] or self.ended())
        return self

    def ended(self):
        if self.process.poll() is not None:
            raise Broken(f"{self.host.name} has ended with {self.process.returncode}")
        return False

    def send(self, sign):
        self.process.send_signal(sign)

    def end(self, sign=signal.SIGTERM):
        self.is_meant_to_end = True
        self.send(sign)
        self.process.wait(20)

    @property
    def pid(self):
        return self.process.pid

    def memory_kib(self):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1])
        raise Broken(f"{self.host.name} has no memory: it has ended")

    def ask(self, *words):
        command = ["ip", "netns", "exec", self.host.name, self.site.program, *words, "--data-dir", self.dir]
        return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=30)

    def id(self):
        return self.ask("id").stdout.strip()

    def addr(self):
        return f"/ip4/{self.host.addr}/tcp/4820/p2p/{self.id()}"

    def status(self):
        answer = self.ask("status", "--json")
        return json.loads(answer.stdout) if answer.stdout.startswith("{") else {}

    def leases(self):
        return len(self.status().get("leases", []))

    def records(self):
        """Names of the peers that hold a lease here, or their ids if they have none."""
        return {record["name"] or record["peer_id"] for record in self.status().get("stream_records", [])}

    def problems(self):
        return {problem["code"] for problem in self.status().get("problems", [])}

    def finds(self, name):
        answer = self.ask("find", name)
        return answer.returncode in (0, 3) and name in answer.stdout

    def said(self, pattern):
        """How many lines of its log have this."""
        return sum(bool(re.search(pattern, line)) for line in self.log.read_text(errors="replace").splitlines())


class Site:
    """A site with its hosts. It is a context manager: all ends with it."""

    def __init__(self, program, name):
        self.program, self.name, self.daemons, self.hosts, self.others, self.words = program, name, [], {}, [], ""

    def __enter__(self):
        self.place = Path(tempfile.mkdtemp(prefix=f"faults-{self.name}-"))
        sh("mount", "-t", "tmpfs", "none", "/run")
        sh("ip", "link", "add", "lan", "type", "bridge")
        sh("ip", "link", "set", "lan", "up")
        return self

    def __exit__(self, kind, *_):
        self.words = self.last_words() if kind else ""
        for process in [daemon.process for daemon in self.daemons] + self.others:
            process.kill()
            process.wait()
        for host in self.hosts.values():
            # A cable would go a moment after its namespace.
            subprocess.run(["ip", "-n", host.name, "link", "del", "eth0"], stderr=subprocess.DEVNULL)
            sh("ip", "netns", "del", host.name)
        sh("ip", "link", "del", "lan")
        sh("umount", "--lazy", "/run")
        shutil.rmtree(self.place, ignore_errors=True)

    def host(self, name, number=None):
        if name not in self.hosts:
            kind, _, index = name.partition("-")
            base = {"hub": 1, "dir": 11, "pump": 20}.get(kind, 200)
            order = int(index) if index.isdigit() else ord(index[:1] or "a") - ord("a")
            self.hosts[name] = Host(name, number or base + order)
        return self.hosts[name]

    def daemon(self, name, *options, natives=(), fast=True, env=None, prefix=()):
        options = [word for pair in FAST.items() for word in pair] * fast + list(options)
        for native in natives:
            options += ["--native", native if isinstance(native, str) else native.addr()]
        if name.startswith("hub") and "--listen" not in options:
            options += ["--listen", "/ip4/0.0.0.0/tcp/4820"]
        daemon = Daemon(self, self.host(name), options, env, prefix)
        self.daemons.append(daemon)
        return daemon

    def town(self, natives=1, indexers=2, nodes=3, fast=True):
        """Daemons of all roles, when each node has its leases."""
        hubs = []
        for letter in "abc"[:natives]:
            hubs.append(self.daemon(f"hub-{letter}", natives=hubs, fast=fast).start())
        dirs = [self.daemon(f"dir-{letter}", natives=hubs, fast=fast).start() for letter in "abcd"[:indexers]]
        for hub in hubs:
            wait(20, f"{hub.host.name} has its indexers", lambda: len(hub.status().get("live_indexers", [])) >= indexers)
        pumps = [self.daemon(f"pump-{i}", natives=hubs, fast=fast).start() for i in range(1, nodes + 1)]
        for pump in pumps:
            wait(30, f"{pump.host.name} has its leases", lambda: pump.leases() >= min(2, indexers or 1))
        return hubs, dirs, pumps

    def port_of(self, daemon):
        """The port that it listens on."""
        found = re.search(r"^listening on /ip4/[0-9.]+/tcp/([0-9]+)", daemon.log.read_text(), re.M)
        if not found:
            raise Broken(f"{daemon.host.name} does not say where it listens")
        return int(found[1])

    def strangers(self, host, to, kind, number, seconds):
        """A crowd of connections from this host: see crowd.py."""
        command = ["ip", "netns", "exec", host.name, sys.executable, CROWD, to.host.addr, self.port_of(to), kind, number, seconds]
        crowd = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
        self.others.append(crowd)
        return crowd

    def all_live(self):
        for daemon in self.daemons:
            if daemon.process.poll() is not None and not daemon.is_meant_to_end:
                raise Broken(f"{daemon.host.name} has ended with {daemon.process.returncode}")
            if daemon.said("panicked"):
                raise Broken(f"{daemon.host.name} has panicked")

    def last_words(self):
        texts = []
        for daemon in self.daemons:
            if daemon.log.exists():
                lines = daemon.log.read_text(errors="replace").splitlines()[-12:]
                texts.append(f"--- {daemon.host.name}\n" + "\n".join(lines))
        return "\n".join(texts)
