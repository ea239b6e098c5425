"""What the lab measures: how each proxy is started, pinned, watched and proven.

A target knows nothing about rows and rounds. It carries sessions from `address` to the backend
between `start` and `stop`, and says by `proof` how it carried the bytes of a measurement. Here are
the direct connection and upsplice; the others are in peers.py.
"""

import json
import os
import re
import shutil
import signal
import socket
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from processes import NOFILE, Failure, descendants, first_line, spawn, stop_process

HERE = Path(__file__).resolve().parent
# How upsplice ends when it does not take its configuration.
EX_CONFIG = 78
# Users of nobody, one for each upsplice.
FIRST_ACCOUNT = 61000


@dataclass(frozen=True)
class Place:
    """Where a proxy runs: its directory, its cores, its network, and what it stands in front of."""

    directory: Path
    cpus: set
    workers: int
    # None is the network of the lab itself.
    network: object
    host: str
    # The backend's address as the proxy sees it, and as a client without a proxy sees it.
    backend: str
    direct: str

    def entered(self):
        """Sockets made meanwhile are of the proxy's network."""
        return self.network.entered() if self.network else nullcontext()


def free_address(host):
    with socket.socket() as probe:
        probe.bind((host, 0))
        return "%s:%d" % (host, probe.getsockname()[1])


class Direct:
    """No proxy: the client talks to the backend. The yardstick of the machine."""

    kind = "direct"
    single_threaded = False
    address = None
    pids = ()

    def __init__(self, name):
        self.name = name

    def missing(self):
        return None

    def version(self):
        return "no proxy"

    def start(self, place):
        self.address = place.direct

    def running(self):
        return self.address is not None

    def stop(self):
        self.address = None

    def counters(self):
        return {}

    def proof(self, before, after, payload):
        return ""


class Proxy(Direct):
    """A program that listens. Subclasses say which, with which configuration.

    A peer runs with the settings its documentation shows for WebSocket; one of kind "tuned" with
    settings that we found to be better for some row, and that its users could find as well.
    """

    kind = "peer"
    # One thread does all the work, so whoever else has its core is a stranger.
    single_threaded = True
    # What it may be asked for by --workers.
    workers_max = 1024
    process = None
    # What it said of a configuration that it does not take; it is not asked again.
    refusal = None
    program = template = package = None

    def missing(self):
        return None if shutil.which(self.program) else "not installed"

    def start(self, place):
        self.place = place
        self.directory = place.directory / self.name
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log_path = self.directory / "log"
        with place.entered():
            self.address = free_address(place.host)
        # Caddy leaves a copy of its configuration at home.
        environment = dict(os.environ, HOME=str(self.directory), **self.environment())
        command = self.command(place.backend)
        with open(self.log_path, "ab") as log:
            self.process = spawn(command, place.cpus, place.network, stdout=log, stderr=log,
                                 env=environment, cwd=self.directory)
        self.wait_until_ready()

    def command(self, backend):
        raise NotImplementedError

    def environment(self):
        return {}

    def write_config(self, backend, **values):
        values.update(LISTEN=self.address, BACKEND=backend, DIRECTORY=str(self.directory))
        values.update(NOFILE=str(min(NOFILE, 65536)), WORKERS=str(self.place.workers))
        values["HOST"], values["PORT"] = self.address.split(":")
        text = (HERE / self.template).read_text()
        text = re.sub("@([A-Z]+)@", lambda found: values[found[1]], text)
        path = self.directory / self.template
        path.write_text(text)
        return str(path)

    def wait_until_ready(self):
        host, port = self.address.split(":")
        deadline = time.monotonic() + 10
        while self.running() and time.monotonic() < deadline:
            try:
                with self.place.entered():
                    socket.create_connection((host, int(port)), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        lines = self.log_path.read_text(errors="replace").strip().splitlines() or ["said nothing"]
        last_words = lines[-1].replace("%s/" % self.directory, "")
        if self.process.poll() == EX_CONFIG:
            self.refusal = "refused: " + last_words
        self.stop()
        raise Failure(self.refusal or "did not start: " + last_words)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self):
        if self.process is not None:
            stop_process(self.process)
            self.process = None

    @property
    def pids(self):
        """The program and all its descendants."""
        return descendants(self.process.pid) if self.process else ()


