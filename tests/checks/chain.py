#!/usr/bin/env python3
"""The checker of docs/examples against the signature vectors and a real chain: it accepts the
chain, and no changed byte.

    chain.py NODE WALLET

NODE and WALLET are the programs. Starts a local network of its own, records its first thousand
blocks, replays them, and changes the recording: 200 places at random and one in each field of a
block with a transfer."""

import copy
import json
import os
import random
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "docs", "examples"))
import check_chain as checker  # noqa: E402

CHECKER = os.path.join(ROOT, "docs", "examples", "check_chain.py")
BLOCKS = 1_000
CHANGES = 200
PATIENCE = 1_200


def vectors():
    with open(os.path.join(ROOT, "tests", "vectors", "signatures.json"), encoding="utf-8") as file:
        data = json.load(file)
    chain = bytes.fromhex(data["chain_id"])
    parts = lambda row, *names: (bytes.fromhex(row[name]) for name in names)
    verdicts = []
    for row in data["keys"]:
        (key,) = parts(row, "key")
        verdicts += [
            (row, checker.is_key(key), row["account"]),
            (row, checker.is_validator_key(key), row["validator"]),
        ]
    for row in data["signatures"]:
        key, message, signature = parts(row, "key", "message", "signature")
        is_vote = checker.is_validator_key(key) and checker.verify_vote(key, message, signature)
        verdicts.append((row, checker.verify_transfer(key, message, signature), row["transfer"]))
        verdicts.append((row, is_vote, row["validator"]))
    for kind, tag in [("votes", "cairn/sign-vote"), ("proposals", "cairn/sign-proposal")]:
        for row in data[kind]:
            (raw,) = parts(row, "bytes")
            body, key, signature = raw[:-96], raw[-96:-64], raw[-64:]
            message = checker.tagged(tag) + chain + body
            is_valid = checker.is_validator_key(key) and checker.verify_vote(
                key, message, signature
            )
            verdicts.append((row, is_valid, row["valid"]))
    genesis = copy.copy(object.__new__(checker.Genesis))
    genesis.chain = chain
    listed = [(*parts(row, "key", "payout"), int(row["power"])) for row in data["validators"]]
    genesis.validators, genesis.quorum = listed, sum(power for *_, power in listed) * 2 // 3 + 1
    for row in data["certificates"]:
        raw, block = parts(row, "bytes", "block")
        verdicts.append((row, is_proof(genesis, raw, int(row["height"]), block), row["valid"]))
    for row in data["transfers"]:
        (raw,) = parts(row, "bytes")
        transfer = checker.Transfer(checker.Reader(raw))
        message = checker.tagged("cairn/sign-tx") + chain + transfer.body
        verdicts.append(
            (
                row,
                checker.verify_transfer(transfer.sender, message, transfer.signature),
                row["valid"],
            )
        )
    wrong = [row["name"] for row, got, expected in verdicts if got != expected]
    assert not wrong, f"another verdict than the vectors: {wrong}"
    return len(verdicts)


def is_proof(genesis, raw, height, block):
    try:
        reader = checker.Reader(raw)
        certificate = checker.Certificate(reader)
        reader.end()
        certificate.check(genesis, height, block)
        return True
    except checker.Refused:
        return False


def run(*command, expected=0):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == expected, (
        f"{command} ended with {done.returncode}, expected {expected}: {done.stderr}"
    )
    return done.stdout


def record(node, wallet, folder):
    """Runs a local network with blocks in quick succession and some transfers. Returns the paths of
    its genesis and of a recording of its first blocks, and what the checker printed."""
    with open(os.path.join(ROOT, "genesis.json"), encoding="utf-8") as file:
        template = json.load(file)
    template["limits"]["empty_block_interval_ms"] = "50"
    # Segments are small, so that some close and the history root changes.
    template["limits"]["segment_bytes"] = template["limits"]["block_bytes_max"] = str(64 << 10)
    template["limits"]["chunk_bytes"] = str(16 << 10)
    path, home = os.path.join(folder, "template.json"), os.path.join(folder, "net")
    with open(path, "w", encoding="utf-8") as file:
        json.dump(template, file)
    command = [
        node,
        "testnet",
        "--plain",
        "--dir",
        home,
        "--genesis",
        path,
        "--base-port",
        "auto",
    ]
    with open(os.path.join(folder, "log"), "wb") as log:
        network = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.PIPE)
    try:
        described = os.path.join(home, "network.json")
        wait(lambda: os.path.exists(described), network)
        with open(described, encoding="utf-8") as file:
            rpc = json.load(file)["nodes"][0]["rpc"]
        height = lambda: int(checker.call(rpc, "chain_status")["height"])
        wait(lambda: try_or_none(height) is not None, network)
        pay = [wallet, "--home", os.path.join(home, "wallet"), "--rpc", rpc, "send", "--yes"]
        for to, amount in [("bob", "1.5"), ("carol", "2"), ("dave", "0.25"), ("alice", "3")] * 3:
            run(*pay, "--from", "alice", "--to", to, "--amount", f"{amount} CRN")
        wait(lambda: height() >= BLOCKS, network)
        genesis, recording = os.path.join(home, "genesis.json"), os.path.join(folder, "recording")
        told = run(
            sys.executable,
            CHECKER,
            genesis,
            "--rpc",
            rpc,
            "--blocks",
            str(BLOCKS),
            "--record",
            recording,
        )
        return genesis, recording, told
    finally:
        network.terminate()
        network.wait(timeout=PATIENCE)


