"""The measurements of one server, and what each row means."""

import contextlib
import json
import resource
import socket
import statistics
import subprocess
import threading
import time

from .proc import Client, Failed, output, until
from .subjects import echo

SERVER_CORE = 0
CLIENT_CORE = 1
# New peers a second: less than an indexer admits in the long run.
RATE = 150
# So many joins a second that only the server limits them.
AT_ONCE = 100_000
PUSHED = 16_384
INDEXERS = 4
# Of the program, beside those of connections: handshakes and clients of its socket among them.
FEW_FILES = 400


def starts(subject, times):
    """Milliseconds from the start of the process to the line that says it serves; a new identity each time."""
    taken = []
    for _ in range(times):
        with subject.start() as server:
            taken.append(server.ready_ms)
    return {"start_ms": statistics.median(taken)}


def idle(subject, seconds):
    with subject.start() as server:
        time.sleep(5)
        before = server.cpu_s()
        time.sleep(seconds)
        cpu_ms = (server.cpu_s() - before) * 1000 * 60 / seconds
        memory = server.memory_kib()
        return {
            "idle_rss_kib": memory["rss"],
            "idle_pss_kib": memory["pss"],
            "idle_anonymous_kib": memory["anonymous"],
            "idle_cpu_ms": cpu_ms,
            "threads": server.threads(),
        }


def held(subject, tools, steps, rest_s, kind=None, word="lease"):
    """One server: memory at each number of leases, CPU of the joins, and memory a while after all have left.

    The first one is not counted: the system reads the text for it, which is no part of a lease.
    """
    rows = {}
    with subject.serve() as server, Client(tools / "load", server.address, kind or subject.kind) as client:
        time.sleep(1)
        fresh = server.memory_kib()
        client.join(1, RATE)
        client.say(f"push {PUSHED}")
        time.sleep(1)
        first = server.memory_kib()
        count = 1
        for step in steps:
            cpu = server.cpu_s()
            answer = client.join(step - count, RATE)
            rows[f"join_cpu_ms_{step}"] = (server.cpu_s() - cpu) * 1000 / (step - count)
            rows[f"join_median_ms_{step}"] = answer["median_ms"]
            count = step
            client.say(f"push {PUSHED}")
            time.sleep(1)
            full = server.memory_kib()
            for name in ("rss", "pss", "anonymous"):
                rows[f"{word}_{name}_kib_{step}"] = (full[name] - first[name]) / (step - 1)
            rows[f"whole_rss_kib_{step}"] = full["rss"]
        if rest_s:
            client.say("leave")
            time.sleep(rest_s)
            rows["left_rss_kib"] = server.memory_kib()["rss"]
            rows["left_empty_rss_kib"] = fresh["rss"]
    return rows


def growth(program, tools, steps):
    """One server: what a lease takes, and a beat, at each number of leases. The last step is as high as there may be files.

    The first one is not counted: the system reads the text for it, which is no part of a lease.
    """
    rows = {}
    most = room_for_leases()
    with (
        program.serve(core=SERVER_CORE) as server,
        Client(tools / "load", server.address, program.kind, core=CLIENT_CORE) as client,
    ):
        time.sleep(1)
        count, first, before = 0, None, None
        for step in (1, *steps):
            held = min(step, most)
            if held <= count:
                break
            client.join(held - count, RATE)
            client.say(f"push {PUSHED}")
            time.sleep(1)
            rss = server.memory_kib()["rss"]
            first = first or rss
            if count:
                rows[f"growth_rss_kib_{step}"] = (rss - first) / (held - 1)
                rows[f"growth_more_kib_{step}"] = (rss - before) / (held - count)
                client.say("flood 1")
                rows[f"growth_beat_us_{step}"] = 1e6 / flood(server, client, 5)["per_cpu_s"]
                rows[f"growth_held_{step}"] = held
            count, before = held, rss
    return rows


