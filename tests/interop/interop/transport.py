"""libp2p's stack as a stranger writes it, with the standard library alone: multistream-select, Noise XX, Yamux (PROTOCOL.md, section 1).

It is a dialler for tests: slow, without flow control of its own, and not constant in time."""

import hashlib
import hmac
import secrets
import socket
import struct
import threading

from .encoding import fields, first, peer_id, protobuf, read_varint, varint
from .envelope import BASE, L, P, times, verifies

DEADLINE_S = 10
NOISE, YAMUX = "/noise", "/yamux/1.0.0"
IDENTIFY, PING = "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"
# Yamux: types of frames, and flags.
DATA, WINDOW, YAMUX_PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8


class Identity:
    """An Ed25519 key (RFC 8032), and the peer id that it makes."""

    def __init__(self):
        digest = hashlib.sha512(secrets.token_bytes(32)).digest()
        self.scalar = int.from_bytes(digest[:32], "little") & (1 << 254) - 8 | 1 << 254
        self.prefix = digest[32:]
        self.public = encoded(times(self.scalar, BASE))
        self.message = protobuf((1, 1), (2, self.public))
        self.binary_id = bytes([0, len(self.message)]) + self.message
        self.id = peer_id(self.message)

    def sign(self, message):
        nonce = int.from_bytes(hashlib.sha512(self.prefix + message).digest(), "little") % L
        commitment = encoded(times(nonce, BASE))
        digest = hashlib.sha512(commitment + self.public + message).digest()
        scalar = (nonce + int.from_bytes(digest, "little") * self.scalar) % L
        return commitment + scalar.to_bytes(32, "little")


def encoded(point):
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


def x25519(scalar, point=bytes([9]) + bytes(31)):
    """RFC 7748, section 5."""
    k = int.from_bytes(scalar, "little") & (1 << 254) - 8 | 1 << 254
    x1 = int.from_bytes(point, "little") & (1 << 255) - 1
    x2, z2, x3, z3 = 1, 0, x1, 1
    for bit in reversed(range(255)):
        if k >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb, aa, bb = d * a % P, c * b % P, a * a % P, b * b % P
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, (aa - bb) * (aa + 121665 * (aa - bb)) % P
        if k >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, -1, P) % P).to_bytes(32, "little")


def chacha20(key, nonce, counter):
    """One block of RFC 8439."""
    start = [*struct.unpack("<4I", b"expand 32-byte k"), *struct.unpack("<8I", key), counter, *struct.unpack("<3I", nonce)]
    s = list(start)
    columns = [(i, 4 + i, 8 + i, 12 + i) for i in range(4)]
    diagonals = [(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4) for i in range(4)]
    for a, b, c, d in (columns + diagonals) * 10:
        for x, y, z, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[x] = s[x] + s[y] & 0xFFFFFFFF
            mixed = s[z] ^ s[x]
            s[z] = (mixed << by | mixed >> 32 - by) & 0xFFFFFFFF
    return struct.pack("<16I", *(a + b & 0xFFFFFFFF for a, b in zip(s, start)))


