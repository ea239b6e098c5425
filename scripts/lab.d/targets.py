"""What the lab measures: how each proxy is started, pinned, watched and proven.

A target knows nothing about rows and rounds. It carries sessions from `address` to the backend
between `start` and `stop`, and says by `proof` how it carried the bytes of a measurement.
"""

import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
HTTP2_PROXY = "http2-proxy@5.0.53"
HARD_NOFILE = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
NOFILE = 1 << 20 if HARD_NOFILE == resource.RLIM_INFINITY else min(HARD_NOFILE, 1 << 20)
# HAProxy holds two descriptors per session and two per pipe, and refuses to start without them.
SESSIONS_MAX = min(40000, NOFILE // 3)
PIPES_MAX = min(4096, NOFILE // 10)


class Failure(Exception):
    """Something that spoils one measurement, not the run."""


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return "127.0.0.1:%d" % probe.getsockname()[1]


def spawn(argv, cpus, **streams):
    """Starts a program on `cpus` with as many descriptors as the hard limit allows."""

    def prepare():
        os.sched_setaffinity(0, cpus)
        resource.setrlimit(resource.RLIMIT_NOFILE, (NOFILE, HARD_NOFILE))

    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, preexec_fn=prepare, **streams)


def stop_process(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def first_line(argv):
    """The first line a program prints about its version, wherever it prints it."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    return ((done.stdout + done.stderr).strip().splitlines() or ["unknown"])[0]


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

    def start(self, directory, cpus, backend):
        self.address = backend

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
    process = None
    program = template = package = None

    def missing(self):
        return None if shutil.which(self.program) else "not installed"

    def start(self, directory, cpus, backend):
        self.directory = directory / self.name
        self.directory.mkdir(exist_ok=True)
        self.address = free_address()
        argv = self.command(backend)
        self.log_path = self.directory / "log"
        with open(self.log_path, "ab") as log:
            # Caddy leaves a copy of its configuration at home.
            environment = dict(os.environ, HOME=str(self.directory))
            self.process = spawn(argv, cpus, stdout=log, stderr=log, env=environment,
                                 cwd=self.directory)
        self.wait_until_ready()

    def command(self, backend):
        raise NotImplementedError

    def write_config(self, backend, **values):
        values.update(LISTEN=self.address, BACKEND=backend, DIRECTORY=str(self.directory))
        values.update(NOFILE=str(min(NOFILE, 65536)), PORT=self.address.split(":")[1])
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
                socket.create_connection((host, int(port)), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        lines = self.log_path.read_text(errors="replace").strip().splitlines() or ["said nothing"]
        self.stop()
        raise Failure("did not start: " + lines[-1])

    def running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self):
        if self.process is not None:
            stop_process(self.process)
            self.process = None

    @property
    def pids(self):
        """The program and all its descendants."""
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rsplit(") ", 1)[1].split()
                except OSError:
                    continue
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
        found = [self.process.pid]
        for pid in found:
            found.extend(parents.get(pid, ()))
        return found


class Haproxy(Proxy):
    program = package = "haproxy"
    template = "haproxy.cfg"

    def __init__(self, name, splice=False, tune=""):
        super().__init__(name)
        self.splice, self.tune = splice, tune
        self.kind = "tuned" if tune else "peer"

    def version(self):
        return first_line(["haproxy", "-v"]).split(" 20")[0]

    def command(self, backend):
        options = "option splice-request\n    option splice-response" if self.splice else ""
        path = self.write_config(backend, SPLICE=options, TUNE=self.tune,
                                 SESSIONS=str(SESSIONS_MAX), PIPES=str(PIPES_MAX))
        return ["haproxy", "-db", "-f", path]

    def counters(self):
        with socket.socket(socket.AF_UNIX) as stats:
            stats.settimeout(5)
            # A relative path, because a socket's path may not exceed 107 bytes.
            stats.connect(os.path.relpath(self.directory / "stats.sock"))
            stats.sendall(b"show info\n")
            text = b"".join(iter(lambda: stats.recv(65536), b"")).decode()
        pairs = (line.split(": ", 1) for line in text.splitlines() if ": " in line)
        return {key: int(value) for key, value in pairs if value.isdigit()}

    def proof(self, before, after, payload):
        # HAProxy spells it TotalSplicdedBytesOut.
        key = next(key for key in after if key.startswith("TotalSpli"))
        spliced = after[key] - before[key]
        pipes = after["PipesUsed"] + after["PipesFree"]
        return "spliced %d %%, %d pipes" % (min(100, 100 * spliced // payload), pipes)


class Nginx(Proxy):
    program = package = "nginx"
    template = "nginx.conf"

    def __init__(self, name, buffers=""):
        super().__init__(name)
        self.buffers = buffers
        self.kind = "tuned" if buffers else "peer"

    def version(self):
        return first_line(["nginx", "-v"])

    def command(self, backend):
        path = self.write_config(backend, BUFFERS=self.buffers)
        return ["nginx", "-e", "stderr", "-p", str(self.directory), "-c", path]


class Caddy(Proxy):
    single_threaded = False
    program = package = "caddy"
    template = "Caddyfile"

    def version(self):
        return "Caddy " + first_line(["caddy", "version"]).split(" ")[0]

    def command(self, backend):
        path = self.write_config(backend)
        return ["caddy", "run", "--adapter", "caddyfile", "--config", path]


class Http2Proxy(Proxy):
    single_threaded = False
    program = "node"

    def __init__(self, name, cache):
        super().__init__(name)
        self.modules = cache / "http2-proxy"
        self.manifest = self.modules / "node_modules/http2-proxy/package.json"

    def missing(self):
        return super().missing() or (None if self.manifest.exists() else "not installed")

    def version(self):
        version = json.loads(self.manifest.read_text())["version"]
        return "http2-proxy %s on node %s" % (version, first_line(["node", "--version"]))

    def command(self, backend):
        script = str(HERE / "http2-proxy.js")
        return ["node", script, self.address, backend, str(self.modules)]


class Upsplice(Proxy):
    kind = "ours"
    template = "upsplice.toml"

    def __init__(self, name, binary, engine, runtime):
        super().__init__(name)
        self.binary, self.engine, self.runtime = binary, engine, runtime

    def missing(self):
        return None if self.binary and Path(self.binary).exists() else "not built"

    def version(self):
        return first_line([self.binary, "--version"])

    def command(self, backend):
        # A comparison of engines must fail rather than quietly measure another one.
        fallback = "" if self.engine == "auto" else "no_fallback = true"
        values = dict(ENGINE=self.engine, RUNTIME=self.runtime, GATEWAY=fallback)
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


def all_targets(binary, cache):
    """Every target by name, in the order of the tables."""
    wide = "proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;"
    targets = [
        Direct("direct"),
        Upsplice("upsplice-splice", binary, "splice", "auto"),
        Upsplice("upsplice-copy", binary, "copy", "auto"),
        Upsplice("upsplice-ring", binary, "uring", "auto"),
        Upsplice("upsplice-auto", binary, "auto", "auto"),
        Upsplice("upsplice-epoll", binary, "splice", "epoll"),
        Upsplice("upsplice-uring", binary, "splice", "uring"),
        Haproxy("haproxy"),
        Haproxy("haproxy-64k", tune="tune.bufsize 65536"),
        Haproxy("haproxy-splice", splice=True),
        Haproxy("haproxy-splice-256k", splice=True, tune="tune.pipesize 262144"),
        Haproxy("haproxy-splice-1m", splice=True, tune="tune.pipesize 1048576"),
        Nginx("nginx"),
        Nginx("nginx-64k", buffers=wide),
        Caddy("caddy"),
        Http2Proxy("http2-proxy", cache),
    ]
    return {target.name: target for target in targets}


def install(targets, cache):
    """Installs what is missing: system packages as root on Debian, npm packages into the cache."""
    packages = {target.package for target in targets if target.missing() and target.package}
    if packages and os.geteuid() == 0 and shutil.which("apt-get"):
        # RUNLEVEL=1 keeps a package from starting its service.
        environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive", RUNLEVEL="1")
        for verb in ("update", "install -y --no-install-recommends " + " ".join(sorted(packages))):
            argv = ["apt-get", "-q", *verb.split()]
            subprocess.run(argv, env=environment, check=False, stdout=sys.stderr)
    for target in targets:
        if isinstance(target, Http2Proxy) and target.missing() and shutil.which("npm"):
            target.modules.mkdir(parents=True, exist_ok=True)
            argv = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(target.modules)]
            subprocess.run([*argv, HTTP2_PROXY], check=False, stdout=sys.stderr)
