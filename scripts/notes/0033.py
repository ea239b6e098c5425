#!/usr/bin/env python3
"""What does the failure of an endpoint do to five thousand live sessions?"""

import collections
import http.client
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
from endpoints import PIECE, Endpoint, Session, Traffic, most_descriptors, waited  # noqa: E402
from note import ROOT, Block  # noqa: E402

ENDPOINTS, ROUTES, EACH = 3, ("keep", "close"), 834
SESSIONS = ENDPOINTS * len(ROUTES) * EACH
# Turns that are not shown.
UNSAID = 2
CLOSE_OVER, FALL, INTERVAL, TIMEOUT = 2, 3, 0.2, 1
SECONDS_MAX = 300
CONFIG = """
[gateway]
workers = 2
access_log = "%s/access.log"
admin = "unix:%s/admin.sock"
[[listener]]
address = "127.0.0.1:0"
"""
ROUTE = """
[[route]]
name = "%(name)s"
path = "/%(name)s"
protocols = ["any"]
to = [%(to)s]
[route.health]
path = "/health"
interval = "200ms"
timeout = "1s"
rise = 2
fall = 3
on_unhealthy = "%(name)s"
%(spread)s
"""


class Gateway:
    """The program, and the ways to speak to it."""

    def __init__(self, binary, folder, endpoints):
        self.folder = folder
        file = Path(folder) / "upsplice.toml"
        to = ", ".join('"%s"' % endpoint.name() for endpoint in endpoints)
        spread = {"keep": "", "close": 'close_over = "%ds"' % CLOSE_OVER}
        routes = [ROUTE % {"name": name, "to": to, "spread": spread[name]} for name in ROUTES]
        file.write_text(CONFIG % (folder, folder) + "".join(routes))
        self.process = subprocess.Popen([binary, "run", "--config", str(file)],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in self.process.stdout:
            if "listening on 127" in line:
                self.address = ("127.0.0.1", int(line.rsplit(":", 1)[1]))
                break
        # What it says must not hold it up.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self.opened, self.refused = 0, 0

    def ask(self, target):
        connection = http.client.HTTPConnection("upsplice", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(20)
        connection.sock.connect(self.folder + "/admin.sock")
        connection.request("GET", target)
        body = connection.getresponse().read()
        connection.close()
        return body

    def endpoints(self, key):
        """By route and endpoint."""
        return {(route["name"], int(endpoint["endpoint"].rsplit(":", 1)[1])): endpoint[key]
                for route in json.loads(self.ask("/v1/routes"))["routes"]
                for endpoint in route["endpoints"]}

    def metrics(self, name):
        return sum(float(line.rsplit(" ", 1)[1]) for line in
                   self.ask("/metrics").decode().splitlines()
                   if line.startswith((name + " ", name + "{")))

    def lines(self):
        """The access log so far, of those who have ended."""
        text = (Path(self.folder) / "access.log").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def memory(self):
        """Anonymous memory of its own, in KB."""
        for line in Path("/proc/%d/smaps_rollup" % self.process.pid).read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                return int(line.split()[1])
        raise SystemExit("no Pss_Anon in smaps_rollup")

    def descriptors(self):
        """The least of several counts: checks come and go."""
        def count():
            time.sleep(0.02)
            return len(list(Path("/proc/%d/fd" % self.process.pid).iterdir()))
        return min(count() for _ in range(50))

    def open(self, traffic, route, count):
        """So many sessions more; how many of them each endpoint got."""
        got = collections.Counter()
        for begin in range(0, count, 50):
            some = [socket.create_connection(self.address) for _ in range(min(50, count - begin))]
            for client in some:
                client.settimeout(20)
                client.sendall(("GET /%s HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\n"
                                "Upgrade: raw\r\n\r\n" % route).encode())
            for client in some:
                answer = client.recv(4096)
                if not answer.startswith(b"HTTP/1.1 101"):
                    self.refused += 1
                    continue
                port = int(answer.lower().split(b"endpoint: ")[1].split(b"\r")[0])
                self.opened += 1
                got[port] += 1
                traffic.add(Session(client, route, port, self.opened))
        return got


def fill(gateway, traffic):
    """As many sessions of each route as there are to be; who got them."""
    return {route: gateway.open(traffic, route, ENDPOINTS * EACH
                                - len(traffic.sessions(route=route))) for route in ROUTES}


def balance_again(gateway, traffic, port):
    """What the other endpoints have beyond their share ends, and comes again: how many the one that
    is back got, and how far the sessions of an endpoint are from an equal share then, at most."""
    for (route, other), count in gateway.endpoints("sessions").items():
        if other != port and count > EACH:
            own = traffic.sessions(route=route, port=other)
            traffic.close(random.Random(3).sample(own, count - EACH))
    expected = len(traffic.sessions())
    waited(10, lambda: sum(gateway.endpoints("sessions").values()) == expected)
    got = fill(gateway, traffic)
    away = max(abs(count - EACH) for count in gateway.endpoints("sessions").values())
    return sum(got[route][port] for route in ROUTES), away


def state(gateway, port, wanted):
    """Waits until both routes say so of the endpoint; the seconds."""
    began = time.monotonic()
    if not waited(20, lambda: all(found == wanted for (_, at), found
                                  in gateway.endpoints("state").items() if at == port)):
        raise SystemExit("the endpoint does not become %s" % wanted)
    return time.monotonic() - began


def tried(gateway, traffic, port):
    """Opens a session of each route now and then, until one tries the endpoint that was left alone
    after failed connects; the seconds."""
    began = time.monotonic()
    while "unhealthy" in [found for (_, at), found in gateway.endpoints("state").items()
                          if at == port]:
        if time.monotonic() > began + 30:
            raise SystemExit("nobody tries the endpoint")
        for route in ROUTES:
            gateway.open(traffic, route, 1)
        time.sleep(0.1)
    return time.monotonic() - began


class Round:
    """One failure of one endpoint: what became of whom."""

    def __init__(self, block, gateway, traffic, failing):
        self.block, self.gateway, self.traffic, self.failing = block, gateway, traffic, failing
        self.others = [s for s in traffic.sessions() if s.port != failing.port]
        self.own = {route: traffic.sessions(route=route, port=failing.port) for route in ROUTES}
        self.began, self.seen = time.monotonic(), len(gateway.lines())
        self.retried = gateway.metrics("upsplice_upstream_retries_total")

    def ended(self, route, seconds):
        """Whether all of its sessions of this route end in this time; when the last one did."""
        own = self.own[route]
        all_end = waited(seconds, lambda: all(session.ended is not None for session in own))
        last = max((s.ended for s in own if s.ended is not None), default=self.began) - self.began
        return all_end, last

    def reasons(self, count):
        """Who of others ended since it failed, and why its own did; the log may be behind."""
        waited(10, lambda: len(self.gateway.lines()) >= self.seen + count)
        lines = self.gateway.lines()[self.seen:]
        away = [line for line in lines if line["endpoint"] != self.failing.name()]
        return away, {route: collections.Counter(line["close_reason"] for line in lines
                                                 if line["route"] == route) for route in ROUTES}

    def untouched(self):
        return self.traffic.comes_back(self.others)

    def refill(self):
        """New sessions for those that ended: how many, how many at the failed one, retries."""
        got = fill(self.gateway, self.traffic)
        at = sum((got[route] for route in ROUTES), collections.Counter())
        retried = self.gateway.metrics("upsplice_upstream_retries_total") - self.retried
        return sum(at.values()), at[self.failing.port], retried

    def report(self, what, rows):
        self.block.say("endpoint %s" % what)
        for name, value in rows:
            self.block.row("  " + name, value)


def words(reasons):
    return ", ".join("%d %s" % (count, word) for word, count in sorted(reasons.items())) or "none"


def killed(block, gateway, traffic, failing):
    this = Round(block, gateway, traffic, failing)
    failing.end()
    all_end = [this.ended(route, 10) for route in ROUTES]
    new, at_failing, retried = this.refill()
    away, reasons = this.reasons(len(this.own["keep"] + this.own["close"]))
    untouched = this.untouched()
    state(gateway, failing.port, "unhealthy")
    failing.begin()
    back = tried(gateway, traffic, failing.port)
    got, off = balance_again(gateway, traffic, failing.port)
    this.report("killed, and started again", [
        ("its sessions, keep; close", "; ".join(words(reasons[route]) for route in ROUTES)),
        ("the last ended after", "%.2f s" % max(last for _, last in all_end)),
        ("sessions of others", "%d, ended %d" % (len(this.others), len(away))),
        ("new meanwhile", "%d, at the failed one %d, retries %d" % (new, at_failing, retried)),
        ("back and healthy after", "%.2f s" % back),
        ("new then, at the one that is back", "%d; from an equal share at most %d" % (got, off))])
    fit = all(set(found) <= {"completed", "reset"} for found in reasons.values())
    block.claim(all(end for end, _ in all_end) and fit and not away and untouched
                and at_failing == 0,
                "Only sessions of the killed endpoint end, at once, and new ones go to the others.")
    return off


def fails_checks(block, gateway, traffic, failing, what, fail, mend):
    """Its process lives on. When it is stopped, nothing comes back of it until it goes on."""
    this = Round(block, gateway, traffic, failing)
    failing.process.send_signal(fail)
    noticed = state(gateway, failing.port, "unhealthy")
    all_end, last = this.ended("close", CLOSE_OVER + 10)
    new, at_failing, retried = this.refill()
    away, reasons = this.reasons(len(this.own["close"]))
    untouched = this.untouched()
    kept = all(session.ended is None for session in this.own["keep"])
    serves = what != "stopped" and traffic.comes_back(this.own["keep"])
    failing.process.send_signal(mend)
    back = state(gateway, failing.port, "healthy")
    exact = traffic.comes_back(this.own["keep"])
    got, off = balance_again(gateway, traffic, failing.port)
    this.report(what, [
        ("unhealthy after", "%.2f s" % noticed),
        ("its sessions, close", "%s; the last after %.2f s" % (words(reasons["close"]), last)),
        ("its sessions, keep", "%d live on; ended: %s" % (
            sum(s.ended is None for s in this.own["keep"]), words(reasons["keep"]))),
        ("sessions of others", "%d, ended %d" % (len(this.others), len(away))),
        ("new meanwhile", "%d, at the failed one %d, retries %d" % (new, at_failing, retried)),
        ("back and healthy after", "%.2f s" % back),
        ("new then, at the one that is back", "%d; from an equal share at most %d" % (got, off))])
    block.claim(all_end and set(reasons["close"]) == {"endpoint_unhealthy"} and not away
                and last <= noticed + CLOSE_OVER + 1.5,
                "Those of the route that says close end as endpoint_unhealthy in time; no other.")
    block.claim(kept and exact and untouched and (serves or what == "stopped")
                and at_failing == 0 and retried == 0,
                "Those of the route that says keep live on%s; new ones go to the others."
                % (", their bytes come when it goes on" if what == "stopped" else ""))
    return off


class Unsaid:
    """Takes the lines of a turn that is not shown. Its claims count."""

    def __init__(self):
        self.holds = True

    def say(self, *_):
        pass

    row = say

    def claim(self, holds, _):
        self.holds = self.holds and bool(holds)


def turn(block, gateway, traffic, endpoints):
    """Each endpoint fails in its way; how unequal their parts were afterwards at most, whether all
    sessions were alive then, and who was left when they had gone."""
    fill(gateway, traffic)
    offs = [killed(block, gateway, traffic, endpoints[0])]
    block.say()
    for at, (what, fail, mend) in enumerate((
            ("answers checks with 503", signal.SIGUSR1, signal.SIGUSR2),
            ("stopped", signal.SIGSTOP, signal.SIGCONT)), 1):
        offs.append(fails_checks(block, gateway, traffic, endpoints[at], what, fail, mend))
        block.say()
    everyone = traffic.comes_back(traffic.sessions())
    left = everybody_leaves(gateway, traffic)
    return max(offs), everyone, left


def run(block, gateway, endpoints):
    traffic = Traffic()
    traffic.start()
    block.say("%d sessions of two routes at %d endpoints, %d bytes on their way in each"
              % (SESSIONS, ENDPOINTS, PIECE))
    block.say("checks every %.1f s, unhealthy after %d; on_unhealthy = close over %d s"
              % (INTERVAL, FALL, CLOSE_OVER))
    block.say()
    # What the first turns need is no growth.
    first, memory = Unsaid(), []
    for _ in range(UNSAID):
        turn(first, gateway, traffic, endpoints)
        memory.append(gateway.memory())
    held = gateway.descriptors()
    off, everyone, at_end = turn(block, gateway, traffic, endpoints)
    memory.append(gateway.memory())
    left = gateway.descriptors()
    waited(10, lambda: len(gateway.lines()) == gateway.opened)
    most = max(line["retries"] for line in gateway.lines())
    block.say("opened %d, refused %d, lines in the log %d; retries of one session at most %d"
              % (gateway.opened, gateway.refused, len(gateway.lines()), most))
    block.say("left %d in metrics, %s by endpoint" % (gateway.metrics("upsplice_sessions_open"),
                                                      sorted(at_end.values())))
    block.say("without sessions, after each of %d turns, of which the last is shown: memory %s KB,"
              % (UNSAID + 1, ", ".join(map(str, memory))))
    block.say("descriptors %d before the last and %d after it" % (held, left))
    block.say()
    block.claim(first.holds and everyone and traffic.inexact == 0,
                "Every byte that came back was the right one, in all turns.")
    block.claim(gateway.refused == 0 and most <= 1,
                "No new session is refused, and none needs more than one retry.")
    block.claim(off <= EACH // 50, "What is new makes the endpoints equal again.")
    block.claim(len(gateway.lines()) == gateway.opened and not any(at_end.values())
                and gateway.metrics("upsplice_sessions_open") == 0, "Counts are exact at the end.")
    block.claim(left == held and memory[-1] < 1.02 * memory[-2],
                "Descriptors are what they were, memory too but for a fiftieth.")


def everybody_leaves(gateway, traffic):
    """Sessions by endpoint when all clients have gone."""
    traffic.close(traffic.sessions())
    waited(20, lambda: not any(gateway.endpoints("sessions").values())
           and gateway.metrics("upsplice_sessions_open") == 0)
    return gateway.endpoints("sessions")


def program():
    done = subprocess.run(
        ["cargo", "build", "--bin", "upsplice", "--release", "--message-format",
         "json-render-diagnostics"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return next(line["executable"] for line in lines if line.get("executable"))


def main():
    block = Block("0033")
    signal.alarm(0)
    binary = program()
    signal.alarm(SECONDS_MAX)
    most_descriptors()
    endpoints = []
    with tempfile.TemporaryDirectory(prefix="upsplice-0033-") as folder:
        try:
            endpoints += [Endpoint() for _ in range(ENDPOINTS)]
            gateway = Gateway(binary, folder, endpoints)
            try:
                run(block, gateway, endpoints)
            finally:
                gateway.process.terminate()
                gateway.process.wait(60)
        finally:
            for ended in endpoints:
                ended.end()
    block.finish()


main()
