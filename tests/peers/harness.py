"""What scripts/peers and scripts/autobahn have in common.

The gateway under test, the programs around it, and where they are installed. Every wait is bounded;
processes are ended by their own id, never by name."""

import atexit
import collections
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time

REPO = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
CACHE = REPO / ".cache" / "peers"
# Only turns a hang into a failure.
BOUND = 20.0


class Unavailable(Exception):
    """Something that is not on this machine and cannot be had: a reason to skip."""


def upsplice_binary(wanted):
    """The binary to test; the release build is made when no path was given and it is missing."""
    if wanted:
        return pathlib.Path(wanted).resolve()
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target"))
    binary = REPO / target / "release" / "upsplice"
    if not binary.exists():
        subprocess.run(["cargo", "build", "--release", "--bin", "upsplice"], cwd=REPO, check=True)
    return binary


class Program:
    """A child process whose output is read line by line as it comes."""

    def __init__(self, command, **options):
        self.name = " ".join(pathlib.Path(str(word)).name for word in command[:2])
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        self.out, self.err = queue.Queue(), queue.Queue()
        self.complaints = collections.deque(maxlen=40)
        for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err)):
            threading.Thread(target=self._read, args=(stream, lines), daemon=True).start()
        atexit.register(self.stop)

    def _read(self, stream, lines):
        for line in stream:
            if lines is self.err:
                self.complaints.append(line.rstrip())
            lines.put(line.rstrip("\n"))
        lines.put(None)

    def wait_for(self, lines, pattern):
        """The first match of `pattern` in the lines to come."""
        deadline = time.monotonic() + BOUND
        while True:
            try:
                line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise RuntimeError(f"{self.name}: no line {pattern!r} in time") from None
            if line is None:
                complaints = "; ".join(self.complaints)
                raise RuntimeError(f"{self.name} ended without a line {pattern!r}: {complaints}")
            if found := re.search(pattern, line):
                return found

    def stop(self):
        """Ends the process; its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=BOUND)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


class Server(Program):
    """A server of a peer: prints `PORT n`, then one JSON object for each connection that ended."""

    def __init__(self, command, **options):
        super().__init__(command, **options)
        self.port = int(self.wait_for(self.out, r"^PORT (\d+)").group(1))
        self.ended = {}

    def end_of(self, path):
        """What the server saw of the connection to `path`."""
        while path not in self.ended:
            facts = json.loads(self.wait_for(self.out, r"^\{").string)
            self.ended[facts["path"]] = facts
        return self.ended.pop(path)


class Gateway(Program):
    """The gateway, with one route for each (path prefix, protocol, backend port); `keys` for all."""

    def __init__(self, binary, engine, routes, keys=(), depth=None):
        self.engine, self.depth = engine, depth
        # What stands in titles and paths.
        self.way = f"inspect-{depth}" if depth else engine
        self.folder = tempfile.mkdtemp(prefix="upsplice-peers-")
        config = pathlib.Path(self.folder) / "upsplice.toml"
        config.write_text(gateway_config(engine, routes, keys, depth))
        super().__init__([binary, "run", "--config", config])
        self.port = int(self.wait_for(self.err, r"listening on 127\.0\.0\.1:(\d+)").group(1))
        self.lines = {}

    def line(self, path):
        """The access log line of the session on `path`."""
        while path not in self.lines:
            line = json.loads(self.wait_for(self.out, r"^\{").string)
            self.lines[line.get("path")] = line
        return self.lines.pop(path)

    def counters(self):
        """Its counters, which it prints on SIGUSR1."""
        self.process.send_signal(signal.SIGUSR1)
        return json.loads(self.wait_for(self.err, r"counters (\{.*)").group(1))

    def followed_wrongly(self, deflates):
        """What is wrong with what an inspecting gateway has counted, or None; `deflates` where some
        of the sessions were compressed."""
        websocket = self.counters()["websocket"]
        for way in (websocket["to_upstream"], websocket["to_downstream"]):
            broken = {rule: count for rule, count in way["violations"].items() if count}
            frames = way["frames"]
            if broken or not sum(way["message_sizes"]) or not frames["text"]:
                return f"{broken or 'no messages'}: {way}"
            if bool(way["compressed_bytes"]) != (deflates and self.depth == "payload"):
                return f"{way['compressed_bytes']} bytes were inflated: {way}"
        return None

    def stop(self):
        status = super().stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        return status


def gateway_config(engine, routes, keys=(), depth=None):
    """Two workers, so that sessions land on both."""
    lines = [
        "[gateway]",
        "workers = 2",
        f"no_fallback = {'true' if engine == 'splice' else 'false'}",
        "[[listener]]",
        'address = "127.0.0.1:0"',
    ]
    for path, protocol, port in routes:
        lines += [
            "[[route]]",
            f'name = "{path.strip("/") or "all"}"',
            f'path = "{path}"',
            f'protocols = ["{protocol}"]',
            f'engine = "{engine}"',
            f'to = ["127.0.0.1:{port}"]',
            *keys,
        ]
        lines += ['mode = "inspect"', f'inspect = "{depth}"'] if depth else []
    return "\n".join(lines) + "\n"


def carried_wrongly(line, gateway, head_data_max=0):
    """What is wrong with the way the session of this access log line was carried, or None."""
    engine = gateway.engine
    if line["close_reason"] != "completed":
        return f"close_reason is {line['close_reason']}: {line}"
    if line.get("mode") != ("inspect" if gateway.depth else "zero-copy"):
        return f"mode is {line.get('mode')}: {line}"
    # With auto it is the frames that decide.
    if engine != "auto" and line.get("engine") != engine:
        return f"engine is {line.get('engine')}: {line}"
    if line.get("violation"):
        return f"a violation: {line}"
    if engine == "splice" and not (line["bytes_splice"] and line["bytes_copy"] <= head_data_max):
        return f"{line['bytes_splice']} bytes spliced, {line['bytes_copy']} copied: {line}"
    if engine == "copy" and (line["bytes_splice"] or not line["bytes_copy"]):
        return f"{line['bytes_splice']} bytes spliced, {line['bytes_copy']} copied: {line}"
    if line["bytes_splice"] + line["bytes_copy"] != line["bytes_in"] + line["bytes_out"]:
        return f"the sums of bytes differ: {line}"
    if line["bytes_discarded"]:
        return f"bytes were discarded: {line}"
    return None


def node_modules():
    """The folder with the pinned npm packages; installed anew only when the pins have changed."""
    for tool in ("node", "npm"):
        if not shutil.which(tool):
            raise Unavailable(f"{tool} is not installed")
    folder, stamp = CACHE / "npm", CACHE / "npm" / "installed.json"
    lock = (HERE / "package-lock.json").read_bytes()
    if not stamp.exists() or stamp.read_bytes() != lock:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(HERE / name, folder / name)
        install(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder, "npm.log")
        stamp.write_bytes(lock)
    return folder / "node_modules"


def python_with_pins():
    """The interpreter of an environment with the pinned PyPI packages."""
    folder, stamp = CACHE / "python", CACHE / "python" / "installed.txt"
    pins = (HERE / "requirements.txt").read_bytes()
    python = folder / "bin" / "python"
    if not stamp.exists() or stamp.read_bytes() != pins:
        folder.parent.mkdir(parents=True, exist_ok=True)
        install(["python3", "-m", "venv", "--clear", folder], folder.parent, "venv.log")
        requirements = HERE / "requirements.txt"
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        install([*pip, "-r", requirements], folder, "pip.log")
        stamp.write_bytes(pins)
    return python


def install(command, folder, log, environment=None):
    """Runs an installer in `folder`; its output is kept in `log` there."""
    path = folder / log
    with path.open("w") as output:
        command = [str(word) for word in command]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=600,
                env={**os.environ, **(environment or {})},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"{command[0]}: {error}") from None
    if done.returncode:
        raise Unavailable(f"{' '.join(command[:3])} failed, see {path.relative_to(REPO)}")


def node(script, *arguments):
    """The command that runs a script of this folder on the pinned npm packages."""
    environment = {**os.environ, "MODULES": str(node_modules())}
    return ["node", HERE / script, *arguments], {"env": environment}
