"""One session through a gateway, with a backend and a client of its own; for checks of what is shipped."""

import os
import socket
import threading

SECONDS = 20
HEAD = (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
GRANT = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
         b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
PAYLOAD = os.urandom(1 << 20)


def until(connection, end):
    seen = b""
    while not seen.endswith(end):
        piece = connection.recv(1)
        if not piece:
            raise SystemExit("the connection ended after %r" % seen)
        seen += piece
    return seen


def free_port():
    """A port that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def backend():
    """Starts one that grants one upgrade and sends back what comes; its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(SECONDS)
    threading.Thread(target=echo, args=(listener,), daemon=True).start()
    return "127.0.0.1:%d" % listener.getsockname()[1]


def echo(listener):
    connection, _ = listener.accept()
    with connection:
        until(connection, b"\r\n\r\n")
        connection.sendall(GRANT)
        while piece := connection.recv(1 << 16):
            connection.sendall(piece)


def session(address):
    """One upgrade, and a mebibyte there and back."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), SECONDS) as client:
        client.sendall(HEAD)
        answer = until(client, b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 101 "):
            raise SystemExit("no 101: %r" % answer)
        sender = threading.Thread(target=client.sendall, args=(PAYLOAD,), daemon=True)
        sender.start()
        back = b""
        while len(back) < len(PAYLOAD):
            piece = client.recv(1 << 16)
            if not piece:
                raise SystemExit("the session ended after %d bytes" % len(back))
            back += piece
        if back != PAYLOAD:
            raise SystemExit("other bytes came back")