def room_for_leases():
    """Leases for which a process may have open files. The program keeps one connection in eight for those that hold one."""
    return (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - FEW_FILES) * 7 // 8


def churn(program, tools, numbers, rest_s):
    """One server: its memory and its descriptors a while after so many peers have joined and left, each number on top of the last."""
    rows = {}
    with program.serve() as server, Client(tools / "load", server.address, program.kind) as client:
        done = 0
        for number in numbers:
            client.churn(number - done, RATE)
            done = number
            time.sleep(rest_s)
            rows[f"churn_rss_kib_{number}"] = server.memory_kib()["rss"]
            rows[f"churn_descriptors_{number}"] = server.descriptors()
    return rows


def joins(subject, tools, kind, peers):
    """Server CPU of a join, from the handshake to the first answer."""
    with subject.serve() as server, Client(tools / "load", server.address, kind) as client:
        time.sleep(1)
        cpu = server.cpu_s()
        client.join(peers, RATE)
        return (server.cpu_s() - cpu) * 1000 / peers


def storm(program, tools, holders, peers):
    """Peers that come all at once, with their records, while others beat each second: how fast they join, and how late beats are answered."""
    with (
        program.serve(core=SERVER_CORE) as server,
        Client(tools / "load", server.address, program.kind, "--beat-ms", 1000, core=CLIENT_CORE) as held,
        Client(tools / "load", server.address, program.kind, "--first", holders, core=CLIENT_CORE) as coming,
    ):
        held.join(holders, RATE)
        beats = {}
        beating = threading.Thread(target=lambda: beats.update(held.say("beat 10")))
        beating.start()
        cpu = server.cpu_s()
        joined = coming.join(peers, AT_ONCE)
        cpu = server.cpu_s() - cpu
        beating.join()
    return {
        "storm_peers": peers,
        "storm_joins_per_s": peers / joined["seconds"],
        "storm_cpu_ms": cpu * 1000 / peers,
        "storm_beats": beats["answered"],
        "storm_late": beats["late"],
        "storm_longest_ms": beats["longest_ms"],
    }


def beats(program, tools, leases, seconds):
    """Beats of leases that beat again as soon as they are answered, and a plain TCP server with the same bytes.

    The server has one core for itself and the client the other. What the server can do is its beats a second of its own
    CPU time: the client may be the slower of the two.
    """
    with (
        program.serve(core=SERVER_CORE) as server,
        Client(tools / "load", server.address, "lease", core=CLIENT_CORE) as client,
    ):
        client.join(leases, RATE)
        client.say("flood 1")
        ours = flood(server, client, seconds)
    question, answer = round(ours["sent_bytes"]), round(ours["received_bytes"])
    with (
        echo(tools, question, answer, core=SERVER_CORE) as server,
        Client(
            tools / "load", server.address, "echo", "--question", question, "--answer", answer, core=CLIENT_CORE
        ) as client,
    ):
        client.join(leases, 1000)
        client.say("flood 1")
        plain = flood(server, client, seconds)
    return {
        "beats_per_s": ours["rate"],
        "beats_per_cpu_s": ours["per_cpu_s"],
        "beat_bytes": question,
        "ack_bytes": answer,
        "echo_per_s": plain["rate"],
        "echo_per_cpu_s": plain["per_cpu_s"],
        "beats_share": ours["rate"] / plain["rate"],
        "beats_share_cpu": ours["per_cpu_s"] / plain["per_cpu_s"],
    }


def listing(program, tools, nodes, times):
    """`nodes`, asked of a native with indexers that hold the leases of so many nodes: until the first row and the end."""
    with network(program, tools, nodes) as (native, _):
        taken = [listed(program, native.data_dir, nodes) for _ in range(times)]
    first, last = zip(*taken)
    return {"list_nodes": nodes, "list_first_ms": statistics.median(first), "list_ms": statistics.median(last), "list_longest_ms": max(last)}