class Upsplice(Proxy):
    kind = "ours"
    template = "upsplice.toml"
    accounts = 0

    def __init__(self, name, binary, engine, runtime="auto", more="", depth=""):
        super().__init__(name)
        self.binary, self.engine, self.runtime, self.more = binary, engine, runtime, more
        Upsplice.accounts += 1
        self.account = FIRST_ACCOUNT + Upsplice.accounts
        self.depth = depth
        # A session that is looked at is compared with one that is not, and no rival of the engines.
        self.kind = "inspect" if depth else "ours"

    def missing(self):
        if not (self.binary and Path(self.binary).exists()):
            return "not built"
        return self.refusal

    def version(self):
        return first_line([self.binary, "--version"])

    def command(self, backend):
        # A comparison of engines must fail rather than quietly measure another one.
        fallback = "" if self.engine == "auto" else "no_fallback = true"
        # The pages of pipes are counted per user. It has no more of root than a service would have, so without
        # a user of its own it would share them with all that the others keep.
        user = 'user = "%d"\ngroup = "%d"' % (self.account, self.account)
        gateway = "\n".join(filter(None, (fallback, user if os.geteuid() == 0 else "", self.more)))
        mode = 'mode = "inspect"\ninspect = "%s"' % self.depth if self.depth else ""
        values = dict(ENGINE=self.engine, RUNTIME=self.runtime, GATEWAY=gateway, MODE=mode)
        return [self.binary, "run", "--config", self.write_config(backend, **values)]

    def counters(self):
        """Its own counters, which it prints on SIGUSR1, as one flat mapping."""
        seen = self.log_path.stat().st_size
        self.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            with open(self.log_path, encoding="utf-8", errors="replace") as log:
                log.seek(seen)
                for line in log:
                    if line.endswith("\n") and "counters {" in line:
                        return flatten(json.loads(line[line.index("{"):]))
            time.sleep(0.01)
        raise Failure("printed no counters on SIGUSR1")

    def proof(self, before, after, payload):
        """Which engines carried bytes, from the counters of bytes by engine and direction."""
        carried = {}
        for key, value in after.items():
            if found := re.fullmatch(r"\.bytes\.(\w+)\.\w+", key):
                carried[found[1]] = carried.get(found[1], 0) + value - before.get(key, 0)
        total = sum(carried.values())
        if not total:
            return "unproven"
        shares = sorted(carried.items(), key=lambda pair: -pair[1])
        return ", ".join("%s %d %%" % (name, 100 * n // total) for name, n in shares if n)


def flatten(value, prefix=""):
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {prefix: value} if isinstance(value, (int, float)) else {}
    flat = {}
    for key, inner in value.items():
        flat.update(flatten(inner, "%s.%s" % (prefix, key)))
    return flat


def our_targets(binary):
    """Upsplice with each engine and runtime that a release may have; one that this binary refuses
    says so in its lines."""
    return [
        Upsplice("upsplice-splice", binary, "splice"),
        Upsplice("upsplice-copy", binary, "copy"),
        Upsplice("upsplice-auto", binary, "auto"),
        Upsplice("upsplice-ring", binary, "uring"),
        Upsplice("upsplice-busy", binary, "auto", more='busy_poll = "50us"'),
        Upsplice("upsplice-epoll", binary, "splice", "epoll"),
        Upsplice("upsplice-uring", binary, "splice", "uring"),
        Upsplice("upsplice-inspect", binary, "auto", depth="frames"),
        Upsplice("upsplice-payload", binary, "auto", depth="payload"),
    ]
