"""Scenes of many real processes: how long nodes are without a lease of an indexer.

Every node is a process `oc-discovery node` with default intervals, and says in its log when it holds a lease. All have the one
address 127.0.0.1, as nodes behind one NAT do: an indexer's bound on handshakes with one source applies to all of them together.
"""

import contextlib
import re
import time

from .proc import Failed, until

HOLDS = re.compile(r"holds a lease of \d+ s with (native|indexer) (\S+)")
# A start every so often: starting all at once would measure this machine's fork.
PAUSE_S = 0.03


def failover(program, nodes):
    """All nodes hold their one lease with one indexer, a second one is known; the first is killed (SIGKILL)."""
    with contextlib.ExitStack() as running:
        start = starter(running, program)
        native = start("native", log="info")
        first = start("indexer", "--native", native.peer)
        heard(native, first)
        devices = [start_node(start, native, "--min-indexers", "1") for _ in range(nodes)]
        holding(devices, "indexer", 0, 120)
        second = start("indexer", "--native", native.peer)
        heard(native, second)
        time.sleep(1)
        killed = time.monotonic()
        first.kill()
        again = holding(devices, "indexer", killed, 180)
        anywhere = holding(devices, "native|indexer", killed, 1)
        return {**spread("failover", anywhere, killed), **spread("failover_indexer", again, killed)}


def rehoming(program, nodes):
    """A native has taken all nodes in; two indexers appear. Counted from when the second one serves."""
    with contextlib.ExitStack() as running:
        start = starter(running, program)
        native = start("native", log="info")
        devices = [start_node(start, native) for _ in range(nodes)]
        holding(devices, "native", 0, 120)
        for _ in range(2):
            indexer = start("indexer", "--native", native.peer)
        appeared = indexer.begun + indexer.ready_ms / 1000
        return spread("rehoming", holding(devices, "indexer", appeared, 240), appeared)


def starter(running, program):
    return lambda *words, **options: running.enter_context(program.start(*words, **options))


def start_node(start, native, *options):
    time.sleep(PAUSE_S)
    return start("node", "--native", native.peer, *options, log="info")


def heard(native, indexer):
    """Waits until the native has heard a beat of the indexer."""
    peer = indexer.peer[-8:]
    until(30, lambda: any(f"indexer …{peer} at" in line for _, line in list(native.lines)), "a native to hear an indexer")


def holding(devices, role, since, limit_s):
    """When each device first held a lease of such a server (`native`, `indexer`, `native|indexer`) after that moment."""
    def first(device):
        for at, line in list(device.lines):
            found = HOLDS.search(line)
            if at > since and found and found[1] in role.split("|"):
                return at
        return None

    times = {}

    def all_hold():
        for number, device in enumerate(devices):
            if number not in times and (at := first(device)) is not None:
                times[number] = at
        return len(times) == len(devices)

    try:
        until(limit_s, all_hold, f"{len(devices)} nodes to hold a lease with: {role}")
    except Failed as error:
        taken = sorted(at - since for at in times.values())
        half = f", half of these after {taken[len(taken) // 2]:.1f} s" if taken and since else ""
        raise Failed(f"{error}: {len(times)} did{half}") from error
    return list(times.values())


def spread(name, times, since):
    taken = sorted(at - since for at in times)
    return {
        f"{name}_median_s": taken[len(taken) // 2],
        f"{name}_p99_s": taken[min(len(taken) - 1, len(taken) * 99 // 100)],
        f"{name}_nodes": len(taken),
    }
