#!/usr/bin/env python3
"""Faults on a local network of four validators and a full node, under load.

    faults.py NODE [--rounds 10] [--cuts 5,60] [--only cut|isolate|latency]

NODE is the program. Prints the table of docs/measurements/faults.md, and ends with 1 if a bound is
missed. Starts a network of its own in a temporary folder, on free ports."""

import argparse
import os
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "docs", "examples", "python"))
sys.dont_write_bytecode = True
import cairn  # noqa: E402

# Bounds, in seconds. GRACE: a block that was under way at the cut may still become final. HEAL:
# until the next final block, after nine of ten heals. HEAL_ALWAYS: the same after each heal. SIGNS:
# until a certificate holds a precommit of the validator that was isolated.
GRACE, HEAL, HEAL_ALWAYS, SIGNS = 1.0, 2.0, 4.0, 5.0
# For each latency one way, the longest median time until final, in milliseconds. A transfer takes
# five one-way delays and waits for half a height, which takes three: 325 and 1,300 ms in all. The
# median may be 1.3 times that.
P50 = {50: 422, 200: 1_690}
NODES = [f"node{number}" for number in range(1, 6)]


def highest(net):
    return max(net.height(node) for node in NODES)


def cut(net, seconds):
    """Cuts the network in two. Returns the number of blocks that became final from GRACE seconds
    after the cut to the heal, and the seconds from the heal to the next one."""
    net.partition(NODES[:2], NODES[2:])
    begun = time.monotonic()
    time.sleep(GRACE)
    before = highest(net)
    time.sleep(max(0.0, begun + seconds - time.monotonic()))
    meanwhile = highest(net) - before
    # The clock starts with the command, as a user sees it.
    start = time.monotonic()
    net.heal()
    reached = lambda: highest(net) > before + meanwhile
    return meanwhile, seconds_until("a block after the heal", reached, net, start)


def seconds_until(event, look, net, start):
    """Seconds from the start until `look` returns something true; None if it takes too long."""
    try:
        net.until(event, look, within=30)
    except cairn.NotInTime:
        return None
    return time.monotonic() - start


def isolate(net, seconds):
    """Isolates a validator. Returns the number of blocks that the others made meanwhile, and the
    seconds from the heal until a certificate holds its precommit."""
    key = net.rpc("chain_status", "node4")["validator"]
    before = net.height()
    net.isolate("node4")
    time.sleep(seconds)
    meanwhile = net.height() - before
    start = time.monotonic()
    net.heal()
    seen = net.height()

    def signs():
        nonlocal seen
        top = net.height()
        blocks = [net.rpc("chain_block", height=str(at)) for at in range(seen + 1, top + 1)]
        seen = top
        return any(key in block["signers"] for block in blocks)

    return meanwhile, seconds_until("its precommit in a certificate", signs, net, start)


def told(seconds):
    return "never" if seconds is None else f"{seconds:.2f} s"


def cuts(net, rounds, lengths):
    ok = True
    for seconds in lengths:
        net.load(50)
        done = []
        for _ in range(rounds):
            done.append(cut(net, seconds))
            net.await_final(30)
        net.load(0)
        blocks = sum(meanwhile for meanwhile, _ in done)
        heals = sorted(30.0 if heal is None else heal for _, heal in done)
        nine = heals[max(0, -(-9 * rounds // 10) - 1)]
        ok &= blocks == 0 and nine <= HEAL and heals[-1] <= HEAL_ALWAYS
        print(
            f"| cut 2/2 for {seconds} s, {rounds} times | {blocks} blocks from {GRACE:.0f} s after"
            f" the command | heal to next final: {told(heals[len(heals) // 2])} (median),"
            f" {told(nine)} (nine of ten), {told(heals[-1])} (worst) |",
            flush=True,
        )
    return ok


def isolation(net):
    net.load(50)
    meanwhile, signs = isolate(net, 20)
    net.load(0)
    print(
        f"| one of four isolated for 20 s | {meanwhile} blocks of the others | its precommit in a"
        f" certificate after {told(signs)} |",
        flush=True,
    )
    return meanwhile > 0 and signs is not None and signs <= SIGNS


def latencies(net):
    ok = True
    for ms, bound in P50.items():
        net.latency(ms)
        # The network loads its full node if no node is named.
        figures = net.load(50, seconds=20)
        due = figures["sent"] + figures.get("skipped", 0)
        ok &= figures["p50_ms"] <= bound and figures["final"] == due
        print(
            f"| {ms} ms each way between all, 50/s for 20 s at a full node |"
            f" {figures['final']} of {due} final | p50 {figures['p50_ms']} ms (at most"
            f" {bound}), p99 {figures['p99_ms']} ms, max {figures['max_ms']} ms |",
            flush=True,
        )
        net.heal()
    return ok


def main():
    options = argparse.ArgumentParser()
    options.add_argument("node")
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--cuts", default="5,60", help="seconds of each kind of cut")
    options.add_argument("--only", choices=["cut", "isolate", "latency"])
    options = options.parse_args()
    lengths = [int(seconds) for seconds in options.cuts.split(",")]
    parts = {
        "cut": lambda net: cuts(net, options.rounds, lengths),
        "isolate": isolation,
        "latency": latencies,
    }
    print("| Fault | Meanwhile | After |\n|---|---|---|", flush=True)
    ok = True
    with cairn.Testnet(nodes=4, full_nodes=1, program=options.node) as net:
        for name, part in parts.items():
            if options.only in (None, name):
                ok &= part(net)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
