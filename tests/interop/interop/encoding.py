"""The few encodings that the checks write and read by hand: varints, protobuf, CBOR, base58, multiaddresses, and Kademlia's messages."""

import hashlib
import ipaddress
from dataclasses import dataclass, field

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
# Codes of the multiaddr table.
IP4, TCP = 4, 6
# Types of Kademlia's messages (libp2p kad-dht specification).
PUT_VALUE, GET_VALUE, GET_PROVIDERS, FIND_NODE = 0, 1, 3, 4


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def read_varint(data, at=0):
    """The value, and where the next byte is."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def protobuf(*fields):
    """A message of (number, value); a value is a number, bytes or text. Of `None` there is no field."""
    out = b""
    for number, value in fields:
        if value is None:
            continue
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def fields(message):
    """All values by field number; lengths and varints only, as libp2p uses."""
    found, at = {}, 0
    while at < len(message):
        tag, at = read_varint(message, at)
        value, at = read_varint(message, at)
        if tag & 7 == 2:
            value, at = message[at : at + value], at + value
        elif tag & 7 != 0:
            raise ValueError(f"field {tag >> 3} has wire type {tag & 7}")
        found.setdefault(tag >> 3, []).append(value)
    return found


def first(found, number, default=b""):
    return found.get(number, [default])[0]


def cbor(value):
    """CBOR of definite lengths (RFC 8949): unsigned integers, booleans, bytes, text, lists and maps."""
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return cbor_head(0, value)
    if isinstance(value, bytes):
        return cbor_head(2, len(value)) + value
    if isinstance(value, str):
        return cbor_head(3, len(value.encode())) + value.encode()
    if isinstance(value, dict):
        return cbor_head(5, len(value)) + b"".join(cbor(part) for entry in value.items() for part in entry)
    return cbor_head(4, len(value)) + b"".join(map(cbor, value))


def cbor_head(major, value):
    if value < 24:
        return bytes([major << 5 | value])
    size = next(size for size in (0, 1, 2, 3) if value < 1 << (8 << size))
    return bytes([major << 5 | 24 + size]) + value.to_bytes(1 << size)


def from_cbor(data):
    """The one value that the bytes are."""
    value, end = read_cbor(data, 0)
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes follow the value")
    return value


def read_cbor(data, at):
    """The value at this place, and where the next byte is."""
    major, short = data[at] >> 5, data[at] & 31
    if short > 27:
        raise ValueError(f"the head {data[at]:#x} has no definite length")
    size = 1 << short - 24 if short >= 24 else 0
    value = int.from_bytes(data[at + 1 : at + 1 + size]) if size else short
    at += 1 + size
    if major in (2, 3):
        part = data[at : at + value]
        if len(part) != value:
            raise ValueError("the bytes end inside a value")
        return (part if major == 2 else part.decode()), at + value
    if major in (4, 5):
        items = []
        for _ in range(value * (major - 3)):
            item, at = read_cbor(data, at)
            items.append(item)
        return (items if major == 4 else dict(zip(items[::2], items[1::2]))), at
    if major == 7 and value in (20, 21):
        return value == 21, at
    if major != 0:
        raise ValueError(f"the type {major} is none of the protocol's")
    return value, at


def base58(data):
    number = int.from_bytes(data)
    text = ""
    while number:
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def from_base58(text):
    number = 0
    for letter in text:
        number = number * 58 + ALPHABET.index(letter)
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8)


def peer_id(public_key):
    """The peer id of a public key message: for Ed25519 the key itself as an identity multihash."""
    return base58(bytes([0, len(public_key)]) + public_key)


def multiaddr(text):
    """`/ip4/A/tcp/P` in binary."""
    _, ip4, ip, tcp, port = text.split("/")
    if (ip4, tcp) != ("ip4", "tcp"):
        raise ValueError(f"{text} is not /ip4/A/tcp/P")
    return bytes([IP4]) + ipaddress.IPv4Address(ip).packed + bytes([TCP]) + int(port).to_bytes(2)


def read_multiaddr(data):
    """The first two parts as text, `/ip4/A/tcp/P`; of other addresses the bytes in hex."""
    if len(data) >= 8 and data[0] == IP4 and data[5] == TCP:
        return f"/ip4/{ipaddress.IPv4Address(data[1:5])}/tcp/{int.from_bytes(data[6:8])}"
    return data.hex()


@dataclass
class Answer:
    """A Kademlia message that was received."""

    type: int
    value: bytes | None = None
    # Addresses of the closer peers, by id.
    closer: dict = field(default_factory=dict)
    # Addresses of the providers, by id.
    providers: dict = field(default_factory=dict)


def find_node(peer):
    return protobuf((1, FIND_NODE), (2, from_base58(peer)))


def get_value(key):
    return protobuf((1, GET_VALUE), (2, key))


def get_providers(text):
    """The peers that announced the text: the key is its sha2-256 multihash."""
    return protobuf((1, GET_PROVIDERS), (2, bytes([0x12, 0x20]) + hashlib.sha256(text.encode()).digest()))


def put_value(key, value):
    return protobuf((1, PUT_VALUE), (2, key), (3, protobuf((1, key), (2, value))))


def read_answer(message):
    found = fields(message)
    record = fields(first(found, 3))
    return Answer(first(found, 1, 0), first(record, 2, None), _peers(found, 8), _peers(found, 9))


def _peers(found, number):
    """The addresses of the peers in a field, by id."""
    peers = map(fields, found.get(number, []))
    return {base58(first(peer, 1)): [read_multiaddr(addr) for addr in peer.get(2, [])] for peer in peers}
