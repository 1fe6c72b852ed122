#!/usr/bin/env python3
"""Programs that one can download: builds, packs and tries them.

    dist.py build [--arch x86_64|aarch64]   programs for Linux with glibc 2.17 or later, packed
    dist.py check                           what is packed works: sums, symbols, a transfer

`build` needs cargo-zigbuild and ziglang. It takes them from PyPI, into target/dist/tools/, if
cargo-zigbuild is not in PATH. The archive and SHA256SUMS lie in target/dist/. `check` runs the
programs of the archive, so it needs an archive for this machine."""

import argparse
import gzip
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PYTHON = os.path.join(ROOT, "docs", "examples", "python")
sys.path.insert(0, PYTHON)
sys.dont_write_bytecode = True
import cairn  # noqa: E402

TARGET = os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target")
DIST = os.path.join(TARGET, "dist")
PROGRAMS = ["cairn-node", "cairn-wallet"]
# The oldest glibc on which the programs run: that of CentOS 7 and of manylinux2014.
GLIBC = (2, 17)
# Versions that are known to work together.
TOOLS = ["cargo-zigbuild==0.24.1", "ziglang==0.17.1"]
# Modification time of all files in the archive, in seconds since 1970. It is fixed, so that the
# archive has the same bytes everywhere.
EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "1767225600"))


def fail(text):
    sys.exit(f"dist.py: {text}")


def version():
    with open(os.path.join(ROOT, "Cargo.toml"), encoding="utf-8") as file:
        return re.search(r'\[workspace\.package\]\nversion = "([^"]+)"', file.read()).group(1)


def archive_name(arch):
    return f"cairn-{version()}-{arch}-linux-gnu.tar.gz"


def tools():
    """The environment in which `cargo zigbuild` works."""
    if shutil.which("cargo-zigbuild"):
        return dict(os.environ)
    venv = os.path.join(DIST, "tools")
    programs = os.path.join(venv, "bin")
    if not os.path.exists(os.path.join(programs, "cargo-zigbuild")):
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = [os.path.join(programs, "python3"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *TOOLS], check=True)
    return {**os.environ, "PATH": programs + os.pathsep + os.environ["PATH"], "VIRTUAL_ENV": venv}


def build(arch):
    triple = f"{arch}-unknown-linux-gnu"
    environment = tools()
    # Panics name their source files, so the paths of this machine are replaced.
    cargo_home = os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo")
    remap = [f"--remap-path-prefix={ROOT}=cairn", f"--remap-path-prefix={cargo_home}=cargo"]
    environment["RUSTFLAGS"] = " ".join([environment.get("RUSTFLAGS", ""), *remap]).strip()
    glibc = ".".join(map(str, GLIBC))
    packages = [word for program in PROGRAMS for word in ("--package", program)]
    command = ["cargo", "zigbuild", "--release", "--locked", "--target", f"{triple}.{glibc}"]
    subprocess.run([*command, *packages, "--bins"], check=True, cwd=ROOT, env=environment)
    built = os.path.join(TARGET, triple, "release")
    for program in PROGRAMS:
        check_symbols(os.path.join(built, program))
    pack(arch, built)


def pack(arch, built):
    os.makedirs(DIST, exist_ok=True)
    files = {program: os.path.join(built, program) for program in PROGRAMS}
    for name in ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"]:
        files[name] = os.path.join(ROOT, name)
    for name in ["cairn.py", "conftest.py", "test_transfer.py"]:
        files[f"python/{name}"] = os.path.join(PYTHON, name)
    name = archive_name(arch)
    folder, path = name.removesuffix(".tar.gz"), os.path.join(DIST, name)

    def plain(info):
        info.uid = info.gid = 0
        info.uname = info.gname = "root"
        info.mtime = EPOCH
        info.mode = 0o755 if os.path.basename(info.name) in PROGRAMS else 0o644
        return info

    with open(path, "wb") as file:
        with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=EPOCH) as packed:
            with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for inner, outer in sorted(files.items()):
                    archive.add(outer, f"{folder}/{inner}", filter=plain)
    names = sorted(name for name in os.listdir(DIST) if name.endswith(".tar.gz"))
    with open(os.path.join(DIST, "SHA256SUMS"), "w", encoding="utf-8") as sums:
        for name in names:
            sums.write(f"{sha256(os.path.join(DIST, name))}  {name}\n")
    print(f"{path}: {os.path.getsize(path) / 2**20:.1f} MiB")


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_symbols(program):
    """Fails if a program needs a symbol of a glibc that is newer than the oldest supported one."""
    told = subprocess.run(
        ["readelf", "--wide", "--version-info", program],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    needed = {tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_([\d.]+\d)", told)}
    if not needed:
        fail(f"{program} needs no version of glibc: is it for Linux with glibc?")
    newest = max(needed)
    shown = ".".join(map(str, newest))
    if newest[:2] > GLIBC:
        fail(f"{program} needs glibc {shown}, expected at most {GLIBC[0]}.{GLIBC[1]}")
    print(f"{os.path.basename(program)} needs glibc {shown} or later")


def check(arch):
    """Checks the sum of the archive and its programs, starts a network with them, and sends two
    transfers."""
    name = archive_name(arch)
    path = os.path.join(DIST, name)
    if not os.path.exists(path):
        fail(f"there is no {path}: run `dist.py build` first")
    with open(os.path.join(DIST, "SHA256SUMS"), encoding="utf-8") as sums:
        rows = dict(reversed(line.split()) for line in sums)
    if rows.get(name) != sha256(path):
        fail(f"{name} has another sum than SHA256SUMS says")
    with tempfile.TemporaryDirectory(prefix="cairn-dist-") as folder:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
        unpacked = os.path.join(folder, name.removesuffix(".tar.gz"))
        node, wallet = (os.path.join(unpacked, program) for program in PROGRAMS)
        check_symbols(node)
        check_symbols(wallet)
        for program in (node, wallet):
            with open(program, "rb") as file:
                if ROOT.encode() in file.read():
                    fail(f"{program} holds the path of this folder")
        begun = time.monotonic()
        with cairn.Testnet(nodes=4, program=node) as net:
            send = ["send", "--from", "alice", "--to", "bob", "--amount", "1.5 CRN", "--yes"]
            command = [wallet, "--home", net.wallet_home, "--rpc", net.url()]
            subprocess.run([*command, *send], check=True, stdout=subprocess.DEVNULL)
            took = time.monotonic() - begun
            print(f"the first transfer was final and proved after {took:.2f} s")
            paid = net.faucet(net.accounts["carol"], "1 CRN")
            if not net.is_final(paid["id"], "node4", wait=30):
                fail(f"{paid} is not final on node4")
    print(f"{name} works")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("what", choices=["build", "check"])
    parser.add_argument("--arch", default=platform.machine(), choices=["x86_64", "aarch64"])
    arguments = parser.parse_args()
    {"build": build, "check": check}[arguments.what](arguments.arch)


if __name__ == "__main__":
    main()
