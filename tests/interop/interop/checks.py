"""What a peer of another implementation must observe of oc-discovery. Each check has a connection of its own."""

from bench.proc import Failed, output

from . import client
from .encoding import (
    FIND_NODE,
    GET_PROVIDERS,
    GET_VALUE,
    PUT_VALUE,
    find_node,
    from_base58,
    get_providers,
    get_value,
    put_value,
    read_answer,
)
from .envelope import signer
from .world import Daemon, Link, wait_for

KAD = "/oc/kad/1.0.0"
HEARTBEAT = "/oc/heartbeat/1.0.0"
PROTOCOLS = {"/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/oc/directory/1.0.0", "/oc/watch/1.0.0", HEARTBEAT, KAD}


def must_be(what, seen, expected):
    if seen != expected:
        raise Failed(f"{what}: saw {seen!r}, expected {expected!r}")


def query(peer, native, request, *more):
    """Kademlia's answers to requests on one stream."""
    return [read_answer(answer) for answer in peer.ask(native.id, KAD, request, *more)]


def must_find_the_indexer(world, answer):
    must_be("type of the answer", answer.type, FIND_NODE)
    addrs = world.indexer.status()["listen"]
    must_be("addresses of the indexer among the closer peers", sorted(answer.closer.get(world.indexer.id, [])), sorted(addrs))


def indexer_key(peer_id):
    return f"/indexer/{peer_id}".encode()


def must_be_the_record(world, value):
    """The value is a record that the indexer has signed."""
    if value is None:
        raise Failed("saw no value, expected the indexer's record")
    try:
        who, payload = signer(value, "oc-discovery-indexer", "/oc/indexer-record/1")
    except (ValueError, IndexError) as error:
        raise Failed(f"the record: {error}") from error
    must_be("signer of the record", who, world.indexer.id)
    if from_base58(who) not in payload:
        raise Failed(f"the record names another subject than {who}: {payload.hex()}")


def connects_with_noise_and_yamux(world, start):
    with start("plain") as peer:
        upgraded = peer.connect(world.native.addr)
        must_be("connection", upgraded, {"encryption": "/noise", "multiplexer": "/yamux/1.0.0"})
        must_be("connections", peer.connections(world.native.id), 1)


def identify_is_right(world, start):
    native = world.native
    with start("plain") as peer:
        peer.connect(native.addr)
        card = wait_for("identify was answered", lambda: peer.identified(native.id))
        status = native.status()
        must_be("agent", card["agent"], f"oc-discovery/{status['version']}")
        must_be("protocols", set(card["protocols"]), PROTOCOLS)
        must_be("addresses", sorted(card["addrs"]), sorted(status["listen"]))
        if not (card["observed"] or "").startswith("/ip4/127.0.0.1/tcp/"):
            raise Failed(f"observed address: saw {card['observed']}, expected one of 127.0.0.1")


def ping_is_answered(world, start):
    with start("plain") as peer:
        peer.connect(world.native.addr)
        peer.ping(world.native.id)


def dht_query_on_the_first_stream(world, start):
    with start("bare") as peer:
        peer.connect(world.native.addr)
        (answer,) = query(peer, world.native, find_node(peer.id))
        must_find_the_indexer(world, answer)


def dht_queries_on_four_streams_at_once(world, start):
    """As many streams as may wait for the handler."""
    with start("bare") as peer:
        peer.connect(world.native.addr)
        for answer in peer.ask_at_once(4, world.native.id, KAD, find_node(peer.id)):
            must_find_the_indexer(world, read_answer(answer))


def dht_query_after_other_streams(world, start):
    native = world.native
    with start("plain") as peer:
        peer.connect(native.addr)
        wait_for("identify was answered", lambda: peer.identified(native.id))
        peer.ping(native.id)
        try:
            answer = peer.ask(native.id, "/no-peer/speaks/this", b"x")
        except Failed:
            pass
        else:
            raise Failed(f"a protocol that no peer speaks: saw {answer}, expected a refusal")
        # The first stream is the one that the handler is attached for; the second finds it there.
        for _ in range(2):
            for answer in query(peer, native, find_node(peer.id), find_node(native.id)):
                must_find_the_indexer(world, answer)
        must_be("connections", peer.connections(native.id), 1)


