"""npm `ws` and PyPI `websockets`: each client against each server."""

import json
import subprocess

from harness import BOUND, HERE, Server, Unavailable, carried_wrongly, node, python_with_pins

MIB = 1 << 20
# Whether some of its sessions are compressed.
DEFLATES = True
# What each session has to have checked at the client, and how the server has to see it end. A close
# that the server starts is answered with the same code; the reason is the client's to choose.
MESSAGES = ("text", "binary", "ping", "pong", "1 MiB both ways")
PLAN = {
    "messages": (MESSAGES, {"code": 1000, "reason": "done 1000"}),
    "subprotocol": (
        ("subprotocol", "text"),
        {"code": 3000, "reason": "done 3000", "protocol": "chat.v1"},
    ),
    "deflate": (("permessage-deflate", "text"), {"code": 4001, "reason": "done 4001"}),
    "close-1000": (("close 1000 by the server",), {"code": 1000}),
    "close-3000": (("close 3000 by the server",), {"code": 3000}),
    "close-4001": (("close 4001 by the server",), {"code": 4001}),
}


def commands(kind):
    """What runs the `kind` ("client" or "server") of each library."""
    yield "ws", lambda: node(f"ws_{kind}.mjs")
    yield "websockets", lambda: ([python_with_pins(), HERE / f"websockets_{kind}.py"], {})


def servers(report):
    started = []
    for name, command in commands("server"):
        try:
            line, options = command()
            server = Server(line, **options)
            server.peer = name
            started.append(server)
        except Unavailable as missing:
            report.skip(f"{name} client and server", missing)
    return started


def routes(server):
    yield f"/{server.peer}", "websocket", server.port


def run(servers, gateway, report):
    """Every client against every server, through `gateway` if there is one."""
    present = {server.peer for server in servers}
    for client, command in commands("client"):
        for server in servers:
            if client in present:
                one(client, command(), server, gateway, report)


def one(client, command, server, gateway, report):
    way = gateway.way if gateway else "direct"
    port = gateway.port if gateway else server.port
    prefix = f"/{server.peer}/{client}-{way}"
    title = f"{client} to {server.peer}, {way}"
    line, options = command
    done = subprocess.run(
        [str(word) for word in [*line, f"ws://127.0.0.1:{port}{prefix}"]],
        capture_output=True,
        text=True,
        timeout=3 * BOUND,
        **options,
    )
    told = {facts["name"]: facts["checks"] for facts in map(json.loads, done.stdout.splitlines())}
    for name, (checks, end) in PLAN.items():
        if name not in told:
            report.check(f"{title}: {name}", f"no result, status {done.returncode}: {done.stderr}")
            continue
        found = told[name]
        if why := found.pop("session", None):
            report.check(f"{title}: {name}", why)
            continue
        for check in checks:
            report.check(f"{title}: {name}: {check}", found.get(check, "was not checked"))
        path = f"{prefix}/{name}"
        report.check(f"{title}: {name}: seen by the server", differs(server.end_of(path), end))
        if gateway:
            report.check(f"{title}: {name}: access log", misreported(name, gateway, path))


def differs(seen, expected):
    wrong = {key: seen.get(key) for key, value in expected.items() if seen.get(key) != value}
    return f"{wrong} instead of {expected}" if wrong else None


def misreported(name, gateway, path):
    """What is wrong with the session's access log line."""
    line = gateway.line(path)
    if wrong := carried_wrongly(line, gateway):
        return wrong
    if (line["status"], line["upgrade"]) != (101, "websocket"):
        return f"status or protocol: {line}"
    if name == "messages" and min(line["bytes_in"], line["bytes_out"]) < MIB:
        return f"more bytes went through than were counted: {line}"
    # 120,000 characters that repeat: only a compressed session is that small.
    if name == "deflate" and max(line["bytes_in"], line["bytes_out"]) > 20_000:
        return f"the session was not compressed: {line}"
    return None
