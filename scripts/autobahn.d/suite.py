"""The Autobahn|Testsuite: how it is installed, and how its cases are run, by either of its programs."""

import collections
import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

import harness
from harness import HERE, REPO, Program, Unavailable

# Without performance (9) and compression (12, 13).
QUICK = ("1", "2", "3", "4", "5", "6", "7", "10")
QUICK_CASES = 247
# In parts, since a part that is ended leaves no report.
FULL = (
    *QUICK,
    *(f"9.{part}" for part in range(1, 9)),
    *(f"12.{part}" for part in range(1, 6)),
    *(f"13.{part}" for part in range(1, 8)),
)
FULL_CASES = 517
GOOD = ("OK", "NON-STRICT", "INFORMATIONAL")
SHARD_SECONDS_MAX = 300
CACHE = REPO / ".cache" / "autobahn"

# What the suite says of a case: of the messages, of the end, and the close code that it was sent.
Verdict = collections.namedtuple("Verdict", "behavior end code")


def python2():
    """An interpreter that the suite runs in."""
    root = ""
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True).stdout.strip()
    pyenv = f"{root}/versions/2.7.18/bin/python" if root else None
    for candidate in (os.environ.get("PYTHON2"), pyenv, shutil.which("python2.7")):
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise Unavailable("no CPython 2.7 (name one in PYTHON2, or install 2.7.18 with pyenv)")


def wstest():
    """The suite's program; its environment is made anew when the pins have changed."""
    pins, stamp = (HERE / "autobahn.txt").read_bytes(), CACHE / "installed.txt"
    program = CACHE / "venv" / "bin" / "wstest"
    if stamp.exists() and stamp.read_bytes() == pins:
        return program
    interpreter = python2()
    shutil.rmtree(CACHE, ignore_errors=True)
    CACHE.mkdir(parents=True)
    pip = [interpreter, "-m", "pip", "install", "--no-cache-dir"]
    harness.install([*pip, "virtualenv==20.15.1", "--target", "venvtool"], CACHE, "venvtool.log")
    venv = [interpreter, "-m", "virtualenv", "--no-download", "venv"]
    harness.install(venv, CACHE, "venv.log", {"PYTHONPATH": "venvtool"})
    pip = ["venv/bin/pip", "install"]
    harness.install([*pip, "incremental==16.10.1"], CACHE, "pip.log")
    pip.append("--no-build-isolation")
    harness.install([*pip, "-r", HERE / "autobahn.txt"], CACHE, "pins.log")
    harness.install([*pip, "--no-deps", "autobahntestsuite==25.10.1"], CACHE, "suite.log")
    try:
        # Faster masking and UTF-8 checks; it needs a compiler, and the suite runs without.
        harness.install([*pip, "wsaccel==0.6.2", "ujson==1.35"], CACHE, "speed.log")
    except Unavailable:
        pass
    stamp.write_bytes(pins)
    return program


def run_cases(program, port, patterns, seconds=SHARD_SECONDS_MAX):
    """{case: Verdict} of the cases that match, against the server at `port`."""
    with tempfile.TemporaryDirectory(prefix="upsplice-autobahn-") as folder:
        servers = [{"agent": "peer", "url": f"ws://127.0.0.1:{port}"}]
        write_spec(folder, patterns, servers=servers)
        done = subprocess.run(
            [program, "-m", "fuzzingclient", "-s", "spec.json"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        if not pathlib.Path(folder, "reports", "index.json").exists():
            raise RuntimeError(f"the suite wrote no report for {patterns}: {done.stdout[-600:]}")
        return report(folder)["peer"]


class FuzzingServer(Program):
    """The suite as a server: what it says of its clients, by the name that each gave itself."""

    def __init__(self, program, patterns):
        self.folder = tempfile.mkdtemp(prefix="upsplice-autobahn-")
        # It says of no address where it listens, and refuses a Host that is not its own.
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        write_spec(self.folder, patterns, url=f"ws://127.0.0.1:{self.port}")
        command = [program, "-u", "0", "-m", "fuzzingserver", "-s", "spec.json"]
        super().__init__(command, cwd=self.folder)
        deadline = time.monotonic() + harness.BOUND
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the suite does not listen") from None
                time.sleep(0.05)

    def reports(self):
        """{agent: {case: Verdict}}, once the clients asked for it."""
        return report(self.folder)

    def stop(self):
        status = super().stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        return status


def write_spec(folder, patterns, **who):
    """What the suite is to do, as it wants to read it."""
    cases = {"cases": patterns, "exclude-cases": [], "exclude-agent-cases": {}}
    spec = {"outdir": f"{folder}/reports", **who, **cases}
    pathlib.Path(folder, "spec.json").write_text(json.dumps(spec))


def report(folder):
    """{agent: {case: Verdict}}"""
    index = json.loads(pathlib.Path(folder, "reports", "index.json").read_text())
    return {
        agent: {
            case: Verdict(facts["behavior"], facts["behaviorClose"], facts["remoteCloseCode"])
            for case, facts in cases.items()
        }
        for agent, cases in index.items()
    }


def is_good(verdict):
    """Of the messages and of the end."""
    return verdict.behavior in GOOD and verdict.end in GOOD


def family_of(case):
    return case.split(".")[0]


def in_order(case):
    """The order in which people count: 2 before 10."""
    return [int(part) for part in case.split(".")]


