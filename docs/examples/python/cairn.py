"""A local Cairn network inside a Python test, by the standard library alone.

    with Testnet(nodes=4) as net:
        net.faucet(address, "10 CRN")
        net.partition(["node1", "node2"], ["node3", "node4"])
        net.heal()
        net.await_final(10)

The program `cairn-node` is the one given as `program=`, or the one that the environment variable
CAIRN_NODE names, or the first one in PATH. All processes end with the `with` block, and also when
this process is killed in whatever way: the parent of the nodes ends when its stdin does."""

import http.client
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

# Seconds that a step may take: far more than it needs, as test machines are busy.
PATIENCE = 60
# Seconds that the network may take to stop before it is killed. The network itself kills nodes that
# are slow to stop, after a shorter time.
STOP_MAX = 120
# Seconds between two polls.
POLL = 0.02
# Lines of each log that explain a failure.
TAIL_LINES = 40
# Exit code of a command whose event did not come in time.
NOT_IN_TIME = 5


class CairnError(Exception):
    """A step failed. If a command or a wait failed, the text has the ends of all logs."""


class NotInTime(CairnError):
    """An event did not come."""


class Refused(CairnError):
    """A node answered a call with an error; `reason` is its stable word for programs."""

    def __init__(self, text, code, reason):
        super().__init__(text)
        self.code, self.reason = code, reason


def find_program(given=None):
    """The path of cairn-node. A path that is given and has no file is an error: no other program
    is taken in its place."""
    named = given or os.environ.get("CAIRN_NODE")
    if named and not os.path.isfile(named):
        source = "program=" if given else "the environment variable CAIRN_NODE"
        raise CairnError(f"no cairn-node found: {source} names {named}, and there is no such file")
    found = named or shutil.which("cairn-node")
    if not found:
        raise CairnError(
            "no cairn-node found: neither program= nor the environment variable CAIRN_NODE is set, "
            "and there is none in the folders of PATH"
        )
    return os.path.abspath(found)


