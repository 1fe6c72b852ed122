#!/usr/bin/env python3
"""Faults on a local network of four validators and a full node, under load.

    faults.py NODE [--rounds 10] [--cuts 5,60] [--only cut|isolate|latency]

NODE is the program. Prints the table of docs/measurements/faults.md, and ends with 1 if a bound is
missed. Starts networks of its own in a temporary folder, on free ports."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request

POLL = 0.02
# Bounds, in seconds. GRACE: a block that was under way at the cut may still become final.
GRACE, HEAL, HEAL_ALWAYS, SIGNS = 1.0, 2.0, 4.0, 5.0
# Longest median for a latency each way, in milliseconds: 1.3 times five one-way delays.
P50 = {50: 325, 200: 1_300}


class Network:
    """A network that runs until the end of the `with` block."""

    def __init__(self, node, folder):
        self.node, self.folder = node, folder

    def __enter__(self):
        started = ["--nodes", "4", "--full-nodes", "1", "--base-port", "auto", "--detach"]
        self.run(*started)
        self.rpc = {node["name"]: node["rpc"] for node in self.run("ls")["nodes"]}
        return self

    def __exit__(self, *_):
        subprocess.run(self.words("stop"), stdout=subprocess.DEVNULL, check=False)

    def words(self, *words):
        return [self.node, "testnet", "--dir", self.folder, "--json", *words]

    def run(self, *words):
        done = subprocess.run(self.words(*words), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(words)}: {done.stderr.strip()}")
        return json.loads(done.stdout or "null")

    def call(self, name, method, **params):
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        request = urllib.request.Request(
            self.rpc[name], json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)["result"]

    def height(self, *names):
        return max(int(self.call(name, "chain_status")["height"]) for name in names or self.rpc)

    def await_height(self, height, patience, *names):
        """Seconds until a node has this height; None if none has it in time."""
        start = time.monotonic()
        while time.monotonic() < start + patience:
            if self.height(*names) >= height:
                return time.monotonic() - start
            time.sleep(POLL)
        return None


def cut(network, seconds):
    """Cuts the network in halves. Returns blocks that became final meanwhile, and the seconds from
    the heal to the next one."""
    network.run("partition", "node1,node2/node3,node4,node5")
    begun = time.monotonic()
    time.sleep(GRACE)
    before = network.height()
    time.sleep(max(0.0, begun + seconds - time.monotonic()))
    meanwhile = network.height() - before
    # The clock starts with the command, as a user sees it.
    start = time.monotonic()
    network.run("heal")
    if network.await_height(before + meanwhile + 1, 30) is None:
        return meanwhile, None
    return meanwhile, time.monotonic() - start


def isolate(network, seconds):
    """Isolates a validator. Returns blocks of the others meanwhile, and the seconds from the heal
    until a certificate holds its precommit."""
    key = network.call("node4", "chain_status")["validator"]
    before = network.height("node1")
    network.run("isolate", "node4")
    time.sleep(seconds)
    meanwhile = network.height("node1") - before
    start = time.monotonic()
    network.run("heal")
    seen = network.height("node1")
    while time.monotonic() < start + 30:
        top = network.height("node1")
        for height in range(seen + 1, top + 1):
            if key in network.call("node1", "chain_block", height=str(height))["signers"]:
                return meanwhile, time.monotonic() - start
        seen = max(seen, top)
        time.sleep(POLL)
    return meanwhile, None


def told(seconds):
    return "never" if seconds is None else f"{seconds:.2f} s"


def cuts(network, rounds, lengths):
    ok = True
    for seconds in lengths:
        network.run("load", "50/s")
        done = []
        for _ in range(rounds):
            done.append(cut(network, seconds))
            network.run("wait", "--final", "--timeout", "30s")
        network.run("load", "0/s")
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


def isolation(network):
    network.run("load", "50/s")
    meanwhile, signs = isolate(network, 20)
    network.run("load", "0/s")
    print(
        f"| one of four isolated for 20 s | {meanwhile} blocks of the others | its precommit in a"
        f" certificate after {told(signs)} |",
        flush=True,
    )
    return meanwhile > 0 and signs is not None and signs <= SIGNS


def latencies(network):
    ok = True
    for ms, bound in P50.items():
        network.run("latency", "all", f"{ms}ms")
        figures = network.run("load", "50/s", "--for", "20s", "--node", "node5")
        ok &= figures["p50_ms"] <= bound and figures["final"] == figures["sent"]
        print(
            f"| {ms} ms each way between all, 50/s for 20 s at a full node |"
            f" {figures['final']} of {figures['sent']} final | p50 {figures['p50_ms']} ms (at most"
            f" {bound}), p99 {figures['p99_ms']} ms, max {figures['max_ms']} ms |",
            flush=True,
        )
        network.run("heal")
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
        "cut": lambda network: cuts(network, options.rounds, lengths),
        "isolate": isolation,
        "latency": latencies,
    }
    print("| Fault | Meanwhile | After |\n|---|---|---|", flush=True)
    ok = True
    with tempfile.TemporaryDirectory(prefix="cairn-faults-") as folder:
        with Network(options.node, f"{folder}/network") as network:
            for name, part in parts.items():
                if options.only in (None, name):
                    ok &= part(network)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
