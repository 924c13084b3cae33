"""What the peers talk to: a native and an indexer of oc-discovery on loopback."""

import json
import subprocess
import time

from bench import subjects
from bench.proc import Failed, await_end, output

DEADLINE_S = 10
# The time between two looks at the state of another process.
LOOK_S = 0.02


def wait_for(expected, look, holds=bool):
    """What `look` returns, as soon as it `holds`; `Failed` with what was seen last."""
    end = time.monotonic() + DEADLINE_S
    while True:
        seen = look()
        if holds(seen):
            return seen
        if time.monotonic() > end:
            raise Failed(f"saw {seen!r}, expected within {DEADLINE_S} s: {expected}")
        time.sleep(LOOK_S)


class Link:
    """A network interface with multicast in a network namespace of its own. Everything on it has the one address."""

    ip = "192.168.77.1"

    def __enter__(self):
        cable = f"ip link add lan type veth peer name wall && ip addr add {self.ip}/24 dev lan && ip link set wall up && ip link set lan up && ip route add default dev lan"
        setup = f"ip link set lo up && {cable} && echo ready && exec cat"
        command = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", setup]
        self.keeper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if (said := self.keeper.stdout.readline().strip()) != "ready":
            self.__exit__()
            raise Failed(f"no network namespace: {said}")
        self.inside = ["nsenter", "--preserve-credentials", "--user", "--net", "--target", str(self.keeper.pid)]
        return self

    def __exit__(self, *_):
        self.keeper.stdin.close()
        await_end(self.keeper)
        self.keeper.stdout.close()


class Daemon:
    """A process of oc-discovery. It listens on two ports, so that what is told of its addresses is more than what was dialled."""

    def __init__(self, program, role, *options, link=None):
        self.binary = program.binary
        ip, inside = (link.ip, link.inside) if link else ("127.0.0.1", ())
        self.server = program.start(role, "--listen", f"/ip4/{ip}/tcp/0", *options, log="info", inside=inside)
        self.data_dir = self.server.data_dir
        self.addr = self.server.peer
        self.id = self.addr.split("/p2p/")[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.stop()

    def status(self):
        self.must_live()
        command = [self.binary, "status", "--json", "--data-dir", self.data_dir]
        return json.loads(output(*command, timeout=DEADLINE_S))

    def table(self, name):
        """How many entries a table has."""
        return next(table["used"] for table in self.status()["tables"] if table["name"] == name)

    def must_live(self):
        if self.server.process.poll() is not None:
            said = " | ".join(self.log()[-3:])
            raise Failed(f"the process has ended with {self.server.process.returncode}: {said}")

    def log(self):
        return [line for _, line in list(self.server.lines)]

    def end(self):
        """Ends it in order; its exit code."""
        self.server.process.terminate()
        try:
            return self.server.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"SIGTERM: has not ended within {DEADLINE_S} s") from error


class World:
    """A native with two addresses and an indexer that holds a lease with it; both are in each other's part of the DHT."""

    def __init__(self):
        self.program = subjects.Program()
        self.program.use(subjects.build(subjects.REPOSITORY, subjects.TARGET, "--locked") / "oc-discovery")
        self.native = self.indexer = None

    def __enter__(self):
        try:
            self.native = Daemon(self.program, "native")
            self.indexer = Daemon(self.program, "indexer", "--native", self.native.addr)
            wait_for("the indexer is live", lambda: self.native.status()["live_indexers"])
            wait_for("its record is in the DHT", lambda: self.native.table("dht_records"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for daemon in (self.indexer, self.native):
            if daemon:
                daemon.server.stop()
        self.program.remove()
