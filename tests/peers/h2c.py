"""`nghttp -u` (HTTP/2 by an h2c upgrade) against `nghttpx`, which takes that upgrade.

nghttpd does not: it answers HTTP/2 at once, whatever is asked. nghttpx in turn asks a plain HTTP
server in this process. Only GET is tried: for a request with a body nghttp upgrades by `OPTIONS *`,
which has no path and so no route."""

import http.server
import shutil
import socket
import subprocess
import threading
import time

from harness import BOUND, Program, carried_wrongly

BIG = bytes(range(256)) * 4096
# nghttpx sends its SETTINGS and the response to the request that upgraded right behind the 101, so
# a first part of the session can be head data: at most what the gateway reads along with a head.
HEAD_DATA_MAX = 64 * 1024


class Origin(http.server.BaseHTTPRequestHandler):
    """Answers 1 MiB to every GET."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(BIG)))
        self.end_headers()
        self.wfile.write(BIG)

    def log_message(self, *_):
        pass


class Nghttpx:
    """nghttpx on a free port, and the server behind it."""

    def __init__(self):
        self.origin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
        threading.Thread(target=self.origin.serve_forever, daemon=True).start()
        self.port = free_port()
        self.program = Program(
            [
                "nghttpx",
                "--conf=/dev/null",
                "--workers=1",
                "--single-process",
                f"--frontend=127.0.0.1,{self.port};no-tls",
                f"--backend=127.0.0.1,{self.origin.server_port}",
            ]
        )
        self.wait_until_it_accepts()

    def wait_until_it_accepts(self):
        deadline = time.monotonic() + BOUND
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                if self.program.process.poll() is not None or time.monotonic() > deadline:
                    complaints = "; ".join(self.program.complaints)
                    raise RuntimeError(f"nghttpx does not accept: {complaints}") from None
                time.sleep(0.02)

    def stop(self):
        self.origin.shutdown()
        self.origin.server_close()
        return self.program.stop()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def servers(report):
    for tool, package in (("nghttp", "nghttp2-client"), ("nghttpx", "nghttp2-proxy")):
        if not shutil.which(tool):
            report.skip("nghttp -u", f"{tool} is not installed (Debian: {package})")
            return []
    return [Nghttpx()]


def routes(server):
    yield "/h2c", "h2c", server.port


def run(servers, gateway, report):
    (server,) = servers
    title = f"nghttp -u, {gateway.way if gateway else 'direct'}"
    base = f"http://127.0.0.1:{(gateway or server).port}/h2c"

    # The frames it prints are the proof that the upgrade took place.
    told = nghttp("--upgrade", "--verbose", "--null-out", f"{base}/told").decode()
    upgraded = "HTTP Upgrade success" in told and ":status: 200" in told
    report.check(f"{title}: upgrade", None if upgraded else told[-600:])
    body = nghttp("--upgrade", f"{base}/one")
    wrong = None if body == BIG else f"{len(body)} bytes, {len(BIG)} of a pattern expected"
    report.check(f"{title}: 1 MiB", wrong)
    # Three streams of one connection; nghttp prints them as their frames come, in turns.
    body = nghttp("--upgrade", *(f"{base}/{name}" for name in ("two", "three", "four")))
    wrong = None if sorted(body) == sorted(3 * BIG) else f"{len(body)} bytes of three streams"
    report.check(f"{title}: three streams of 1 MiB", wrong)
    for path in ("told", "one", "two") if gateway else ():
        line = gateway.line(f"/h2c/{path}")
        wrong = carried_wrongly(line, gateway, HEAD_DATA_MAX)
        if (line.get("status"), line.get("upgrade")) != (101, "h2c"):
            wrong = f"status or protocol: {line}"
        report.check(f"{title}: access log of {path}", wrong)


def nghttp(*arguments):
    done = subprocess.run(["nghttp", *arguments], capture_output=True, timeout=BOUND)
    return done.stdout + done.stderr
