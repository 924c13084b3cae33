"""Rows about strangers: many, slow, or silent ones, while others hold leases."""

import json
import subprocess
import threading
import time

from .rows import ROOT, row
from .site import Broken, Missing, wait

LOAD = ROOT / "target/bench/release/load"
LEASES, BEAT_MS, SECONDS = 100, 1000, 30


class Load:
    """The load client of tests/bench, on a host: it is told what to do by lines."""

    def __init__(self, site, host, server, kind):
        if not LOAD.is_file():
            built = "cargo build --release --manifest-path tests/bench/Cargo.toml --target-dir target/bench"
            raise Missing(f"there is no {LOAD.relative_to(ROOT)}: {built}")
        command = ["ip", "netns", "exec", host.name, LOAD, f"{server.host.addr}:{site.port_of(server)}", kind, "--beat-ms", BEAT_MS]
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        site.others.append(self.process)

    def begin(self, words):
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()

    def end(self):
        return json.loads(self.process.stdout.readline())

    def do(self, words):
        self.begin(words)
        return self.end()


class Beside:
    """100 leases that beat each second, with an indexer that strangers trouble meanwhile."""

    def __init__(self, site):
        hub = site.daemon("hub-a").start()
        self.server = site.daemon("dir-a", natives=[hub]).start()
        wait(20, "the indexer is alive", lambda: hub.status()["live_indexers"])
        self.leases = Load(site, site.host("pump-9"), self.server, "record")
        joined = self.leases.do(f"join {LEASES} 50")
        if joined["joined"] < LEASES:
            raise Broken(f"not all joined: {joined}")
        self.before = self.most = self.server.memory_kib()
        self.leases.begin(f"beat {SECONDS}")

    def until(self, is_over):
        while not is_over():
            self.most = max(self.most, self.server.memory_kib())
            time.sleep(0.2)

    def judge(self, strangers):
        """What is wrong ends the row."""
        beats, held = self.leases.end(), len(self.server.records())
        due = LEASES * SECONDS * 1000 // BEAT_MS
        sentence = (
            f"{strangers}; {beats['answered']:,} of {due:,} beats answered, 99 of 100 within {beats['p99_ms']:.0f} ms; {held} leases at the end; "
            f"memory {self.before:,} KiB before, at most {self.most:,} meanwhile, {self.server.memory_kib():,} at the end"
        )
        if beats["p99_ms"] >= BEAT_MS or beats["answered"] < 0.99 * due or beats["held"] < LEASES or held < LEASES:
            raise Broken(sentence)
        return sentence


def crowd_beside(site, kind, number):
    beside = Beside(site)
    crowd = site.strangers(site.host("stranger"), beside.server, kind, number, SECONDS)
    beside.until(lambda: crowd.poll() is not None)
    seen = json.loads(crowd.stdout.read())
    return beside.judge(f"{seen['opened']:,} opened, {seen['refused']:,} refused, {seen['closed']:,} closed by the indexer")


MEANWHILE = "while 100 leases beat each second"
HOLDS = "99 of 100 beats are answered before the next, no lease is lost"


@row(f"500 connections a second for {SECONDS} s, each closed at once, {MEANWHILE}", HOLDS)
def flood_of_connections(site):
    return crowd_beside(site, "knock", 500)


@row(f"500 half handshakes a second for {SECONDS} s {MEANWHILE}", HOLDS)
def flood_of_half_handshakes(site):
    return crowd_beside(site, "noise", 500)


@row(f"whole handshakes with new identities for {SECONDS} s, 500 a second at most, {MEANWHILE}", HOLDS)
def flood_of_identities(site):
    beside = Beside(site)
    strangers = Load(site, site.host("stranger"), beside.server, "connection")
    strangers.begin(f"churn {500 * SECONDS} 500")
    told = threading.Thread(target=lambda: seen.update(strangers.end()))
    seen = {}
    told.start()
    beside.until(lambda: not told.is_alive())
    return beside.judge(f"{seen['left']:,} in {seen['seconds']:.0f} s")


@row(f"2,000 connections that say nothing for {SECONDS} s {MEANWHILE}", HOLDS)
def silent_connections(site):
    return crowd_beside(site, "hold", 2000)


@row(f"200 connections that send a byte a second of multistream, Noise, HTTP and DNS {MEANWHILE}", HOLDS)
def slow_connections(site):
    return crowd_beside(site, "drip", 200)
