"""The PyPI `websockets` client: opens the sessions of the plan, and prints a JSON line for each.

    python websockets_client.py ws://HOST:PORT/PREFIX"""

import asyncio
import json
import os
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

MIB = 1 << 20
URL = sys.argv[1]


async def session(name, script, **options):
    """Opens a session and runs `script` on it; the checks that failed carry a reason."""
    checks = {}

    def check(what, holds, why):
        checks[what] = None if holds else str(why)

    options = {"compression": None, "max_size": None, "proxy": None, **options}
    try:
        socket = await connect(f"{URL}/{name}", **options)
        await asyncio.wait_for(script(socket, check), 15)
        await asyncio.wait_for(socket.wait_closed(), 5)
    except Exception as error:
        checks["session"] = repr(error)
    print(json.dumps({"name": name, "checks": checks}), flush=True)


async def messages(socket, check):
    await socket.send("grüße")
    text = await socket.recv()
    check("text", text == "grüße", text)
    small = bytes([0, 1, 254, 255])
    await socket.send(small)
    binary = await socket.recv()
    check("binary", binary == small, binary)
    # The library resolves the waiter only for a pong with this payload.
    latency = await (await socket.ping("from the client"))
    check("ping", latency > 0, latency)
    await socket.send("!ping")
    told = await socket.recv()
    check("pong", told == "ponged: from the server", told)
    big = os.urandom(MIB)
    await socket.send(big)
    echo = await socket.recv()
    check("1 MiB both ways", echo == big, f"{len(echo)} other bytes came back")
    await socket.close(1000, "done 1000")


async def subprotocol(socket, check):
    check("subprotocol", socket.subprotocol == "chat.v1", socket.subprotocol)
    await socket.send("hello")
    text = await socket.recv()
    check("text", text == "hello", text)
    await socket.close(3000, "done 3000")


async def deflate(socket, check):
    names = [extension.name for extension in socket.protocol.extensions]
    check("permessage-deflate", "permessage-deflate" in names, names)
    long = "compress me " * 10_000
    await socket.send(long)
    text = await socket.recv()
    check("text", text == long, f"{len(text)} other characters came back")
    await socket.close(4001, "done 4001")


def closed_by(code):
    async def script(socket, check):
        await socket.send(f"!close {code} by-server-{code}")
        try:
            await socket.recv()
        except ConnectionClosed:
            pass
        end = (socket.close_code, socket.close_reason)
        check(f"close {code} by the server", end == (code, f"by-server-{code}"), end)

    return script


async def main():
    await session("messages", messages)
    await session("subprotocol", subprotocol, subprotocols=["chat.v2", "chat.v1"])
    await session("deflate", deflate, compression="deflate")
    for code in (1000, 3000, 4001):
        await session(f"close-{code}", closed_by(code))


asyncio.run(main())
