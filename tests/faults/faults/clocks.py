"""Rows about the clock of a host: the monotonic one is right, and the wall clock is not."""

import glob
import time

from .cables import all_found, reached
from .rows import row
from .site import Missing, wait


def library():
    found = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    if not found:
        raise Missing("there is no libfaketime; .ci/tools installs it")
    return found[0]


def clock(shift):
    """The environment of a process whose wall clock is off by this."""
    return {"LD_PRELOAD": library(), "FAKETIME": shift, "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_NO_CACHE": "1"}


def with_clock(site, shift):
    """A town in which one more node has a clock that is off by this."""
    hubs, _, pumps = site.town()
    off = site.daemon("pump-7", natives=hubs, env=clock(shift)).start()
    return reached(pumps[0], pumps, off, "with another clock")


@row("the clock of a node is a year ahead", "it has leases, is found and finds others")
def clock_a_year_ahead(site):
    return with_clock(site, "+1y")


@row("the clock of a node is an hour back", "it has leases, is found and finds others")
def clock_an_hour_back(site):
    return with_clock(site, "-1h")


@row("the clock of a node says 1970", "it has leases, is found and finds others")
def clock_of_1970(site):
    return with_clock(site, f"-{int(time.time()) - 5}s")


@row("the clock of an indexer is a year ahead, and the other indexers end", "it is handed out, holds the leases, and all are found through it")
def indexer_a_year_ahead(site):
    hubs, dirs, pumps = site.town()
    off = site.daemon("dir-c", natives=hubs, env=clock("+1y")).start()
    wait(30, "the indexer is alive", lambda: len(hubs[0].status()["live_indexers"]) == 3)
    for other in dirs:
        other.end()
    moved = wait(30, "it holds the leases of all", lambda: len(off.records()) >= len(pumps))
    found = all_found(pumps[0], pumps, 10, "with it alone")
    return f"all nodes after {moved:.1f} s, found after {found:.1f} s"
