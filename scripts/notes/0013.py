#!/usr/bin/env python3
"""Which socket options help a relay?"""

import os
import select
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
from note import ROOT, median, pipe, poll, splice, tcp_pair, until  # noqa: E402
from variants import Comparison, Variant, build, long_block, winners  # noqa: E402

ROWS = "bulk1,bulk16,echo64,echo64x100,echo16kx100"
TCP, SOCKET = socket.IPPROTO_TCP, socket.SOL_SOCKET
# Names that Python does not have.
NOTSENT_LOWAT, BUSY_POLL = 25, 46
KIB = 1024
OPTIONS_BY_NAME = {
    "preloaded, no option": None,
    "TCP_QUICKACK, each fill": (TCP, socket.TCP_QUICKACK, 1, "fill"),
    "no TCP_QUICKACK, each fill": (TCP, socket.TCP_QUICKACK, 0, "fill"),
    "TCP_NOTSENT_LOWAT 16 KiB": (TCP, NOTSENT_LOWAT, 16 * KIB, "nodelay"),
    "TCP_NOTSENT_LOWAT 128 KiB": (TCP, NOTSENT_LOWAT, 128 * KIB, "nodelay"),
    "SO_BUSY_POLL 50 µs": (SOCKET, BUSY_POLL, 50, "nodelay"),
    "SO_SNDBUF 256 KiB": (SOCKET, socket.SO_SNDBUF, 256 * KIB, "nodelay"),
    "SO_SNDBUF 1 MiB": (SOCKET, socket.SO_SNDBUF, 1024 * KIB, "nodelay"),
    "SO_RCVBUF 256 KiB": (SOCKET, socket.SO_RCVBUF, 256 * KIB, "nodelay"),
    "SO_RCVBUF 1 MiB": (SOCKET, socket.SO_RCVBUF, 1024 * KIB, "nodelay"),
    "SO_RCVBUF 4 MiB": (SOCKET, socket.SO_RCVBUF, 4096 * KIB, "nodelay"),
    "SO_RCVLOWAT 64 KiB, for 5 ms": (SOCKET, socket.SO_RCVLOWAT, 64 * KIB, "timer"),
    "SO_RCVLOWAT 256 KiB, for 5 ms": (SOCKET, socket.SO_RCVLOWAT, 256 * KIB, "timer"),
}


def preloadable(directory):
    library = str(Path(directory) / "socket_options.so")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-pthread", "-o", library,
                    ROOT / "scripts/notes/socket_options.c"], check=True)
    return library


def variants(library):
    # The binary that is measured has to be one for all: options are all that may differ.
    binary = os.environ.get("UPSPLICE") or build()
    yield Variant("as it is", binary)
    for name, option in OPTIONS_BY_NAME.items():
        more = dict(LD_PRELOAD=library)
        if option:
            more.update(NOTE_OPTION="%d:%d:%d" % option[:3], NOTE_WHEN=option[3],
                        NOTE_MILLISECONDS="5")
        yield Variant(name, binary, **more)


def tail_below_the_mark():
    """What a relay sees of 100 bytes, where it asked to be woken for 64 KiB."""
    client, source = tcp_pair()
    read, write = pipe()
    source.setsockopt(SOCKET, socket.SO_RCVLOWAT, 64 * KIB)
    client.send(b"x" * 100)
    seen = poll(source, 1000, select.POLLIN)
    source.setsockopt(SOCKET, socket.SO_RCVLOWAT, 1)
    released = poll(source, 1000, select.POLLIN)
    moved = splice(source, write)
    client.close()
    until(lambda: poll(source, 0) != "nothing", "the end is seen")
    for end in (source, read, write):
        os.close(end) if isinstance(end, int) else end.close()
    return seen, released, moved


def napi_id():
    """The receive queue that busy polling would poll; 0 for none."""
    client, source = tcp_pair()
    client.send(b"x")
    poll(source, 1000)
    found = source.getsockopt(SOCKET, 56)
    client.close()
    source.close()
    return found


block = long_block("0013")
with tempfile.TemporaryDirectory() as place:
    found = Comparison(block.options, list(variants(preloadable(place))), ROWS).run()
block.say("%d rounds of %.1f s; the first is what the program does" % (found.rounds, found.seconds))
found.print(block)
block.say()
winners(block, found)
block.say()
stuck, released, moved = tail_below_the_mark()
block.row("SO_RCVLOWAT 64 KiB, 100 B sent: poll for 1 s", stuck)
block.row("the mark set back to 1: poll", "%s, splice %s" % (released, moved))
napi = napi_id()
block.row("SO_INCOMING_NAPI_ID of a loopback connection", napi)
savings = {name: median(found.middles(name, "cost")) for name in OPTIONS_BY_NAME}
for name, saving in savings.items():
    block.row("%s: CPU, median of all rows" % name, "%.2f" % saving)
best = max(savings, key=savings.get)
block.claim(savings[best] < 1.1,
            "No option saves a tenth of the CPU over all rows; best is %s." % best)
block.claim(stuck == "nothing" and released == "POLLIN",
            "Bytes below the mark wake nobody, for ever: a message smaller than it never arrives.")
block.claim(napi == 0, "Loopback has no queue to poll: SO_BUSY_POLL has nothing to do.")
block.finish()
