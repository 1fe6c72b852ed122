#!/usr/bin/env python3
"""Checks a Cairn chain from its genesis, and trusts nothing else.

    check_chain.py GENESIS --rpc URL [--blocks N] [--record FILE]
    check_chain.py GENESIS --replay FILE

This is a second implementation of every rule of docs/protocol/bytes.md: encodings, hashes,
certificates, signatures, balances, fees, the state root and the history root of each block. Votes
are checked by an ordinary Ed25519 library (python3-cryptography, which calls OpenSSL). Transfers
follow ZIP-215, which accepts signatures that such a library refuses, so they are checked in
integers below.

Exit code 0: all blocks follow the rules. 1: the node or a file could not be read. 2: wrong usage.
4: a block breaks a rule, or the genesis or the recording is invalid. On success the last line of
stdout is {"height","block_hash","blocks","transfers"}. Needs Python 3.9 and python3-cryptography,
nothing else.
"""

import argparse
import hashlib
import json
import sys
import urllib.request

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAGIC = b"cairn recording 2\n"


class Refused(Exception):
    """The chain breaks a rule, or the recording is damaged."""


def require(condition, complaint):
    if not condition:
        raise Refused(complaint)


# --- Hashes and bytes -----------------------------------------------------------------------------


def tagged(tag):
    return bytes([len(tag)]) + tag.encode()


def H(tag, *parts):
    return hashlib.sha256(tagged(tag) + b"".join(parts)).digest()


def u(number, width):
    return number.to_bytes(width, "little")


def text(string):
    return u(len(string.encode()), 8) + string.encode()


