#!/usr/bin/env python3
"""The screen of a local network on a pseudo terminal: keys act, and the terminal is given back.

    screen.py NODE

NODE is the program. Ends with 1 at the first thing that is wrong. Starts networks of its own in a
temporary folder, on free ports."""

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time

ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"
PATIENCE = 60


class Session:
    """A network on a terminal of 80 columns and 24 rows."""

    def __init__(self, node, folder):
        self.command = [node, "testnet", "--dir", folder]
        # Both ends stay open here, so that the terminal's modes can be read to the end.
        self.fd, self.user = pty.openpty()
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(self.user)
        self.output = bytearray()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            fcntl.ioctl(self.user, termios.TIOCSCTTY, 0)
            for stream in range(3):
                os.dup2(self.user, stream)
            os.environ.update(TERM="xterm-256color", NO_COLOR="1")
            os.execv(node, [*self.command, "--nodes", "2", "--base-port", "auto"])

    def read(self, seconds):
        ready, _, _ = select.select([self.fd], [], [], seconds)
        if ready:
            with contextlib.suppress(OSError):
                self.output += os.read(self.fd, 65_536)

    def wait(self, what, is_there):
        end = time.monotonic() + PATIENCE
        while not is_there():
            if time.monotonic() > end:
                sys.exit(f"{what} was not seen:\n{bytes(self.output[-3000:])!r}")
            self.read(0.1)

    def wait_for(self, text):
        """Waits until the screen shows a text. Output before the end of the last such wait does not
        count. The program writes only changed cells, so Ctrl-L asks for the whole screen twice a
        second."""
        asked = [time.monotonic()]

        def is_there():
            if time.monotonic() > asked[0] + 0.5:
                asked[0] = time.monotonic()
                self.press("\x0c")
            return text.encode() in self.output

        self.wait(text, is_there)
        self.output.clear()

    def press(self, keys):
        os.write(self.fd, keys.encode())

    def pid_of(self, name):
        """Process id of a node that answers; None for another one."""
        told = subprocess.run([*self.command, "ls", "--json"], check=True, capture_output=True)
        nodes = json.loads(told.stdout)["nodes"]
        (node,) = [node for node in nodes if node["name"] == name]
        return node["pid"] if node["state"] == "running" else None

    def children(self):
        with open(f"/proc/{self.pid}/task/{self.pid}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]

    def end(self, how):
        """Checks that the network ends, and how it leaves the terminal."""
        nodes = self.children()
        how(self)
        status = []

        def has_ended():
            pid, code = os.waitpid(self.pid, os.WNOHANG)
            status.extend([os.waitstatus_to_exitcode(code)] if pid else [])
            return bool(pid)

        self.wait("the end", has_ended)
        while select.select([self.fd], [], [], 0)[0]:
            self.read(0)
        expect(status == [0], f"exit code {status}: {bytes(self.output[-2000:])!r}")
        expect(LEAVE in self.output and ENTER not in self.output, "the first screen is back")
        expect(termios.tcgetattr(self.user) == self.before, "the modes of the terminal are back")
        alive = [pid for pid in nodes if os.path.exists(f"/proc/{pid}")]
        expect(len(nodes) == 2 and not alive, f"nodes that still run: {alive} of {nodes}")
        os.close(self.fd)
        os.close(self.user)


def expect(is_so, what):
    if not is_so:
        sys.exit(f"wrong: {what}")


def suspend(session):
    """Ctrl-Z gives the terminal to the shell, and the network goes on when the shell says so."""
    nodes = session.children()
    session.output.clear()
    session.press("\x1a")
    session.wait("the first screen", lambda: LEAVE in session.output)
    expect(session.children() == nodes, "the nodes run on")
    # Without a job shell the system does not stop a process that leads its session. Such a process
    # takes the screen back by itself after a while, perhaps before it gets this signal.
    os.kill(session.pid, signal.SIGCONT)
    left = session.output.find(LEAVE)
    session.wait("the screen again", lambda: session.output.find(ENTER, left) >= 0)
    session.wait_for("quit")


def main():
    node = os.path.abspath(sys.argv[1])
    ends = [
        lambda session: session.press("q"),
        lambda session: session.press("\x03"),
        lambda session: os.kill(session.pid, signal.SIGTERM),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for at, how in enumerate(ends):
            session = Session(node, f"{folder}/network")
            session.wait_for("[Nodes]")
            if at == 0:
                session.wait_for("running")
                first = session.pid_of("node2")
                session.press("k")
                session.wait_for("Kill")
                session.press("node2\r")
                session.wait_for("killed")
                session.press("r")
                session.wait_for("Restart")
                session.press("node2\r")
                session.wait("node2 runs", lambda: session.pid_of("node2") not in (None, first))
                suspend(session)
            session.end(how)
    print("the screen acts and gives the terminal back")


main()
