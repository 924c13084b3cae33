"""Rows about the data directory: no room, read-only, damaged files."""

import os
import random
import signal
import time

from .rows import row
from .site import Broken, sh, wait


@row("the file system of the data directory is full while a node runs, and it is restarted", "it keeps its identity and leases; `doctor` says what is wrong")
def full_disk(site):
    hubs, _, pumps = site.town(nodes=1)
    pump = pumps[0]
    pump.end()
    peer = pump.id()
    kept = [(path.name, path.read_bytes()) for path in pump.dir.iterdir() if path.is_file() and not path.is_symlink()]
    sh("mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", pump.dir)
    try:
        for name, content in kept:
            (pump.dir / name).write_bytes(content)
            (pump.dir / name).chmod(0o600)
        try:
            (pump.dir / "filler").write_bytes(bytes(1 << 20))
        except OSError:
            pass
        pump.start()
        leased = wait(30, "leases", lambda: pump.leases() >= 1)
        doctor = pump.ask("doctor")
        if pump.id() != peer or "full" not in doctor.stdout:
            raise Broken(f"the identity is {pump.id()}, doctor says: {doctor.stdout}")
        pump.end()
        (pump.dir / "filler").unlink()
        pump.start()
        wait(30, "leases", lambda: pump.leases() >= 1)
        pump.end()
    finally:
        sh("umount", "--lazy", pump.dir)
    return f"a lease after {leased:.1f} s with the same identity; doctor names the full file system"


@row("the data directory becomes read-only while a node runs", "the node lives and says so; afterwards it saves again")
def read_only_disk(site):
    hubs, dirs, pumps = site.town(nodes=1)
    pump = pumps[0]
    sh("mount", "--bind", pump.dir, pump.dir)
    sh("mount", "-o", "remount,bind,ro", pump.dir)
    try:
        dirs[0].end()
        told = wait(90, "the node says that it cannot save", lambda: pump.said("Read-only|read-only"))
        if pump.leases() < 1:
            raise Broken("it has no lease")
    finally:
        sh("mount", "-o", "remount,bind,rw", pump.dir)
        sh("umount", "--lazy", pump.dir)
    return f"told after {told:.0f} s, with its leases"


def damages(content):
    """Each length, zeros of each third length, and random bytes."""
    for length in range(len(content)):
        yield f"cut at {length}", content[:length]
    for length in range(1, len(content), 3):
        yield f"{length} zeros", bytes(length) + content[length:]
    dice = random.Random(7)
    for turn in range(60):
        damaged = bytearray(content)
        damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        yield f"one bit, {turn}", bytes(damaged)


@row("the state file of an indexer is cut at each length, zeroed and changed bit by bit, and it is started each time", "it starts each time with its identity, within 5 s")
def damaged_state(site):
    hub = site.daemon("hub-a").start()
    dir_a = site.daemon("dir-a", natives=[hub]).start()
    wait(20, "a lease", lambda: dir_a.leases() >= 1)
    dir_a.end()
    peer, state = dir_a.id(), dir_a.dir / "state"
    content, tries, slowest = state.read_bytes(), 0, 0.0
    for what, damaged in damages(content):
        state.write_bytes(damaged)
        begin = time.monotonic()
        dir_a.start()
        slowest, tries = max(slowest, time.monotonic() - begin), tries + 1
        if dir_a.said(peer) == 0 or dir_a.id() != peer:
            raise Broken(f"{what}: another identity")
        dir_a.end(signal.SIGKILL)
    if slowest > 5:
        raise Broken(f"a start took {slowest:.1f} s")
    return f"{tries} starts, the slowest {slowest:.2f} s"


@row("the identity of an indexer is cut at each length, and it is started each time", "it says what is wrong and ends with 1: it never starts as somebody else")
def damaged_identity(site):
    hub = site.daemon("hub-a").start()
    dir_a = site.daemon("dir-a", natives=[hub]).start()
    dir_a.end()
    identity, tries = dir_a.dir / "identity", 0
    content = identity.read_bytes()
    for length in range(len(content)):
        identity.write_bytes(content[:length])
        before = os.path.getsize(dir_a.log)
        dir_a.start(stdout=None)
        dir_a.is_meant_to_end = True
        if dir_a.process.wait(20) != 1:
            raise Broken(f"cut at {length}: it ended with {dir_a.process.returncode}")
        if "identity" not in dir_a.log.read_text()[before:]:
            raise Broken(f"cut at {length}: no word of the identity")
        tries += 1
    return f"{tries} starts, each refused with a sentence"
