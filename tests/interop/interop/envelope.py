"""Signed envelopes (libp2p RFC 0002), verified without a library, so that not the code that wrote the records checks them."""

import hashlib

from .encoding import fields, first, peer_id, varint

# Ed25519 (RFC 8032, section 5.1): the field, the order of the base point, the curve's constant, a
# square root of -1.
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
I = pow(2, (P - 1) // 4, P)


def signer(envelope, domain, payload_type):
    """The peer id of the signer of the envelope, and the payload; `ValueError` if the envelope does not hold."""
    found = fields(envelope)
    key, kind, payload, signature = (first(found, number) for number in (1, 2, 3, 5))
    if kind != payload_type.encode():
        raise ValueError(f"payload type {kind!r}, not {payload_type}")
    signed = b"".join(varint(len(part)) + part for part in (domain.encode(), kind, payload))
    if not verifies(first(fields(key), 2), signed, signature):
        raise ValueError("the signature does not verify")
    return peer_id(key), payload


def verifies(public, message, signature):
    """Whether it is the signature of the message by the Ed25519 key. Slow, and for public data only."""
    if len(public) != 32 or len(signature) != 64:
        return False
    key, commitment = point(public), point(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if key is None or commitment is None or scalar >= L:
        return False
    digest = hashlib.sha512(signature[:32] + public + message).digest()
    challenge = int.from_bytes(digest, "little") % L
    return times(scalar, BASE) == add(commitment, times(challenge, key))


def point(encoded):
    """The point, as (x, y), or `None`."""
    number = int.from_bytes(encoded, "little")
    y, sign = number & (1 << 255) - 1, number >> 255
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * I % P
    if y >= P or x * x % P != square:
        return None
    return (P - x if x & 1 != sign else x), y


def add(one, other):
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, P)
    return x % P, y % P


def times(scalar, base):
    total = (0, 1)
    while scalar:
        if scalar & 1:
            total = add(total, base)
        base = add(base, base)
        scalar >>= 1
    return total


BASE = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
