"""Rows about processes: stopped, killed, without descriptors or memory, with streams that nobody reads."""

import fcntl
import os
import signal
import time

from .cables import all_found, always_finds
from .rows import row
from .site import Broken, wait


def stopped(site, which, asker):
    """Stops one process for 12 s, twice its lease, and lets it go on."""
    hubs, dirs, pumps = site.town(natives=2)
    daemon = {"hub": hubs, "dir": dirs, "pump": pumps}[which][0]
    daemon.send(signal.SIGSTOP)
    always_finds(pumps[asker], "pump-3", 12)
    daemon.send(signal.SIGCONT)
    back = wait(30, "two leases each", lambda: all(pump.leases() >= 2 for pump in pumps))
    found = all_found(pumps[2], pumps, 10, "afterwards")
    return f"others were found all the time; two leases each {back:.1f} s after it, all found {found:.1f} s later"


@row("SIGSTOP of a native for 12 s (leases of 6 s)", "nobody misses it; it takes up where it was")
def stopped_native(site):
    return stopped(site, "hub", 0)


@row("SIGSTOP of an indexer for 12 s", "its nodes are found through the other one")
def stopped_indexer(site):
    return stopped(site, "dir", 0)


@row("SIGSTOP of a node for 12 s", "it is lost, and comes back by itself")
def stopped_node(site):
    return stopped(site, "pump", 1)


@row(
    "kill -9 of an indexer and a node, 30 times, 0.1 to 2 s after their start: while state is written",
    "each time they start with the same identity; state is never lost; at the end all is as before",
)
def killed_while_state_is_written(site):
    hubs, dirs, pumps = site.town()
    victims = {daemon: daemon.id() for daemon in (dirs[0], pumps[0])}
    for turn in range(30):
        for daemon in victims:
            daemon.end(signal.SIGKILL)
            daemon.start()
        time.sleep(0.1 + turn % 5 * 0.45)
    changed = [daemon.host.name for daemon, peer in victims.items() if daemon.id() != peer]
    damaged = sum(daemon.said("state file") for daemon in victims)
    if changed or damaged:
        raise Broken(f"another identity: {changed}; {damaged} lines about a damaged state file")
    # A node that failed three times at an indexer tries it again after 40 s.
    back = wait(60, "two leases each", lambda: all(pump.leases() >= 2 for pump in pumps))
    return f"60 kills: same identities, no damaged file; two leases each {back:.1f} s after the last"


@row("a native may have 40 descriptors, and 60 connections come", "it says so in a line or two, serves its indexers, and takes in again when they have gone")
def descriptors_exhausted(site):
    hub = site.daemon("hub-a", prefix=["prlimit", "--nofile=40:40"]).start()
    dir_a = site.daemon("dir-a", natives=[hub]).start()
    wait(20, "the native has its indexer", lambda: len(hub.status()["live_indexers"]) == 1)
    crowd = site.strangers(dir_a.host, hub, "hold", 60, 15)
    time.sleep(12)
    lines = sum("descriptor" in line or "open files" in line for line in hub.log.read_text().splitlines())
    kept = dir_a.leases() >= 1
    crowd.wait(20)
    pump = site.daemon("pump-1", natives=[hub]).start()
    back = wait(30, "a node that comes later has a lease", lambda: pump.leases() >= 1)
    if lines > 10 or not kept or dir_a.said("lost"):
        raise Broken(f"{lines} lines about descriptors; the indexer kept its lease: {kept}")
    return f"{lines} lines about descriptors, the indexer kept its lease; a later node had one after {back:.1f} s"


@row("an indexer may use 64 MB of address space for data (RLIMIT_DATA), with 500 connections", "it lives, and its node keeps its lease")
def memory_limit(site):
    hub = site.daemon("hub-a").start()
    dir_a = site.daemon("dir-a", natives=[hub], prefix=["prlimit", f"--data={64 << 20}"]).start()
    pump = site.daemon("pump-1", natives=[hub]).start()
    wait(20, "the node has a lease", lambda: "pump-1" in dir_a.records())
    crowd = site.strangers(pump.host, dir_a, "hold", 500, 10)
    crowd.wait(30)
    wait(20, "the node is there", lambda: "pump-1" in dir_a.records())
    return f"its memory was {dir_a.memory_kib():,} KiB at the end"


def with_streams(site, **streams):
    """A native whose stdout and stderr are these, an indexer and a node; what is wrong ends the row."""
    hub = site.daemon("hub-a", "--log", "trace").start(**streams)
    wait(20, "the native answers", lambda: hub.status())
    dir_a = site.daemon("dir-a", natives=[hub]).start()
    pump = site.daemon("pump-1", natives=[hub]).start()
    wait(30, "the node has a lease with the indexer", lambda: "pump-1" in dir_a.records())
    runs = hub.status()["loops"]["offload"]["runs"]
    wait(20, "the loop runs", lambda: hub.status()["loops"]["offload"]["runs"] >= runs + 3)
    return hub


@row("stdout and stderr of a native are closed", "it does its work")
def closed_streams(site):
    with_streams(site, stdout=None, stderr=None, preexec_fn=lambda: (os.close(1), os.close(2)))
    return "it did"


@row("stdout and stderr of a native are a pipe that nobody reads, at level trace", "the loop runs; lines that were dropped are counted")
def pipe_that_nobody_reads(site):
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    hub = with_streams(site, stdout=writer, stderr=writer)
    os.close(writer)
    lost = wait(60, "lines are lost, and counted", lambda: hub.status()["counters"].get("log_lines_lost", 0) > 0)
    os.close(reader)
    time.sleep(2)
    if hub.process.poll() is not None:
        raise Broken("it ended when its reader went")
    return f"the loop ran; lost lines were counted after {lost:.0f} s, and it lives when its reader has gone"


@row("stdout and stderr of a native are a full disk", "it does its work")
def full_log(site):
    with open("/dev/full", "wb") as full:
        with_streams(site, stdout=full, stderr=full)
    return "it did"
