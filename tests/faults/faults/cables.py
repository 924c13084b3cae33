"""Rows about the network between hosts."""

import time

from .rows import row
from .site import Broken, needs, sh, wait


def all_found(asker, pumps, seconds, when):
    """Waits until each node is found, and says how long that took."""
    return max(wait(seconds, f"{when}: {asker.host.name} finds {pump.host.name}", lambda: asker.finds(pump.host.name)) for pump in pumps)


def always_finds(asker, name, seconds):
    """Looks the node up twice a second; a miss ends the row."""
    misses, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        misses += not asker.finds(name)
        time.sleep(0.5)
    if misses:
        raise Broken(f"{misses} lookups did not find {name}")


def reached(asker, pumps, node, when):
    """Waits until the node has two leases, is found and finds others; the sentence about it."""
    leased = wait(60, f"{when}: {node.host.name} has two leases", lambda: node.leases() >= 2)
    found = all_found(asker, [node], 20, when)
    back = all_found(node, pumps, 20, when)
    return f"two leases after {leased:.1f} s, found after {found:.1f} s, finds others after {back:.1f} s"


def cut(ones, others):
    """Packets between these hosts are lost, both ways; cables stay up."""
    for daemon in ones:
        daemon.host.deaf_to(*(other.host for other in others))
    for daemon in others:
        daemon.host.deaf_to(*(one.host for one in ones))


def heal(*daemons):
    for daemon in daemons:
        daemon.host.heal()


@row(
    "two natives, each with an indexer and two nodes, are cut from each other for 15 s",
    "each side finds its own nodes meanwhile; after it each finds all",
)
def partition_of_natives(site):
    needs("nft")
    hubs, dirs, pumps = site.town(natives=2, indexers=2, nodes=4)
    west, east = [hubs[0], dirs[0], *pumps[:2]], [hubs[1], dirs[1], *pumps[2:]]
    cut(west, east)
    time.sleep(15)
    own = max(all_found(pumps[0], pumps[:2], 10, "cut"), all_found(pumps[2], pumps[2:], 10, "cut"))
    heal(*west, *east)
    healed = max(all_found(pumps[0], pumps, 20, "healed"), all_found(pumps[3], pumps, 20, "healed"))
    leases = max(wait(20, f"{pump.host.name} has two leases again", lambda: pump.leases() >= 2) for pump in pumps)
    return f"own side found within {own:.1f} s, all after {healed:.1f} s, two leases each after {leases:.1f} s more"


@row(
    "both indexers are cut from their native, and not from their nodes, for 15 s",
    "nodes keep their leases and find one another; the native hands the indexers out again after it",
)
def partition_of_indexers(site):
    needs("nft")
    hubs, dirs, pumps = site.town()
    cut(hubs, dirs)
    wait(20, "the native has lost its indexers", lambda: not hubs[0].status()["live_indexers"])
    kept = sum(pump.leases() >= 1 for pump in pumps)
    if kept < len(pumps):
        raise Broken(f"only {kept} of {len(pumps)} nodes kept a lease")
    all_found(pumps[0], pumps, 5, "cut")
    heal(*hubs, *dirs)
    back = wait(20, "the native has its indexers again", lambda: len(hubs[0].status()["live_indexers"]) == 2)
    return f"{kept} of {len(pumps)} nodes kept leases and found one another; back {back:.1f} s after healing"


@row(
    "a node is cut from all others until its leases have run out, then healed",
    "the others say that it is lost; afterwards it is found again, without a restart",
)
def partition_of_a_node(site):
    needs("nft")
    hubs, dirs, pumps = site.town()
    cut([pumps[0]], [*hubs, *dirs])
    lost = wait(20, "the node is lost", lambda: all("pump-1" not in it.records() for it in (*hubs, *dirs)))
    if not any(it.said(r"pump-1 .* is lost") for it in (*hubs, *dirs)):
        raise Broken("no log says that pump-1 is lost")
    heal(pumps[0], *hubs, *dirs)
    back = all_found(pumps[1], [pumps[0]], 20, "healed")
    return f"lost after {lost:.1f} s, found again {back:.1f} s after healing"


@row(
    "packets from an indexer to one of its nodes are lost, not those of the other direction, for 12 s",
    "the node is found all the time, and has two leases again after it",
)
def one_way_cut(site):
    needs("nft")
    hubs, dirs, pumps = site.town(indexers=3)
    holder = next(it for it in dirs if "pump-1" in it.records())
    pumps[0].host.deaf_to(holder.host)
    always_finds(pumps[1], "pump-1", 12)
    pumps[0].host.heal()
    back = wait(20, "two leases", lambda: pumps[0].leases() >= 2)
    return f"every lookup found it; two leases {back:.1f} s after it ended"


@row(
    "every fifth packet to each host is lost, for 30 s, at default intervals",
    "no lease is lost, and each node is found",
)
def loss_of_20_percent(site):
    needs("nft")
    hubs, dirs, pumps = site.town(fast=False)
    for daemon in (*hubs, *dirs, *pumps):
        daemon.host.nft("numgen random mod 100 < 20 drop")
    found = tries = 0
    until = time.monotonic() + 30
    while time.monotonic() < until:
        tries += 1
        found += pumps[0].finds(f"pump-{1 + tries % 3}")
        time.sleep(1)
    heal(*hubs, *dirs, *pumps)
    if found < tries or any(pump.leases() < 2 for pump in pumps):
        raise Broken(f"{found} of {tries} lookups found it; leases {[pump.leases() for pump in pumps]}")
    return f"{found} of {tries} lookups found it, all leases kept"


