#!/usr/bin/env python3
"""Nodes of other hosts join a network by a link. Each host is a network namespace.

    join.py NODE

NODE is the program. Needs root and iproute2. All traffic stays in the namespaces, which are deleted
at the end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

PATIENCE = 60
# Seconds that a node may take to stop before it is killed.
STOP = 60
RPC = "http://127.0.0.1:7701"
# A host's place in this list, from 1 on, is a byte of its addresses: the fourth one in the private
# network 10.79.0.0/16, and the third one in the public network 100.201.0.0/16. No packet leaves the
# bridge.
HOSTS = ["first", "near", "far", "shy"]


def private(host):
    return f"10.79.0.{HOSTS.index(host) + 1}"


def public(host):
    return f"100.201.{HOSTS.index(host) + 1}.1"


def run(*command, expected=0):
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == expected, (
        f"{command} ended with {done.returncode}, expected {expected}: {done.stderr}"
    )
    return done.stdout


class Namespaces:
    """A namespace for each host and one for the bridge between them."""

    def __init__(self, stack):
        self.prefix = f"cairn-join-{os.getpid()}"
        self.add(stack, "hub")
        hub = self.name("hub")
        run("ip", "-n", hub, "link", "add", "name", "hub0", "type", "bridge")
        run("ip", "-n", hub, "link", "set", "hub0", "up")
        for number, host in enumerate(HOSTS):
            self.add(stack, host)
            here, port = self.name(host), f"p{number}"
            run("ip", "-n", hub, "link", "add", port, "type", "veth", "peer", "eth0", "netns", here)
            run("ip", "-n", hub, "link", "set", port, "master", "hub0", "up")
            for address in [private(host), public(host)]:
                run("ip", "-n", here, "addr", "add", f"{address}/16", "dev", "eth0")
            run("ip", "-n", here, "link", "set", "eth0", "up")

    def name(self, host):
        return f"{self.prefix}-{host}"

    def add(self, stack, host):
        run("ip", "netns", "add", self.name(host))
        stack.callback(run, "ip", "netns", "del", self.name(host))
        run("ip", "-n", self.name(host), "link", "set", "lo", "up")

    def inside(self, host, *command):
        return ["ip", "netns", "exec", self.name(host), *command]


class Hosts:
    def __init__(self, node, folder, stack):
        self.node, self.folder, self.stack = node, folder, stack
        self.names = Namespaces(stack)

    def home(self, host):
        return os.path.join(self.folder, host)

    def log(self, host):
        path = os.path.join(self.folder, f"{host}.log")
        with open(path, encoding="utf-8") as file:
            return file.read()

    def start(self, host, *arguments):
        """Starts the program on a host. It is stopped at the end."""
        with open(os.path.join(self.folder, f"{host}.log"), "wb") as log:
            process = subprocess.Popen(
                self.names.inside(host, self.node, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.stack.callback(stop, process)
        return process

    def tell(self, host, *arguments):
        return run(*self.names.inside(host, self.node, *arguments))

    def invite(self, host, home, address):
        """The link to the node of a host, by its private or its public address."""
        told = self.tell(host, "invite", "--home", home, "--address", f"{address(host)}:7700")
        return told.strip()

    def status(self, host):
        done = subprocess.run(
            self.names.inside(host, self.node, "status", "--json", "--rpc", RPC),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        return json.loads(done.stdout) if done.returncode == 0 else None

    def await_height(self, host, process, height):
        def look():
            assert process.poll() is None, f"{host} has ended: {self.log(host)}"
            status = self.status(host)
            return status if status and int(status["height"]) >= height else None

        return until(f"{host} reaches height {height}", look)

    def config(self, host):
        return json.loads(self.tell(host, "config", "show", "--json", "--home", self.home(host)))


def stop(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(what, look):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = look()
        if found is not None:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not seen within {PATIENCE} s: {what}")


def found(hosts):
    """Makes a local network of one validator on the first host, stops it, and returns the home of
    the validator."""
    folder = os.path.join(hosts.folder, "network")
    listing = os.path.join(folder, "network.json")
    template = os.path.join(hosts.folder, "template.json")
    with open(os.path.join(ROOT, "genesis.json"), encoding="utf-8") as file:
        genesis = json.load(file)
    genesis["limits"]["empty_block_interval_ms"] = "300"
    with open(template, "w", encoding="utf-8") as file:
        json.dump(genesis, file)
    words = ["testnet", "--plain", "--nodes", "1", "--dir", folder, "--genesis", template]
    process = hosts.start("first", *words)
    until("the network is made", lambda: os.path.exists(listing) or None)
    stop(process)
    return os.path.join(folder, "node1")


ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def main():
    node = os.path.abspath(sys.argv[1])
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cairn-join-"))
        hosts = Hosts(node, folder, stack)
        home = found(hosts)
        first = hosts.start("first", "run", "--home", home, "--p2p-listen", "0.0.0.0:7700")
        # So many blocks that a newcomer fetches them as history.
        height = int(hosts.await_height("first", first, 12)["height"])

        # A private address: the node listens on all interfaces, and its network is private.
        link = hosts.invite("first", home, private)
        near = hosts.start("near", "join", link, "--home", hosts.home("near"), "--yes")
        hosts.await_height("near", near, height)
        config = hosts.config("near")
        assert config["p2p"]["listen"] == "/ip4/0.0.0.0/tcp/7700", config
        assert config["p2p"]["private"] and config["rpc"]["listen"] == "127.0.0.1:7701", config
        shown = hosts.tell("near", "address", "--home", hosts.home("near")).split()
        wanted = {f"/ip4/{address('near')}/tcp/7700" for address in [private, public]}
        assert {line.split("/p2p/")[0] for line in shown} == wanted, shown

        # A public address of the node that has just joined. It alone gives genesis and history,
        # since the first node is gone.
        stop(first)
        link = hosts.invite("near", hosts.home("near"), public)
        far = hosts.start("far", "join", link, "--home", hosts.home("far"), "--yes")
        hosts.await_height("far", far, height)
        config = hosts.config("far")
        assert config["p2p"]["listen"] == "/ip4/0.0.0.0/tcp/7700", config
        assert not config["p2p"]["private"], config
        served = hosts.status("near")
        assert int(served["served_bytes"]) > 0 and served["served_peers"] >= 1, served

        # Without a terminal and without --yes a node stays on loopback, and says so.
        shy = hosts.start("shy", "join", link, "--home", hosts.home("shy"))
        hosts.await_height("shy", shy, height)
        config, log = hosts.config("shy"), hosts.log("shy")
        assert config["p2p"]["listen"] == "/ip4/127.0.0.1/tcp/7700", config
        assert "with --yes it listens on 0.0.0.0" in log, log
        print(f"three hosts joined by a link, at height {height} and later")


if __name__ == "__main__":
    main()
