"""socket.io on the websocket transport alone: polling is made of plain requests."""

import json
import subprocess

from harness import BOUND, Server, Unavailable, carried_wrongly, node

# For each session: what the client checks, and by which names the server knows who left and how.
LEFT = "client namespace disconnect"
PLAN = {
    "events": (("greeting", "transport", "text", "1 MiB both ways"), {"events/": LEFT}),
    "broadcast": (("broadcast",), {"broadcast/": LEFT, "broadcast-other/": LEFT}),
    "namespace": (("greeting",), {"namespace/admin": LEFT}),
    "kicked": (("disconnect by the server",), {"kicked/": "server namespace disconnect"}),
}
SESSIONS = 5
DEFLATES = False
# The first packet of the server often comes along with its 101, and then it is head data.
HEAD_DATA_MAX = 512


def servers(report):
    try:
        command, options = node("socketio_server.mjs")
        return [Server(command, **options)]
    except Unavailable as missing:
        report.skip("socket.io client and server", missing)
        return []


def routes(server):
    yield "/socket.io", "websocket", server.port


def run(servers, gateway, report):
    (server,) = servers
    title = f"socket.io, {gateway.way if gateway else 'direct'}"
    port = gateway.port if gateway else server.port
    command, options = node("socketio_client.mjs", f"http://127.0.0.1:{port}")
    command = [str(word) for word in command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * BOUND, **options)
    told = {facts["name"]: facts["checks"] for facts in map(json.loads, done.stdout.splitlines())}
    for name, (checks, ends) in PLAN.items():
        found = told.get(name, {"session": f"no result, status {done.returncode}: {done.stderr}"})
        if why := found.pop("session", None):
            report.check(f"{title}: {name}", why)
            continue
        for check in checks:
            report.check(f"{title}: {name}: {check}", found.get(check, "was not checked"))
        for path, reason in ends.items():
            seen = server.end_of(path)["reason"]
            wrong = None if seen == reason else f"{seen!r} instead of {reason!r}"
            report.check(f"{title}: {name}: seen by the server", wrong)
    for number in range(SESSIONS if gateway else 0):
        # All sessions have the same path, so the lines come in the order of the ends.
        line = gateway.line("/socket.io/")
        wrong = carried_wrongly(line, gateway, HEAD_DATA_MAX)
        report.check(f"{title}: access log of session {number + 1}", wrong)