def dht_server_enters_the_routing_table(world, start):
    native = world.native
    with start("dht") as server, start("plain") as other:
        server.connect(native.addr)
        query(server, native, find_node(server.id))

        def told():
            # A connection without a use does not stay.
            other.connect(native.addr)
            (answer,) = query(other, native, find_node(server.id))
            return answer.closer.get(server.id)

        wait_for(f"others are told of {server.addr}", told, holds=lambda addrs: addrs == [server.addr])
        must_ask(native, server)


def must_ask(ours, server):
    """A new server of the DHT is asked for the peers near the process that found it."""
    wait_for(f"a query of {ours.id}", server.asked_by, holds=lambda askers: ours.id in askers)


def own_search_finds_the_indexer_and_its_record(world, start):
    """The library's own Kademlia, with a validator for the records of oc-discovery."""
    with start("dht") as peer:
        peer.connect(world.native.addr)
        wanted = {world.native.id, world.indexer.id}
        near = from_base58(world.indexer.id)
        wait_for(f"it finds {wanted}", lambda: set(peer.closest(near)), holds=wanted.issubset)
        values = peer.get(indexer_key(world.indexer.id))
        if not values:
            raise Failed("saw no value that its validator takes, expected the indexer's record")
        must_be_the_record(world, values[0])


def own_search_finds_who_has_a_name_or_a_service(world, start):
    """By `findProviders` on the hash of the text: the indexer with which the node holds its lease."""
    node = ("--native", world.native.addr, "--name", "pump-of-interop", "--service", "interop=8080")
    with Daemon(world.program, "node", *node), start("dht") as peer:
        peer.connect(world.native.addr)
        addrs = sorted(world.indexer.status()["listen"])
        for text in ("/oc/name/pump-of-interop", "/oc/service/interop"):
            found = wait_for(f"the indexer for {text}", lambda: peer.providers(text), holds=lambda found: world.indexer.id in found)
            must_be("addresses of the indexer", sorted(found[world.indexer.id]), addrs)
        must_be("providers of a name that no node has", peer.providers("/oc/name/no-node"), {})


def own_announcement_is_kept_and_answered(world, start):
    text = "/oc/name/of-another-implementation"
    with start("dht") as peer, start("plain") as other:
        peer.connect(world.native.addr)
        wait_for("the native is told", lambda: peer.provide(text), holds=lambda told: world.native.id in told)

        def named():
            # A connection without a use does not stay.
            other.connect(world.native.addr)
            (answer,) = query(other, world.native, get_providers(text))
            must_be("type of the answer", answer.type, GET_PROVIDERS)
            return answer.providers

        wait_for(f"{peer.id} at {peer.addr}", named, holds=lambda found: found == {peer.id: [peer.addr]})


def record_of_a_live_indexer_is_answered(world, start):
    with start("plain") as peer:
        peer.connect(world.native.addr)
        (answer,) = query(peer, world.native, get_value(indexer_key(world.indexer.id)))
        must_be("type of the answer", answer.type, GET_VALUE)
        must_be_the_record(world, answer.value)


def foreign_and_invalid_records_are_not_stored(world, start):
    native = world.native
    before = native.table("dht_records")
    with start("plain") as peer:
        peer.connect(native.addr)
        (valid,) = query(peer, native, get_value(indexer_key(world.indexer.id)))
        forged = valid.value[:-1] + bytes([valid.value[-1] ^ 1])
        records = {
            b"/pk/" + from_base58(peer.id): b"a record of another peer",
            indexer_key(peer.id): b"no envelope",
            # Signed, but not by the subject of the key.
            indexer_key(native.id): valid.value,
            indexer_key(world.indexer.id): forged,
        }
        for key, value in records.items():
            (answer,) = query(peer, native, put_value(key, value))
            must_be("type of the answer", answer.type, PUT_VALUE)
        for key in records:
            (answer,) = query(peer, native, get_value(key))
            must_be(f"value of {key!r}", answer.value, valid.value if key == indexer_key(world.indexer.id) else None)
    must_be("records stored", native.table("dht_records"), before)


def closing_and_dialling_again(world, start):
    native = world.native
    with start("plain") as peer:
        for _ in range(2):
            peer.connect(native.addr)
            (answer,) = query(peer, native, find_node(peer.id))
            must_find_the_indexer(world, answer)
            before = native.table("connections")
            peer.hang_up(native.id)
            wait_for("no connection at the peer", lambda: peer.connections(native.id), holds=lambda seen: seen == 0)
            wait_for(f"fewer than {before} at the native", lambda: native.table("connections"), holds=lambda seen: seen < before)