def router(site, name):
    """A host "gate" with a second network, 10.89.0.0/24, and a host on that."""
    gate = site.host("gate", 250)
    inner = site.host(name)
    inner.ip("addr flush dev eth0")
    sh("ip", "link", "set", inner.port, "nomaster")
    sh("ip", "link", "set", inner.port, "netns", "gate")
    gate.ip(f"link set {inner.port} name eth1")
    gate.ip("link set eth1 up")
    gate.ip("addr add 10.89.0.1/24 dev eth1")
    inner.addr = f"10.89.0.{inner.number}"
    inner.ip(f"addr add {inner.addr}/24 dev eth0")
    inner.ip("route add default via 10.89.0.1")
    gate.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    return gate, inner


@row("a node is behind a NAT and its indexers are not", "it has its leases, and is found by others, who learn the address that it has")
def nat_between_node_and_indexer(site):
    needs("nft", "sysctl")
    hubs, dirs, pumps = site.town(nodes=1)
    gate, _ = router(site, "pump-5")
    gate.run("nft", "add table ip nat")
    gate.run("nft", "add chain ip nat post { type nat hook postrouting priority 100 ; }")
    gate.run("nft", "add rule ip nat post oifname eth0 masquerade")
    behind = site.daemon("pump-5", natives=hubs).start()
    return reached(pumps[0], pumps, behind, "behind a NAT")


@row(
    "the way to a node carries packets of 1,280 bytes at most, and nobody is told (ICMP is dropped)",
    "the node has its leases and is found",
)
def black_hole_of_1280_bytes(site):
    needs("nft", "sysctl")
    hubs, dirs, pumps = site.town(nodes=1)
    gate, inner = router(site, "pump-5")
    outer = [daemon.host for daemon in (*hubs, *dirs, *pumps)]
    for host in outer:
        host.ip("route add 10.89.0.0/24 via 10.88.0.250")
    for host in (gate, inner, *outer):
        host.nft("meta l4proto icmp drop")
    gate.run("nft", "add table inet hole")
    gate.run("nft", "add chain inet hole way { type filter hook forward priority 0 ; }")
    gate.run("nft", "add rule inet hole way meta length > 1280 drop")
    behind = site.daemon("pump-5", "--tag", "text=" + "x" * 60, natives=hubs).start()
    return reached(pumps[0], pumps, behind, "through the hole")


@row("an indexer gets another address while it runs", "its nodes keep the lease or have another, and each is found all the time")
def indexer_that_moves(site):
    hubs, dirs, pumps = site.town()
    dirs[0].host.ip(f"addr del {dirs[0].host.addr}/24 dev eth0")
    dirs[0].host.ip("addr add 10.88.0.111/24 dev eth0")
    always_finds(pumps[1], "pump-1", 10)
    back = wait(30, "two leases each", lambda: all(pump.leases() >= 2 for pump in pumps))
    return f"every lookup found it; two leases each {back:.1f} s later"


@row("a native that is known by a name gets another address, and the name with it", "indexers and nodes come back by its name alone")
def native_behind_a_name_that_moves(site):
    hub = site.daemon("hub-a").start()
    names = site.place / "hosts"
    names.write_text(f"{hub.host.addr} hub.example\n")
    sh("mount", "--bind", names, "/etc/hosts")
    try:
        option = ("--native", f"/dns4/hub.example/tcp/4820/p2p/{hub.id()}")
        others = [site.daemon("dir-a", *option).start(), site.daemon("pump-1", *option).start()]
        wait(30, "the node has a lease with the indexer", lambda: "pump-1" in others[0].records())
        hub.host.ip(f"addr del {hub.host.addr}/24 dev eth0")
        hub.host.ip("addr add 10.88.0.99/24 dev eth0")
        names.write_text("10.88.0.99 hub.example\n")
        moved = wait(60, "connections to the new address", lambda: "10.88.0.99:4820" in hub.host.run("ss", "-Htn", "state", "established"))
        wait(20, "the native has its indexer", lambda: len(hub.status()["live_indexers"]) == 1)
    finally:
        sh("umount", "/etc/hosts")
    return f"at the new address after {moved:.1f} s"


@row("no DNS server answers; one native is known by its address, another by a name", "the first is used at once, and what is wrong with the other is told")
def dead_dns(site):
    resolver = site.place / "resolv.conf"
    resolver.write_text("nameserver 10.88.0.200\n")
    sh("mount", "--bind", resolver, "/etc/resolv.conf")
    try:
        hub = site.daemon("hub-a").start()
        other = site.daemon("hub-b").start()
        named = f"/dns4/hub-b.example/tcp/4820/p2p/{other.id()}"
        pump = site.daemon("pump-1", "--native", hub.addr(), "--native", named).start()
        leased = wait(10, "a lease", lambda: pump.leases() >= 1)
        told = wait(60, "a line about the name", lambda: pump.said("WARN.*hub-b.example"))
    finally:
        sh("umount", "/etc/resolv.conf")
    line = next(line for line in pump.log.read_text().splitlines() if "hub-b.example" in line and "WARN" in line)
    return f"a lease after {leased:.1f} s; told after {told:.1f} s: {line.split('WARN')[1].strip()}"


@row("the interface of an indexer is taken down for 10 s", "nodes go on with the other one; it has its nodes again after it")
def interface_down_and_up(site):
    hubs, dirs, pumps = site.town()
    dirs[0].host.ip("link set eth0 down")
    time.sleep(10)
    all_found(pumps[0], pumps, 5, "down")
    dirs[0].host.ip("link set eth0 up")
    back = wait(30, "the indexer has its nodes again", lambda: len(dirs[0].records()) >= len(pumps))
    return f"found meanwhile; back {back:.1f} s after it"