class Reader:
    """Reads the codec: fixed-width little-endian numbers, lists with a u64 length, no bytes after
    the value."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        require(self.at + count <= len(self.data), "the bytes end early")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, width):
        return int.from_bytes(self.take(width), "little")

    def length(self, item_bytes):
        count = self.number(8)
        require(
            count * item_bytes <= len(self.data) - self.at, "a length beyond the end of the bytes"
        )
        return count

    def end(self):
        require(self.at == len(self.data), "bytes after the value")


def merkle_root(items):
    level, count = [H("cairn/leaf", item) for item in items], len(items)
    while len(level) > 1:
        pairs = [H("cairn/inner", level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(level) - len(level) % 2 :]
    return H("cairn/root", u(count, 8), *level)


# --- Ed25519 after ZIP-215, in integers -----------------------------------------------------------

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)


def decompress(data):
    """The point of an encoding, canonical or not; None if it encodes no point of the curve."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, (y & ((1 << 255) - 1)) % P
    u_, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u_ * pow(v, 3, P) * pow(u_ * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P == (P - u_) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if v * x * x % P != u_:
        return None
    if x & 1 != sign:
        x = (P - x) % P
    return (x, y, 1, x * y % P)


def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


NEUTRAL = (0, 1, 1, 0)
BASE = decompress(u(4 * pow(5, -1, P) % P, 32))


def times(scalar, point):
    result = NEUTRAL
    for bit in bin(scalar)[2:]:
        result = add(result, result)
        if bit == "1":
            result = add(result, point)
    return result


def is_neutral(point):
    return point[0] % P == 0 and (point[1] - point[2]) % P == 0


def is_key(data):
    """Whether an account may have this key: canonical, a point, not of small order."""
    if int.from_bytes(data, "little") & ((1 << 255) - 1) >= P:
        return False
    point = decompress(data)
    # A sign bit with x = 0 is not canonical. It is not checked: such points have small order
    # anyway.
    return point is not None and not is_neutral(times(8, point))


def verify_transfer(key, message, signature):
    """ZIP-215: [8][S]B = [8]R + [8][k]A, with S below the order and R in any encoding.

    A must pass is_key.
    """
    a, r, s = decompress(key), decompress(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= ORDER or not is_key(key):
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % ORDER
    minus = (P - r[0], r[1], r[2], P - r[3]), (P - a[0], a[1], a[2], P - a[3])
    return is_neutral(times(8, add(add(times(s, BASE), minus[0]), times(k, minus[1]))))


def is_validator_key(data):
    """Whether a validator may have this key: without torsion, so that all libraries agree."""
    return is_key(data) and is_neutral(times(ORDER, decompress(data)))


def verify_vote(key, message, signature):
    """Verifies with an ordinary library, and refuses an R of small order, as nodes do."""
    r = decompress(signature[:32])
    if r is None or is_neutral(times(8, r)):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        return True
    except (InvalidSignature, ValueError):
        return False


# --- The genesis ----------------------------------------------------------------------------------

BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
LIMITS = """block_bytes_max block_interval_ms empty_block_interval_ms fee_per_byte
new_account_fee expiry_ms_max clock_drift_ms segment_bytes segment_blocks
chunk_bytes snapshot_segments""".split()


def address_key(address, prefix):
    """The key of an address: bech32m (BIP-350)."""
    require(
        address.startswith(prefix + "1") and address == address.lower(),
        f"not an address of {prefix}: {address}",
    )
    digits = [BECH32.index(char) for char in address[len(prefix) + 1 :]]
    checksum = 1
    for value in [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + digits:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for i, generator in enumerate([0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3]):
            checksum ^= generator if top >> i & 1 else 0
    require(checksum == 0x2BC830A3, f"an address with a wrong checksum: {address}")
    number = 0
    for digit in digits[:-6]:
        number = number << 5 | digit
    require(
        len(digits) == 58 and number & 15 == 0,
        f"an address of another length, or with bits after the key: {address}",
    )
    return (number >> 4).to_bytes(32, "big")


class Genesis:
    """What all nodes agree on; its hash is the chain id."""

    def __init__(self, path):
        with open(path, encoding="utf-8-sig") as file:
            data = json.load(file)
        require(data["format"] == 2, f"genesis format {data['format']}, expected 2")
        prefix, coin = data["address_prefix"], data["coin"]

        def amount(written):
            # Limits, fees among them, are plain numbers. Balances have a unit.
            if " " not in written:
                return int(written)
            number, unit = written.split(" ")
            require(unit == coin["symbol"], f"an amount in {unit}, expected {coin['symbol']}")
            whole, _, part = number.partition(".")
            return int(whole + part.ljust(coin["decimals"], "0"))

        self.accounts = [
            (a["name"], address_key(a["address"], prefix), amount(a["balance"]))
            for a in data["accounts"]
        ]
        listed = [
            (v["name"], bytes.fromhex(v["key"]), address_key(v["payout"], prefix), int(v["power"]))
            for v in data["validators"]
        ]
        limits = {name: amount(data["limits"][name]) for name in LIMITS}
        self.limits, self.start_time = limits, int(data["start_time"])
        encoded = (
            u(2, 4)
            + text(data["network"])
            + text(prefix)
            + text(coin["symbol"])
            + u(coin["decimals"], 1)
        )
        encoded += u(self.start_time, 8) + u(len(self.accounts), 8)
        encoded += b"".join(
            text(name) + key + u(balance, 8) for name, key, balance in self.accounts
        )
        encoded += u(len(listed), 8) + b"".join(
            text(n) + key + payout + u(power, 8) for n, key, payout, power in listed
        )
        encoded += b"".join(u(limits[name], 8) for name in LIMITS)
        self.chain = H("cairn/genesis", encoded)
        require(
            all(is_validator_key(key) for _, key, _, _ in listed),
            "a validator key that libraries disagree on",
        )
        keys = [key for _, key, _ in self.accounts] + [payout for _, _, payout, _ in listed]
        require(all(is_key(key) for key in keys), "an account that can never sign")
        self.validators = sorted((key, payout, power) for _, key, payout, power in listed)
        entries = b"".join(key + payout + u(power, 8) for key, payout, power in self.validators)
        self.validators_hash = H("cairn/validators", u(len(self.validators), 8) + entries)
        self.quorum = sum(power for _, _, power in self.validators) * 2 // 3 + 1


# --- Certificates, blocks, transfers --------------------------------------------------------------


class Certificate:
    def __init__(self, reader):
        start = reader.at
        self.height, self.round, self.block = reader.number(8), reader.number(4), reader.take(32)
        self.signers = reader.take(reader.length(1))
        self.signatures = [reader.take(64) for _ in range(reader.length(64))]
        self.raw = reader.data[start : reader.at]

    def check(self, genesis, height, block):
        """Proves that the block is final: a quorum signed, and every signature holds."""
        require((self.height, self.block) == (height, block), "a certificate of another block")
        count = len(genesis.validators)
        bits = int.from_bytes(self.signers, "little")
        require(
            len(self.signers) == (count + 7) // 8 and bits >> count == 0,
            "a bitmap that does not fit the validators",
        )
        signers = [
            validator for place, validator in enumerate(genesis.validators) if bits >> place & 1
        ]
        require(len(signers) == len(self.signatures), "not one signature for each signer")
        require(sum(power for _, _, power in signers) >= genesis.quorum, "too little voting power")
        vote = u(1, 4) + u(height, 8) + u(self.round, 4) + b"\x01" + block
        message = tagged("cairn/sign-vote") + genesis.chain + vote
        for (key, _, _), signature in zip(signers, self.signatures):
            require(
                verify_vote(key, message, signature),
                f"a vote of {key.hex()} with a wrong signature",
            )


class Transfer:
    def __init__(self, reader):
        start = reader.at
        require(reader.number(1) == 0, "an unknown kind of transaction")
        self.sender, self.nonce = reader.take(32), reader.number(8)
        self.outputs = [(reader.take(32), reader.number(8)) for _ in range(reader.length(40))]
        self.fee, self.expires_at, self.memo = (
            reader.number(8),
            reader.number(8),
            reader.take(reader.length(1)),
        )
        self.body = reader.data[start : reader.at]
        self.signature = reader.take(64)
        self.raw = reader.data[start : reader.at]


class Block:
    def __init__(self, raw):
        reader = Reader(raw)
        self.raw, self.header = raw, raw[:274]
        self.version, self.height, self.time = reader.number(2), reader.number(8), reader.number(8)
        (
            self.parent,
            self.proposer,
            self.transactions_root,
            self.state_root,
            self.history_root,
            self.validators,
            self.next_validators,
            self.certificate_hash,
        ) = (reader.take(32) for _ in range(8))
        self.certificate = Certificate(reader)
        self.transfers = [Transfer(reader) for _ in range(reader.length(177))]
        reader.end()
        self.hash = H("cairn/block", self.header)


# --- The chain ------------------------------------------------------------------------------------


def state_root(accounts, depth=0):
    """Root of the radix tree over (path, key, balance, nonce, activity), given in path order."""
    if len(accounts) <= 8:
        entries = (
            b"\0" + key + u(balance, 8) + u(nonce, 8) + activity
            for _, key, balance, nonce, activity in accounts
        )
        return H("cairn/page", u(len(accounts), 8), *entries)
    is_right = [path[depth // 8] >> (7 - depth % 8) & 1 for path, *_ in accounts]
    split = is_right.index(1) if 1 in is_right else len(accounts)
    return H(
        "cairn/s-inner",
        state_root(accounts[:split], depth + 1),
        state_root(accounts[split:], depth + 1),
    )


class Chain:
    """The chain so far, and the rules for what may follow."""

    def __init__(self, genesis):
        self.genesis, self.height, self.time, self.tip = (
            genesis,
            0,
            genesis.start_time,
            genesis.chain,
        )
        # Key to [balance, nonce, activity].
        self.accounts = {key: [balance, 0, bytes(32)] for _, key, balance in genesis.accounts}
        self.blocks = self.transfers = 0
        # The blocks of the open segment; the number of sealed segments, and the mountain range over
        # them, as (leaves, hash) with the largest peak first.
        self.open, self.segments, self.peaks = [], 0, []

    def history_root(self):
        return H("cairn/h-root", u(self.segments, 8), *(peak for _, peak in self.peaks))

    def apply(self, raw):
        """Applies one block. The next block has the certificate that makes this one final."""
        block, genesis, limits = Block(raw), self.genesis, self.genesis.limits
        require(block.version == 2, f"header version {block.version}, expected 2")
        require(
            block.height == self.height + 1, f"height {block.height}, expected {self.height + 1}"
        )
        require(block.parent == self.tip, "another parent")
        least = self.time + limits["block_interval_ms"]
        require(block.time >= least, f"time {block.time}, expected at least {least}")
        require(
            block.validators == block.next_validators == genesis.validators_hash, "other validators"
        )
        payout = {key: payout for key, payout, _ in genesis.validators}.get(block.proposer)
        require(payout is not None, "a proposer that is no validator")
        require(
            block.certificate_hash == H("cairn/certificate", block.certificate.raw),
            "another certificate than the header says",
        )
        if self.height:
            block.certificate.check(genesis, self.height, self.tip)
        else:
            require(
                block.certificate.raw == u(0, 8) + u(0, 4) + genesis.chain + u(0, 16),
                "a certificate before the first block",
            )
        hashes = [H("cairn/tx-hash", genesis.chain, transfer.raw) for transfer in block.transfers]
        require(block.transactions_root == merkle_root(hashes), "another transactions root")
        require(
            sum(len(t.raw) for t in block.transfers) <= limits["block_bytes_max"],
            "a block over the limit",
        )
        require(block.history_root == self.history_root(), "another history root")
        for transfer in block.transfers:
            self.transfer(transfer, block)
        fees = sum(transfer.fee for transfer in block.transfers)
        if fees:
            account = self.accounts.setdefault(payout, [0, 0, bytes(32)])
            account[0] += fees
            self.touch(payout, block.height, H("cairn/fees", u(fees, 8)))
        rows = sorted(
            (H("cairn/path", b"\0" + key), key, *account) for key, account in self.accounts.items()
        )
        require(block.state_root == state_root(rows), "another state root")
        self.seal(block)
        self.height, self.time, self.tip = block.height, block.time, block.hash
        self.blocks, self.transfers = self.blocks + 1, self.transfers + len(block.transfers)

    def transfer(self, transfer, block):
        limits = self.genesis.limits
        require(
            1 <= len(transfer.outputs) <= 64 and len(transfer.memo) <= 256,
            "a transfer of a shape that cannot be",
        )
        require(all(amount > 0 for _, amount in transfer.outputs), "an output of nothing")
        require(
            block.time <= transfer.expires_at <= block.time + limits["expiry_ms_max"],
            "an expiry out of its bounds",
        )
        message = tagged("cairn/sign-tx") + self.genesis.chain + transfer.body
        require(
            verify_transfer(transfer.sender, message, transfer.signature),
            "a transfer with a wrong signature",
        )
        sender = self.accounts.get(transfer.sender)
        require(
            sender is not None and sender[1] == transfer.nonce,
            "another nonce than the account's next",
        )
        new = {key for key, _ in transfer.outputs if key not in self.accounts}
        require(all(is_key(key) for key in new), "a recipient that can never sign")
        least = limits["fee_per_byte"] * len(transfer.raw) + limits["new_account_fee"] * len(new)
        require(transfer.fee >= least, f"a fee of {transfer.fee}, expected at least {least}")
        total = transfer.fee + sum(amount for _, amount in transfer.outputs)
        require(total <= sender[0], "more than the account has")
        sender[0], sender[1] = sender[0] - total, sender[1] + 1
        for key, amount in transfer.outputs:
            self.accounts.setdefault(key, [0, 0, bytes(32)])[0] += amount
        for key in {transfer.sender, *(key for key, _ in transfer.outputs)}:
            self.touch(key, block.height, H("cairn/tx-id", self.genesis.chain, transfer.body))

    def touch(self, key, height, name):
        account = self.accounts[key]
        account[2] = H("cairn/activity", account[2], u(height, 8), name)

    def seal(self, block):
        """Adds the block to the open segment, and closes it when it is large enough."""
        limits = self.genesis.limits
        self.open.append(block)
        size = sum(len(block.raw) for block in self.open)
        if size < limits["segment_bytes"] and len(self.open) < limits["segment_blocks"]:
            return
        data, step = b"".join(block.raw for block in self.open), limits["chunk_bytes"]
        chunks = [H("cairn/chunk", data[at : at + step]) for at in range(0, size, step)]
        descriptor = (
            u(self.segments, 8) + u(self.open[0].height, 8) + u(block.height, 8) + u(size, 8)
        )
        descriptor += (
            merkle_root(chunks) + merkle_root([block.hash for block in self.open]) + block.hash
        )
        leaves, peak = 1, H("cairn/segment", descriptor)
        while self.peaks and self.peaks[-1][0] == leaves:
            leaves, peak = leaves * 2, H("cairn/h-inner", self.peaks.pop()[1], peak)
        self.peaks.append((leaves, peak))
        self.segments, self.open = self.segments + 1, []


# --- Where blocks come from -----------------------------------------------------------------------


def call(url, method, **params):
    request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(url, request, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        answer = json.load(response)
    if "error" in answer:
        raise OSError(f"{method}: {answer['error']['message']}")
    return answer["result"]


def from_rpc(url, count):
    """At most this many blocks of a node, and then the certificate of the last one."""
    tip = int(call(url, "chain_status")["height"])
    last = min(tip, count or tip)
    for height in range(1, last + 1):
        yield bytes.fromhex(call(url, "chain_block", height=str(height), raw=True)["raw"])
    yield bytes.fromhex(call(url, "chain_head", height=str(last))["certificate"])


def from_recording(path):
    with open(path, "rb") as file:
        reader = Reader(file.read())
    require(reader.take(len(MAGIC)) == MAGIC, "not a recording")
    while reader.at < len(reader.data):
        yield reader.take(reader.number(4))


def main():
    parser = argparse.ArgumentParser(description="Checks a Cairn chain from its genesis on.")
    parser.add_argument("genesis", metavar="GENESIS")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--rpc", metavar="URL")
    source.add_argument("--replay", metavar="FILE")
    parser.add_argument("--blocks", metavar="N", type=int, help="check at most N blocks")
    parser.add_argument(
        "--record", metavar="FILE", help="write what the node sent to FILE, for --replay"
    )
    options = parser.parse_args()
    chain = None
    try:
        chain = Chain(Genesis(options.genesis))
        record = open(options.record, "wb") if options.record else None
        items = (
            from_rpc(options.rpc, options.blocks) if options.rpc else from_recording(options.replay)
        )
        if record:
            record.write(MAGIC)
        last = None
        for item in items:
            if record:
                record.write(u(len(item), 4) + item)
            # All items are blocks but the last one, a certificate. So an item is applied as a block
            # once another one follows.
            if last is not None:
                chain.apply(last)
            last = item
        require(last is not None, "nothing to check")
        reader = Reader(last)
        certificate = Certificate(reader)
        reader.end()
        certificate.check(chain.genesis, chain.height, chain.tip)
        if record:
            record.close()
    except (Refused, KeyError, ValueError, TypeError, OverflowError) as refused:
        place = f"block {chain.height + 1}: " if chain else ""
        print(f"refused: {place}{refused}", file=sys.stderr)
        return 4
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    counts = {
        "height": str(chain.height),
        "block_hash": chain.tip.hex(),
        "blocks": chain.blocks,
        "transfers": chain.transfers,
    }
    print(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