def call(url, method, **params):
    """Calls a method of a node's JSON-RPC, and returns its result."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    # The proxies of the environment are not used, since the node is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=PATIENCE) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        text = error.read()
    except (OSError, http.client.HTTPException) as error:
        raise CairnError(f"{method} at {url}: no answer: {error}") from error
    answer = json.loads(text)
    if "error" in answer:
        error = answer["error"]
        reason = (error.get("data") or {}).get("reason")
        raise Refused(f"{method} at {url}: {error['message']}", error["code"], reason)
    return answer["result"]


class Testnet:
    """A running local network: a context manager. Nodes are named node1, node2 and so on,
    validators first. `options` are further words of `cairn-node testnet`, such as "--seed", "7"."""

    # pytest must not collect this class, although its name begins with Test.
    __test__ = False

    def __init__(self, nodes=4, full_nodes=0, program=None, options=(), patience=PATIENCE):
        self.program = find_program(program)
        self.patience = patience
        self.folder = tempfile.mkdtemp(prefix="cairn-pytest-")
        self.dir = os.path.join(self.folder, "network")
        self.log = os.path.join(self.folder, "network.log")
        self.process = None
        words = ["--plain", "--exit-with-parent", "--base-port", "auto"]
        words += ["--nodes", str(nodes), "--full-nodes", str(full_nodes), *options]
        try:
            self.start(words)
        except BaseException:
            self.close()
            raise

    def start(self, words):
        command = [self.program, "testnet", "--dir", self.dir, *words]
        with open(self.log, "ab") as log:
            # The network ends when this pipe does.
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=self.environment()
            )
        path = os.path.join(self.dir, "network.json")
        self.until("all nodes answer", lambda: os.path.exists(path))
        with open(path, encoding="utf-8") as file:
            self.description = json.load(file)
        self.accounts = {row["name"]: row["address"] for row in self.description["accounts"]}
        self.wallet_home = self.description["wallet_home"]

    @staticmethod
    def environment():
        """The environment without the variables that would configure the program."""
        return {name: text for name, text in os.environ.items() if not name.startswith("CAIRN_")}

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()

    def close(self):
        """Ends all processes and removes the folder."""
        if self.process is not None:
            self.process.stdin.close()
            try:
                self.process.wait(STOP_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    # Questions

    def list(self):
        """All nodes and cut links: {"nodes": [{"name", "state", "height", ...}], "cut": [...]}."""
        return self.command("ls")

    def url(self, node="node1"):
        """URL of a node's RPC."""
        urls = {row["name"]: row["rpc"] for row in self.description["nodes"]}
        if node not in urls:
            urls = {row["name"]: row["rpc"] for row in self.list()["nodes"]}
        if node not in urls:
            raise CairnError(f"there is no node {node!r}, only {', '.join(urls)}")
        return urls[node]

    def rpc(self, method, node="node1", **params):
        """Calls a method of a node's JSON-RPC. 64-bit numbers are decimal text."""
        return call(self.url(node), method, **params)

    def height(self, node="node1"):
        """Height of a node's last final block."""
        return int(self.rpc("chain_status", node)["height"])

    def balance(self, address, node="node1"):
        """Balance in pebbles, by the node's word; a CRN has 10^9 pebbles."""
        return int(self.rpc("account_get", node, account=address)["balance"])

    def is_final(self, transaction, node="node1", wait=0):
        """Whether a node calls a transfer final, now or within this many seconds: at most 30."""
        info = self.rpc("tx_get", node, id=transaction, wait_ms=int(wait * 1000))
        return info["status"] == "final"

    # Waits

    def until(self, event, look, within=None):
        """Polls until `look` returns something true, and returns it. A CairnError in `look`, such
        as that of a node that does not answer, counts as nothing found."""
        within = self.patience if within is None else within
        deadline = time.monotonic() + within
        while True:
            last = ""
            try:
                found = look()
                if found:
                    return found
            except CairnError as error:
                last = f"; last seen: {error}"
            ended = self.process.poll()
            if ended is not None:
                raise CairnError(
                    f"the network has ended (exit code {ended}) while the test waited for: "
                    f"{event}{self.logs()}"
                )
            if time.monotonic() >= deadline:
                raise NotInTime(f"waited {within} s in vain for: {event}{last}{self.logs()}")
            time.sleep(POLL)

    def await_height(self, height, node="node1"):
        """Waits until a node has reached a height."""
        url = self.url(node)
        reached = lambda: int(call(url, "chain_status")["height"]) >= height
        self.until(f"{node} reaches height {height}", reached)

    def await_final(self, within):
        """Waits until each running node has a final block that was made after this call began."""
        words = ["wait", "--final", "--timeout", f"{int(within * 1000)}ms"]
        self.command(*words, within=within)

    # Changes

    def faucet(self, address, amount):
        """Pays an amount such as "10 CRN" to an address. Returns once the transfer is final:
        {"id", "height", "status"}."""
        return self.command("faucet", address, amount)

    def partition(self, *groups):
        """Cuts all links between nodes of different groups. A node in no group keeps its links."""
        self.command("partition", "/".join(",".join(group) for group in groups))

    def isolate(self, node):
        """Cuts all links of a node."""
        self.command("isolate", node)

    def heal(self):
        """Takes away all cuts and latency."""
        self.command("heal")

    def latency(self, ms, between="all"):
        """Delays messages by this many milliseconds each way: between all nodes, or between two
        such as "node1-node2"."""
        self.command("latency", between, f"{ms}ms")

    def kill(self, node):
        """Ends a node at once, as a crash would."""
        self.command("kill", node)

    def restart(self, node, binary=None):
        """Starts a node again, with another cairn-node if `binary` is its path. A node that runs is
        stopped first."""
        self.command("restart", node, *(["--binary", binary] if binary else []))

    def add(self):
        """Adds a full node, and returns its name."""
        return self.command("add")["node"]

    def load(self, per_second, seconds=None):
        """Sends transfers. With `seconds`, waits and returns {"sent", "final", "p50_ms", "p99_ms",
        "max_ms", "skipped"}; without, goes on until `load(0)`."""
        words = ["--for", f"{int(seconds * 1000)}ms"] if seconds is not None else []
        return self.command("load", f"{per_second}/s", *words, within=seconds)

    def command(self, *words, within=None):
        """Runs a command of `cairn-node testnet` on this network, and returns its JSON."""
        name, limit = f"testnet {' '.join(words)}", self.patience + (within or 0)
        try:
            done = subprocess.run(
                [self.program, "testnet", "--dir", self.dir, *words, "--json"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                env=self.environment(),
                timeout=limit,
            )
        except subprocess.TimeoutExpired as error:
            raise NotInTime(f"{name}: it did not end within {limit} s{self.logs()}") from error
        if done.returncode != 0:
            kind = NotInTime if done.returncode == NOT_IN_TIME else CairnError
            text = done.stderr.strip()
            raise kind(f"{name}: exit code {done.returncode}: {text}{self.logs()}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def logs(self):
        """The ends of all logs."""
        paths = [self.log]
        if os.path.isdir(self.dir):
            paths += [
                os.path.join(self.dir, name, "node.log") for name in sorted(os.listdir(self.dir))
            ]
        text = ""
        for path in paths:
            if os.path.isfile(path):
                with open(path, encoding="utf-8", errors="replace") as file:
                    text += f"\n--- {path}\n{''.join(file.readlines()[-TAIL_LINES:])}"
        return text
