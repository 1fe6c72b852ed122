#!/usr/bin/env python3
"""Writes private.json: private files as `docs/protocol/links.md` defines them.

XChaCha20-Poly1305 in the standard library alone, after RFC 8439 and draft-irtf-cfrg-xchacha-03.
"""

import hashlib
import json
import struct
import sys

PIECE = 131_056


def rounds(state):
    """The 20 rounds of ChaCha, without the addition of the first state."""
    x = list(state)

    def quarter(a, b, c, d):
        steps = (a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)
        for first, second, third, bits in steps:
            x[first] = (x[first] + x[second]) & 0xFFFFFFFF
            word = x[third] ^ x[first]
            x[third] = ((word << bits) | (word >> (32 - bits))) & 0xFFFFFFFF

    for _ in range(10):
        for column in range(4):
            quarter(column, 4 + column, 8 + column, 12 + column)
        for at in range(4):
            quarter(at, 4 + (at + 1) % 4, 8 + (at + 2) % 4, 12 + (at + 3) % 4)
    return x


CONSTANTS = struct.unpack("<4I", b"expand 32-byte k")


def hchacha20(key, nonce):
    x = rounds(CONSTANTS + struct.unpack("<8I", key) + struct.unpack("<4I", nonce))
    return struct.pack("<8I", *(x[:4] + x[12:]))


def chacha20(key, nonce, counter, text):
    out = bytearray()
    for start in range(0, len(text), 64):
        words = (counter + start // 64,) + struct.unpack("<3I", nonce)
        first = CONSTANTS + struct.unpack("<8I", key) + words
        block = [(a + b) & 0xFFFFFFFF for a, b in zip(rounds(first), first)]
        stream = struct.pack("<16I", *block)
        out += bytes(a ^ b for a, b in zip(text[start : start + 64], stream))
    return bytes(out)


def poly1305(key, text):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    sum_ = 0
    for start in range(0, len(text), 16):
        part = text[start : start + 16] + b"\x01"
        sum_ = (sum_ + int.from_bytes(part, "little")) * r % ((1 << 130) - 5)
    return ((sum_ + int.from_bytes(key[16:], "little")) % (1 << 128)).to_bytes(16, "little")


def seal(key, nonce, data, text):
    """AEAD_XChaCha20_Poly1305: the ciphertext, then the tag."""
    key, nonce = hchacha20(key, nonce[:16]), bytes(4) + nonce[16:]
    sealed = chacha20(key, nonce, 1, text)
    padded = b"".join(part + bytes(-len(part) % 16) for part in (data, sealed))
    lengths = struct.pack("<QQ", len(data), len(sealed))
    return sealed + poly1305(chacha20(key, nonce, 0, bytes(32)), padded + lengths)


def check():
    """The vector of draft-irtf-cfrg-xchacha-03, appendix A.3.1."""
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
        b"future, sunscreen would be it."
    )
    sealed = seal(
        bytes(range(0x80, 0xA0)),
        bytes(range(0x40, 0x58)),
        bytes.fromhex("50515253c0c1c2c3c4c5c6c7"),
        text,
    )
    assert sealed[:16].hex() == "bd6d179d3e83d43b9576579493c0e939"
    assert sealed[-16:].hex() == "c0875924c1c7987947deafd8780acf49"


def plaintext(length):
    return bytes(at * 31 % 251 for at in range(length))


def pieces(key, plain):
    count = max(1, -(-len(plain) // PIECE))
    data = b"\x01" + struct.pack("<Q", len(plain))
    for index in range(count):
        nonce = struct.pack("<QB", index, index + 1 == count) + bytes(15)
        yield seal(key, nonce, data, plain[index * PIECE : (index + 1) * PIECE])


def main():
    check()
    rows = []
    for length in (0, 1, 100, PIECE, PIECE + 1, 2 * PIECE + 5):
        key = hashlib.sha256(b"key of %d bytes" % length).digest()
        sealed = list(pieces(key, plaintext(length)))
        row = {"key": key.hex(), "plain_bytes": str(length)}
        row["sealed_sha256"] = [hashlib.sha256(piece).hexdigest() for piece in sealed]
        if length <= 100:
            row["sealed"] = sealed[0].hex()
        rows.append(row)
    json.dump(rows, sys.stdout, indent=1)
    print()


main()