def try_or_none(look):
    try:
        return look()
    except OSError:
        return None


def wait(look, network):
    deadline = time.monotonic() + PATIENCE
    while not look():
        assert network.poll() is None, "the local network has ended"
        assert time.monotonic() < deadline, "the local network does not get there"
        time.sleep(0.1)


def fields(raw):
    """The offset of each field in the bytes of a block, by name."""
    at, places = 0, {}

    def field(name, width):
        nonlocal at
        places.setdefault(name, at)
        at += width

    for name, width in [("version", 2), ("height", 8), ("time", 8)]:
        field(name, width)
    for name in [
        "parent",
        "proposer",
        "transactions root",
        "state root",
        "history root",
        "validators",
        "next validators",
        "certificate hash",
    ]:
        field(name, 32)
    certificate = checker.Block(raw).certificate
    for name, width in [
        ("certificate height", 8),
        ("certificate round", 4),
        ("certificate block", 32),
        ("bitmap length", 8),
    ]:
        field(name, width)
    field("bitmap", len(certificate.signers))
    field("signature count", 8)
    field("signatures", 64 * len(certificate.signatures))
    field("transfer count", 8)
    for name, width in [
        ("kind", 1),
        ("sender", 32),
        ("nonce", 8),
        ("output count", 8),
        ("recipient", 32),
        ("amount", 8),
    ]:
        field(name, width)
    outputs = len(checker.Block(raw).transfers[0].outputs)
    at += 40 * (outputs - 1)
    for name, width in [("fee", 8), ("expiry", 8), ("memo length", 8)]:
        field(name, width)
    at += len(checker.Block(raw).transfers[0].memo)
    field("signature", 64)
    return places


def refuses(states, items, data, place):
    """Whether the checker refuses the recording with this byte changed, going on from the state
    before the change."""
    start = len(checker.MAGIC)
    if place < start:
        return not data[:start].startswith(checker.MAGIC)
    offset, number = start, 0
    while number < len(items) and offset + 4 + len(items[number]) <= place:
        offset, number = offset + 4 + len(items[number]), number + 1
    reader, chain, last = (
        checker.Reader(data),
        copy.deepcopy(states[min(number, len(states) - 1)]),
        None,
    )
    reader.at = offset
    try:
        while reader.at < len(data):
            item = reader.take(reader.number(4))
            if last is not None:
                chain.apply(last)
            last = item
        # The certificate of the last block is checked at the end, as the checker does it.
        end = checker.Reader(last)
        certificate = checker.Certificate(end)
        end.end()
        certificate.check(chain.genesis, chain.height, chain.tip)
        return False
    except (checker.Refused, ValueError, OverflowError):
        return True


def main():
    node, wallet = sys.argv[1:3]
    print(f"{vectors()} verdicts of the signature vectors agree")
    with tempfile.TemporaryDirectory(prefix="cairn-check-") as folder:
        genesis, recording, told = record(node, wallet, folder)
        again = run(sys.executable, CHECKER, genesis, "--replay", recording)
        assert again == told, f"the replay says {again}, the node's chain {told}"
        counts = json.loads(told)
        assert counts["blocks"] == BLOCKS and counts["transfers"] >= 12, told
        with open(recording, "rb") as file:
            data = file.read()
        items = list(checker.from_recording(recording))
        # The state before each block, to go on from.
        states, chain = [], checker.Chain(checker.Genesis(genesis))
        for item in items[:-1]:
            states.append(copy.deepcopy(chain))
            chain.apply(item)
        states.append(copy.deepcopy(chain))
        paid = next(
            number for number, item in enumerate(items[:-1]) if checker.Block(item).transfers
        )
        before = len(checker.MAGIC) + sum(4 + len(item) for item in items[:paid]) + 4
        rng = random.Random(7)
        places = [(name, before + place) for name, place in fields(items[paid]).items()]
        places += [("a random place", rng.randrange(len(data))) for _ in range(CHANGES)]
        for name, place in places:
            changed = bytearray(data)
            changed[place] ^= 1 << rng.randrange(8)
            assert refuses(states, items, bytes(changed), place), (
                f"{name}: byte {place} was changed and nobody noticed"
            )
        # A few changes are also given to the checker as a program, which ends with exit code 4.
        for _, place in [places[3], places[20], places[-1]]:
            changed = bytearray(data)
            changed[place] ^= 1
            with open(recording, "wb") as file:
                file.write(changed)
            run(sys.executable, CHECKER, genesis, "--replay", recording, expected=4)
        print(f"{BLOCKS} blocks accepted, {len(places)} changes refused: {told.strip()}")


if __name__ == "__main__":
    main()
