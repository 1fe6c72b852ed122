#!/usr/bin/env python3
"""Prints the link of a file, and trusts no program of ours.

    file_id.py FILE
    file_id.py --vectors

This is a second implementation of docs/protocol/files.md: the same bytes have the same link on
every machine and every chain. With --vectors it prints tests/vectors/files.json. Needs Python 3.8,
nothing else.
"""

import hashlib
import io
import json
import sys

CHUNK_BYTES = 131_072
SEGMENT_CHUNKS = 128


def h(tag, *parts):
    tag = tag.encode()
    return hashlib.sha256(bytes([len(tag)]) + tag + b"".join(parts)).digest()


def u64(number):
    return number.to_bytes(8, "little")


def levels(items):
    """The nodes of a Merkle tree, level by level, from the leaves to the top."""
    level = [h("cairn/leaf", item) for item in items]
    yield level
    while len(level) > 1:
        pairs = [level[at : at + 2] for at in range(0, len(level), 2)]
        level = [h("cairn/inner", *pair) if len(pair) == 2 else pair[0] for pair in pairs]
        yield level


def merkle_root(items):
    *_, top = levels(items)
    return h("cairn/root", u64(len(items)), *top)


def merkle_proof(items, index):
    """A MerkleProof: index, count and the siblings from below."""
    siblings, at = [], index
    for level in levels(items):
        if at ^ 1 < len(level):
            siblings.append(level[at ^ 1])
        at >>= 1
    return u64(index) + u64(len(items)) + u64(len(siblings)) + b"".join(siblings)


class File:
    """The hashes of a file that is read from a stream."""

    def __init__(self, stream):
        self.length, self.chunks = 0, []
        while True:
            chunk = stream.read(CHUNK_BYTES)
            if not chunk:
                break
            self.length += len(chunk)
            self.chunks.append(h("cairn/chunk", chunk))
        starts = range(0, len(self.chunks), SEGMENT_CHUNKS)
        self.segments = [self.chunks[at : at + SEGMENT_CHUNKS] for at in starts]
        self.leaves = [h("cairn/file-segment", merkle_root(one)) for one in self.segments]
        self.root = merkle_root(self.leaves)
        self.id = h("cairn/file", bytes([1]), u64(self.length), self.root)

    def head(self, segment):
        """A FileHead: the descriptor, the chunk hashes of a segment, and the path of its leaf."""
        chunks = self.segments[segment]
        listed = u64(len(chunks)) + b"".join(chunks)
        return u64(self.length) + self.root + listed + merkle_proof(self.leaves, segment)


def pattern(length):
    """Bytes in which no two chunks are the same."""
    numbered = [bytes((at + chunk) % 251 for at in range(251)) for chunk in range(251)]
    parts = []
    for chunk in range((length + CHUNK_BYTES - 1) // CHUNK_BYTES):
        start = chunk * CHUNK_BYTES
        turn = numbered[(start + chunk) % 251]
        parts.append((turn * (CHUNK_BYTES // 251 + 2))[:CHUNK_BYTES])
    return b"".join(parts)[:length]


def vectors():
    segment = CHUNK_BYTES * SEGMENT_CHUNKS
    rows = [
        ("empty", []),
        ("one byte", [("pattern", 1)]),
        ("one zero", [("zeros", 1)]),
        ("a chunk without its last byte", [("pattern", CHUNK_BYTES - 1)]),
        ("a chunk", [("pattern", CHUNK_BYTES)]),
        ("a chunk and a byte", [("pattern", CHUNK_BYTES + 1)]),
        ("a chunk of zeros", [("zeros", CHUNK_BYTES)]),
        ("a segment without its last byte", [("pattern", segment - 1)]),
        ("a segment", [("pattern", segment)]),
        ("a segment and a byte", [("pattern", segment + 1)]),
        ("a hole", [("pattern", 70_000), ("zeros", 2 * segment), ("pattern", 200_000)]),
        ("five segments of zeros", [("zeros", 5 * segment)]),
    ]
    make = {"pattern": pattern, "zeros": bytes}
    found = []
    for name, content in rows:
        file = File(io.BytesIO(b"".join(make[kind](length) for kind, length in content)))
        last = len(file.segments) - 1
        is_short = last >= 0 and len(file.segments[last]) <= 3
        found.append(
            {
                "name": name,
                "content": [{"kind": kind, "bytes": length} for kind, length in content],
                "length": str(file.length),
                "chunks": len(file.chunks),
                "segments": len(file.segments),
                "last_chunk": file.chunks[-1].hex() if file.chunks else None,
                "last_leaf": file.leaves[-1].hex() if file.leaves else None,
                "root": file.root.hex(),
                "id": file.id.hex(),
                "last_head": file.head(last).hex() if is_short else None,
            }
        )
    return found


def main(arguments):
    if arguments == ["--vectors"]:
        print(json.dumps(vectors(), indent=1))
    elif len(arguments) == 1 and not arguments[0].startswith("-"):
        with open(arguments[0], "rb") as stream:
            print("cairn:" + File(stream).id.hex())
    else:
        sys.exit(__doc__.strip())


if __name__ == "__main__":
    main(sys.argv[1:])
