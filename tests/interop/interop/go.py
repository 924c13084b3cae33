"""go-libp2p: the daemon p2pd, told what to do over its control socket (length-delimited protobuf), each command on a connection of
its own. Its DHT has another protocol name than ours, so that Kademlia is spoken on streams that the daemon hands on."""

import socket
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import subjects
from bench.proc import Failed

from .encoding import (
    base58,
    fields,
    first,
    from_base58,
    multiaddr,
    peer_id,
    protobuf,
    read_multiaddr,
    read_varint,
    varint,
)

DEADLINE_S = 10
KAD = "/oc/kad/1.0.0"
IDENTIFY, CONNECT, STREAM_OPEN, STREAM_HANDLER, DHT, LIST_PEERS, DISCONNECT = 0, 1, 2, 3, 4, 5, 7
FIND_PEER = 0
OK = 0


class Install(subjects.Go):
    """The same as the benchmark's."""


class Peer:
    """A running daemon. In the mode `dht` it takes Kademlia's streams: each request gets the answer that it knows no peer."""

    # The protocol name of its own Kademlia cannot be changed.
    searches = False

    def __init__(self, install, mode):
        self.scratch = tempfile.TemporaryDirectory(prefix="oc-interop-")
        folder = Path(self.scratch.name)
        self.control = folder / "control"
        self.server = install.start(control=self.control)
        # The peers that opened streams of Kademlia with it.
        self.askers = set()
        self.handler = None
        try:
            identity = fields(first(self._command((1, IDENTIFY)), 4))
            self.id = base58(first(identity, 1))
            self.addr = read_multiaddr(first(identity, 2))
            if mode == "dht":
                self._take_streams(folder / "handler")
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.handler:
            self.handler.close()
        self.server.stop()
        self.scratch.cleanup()

    def connect(self, addr):
        """Connects to an address with /p2p; returns what the daemon speaks, because it does not say what it spoke."""
        addr, peer = addr.split("/p2p/")
        self._command((1, CONNECT), (2, protobuf((1, from_base58(peer)), (2, multiaddr(addr)), (3, DEADLINE_S))))
        return {"encryption": "/noise", "multiplexer": "/yamux/1.0.0"}

    def connections(self, peer):
        peers = self._command((1, LIST_PEERS)).get(6, [])
        return sum(base58(first(fields(known), 1)) == peer for known in peers)

    def identified(self, peer):
        """What a stream of identify says, with the addresses that the daemon itself learned."""
        card = fields(self.ask(peer, "/ipfs/id/1.0.0")[0])
        asked = protobuf((1, FIND_PEER), (2, from_base58(peer)), (7, DEADLINE_S))
        known = fields(first(fields(first(self._command((1, DHT), (5, asked)), 5)), 2))
        said = [read_multiaddr(addr) for addr in card.get(2, [])]
        learned = [read_multiaddr(addr) for addr in known.get(2, [])]
        if peer_id(first(card, 1)) != peer:
            raise Failed(f"identify: the public key is that of {peer_id(first(card, 1))}, not of {peer}")
        if sorted(said) != sorted(learned):
            raise Failed(f"identify said {said}, the daemon learned {learned}")
        return {
            "agent": first(card, 6).decode(),
            "protocols": [name.decode() for name in card.get(3, [])],
            "addrs": said,
            "observed": read_multiaddr(first(card, 4)),
        }

    def ping(self, peer):
        sent = bytes(range(32))
        with self._open(peer, "/ipfs/ping/1.0.0") as stream:
            for _ in range(2):
                stream.sendall(sent)
                if read_exactly(stream, 32) != sent:
                    raise Failed("ping: other bytes came back")

    def ask(self, peer, protocol, *messages):
        """Opens a stream, sends each message and reads the answer to it; without messages, reads one."""
        answers = []
        with self._open(peer, protocol) as stream:
            for message in messages or [None]:
                if message is not None:
                    stream.sendall(varint(len(message)) + message)
                answers.append(read_message(stream))
        return answers

    def ask_at_once(self, streams, peer, protocol, message):
        """The same message on several new streams; the answers."""
        with ThreadPoolExecutor(streams) as pool:
            asked = [pool.submit(self.ask, peer, protocol, message) for _ in range(streams)]
            return [one.result()[0] for one in asked]

    def asked_by(self):
        """The peers that opened streams of Kademlia with it, and asked."""
        return set(self.askers)

    def hang_up(self, peer):
        self._command((1, DISCONNECT), (7, protobuf((1, from_base58(peer)))))

    def _open(self, peer, protocol):
        """A stream: from then on its bytes are those of the connection."""
        stream, _ = self._say((1, STREAM_OPEN), (3, protobuf((1, from_base58(peer)), (2, protocol), (3, DEADLINE_S))))
        return stream

    def _command(self, *request):
        connection, answer = self._say(*request)
        connection.close()
        return answer

    def _say(self, *request):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(DEADLINE_S)
            connection.connect(str(self.control))
            message = protobuf(*request)
            connection.sendall(varint(len(message)) + message)
            answer = fields(read_message(connection))
        except OSError as error:
            connection.close()
            raise Failed(f"saw {error}, expected an answer of the daemon") from error
        if first(answer, 1, OK) != OK:
            connection.close()
            why = first(fields(first(answer, 2)), 1).decode(errors="replace")
            raise Failed(f"saw the daemon fail ({why}), expected that it does what it is told")
        return connection, answer

    def _take_streams(self, path):
        self.handler = socket.socket(socket.AF_UNIX)
        self.handler.bind(str(path))
        self.handler.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        # A Unix socket's multiaddress: its code, the path's length, the path.
        name = str(path).encode()
        addr = varint(400) + varint(len(name)) + name
        self._command((1, STREAM_HANDLER), (4, protobuf((1, addr), (2, KAD), (3, 0))))

    def _accept(self):
        while True:
            try:
                stream, _ = self.handler.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(stream,), daemon=True).start()

    def _answer(self, stream):
        """Names the peer that opened the stream, then Kademlia's requests follow."""
        with stream:
            try:
                opener = base58(first(fields(read_message(stream)), 1))
                while True:
                    request = fields(read_message(stream))
                    self.askers.add(opener)
                    answer = protobuf((1, first(request, 1, 0)))
                    stream.sendall(varint(len(answer)) + answer)
            except (Failed, OSError):
                return


def read_message(stream):
    length = b""
    while not length or length[-1] >= 0x80:
        length += read_exactly(stream, 1)
    return read_exactly(stream, read_varint(length)[0])


def read_exactly(stream, count):
    data = b""
    while len(data) < count:
        part = stream.recv(count - len(data))
        if not part:
            raise Failed("saw the end of the stream, expected an answer")
        data += part
    return data