@contextlib.contextmanager
def network(program, tools, nodes):
    """A native and four indexers, which hold the leases of so many nodes; and the names that each of them has."""
    with contextlib.ExitStack() as running:
        native = running.enter_context(program.start())
        names = {}
        for number in range(INDEXERS):
            indexer = running.enter_context(program.start("indexer", "--native", native.peer))
            first, count = number * nodes // INDEXERS, nodes // INDEXERS
            client = running.enter_context(Client(tools / "load", indexer.address, "record", "--first", first))
            client.join(count, RATE)
            names[indexer.peer.rsplit("/", 1)[1]] = [f"bench-{first + number}" for number in range(count)]
        yield native, names


def finding(program, tools, nodes, times):
    """`find` on a node that holds its lease with one of four indexers: of names that this one has, and of names of the others.

    Each name of the others is looked for once. The same is asked by the command and of the daemon's socket: the difference
    is the start of a process, which a command that asks no daemon has too.
    """
    with (
        network(program, tools, nodes) as (native, names),
        program.start("node", "--native", native.peer, "--min-indexers", "1") as node,
    ):
        own = until(30, lambda: indexer_of(program, node), "the node to hold a lease of an indexer")
        near = names.pop(own)
        far = [name for one_of_each in zip(*names.values()) for name in one_of_each]
        # The last names of an indexer are announced last.
        until(60, lambda: all(asked(node, name)["records"] for name in far[-30:]), "all names to be announced")
        command = lambda name: json.loads(output(program.binary, "find", "--json", name, "--data-dir", node.data_dir))
        of_socket = lambda name: asked(node, name)
        return {
            "find_nodes": nodes,
            **timed("find_start", lambda _: output(program.binary, "--version"), near[:times]),
            **timed("find_near", found_by(command), near[:times]),
            **timed("find_near_socket", found_by(of_socket), near[:times]),
            **timed("find_far", found_by(command), far[:times]),
            **timed("find_far_socket", found_by(of_socket), far[times : 2 * times]),
        }


def indexer_of(program, node):
    """The peer id of the first indexer that the node holds a lease with, or `None`."""
    leases = json.loads(output(program.binary, "status", "--json", "--data-dir", node.data_dir))["leases"]
    return next((lease["peer_id"] for lease in leases if lease["role"] == "indexer"), None)


def found_by(look):
    """Looks, and makes sure that it was found."""
    def found(name):
        answer = look(name)
        if [record["name"] for record in answer["records"]] != [name]:
            raise Failed(f"find {name}: {answer}")

    return found


def asked(node, name):
    """What the daemon's socket answers to `find`."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(node.data_dir / "control.sock"))
        connection.sendall(f"find {name}\n".encode())
        return json.loads(connection.makefile().read())


def timed(row, look, names):
    """Milliseconds for each name."""
    taken = []
    for name in names:
        begun = time.monotonic()
        look(name)
        taken.append((time.monotonic() - begun) * 1000)
    taken.sort()
    p99 = taken[len(taken) * 99 // 100]
    return {f"{row}_ms": statistics.median(taken), f"{row}_p99_ms": p99, f"{row}_longest_ms": taken[-1]}


def listed(program, data_dir, nodes):
    """Milliseconds until the first row of a complete list, and until its end."""
    begun = time.monotonic()
    command = [program.binary, "nodes", "--json", "--data-dir", data_dir]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
        asking.stdout.readline()
        first = time.monotonic()
        rows = 1 + sum(1 for _ in asking.stdout)
        asking.wait()
        last = time.monotonic()
        if rows != nodes or asking.returncode:
            raise Failed(f"{rows} of {nodes} nodes: {asking.stderr.read().decode()}")
    return (first - begun) * 1000, (last - begun) * 1000


def flood(server, client, seconds):
    cpu = server.cpu_s()
    done = client.say(f"flood {seconds}")
    cpu = server.cpu_s() - cpu
    return {**done, "rate": done["answered"] / done["seconds"], "per_cpu_s": done["answered"] / cpu}
