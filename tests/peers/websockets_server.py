"""The PyPI `websockets` server: echoes, and does what a text that starts with "!" asks for.

Prints `PORT n`, then one JSON line for each connection that ended."""

import asyncio
import json

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def handle(socket):
    try:
        async for message in socket:
            if message == "!ping":
                await (await socket.ping("from the server"))
                await socket.send("ponged: from the server")
            elif isinstance(message, str) and message.startswith("!close "):
                _, code, reason = message.split(" ")
                await socket.close(int(code), reason)
            else:
                await socket.send(message)
    except ConnectionClosed:
        pass
    await socket.wait_closed()
    received = socket.protocol.close_rcvd
    facts = {
        "path": socket.request.path,
        "protocol": socket.subprotocol or "",
        "extensions": ",".join(extension.name for extension in socket.protocol.extensions),
        "code": received.code if received else 1006,
        "reason": received.reason if received else "",
    }
    print(json.dumps(facts), flush=True)


async def main():
    # The library's own choice refuses a client that offers none.
    def select(_, offered):
        return "chat.v1" if "chat.v1" in offered else None

    options = {"select_subprotocol": select, "max_size": None}
    async with serve(handle, "127.0.0.1", 0, **options) as server:
        print("PORT", server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main())