def finds_our_native_on_the_link_and_is_taken_for_none(world, start):
    """Both answer the question of the node, the library at once. It says nothing by which it could be a native."""
    with Link() as link, Daemon(world.program, "native", link=link) as native, start("mdns", link) as peer:
        heard = wait_for(f"{native.id} on the link", peer.discovered, holds=lambda heard: native.id in heard)
        (ours,) = (addr for addr in native.status()["listen"] if addr.startswith(f"/ip4/{link.ip}/"))
        must_be("addresses of the native", heard[native.id], [ours])
        with Daemon(world.program, "node", link=link) as node:
            found = wait_for("a native on the link", lambda: node.status()["found_natives"])
            must_be("natives on the link", found, [f"{ours}/p2p/{native.id}"])


def given_as_native(world, start, role):
    """The process dials. The log says what the peer does not speak, Kademlia is spoken nevertheless, and nothing else happens."""
    with start("dht") as peer:
        given = f"{peer.addr}/p2p/{peer.id}"
        with Daemon(world.program, role, "--native", given, "--connect-interval", "200ms") as daemon:
            wait_for(
                f"a warning that {peer.id} does not speak a protocol of ours",
                daemon.log,
                holds=lambda log: any("WARN" in line and f"…{peer.id[-8:]} " in line and "does not speak /oc/" in line for line in log),
            )
            wait_for("our connection at the peer", lambda: peer.connections(daemon.id))
            if role != "node":
                must_ask(daemon, peer)
            must_be("leases", daemon.status()["leases"], [])
            must_be("exit code after SIGTERM", daemon.end(), 0)


def given_as_native_of_a_node(world, start):
    given_as_native(world, start, "node")


def given_as_native_of_an_indexer(world, start):
    given_as_native(world, start, "indexer")


def given_as_native_of_a_native(world, start):
    given_as_native(world, start, "native")


def the_native_lives(world, _):
    status = world.native.status()
    must_be("live indexers", [entry["peer_id"] for entry in status["live_indexers"]], [world.indexer.id])


SEARCHES = [
    own_search_finds_the_indexer_and_its_record,
    own_search_finds_who_has_a_name_or_a_service,
    own_announcement_is_kept_and_answered,
    finds_our_native_on_the_link_and_is_taken_for_none,
]


def a_node_written_from_the_text_alone_is_found_and_listed(world, start):
    name = "stranger"
    with start(name) as node:
        (indexer,) = node.indexers(world.native.addr)
        must_be("indexer offered", indexer, world.indexer.addr)
        if not 0 < node.register(indexer) <= client.LEASE_MS:
            raise Failed("the granted lease is none of 1 to 90,000 ms")
        find = [world.native.binary, "find", "--addr", name, "http", "--data-dir", world.native.data_dir]
        must_be("address found", output(*find, timeout=10).strip(), "127.0.0.1:8080")
        must_be("nodes that offer http", node.nodes(indexer, "http"), {name: ("alive", node.identity.id)})
        must_be("nodes that offer ssh", node.nodes(indexer, "ssh"), {})
        node.give_up()
        must_be("nodes after it has left", node.nodes(indexer), {})
        # Nodes of the checks before may have left too.
        gone = node.nodes(indexer, gone=True)
        must_be("node that left", gone.get(name), ("left", node.identity.id))


def checks_of(kind):
    """The checks that a kind of peer can make."""
    if kind is client.Peer:
        return [a_node_written_from_the_text_alone_is_found_and_listed]
    return [
        connects_with_noise_and_yamux,
        identify_is_right,
        ping_is_answered,
        dht_query_on_the_first_stream,
        dht_queries_on_four_streams_at_once,
        dht_query_after_other_streams,
        dht_server_enters_the_routing_table,
        *(SEARCHES if kind.searches else []),
        record_of_a_live_indexer_is_answered,
        foreign_and_invalid_records_are_not_stored,
        closing_and_dialling_again,
        given_as_native_of_a_node,
        given_as_native_of_an_indexer,
        given_as_native_of_a_native,
        the_native_lives,
    ]