def stream_xor(key, nonce, data):
    blocks = (chacha20(key, nonce, 1 + at // 64) for at in range(0, len(data), 64))
    return bytes(a ^ b for a, b in zip(data, b"".join(blocks)))


def tag(key, nonce, associated, ciphertext):
    """Poly1305 of what RFC 8439, section 2.8, authenticates."""
    once = chacha20(key, nonce, 0)
    r = int.from_bytes(once[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    padded = b"".join(part + bytes(-len(part) % 16) for part in (associated, ciphertext))
    message, total = padded + struct.pack("<QQ", len(associated), len(ciphertext)), 0
    for at in range(0, len(message), 16):
        total = (total + int.from_bytes(message[at : at + 16] + b"\1", "little")) * r % (2**130 - 5)
    return (total + int.from_bytes(once[16:32], "little") & 2**128 - 1).to_bytes(16, "little")


class Cipher:
    """A key of Noise and its counter."""

    def __init__(self, key):
        self.key, self.count = key, 0

    def _nonce(self):
        self.count += 1
        return struct.pack("<IQ", 0, self.count - 1)

    def seal(self, plain, associated=b""):
        nonce = self._nonce()
        sealed = stream_xor(self.key, nonce, plain)
        return sealed + tag(self.key, nonce, associated, sealed)

    def open(self, sealed, associated=b""):
        nonce = self._nonce()
        if tag(self.key, nonce, associated, sealed[:-16]) != sealed[-16:]:
            raise ValueError("a message of Noise is not authentic")
        return stream_xor(self.key, nonce, sealed[:-16])


class Handshake:
    """The symmetric state of Noise_XX_25519_ChaChaPoly_SHA256."""

    def __init__(self):
        self.chain = self.hash = b"Noise_XX_25519_ChaChaPoly_SHA256"
        self.cipher = None
        self.mix(b"")

    def mix(self, data):
        self.hash = hashlib.sha256(self.hash + data).digest()

    def keys(self, secret):
        """The two outputs of HKDF."""
        temporary = hmac.digest(self.chain, secret, "sha256")
        one = hmac.digest(temporary, b"\1", "sha256")
        return one, hmac.digest(temporary, one + b"\2", "sha256")

    def agree(self, secret, public):
        self.chain, key = self.keys(x25519(secret, public))
        self.cipher = Cipher(key)

    def seal(self, plain):
        sealed = self.cipher.seal(plain, self.hash)
        self.mix(sealed)
        return sealed

    def open(self, sealed):
        plain = self.cipher.open(sealed, self.hash)
        self.mix(sealed)
        return plain


class Noise:
    """The secured connection of a dialler."""

    def __init__(self, plain, identity):
        self.plain = plain
        state = Handshake()
        static, ephemeral = secrets.token_bytes(32), secrets.token_bytes(32)
        mine = x25519(ephemeral)
        state.mix(mine)
        state.mix(b"")
        self._send(mine)
        answer = self._receive()
        theirs, sealed, payload = answer[:32], answer[32:80], answer[80:]
        state.mix(theirs)
        state.agree(ephemeral, theirs)
        remote = state.open(sealed)
        state.agree(ephemeral, remote)
        self.peer = signed_by(state.open(payload), remote)
        own = x25519(static)
        sealed = state.seal(own)
        state.agree(static, theirs)
        proof = identity.sign(b"noise-libp2p-static-key:" + own)
        self._send(sealed + state.seal(protobuf((1, identity.message), (2, proof))))
        self.sends, self.receives = map(Cipher, state.keys(b""))

    def _send(self, message):
        self.plain.sendall(struct.pack(">H", len(message)) + message)

    def _receive(self):
        return self.plain.exactly(*struct.unpack(">H", self.plain.exactly(2)))

    def sendall(self, data):
        for at in range(0, len(data), 65_000):
            self._send(self.sends.seal(data[at : at + 65_000]))

    def receive(self):
        return self.receives.open(self._receive())


def signed_by(payload, static):
    """The peer that has signed the static key of its side."""
    found = fields(payload)
    key = first(found, 1)
    if not verifies(first(fields(key), 2), b"noise-libp2p-static-key:" + static, first(found, 2)):
        raise ValueError("the peer's static key is not signed by its identity")
    return peer_id(key)


class Buffered:
    """Reads exactly so many bytes of what comes in pieces from `receive`."""

    def __init__(self, receive, sendall):
        self.receive, self.sendall, self.unread = receive, sendall, b""

    def exactly(self, count):
        while len(self.unread) < count:
            piece = self.receive()
            if not piece:
                raise EOFError("the other side has ended")
            self.unread += piece
        data, self.unread = self.unread[:count], self.unread[count:]
        return data

    def message(self):
        """A frame: an unsigned varint and so many bytes."""
        length = self.exactly(1)
        while length[-1] & 0x80:
            length += self.exactly(1)
        return self.exactly(read_varint(length)[0])

    def send_message(self, data):
        self.sendall(varint(len(data)) + data)

    def propose(self, protocol):
        """Multistream-select, as the side that wants to speak `protocol`."""
        for line in ("/multistream/1.0.0", protocol):
            self.send_message(f"{line}\n".encode())
        for line in ("/multistream/1.0.0", protocol):
            said = self.message().decode().strip()
            if said != line:
                raise ValueError(f"{protocol} is answered {said!r}")


class Stream(Buffered):
    """A stream of Yamux."""

    def __init__(self, connection, number):
        super().__init__(self._receive, self._sendall)
        self.connection, self.number = connection, number
        self.pieces, self.ended = [], False

    def _receive(self):
        with self.connection.news:
            if not self.connection.news.wait_for(lambda: self.pieces or self.ended, DEADLINE_S):
                raise TimeoutError(f"nothing has come within {DEADLINE_S} s")
            data, self.pieces = b"".join(self.pieces), []
        if data:
            self.connection.frame(WINDOW, 0, self.number, len(data))
        return data

    def _sendall(self, data):
        self.connection.frame(DATA, 0, self.number, len(data), data)

    def close(self):
        self.connection.frame(DATA, FIN, self.number, 0)


class Connection:
    """A connection to a peer that must have this id. It answers pings and identify, and refuses all other streams."""

    def __init__(self, host, port, peer, identity):
        self.identity = identity
        self.socket = socket.create_connection((host, port), DEADLINE_S)
        self.socket.settimeout(None)
        plain = Buffered(lambda: self.socket.recv(65_536), self.socket.sendall)
        plain.propose(NOISE)
        noise = Noise(plain, identity)
        if noise.peer != peer:
            raise ValueError(f"{noise.peer} answers at the address of {peer}")
        self.secured = Buffered(noise.receive, noise.sendall)
        self.secured.propose(YAMUX)
        self.sending, self.news = threading.Lock(), threading.Condition()
        self.streams, self.next = {}, 1
        threading.Thread(target=self._read, daemon=True).start()

    def close(self):
        self.socket.close()

    def open(self, protocol):
        with self.news:
            stream = self.streams[self.next] = Stream(self, self.next)
            self.next += 2
        self.frame(WINDOW, SYN, stream.number, 0)
        stream.propose(protocol)
        return stream

    def frame(self, kind, flags, number, length, data=b""):
        with self.sending:
            self.secured.sendall(struct.pack(">BBHII", 0, kind, flags, number, length) + data)

    def _read(self):
        try:
            while True:
                self._take(*struct.unpack(">BBHII", self.secured.exactly(12)))
        except (EOFError, OSError, ValueError):
            with self.news:
                for stream in self.streams.values():
                    stream.ended = True
                self.news.notify_all()

    def _take(self, _, kind, flags, number, length):
        data = self.secured.exactly(length) if kind == DATA else b""
        if kind == YAMUX_PING and flags & SYN:
            self.frame(YAMUX_PING, ACK, 0, length)
        if kind not in (DATA, WINDOW):
            return
        with self.news:
            if flags & SYN:
                stream = self.streams[number] = Stream(self, number)
                threading.Thread(target=self._answer, args=(stream,), daemon=True).start()
            stream = self.streams.get(number)
            if stream:
                stream.pieces += [data] if data else []
                stream.ended |= bool(flags & (FIN | RST))
                self.news.notify_all()

    def _answer(self, stream):
        """Multistream-select and the protocols that every peer speaks, as the side that was asked."""
        try:
            self.frame(WINDOW, ACK, stream.number, 0)
            while (said := stream.message().decode().strip()) not in (IDENTIFY, PING):
                stream.send_message(b"/multistream/1.0.0\n" if said.startswith("/multistream/") else b"na\n")
            stream.send_message(f"{said}\n".encode())
            if said == IDENTIFY:
                stream.send_message(protobuf((1, self.identity.message), (3, PING), (5, "oc/1.1"), (6, "stranger/1")))
                stream.close()
            while said == PING:
                stream.sendall(stream.exactly(32))
        except (EOFError, OSError, ValueError):
            pass
