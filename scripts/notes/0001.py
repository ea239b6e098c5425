#!/usr/bin/env python3
"""How does a relay tell an urgent byte from an empty source?"""

import ctypes
import os
import socket
import sys

sys.dont_write_bytecode = True
from note import (NONBLOCK, SIOCATMARK, Block, ask, attempt, delivered, libc, nanoseconds,  # noqa: E402
                  pipe, poll, splice, tcp_pair)

END = "AB, urgent !, end"
SENT = {
    "nothing": [],
    "AB, urgent !, CD": [b"AB", b"!", b"CD"],
    "urgent !, CD": [b"!", b"CD"],
    "AB, urgent !": [b"AB", b"!"],
    END: [b"AB", b"!", None],
    "A, urgent !, B, urgent ?, C": [b"A", b"!", b"B", b"?", b"C"],
}


def send(client, parts):
    for part in parts:
        if part is None:
            client.shutdown(socket.SHUT_WR)
        else:
            client.send(part, socket.MSG_OOB if part in (b"!", b"?") else 0)


def relay(source, taken):
    """What a relay does with `source`: splice, and what its EAGAIN means; until two waits in a row."""
    read, write = pipe()
    steps = []
    for _ in range(12):
        answer = splice(source, write)
        steps.append("splice %s" % answer)
        if answer == 0:
            break
        if answer != "EAGAIN":
            taken.append(os.read(read, 100))
            continue
        steps[-1] += " (%s, mark %d)" % (poll(source), ask(source, SIOCATMARK))
        if not ask(source, SIOCATMARK):
            break
        received = attempt(source.recv, 100)
        steps.append("recv %s" % received)
        if received == "EAGAIN" or received == b"":
            break
        taken.append(received)
    os.close(read)
    os.close(write)
    return steps


def scenarios(block):
    seen = {}
    for what, parts in SENT.items():
        client, source = tcp_pair()
        send(client, parts)
        delivered(client)
        taken = []
        steps = relay(source, taken)
        joined = b"".join(taken).decode()
        seen[what] = " ".join(steps), joined
        block.row(what, "delivers %s" % (joined or "-"))
        block.say("    " + ", ".join(steps))
        client.close()
        source.close()
    return seen


def stuck(block):
    """Splice alone, again and again."""
    client, source = tcp_pair()
    send(client, [b"!", b"CD"])
    delivered(client)
    read, write = pipe()
    answers = {splice(source, write) for _ in range(1000)}
    block.row("urgent !, CD: splice alone, 1000 times", "%s, %s" % (answers, poll(source)))
    source.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    inline = {splice(source, write) for _ in range(1000)}
    block.row("the same with SO_OOBINLINE", "%s, %s" % (inline, poll(source)))
    for end in (read, write):
        os.close(end)
    return answers == inline == {"EAGAIN"} and "POLLIN" in poll(source)


def costs(block):
    """Per call on an empty source, the interpreter's share included, which is the same for all."""
    client, source = tcp_pair()
    fd, answer, buffer = source.fileno(), ctypes.c_int(), ctypes.create_string_buffer(4096)
    read, write = pipe()
    place = ctypes.byref(answer)
    costs = nanoseconds({
        "getppid, to compare": lambda: libc.getppid(),
        "ioctl SIOCATMARK": lambda: libc.ioctl(fd, SIOCATMARK, place),
        "recv MSG_DONTWAIT": lambda: libc.recv(fd, buffer, 4096, socket.MSG_DONTWAIT),
        "splice": lambda: libc.splice(fd, None, write, None, 65536, NONBLOCK),
    })
    for name, cost in costs.items():
        block.row("empty source: %s" % name, "%.0f ns" % cost)
    for end in (client, source):
        end.close()
    for end in (read, write):
        os.close(end)
    return costs


block = Block("0001")
seen = scenarios(block)
stays = stuck(block)
costs = costs(block)
block.claim(stays, "Splice says EAGAIN before an urgent byte for ever, and poll says POLLIN for ever.")
block.claim("nothing, mark 0" in seen["nothing"][0] and all(
    "mark 1" in steps for what, (steps, _) in seen.items() if what not in ("nothing", END)),
    "SIOCATMARK is 1 there and 0 on an empty source: it tells the two apart.")
block.claim(seen["AB, urgent !, CD"][1] == "ABCD"
            and seen["urgent !, CD"][1] == "CD",
            "One recv() passes the urgent byte, drops it, and returns what is behind it.")
block.claim(seen["A, urgent !, B, urgent ?, C"][1] == "A!BC",
            "Of two urgent bytes only the last is out of band: the first arrives as data.")
block.claim("POLLPRI, mark 1" in seen["AB, urgent !"][0],
            "With nothing behind the urgent byte poll says POLLPRI only, and the recv() EAGAIN.")
block.claim("EAGAIN" not in seen[END][0] and seen[END][1] == "AB",
            "With the end behind it splice returns 0: the byte is lost, the end is not late.")
block.claim(costs["ioctl SIOCATMARK"] < costs["recv MSG_DONTWAIT"],
            "To ask costs less than to try a recv().")
block.finish()
