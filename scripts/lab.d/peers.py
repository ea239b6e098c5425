"""The proxies that upsplice is compared with; their configuration files say why they are so.

Every peer has the settings that its documentation gives for WebSocket, one worker (or as many as
--workers says) on the cores that upsplice gets, no access log, and adds `X-Forwarded-For` as
upsplice does. A name with a size is a peer tuned beyond its documentation, where we found that to
be better for some row. `messages` is a small proxy of ours on a WebSocket library, which parses
every message and adds no header.
"""

import json
import os
import socket
from pathlib import Path

from processes import PIPES_MAX, SESSIONS_MAX, first_line
from targets import HERE, Direct, Proxy, our_targets


class Haproxy(Proxy):
    program = package = "haproxy"
    template = "haproxy.cfg"

    def __init__(self, name, splice=(), tune=""):
        super().__init__(name)
        self.splice, self.tune = splice, tune
        self.kind = "tuned" if tune else "peer"

    def version(self):
        return first_line(["haproxy", "-v"]).split(" 20")[0]

    def command(self, backend):
        options = "\n    ".join("option splice-" + which for which in self.splice)
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
        return "spliced %d %%, %d pipes" % (min(100, 100 * spliced // max(1, payload)), pipes)


class Nginx(Proxy):
    program = package = "nginx"
    template = "nginx.conf"

    def __init__(self, name, events="", buffers=""):
        super().__init__(name)
        self.events, self.buffers = events, buffers
        self.kind = "tuned" if buffers else "peer"

    def version(self):
        return first_line(["nginx", "-v"])

    def command(self, backend):
        # With several workers, each with a queue of its own: one shared queue wakes them unevenly.
        queues = "reuseport" if self.place.workers > 1 else ""
        path = self.write_config(backend, BUFFERS=self.buffers, EVENTS=self.events, QUEUES=queues)
        return ["nginx", "-e", "stderr", "-p", str(self.directory), "-c", path]


class Caddy(Proxy):
    single_threaded = False
    program = package = "caddy"
    template = "Caddyfile"

    def version(self):
        return "Caddy " + first_line(["caddy", "version"]).split(" ")[0]

    def environment(self):
        # Go takes a thread per core that it may use, and later versions look at cgroups as well.
        return {"GOMAXPROCS": str(self.place.workers)}

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
        workers = str(self.place.workers)
        return ["node", script, self.address, backend, str(self.modules), workers]


class Messages(Proxy):
    workers_max = 1

    def __init__(self, name, binary):
        super().__init__(name)
        self.binary = binary

    def missing(self):
        return None if self.binary and Path(self.binary).exists() else "not built"

    def version(self):
        return "messages, this repository's benches/messages"

    def command(self, backend):
        return [self.binary, "--listen", self.address, "--to", backend]


def all_targets(binary, messages, cache):
    """Every target by name, in the order of the tables; new ones at every call."""
    forced = ("request", "response")
    wide = "proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;"
    targets = [
        Direct("direct"),
        *our_targets(binary),
        Haproxy("haproxy"),
        Haproxy("haproxy-64k", tune="tune.bufsize 65536"),
        Haproxy("haproxy-splice-auto", splice=("auto",)),
        Haproxy("haproxy-splice", splice=forced),
        Haproxy("haproxy-splice-256k", splice=forced, tune="tune.pipesize 262144"),
        Haproxy("haproxy-splice-1m", splice=forced, tune="tune.pipesize 1048576"),
        Nginx("nginx"),
        Nginx("nginx-64k", events="multi_accept on;", buffers=wide),
        Caddy("caddy"),
        Http2Proxy("http2-proxy", cache),
        Messages("messages", messages),
    ]
    return {target.name: target for target in targets}
