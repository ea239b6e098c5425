"""The proxies under test: how each is found, installed, started with its config, and ended by pid."""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parent.parent
NAMES = ["upsplice", "nginx", "haproxy", "caddy", "http2-proxy"]


class Missing(Exception):
    """The program is not here and could not be installed; the text says why."""


def _output(command):
    """First line of what a `--version` prints, on whichever stream."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else "version unknown"


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def _answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


class Proxy:
    """One kind of proxy: `find` once, then `start` an instance per slot."""

    config = ""  # file under config/

    def __init__(self, name):
        self.name = name
        self.program = None
        self.version = ""

    def find(self, options):
        """Sets `program` and `version`, or raises `Missing`."""
        self.program = shutil.which(self.name)
        if (
            self.program is None
            and options.install
            and os.geteuid() == 0
            and shutil.which("apt-get")
        ):
            quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
            command = ["apt-get", "install", "-y", "--no-install-recommends", self.name]
            subprocess.run(command, capture_output=True, env=quiet, timeout=300, check=False)
            self.program = shutil.which(self.name)
        if self.program is None:
            raise Missing("not installed")
        self.version = self.read_version()

    def read_version(self):
        return _output([self.program, "-v"])

    def command(self, config, port, backend):
        raise NotImplementedError

    def start(self, backend):
        """A running instance in front of this backend port. Another process may win the free port: thrice."""
        for _ in range(3):
            instance = Instance(self, _free_port(), backend)
            if instance.comes_up():
                return instance
            complaint = instance.complaint()
            instance.stop()
        raise Missing(f"does not start: {complaint}")


class Instance:
    """One proxy process with a directory of its own."""

    def __init__(self, proxy, port, backend):
        self.port = port
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"conformance-{proxy.name}-"))
        config = self.dir / proxy.config
        text = (HERE / "config" / proxy.config).read_text()
        values = {"PORT": port, "BACKEND": backend, "DIR": self.dir}
        config.write_text(re.sub(r"@([A-Z]+)@", lambda key: str(values[key.group(1)]), text))
        with open(self.dir / "output", "wb") as output:
            self.process = subprocess.Popen(
                proxy.command(config, port, backend),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.dir,
                env={**os.environ, "HOME": str(self.dir)},
            )

    def comes_up(self, wait=15):
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline and self.process.poll() is None:
            if _answers(self.port):
                return True
            time.sleep(0.02)
        return False

    def alive(self):
        return self.process.poll() is None

    def complaint(self):
        lines = (self.dir / "output").read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "no output"

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class Nginx(Proxy):
    config = "nginx.conf"

    def read_version(self):
        return _output([self.program, "-v"]).replace("nginx version: ", "")

    def command(self, config, port, backend):
        return [self.program, "-p", config.parent, "-c", config, "-e", config.parent / "error.log"]


class Haproxy(Proxy):
    config = "haproxy.cfg"

    def read_version(self):
        return re.sub(r" - http.*", "", _output([self.program, "-v"]))

    def command(self, config, port, backend):
        return [self.program, "-db", "-f", config]


class Caddy(Proxy):
    config = "Caddyfile"

    def read_version(self):
        return "Caddy " + _output([self.program, "version"])

    def command(self, config, port, backend):
        return [self.program, "run", "--config", config, "--adapter", "caddyfile"]


class Http2Proxy(Proxy):
    """The npm package in the small server config/http2-proxy.js."""

    config = "http2-proxy.js"

    def find(self, options):
        self.program = shutil.which("node")
        if self.program is None:
            raise Missing("node not installed")
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
        prefix = cache / "upsplice-conformance"
        self.package = prefix / "node_modules" / "http2-proxy"
        if not self.package.is_dir() and options.install and shutil.which("npm"):
            prefix.mkdir(parents=True, exist_ok=True)
            command = [
                "npm",
                "install",
                "--no-audit",
                "--no-fund",
                "--prefix",
                prefix,
                "http2-proxy",
            ]
            subprocess.run(command, capture_output=True, timeout=120, check=False)
        if not self.package.is_dir():
            raise Missing("not installed")
        found = re.search(r'"version": *"([^"]+)"', (self.package / "package.json").read_text())
        self.version = (
            f"http2-proxy {found.group(1)} on node {_output([self.program, '--version'])}"
        )

    def command(self, config, port, backend):
        return [self.program, config, self.package, str(port), str(backend)]


class Upsplice(Proxy):
    config = "upsplice.toml"

    def find(self, options):
        built = [REPO / "target" / kind / "upsplice" for kind in ("release", "debug")]
        places = [pathlib.Path(options.upsplice)] if options.upsplice else built
        found = [place.resolve() for place in places if os.access(place, os.X_OK)]
        if not found:
            raise Missing("not built")
        self.program = found[0]
        self.version = f"{_output([self.program, '--version'])}, {self.origin()}"

    def origin(self):
        """The commit, where the binary was built from this tree; nothing else can vouch for it."""
        if not self.program.is_relative_to(REPO / "target"):
            return "commit unknown (built elsewhere)"
        return "commit " + _output(
            ["git", "-C", REPO, "describe", "--always", "--dirty", "--exclude", "*"]
        )

    def command(self, config, port, backend):
        return [self.program, "run", "--config", config]


def all_proxies():
    kinds = {"upsplice": Upsplice, "nginx": Nginx, "haproxy": Haproxy, "caddy": Caddy}
    return [kinds.get(name, Http2Proxy)(name) for name in NAMES]
