"""A client of oc-discovery written from `src/wire/PROTOCOL.md` alone: it shares no code with the program, and uses no library.

A node asks a native for indexers, holds a lease with the one that it is offered, and lists a server's directory."""

import sys
import threading
import time

from .encoding import base58, cbor, from_cbor, multiaddr, protobuf, read_multiaddr, varint
from .envelope import signer
from .transport import Connection, Identity

HEARTBEAT, DIRECTORY = "/oc/heartbeat/1.0.0", "/oc/directory/1.0.0"
DOMAIN, PAYLOAD_TYPE = "oc-discovery-node", "/oc/node-record/1"
ROLE_NODE, ACCEPTED, ERROR = 0, 0, 255
INDEXERS, LIST, WANTS_A_LEASE = 0, 3, 1
STATES = ("alive", "left", "lost")
LEASE_MS = 90_000


class Install:
    """Nothing is needed but the Python that runs this."""

    name = "python-client"
    version = sys.version.split()[0]

    def install(self):
        pass


class Peer:
    """A node of this name. It says that it serves HTTP."""

    addr, services = "/ip4/127.0.0.1/tcp/4001", {"http": 8080}

    def __init__(self, _, name):
        self.identity, self.name = Identity(), name
        self.sequence = 0
        self.connections = {}
        self.lease = self.beats = None
        self.stopped = threading.Event()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for connection in self.connections.values():
            connection.close()

    def connection(self, addr):
        """The one connection to the peer at an address with /p2p."""
        addr, peer = addr.split("/p2p/")
        if peer not in self.connections:
            _, _, host, _, port = addr.split("/")
            self.connections[peer] = Connection(host, int(port), peer, self.identity)
        return self.connections[peer]

    def ask(self, addr, request):
        """A directory request; the response, as the map that it is."""
        stream = self.connection(addr).open(DIRECTORY)
        stream.send_message(cbor(request))
        stream.close()
        response = from_cbor(stream.message())
        if response[0] == ERROR:
            raise ValueError(f"the server says: {response[1]}")
        return response

    def indexers(self, native):
        """The addresses with /p2p of the indexers that the native offers."""
        offers = self.ask(native, {0: INDEXERS, 1: 16, 2: WANTS_A_LEASE})[1]
        return [f"{read_multiaddr(offer[1][0])}/p2p/{base58(offer[0])}" for offer in offers]

    def register(self, indexer):
        """Holds a lease with the indexer, and renews it until it is given up; the granted ms."""
        self.lease = self.connection(indexer).open(HEARTBEAT)
        self.beats = 0
        granted = self._beat(LEASE_MS, self.record())
        threading.Thread(target=self._renew, args=(granted,), daemon=True).start()
        return granted

    def give_up(self):
        self.stopped.set()
        self._beat(0)

    def _renew(self, granted):
        while not self.stopped.wait(min(30, granted / 3000) * 0.9):
            self._beat(LEASE_MS)

    def _beat(self, lease_ms, record=None):
        beat = {0: self.beats, 1: ROLE_NODE, 2: lease_ms}
        if record:
            beat[3] = record
        self.beats += 1
        self.lease.send_message(cbor(beat))
        ack = from_cbor(self.lease.message())
        if ack[0] != beat[0] or ack[1] != ACCEPTED:
            raise ValueError(f"beat {beat[0]} is answered {ack}")
        return ack[2]

    def record(self):
        """The signed node record."""
        now = time.time_ns() // 1_000_000
        self.sequence = max(self.sequence + 1, now)
        record = {0: self.identity.binary_id, 1: self.sequence, 2: now, 3: 3 * LEASE_MS, 4: [multiaddr(self.addr)], 5: self.name}
        record |= {6: {"language": "python"}, 7: [[name, 0, port] for name, port in self.services.items()], 9: "stranger-1"}
        payload = cbor(record)
        signed = b"".join(varint(len(part)) + part for part in (DOMAIN.encode(), PAYLOAD_TYPE.encode(), payload))
        return protobuf((1, self.identity.message), (2, PAYLOAD_TYPE), (3, payload), (5, self.identity.sign(signed)))

    def nodes(self, addr, service=None, gone=False):
        """What a server lists: {name: (state, peer id)}, page after page."""
        listed, after = {}, None
        while True:
            request = {0: LIST} | ({1: service} if service else {}) | ({4: after} if after else {}) | ({5: True} if gone else {})
            page = self.ask(addr, request)
            for envelope, state, entry in ((entry[0], STATES[entry[2]], entry) for entry in page[1]):
                if envelope:
                    who, payload = signer(envelope, DOMAIN, PAYLOAD_TYPE)
                    listed[from_cbor(payload)[5]] = state, who
                elif 3 in entry:
                    listed[entry.get(4, "")] = state, base58(entry[3])
            after = page.get(2)
            if after is None:
                return listed
