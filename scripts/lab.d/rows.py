"""What the lab measures of each target: rows, and the numbers that a row yields.

    bulkN[-up|-down|-both][-SIZE]   N sessions as fast as they go, frames of SIZE [64k];
                                    without a direction: one row up, one row down
    echoSIZE[xN]                    a frame there and back, closed loop, N sessions [1]
    ...-text                        either of them with text frames: inspected, they are read
    openSIZE[xN]@RATE               the same at RATE frames per second over all sessions, open loop
    crowd[N[+B]]                    N silent sessions [2000] and B that echo [10]
    slow[N[+B]]                     N readers that take 1 KiB at a time [20] and B that echo [10]
    mixed[N]                        N sessions [30]: a third echo, a third bulk, a third alternate
    upgrades                        accept, 101, one echo, close
    idle[SIZE]                      memory of sessions that are silent after one echo of SIZE [64]

SIZE is in bytes, or with `k` in KiB; RATE is a number, or with `k` thousands.
"""

import json
import re
from dataclasses import dataclass
from typing import Callable

# The rows of which DESIGN's table of goals speaks.
DECIDING = ("bulk1,bulk16,echo64,echo64x100,echo1kx100,echo16k,echo128k,echo16kx100,echo128kx100,"
            "upgrades,idle")
# What a reader of the report wants to see besides.
REST = ("bulk1-both,bulk16-both,echo1k,echo64x1000,open64x100@10k,open1kx100@10k,crowd,slow,mixed")
# Throughput and CPU by frame size.
SIZES = "bulk1-256,bulk1-1k,bulk1-4k,bulk1-16k,bulk1-256k,bulk1-1024k"

# Keys of the load generator's JSON object, which become columns of raw.csv: numbers, empty where a
# workload does not have them, and JSON in a cell.
NUMBERS = """units seconds round_trips bulk_bytes payload_bytes cpu_seconds wait_seconds load_busy
             backend_busy rate_wanted lag_p99_us p50_us p90_us p99_us p999_us p9999_us max_us
             pss_before pss_after kernel_before kernel_after""".split()
NESTED = "latencies kernel_parts".split()

KIB = 1024
UPGRADES_IN_PARALLEL = 32
BUSY_AMONG_MANY = 10
# One end of a measurement that worked for this share of its time may have been the limit itself.
END_IS_THE_LIMIT = 0.9
# Nor does an open loop measure the proxy whose frames were sent so late, as a share of the p99.
LAG_IS_THE_LATENCY = 0.5


@dataclass(frozen=True)
class Measure:
    """One number of a measurement; `value` takes the load generator's JSON object."""

    name: str
    unit: str
    higher_is_better: bool
    digits: int
    value: Callable
    # True when it is the proxy's cost, which the direct connection does not have.
    of_proxy: bool = False
    # True when the number counts the two ends as well: the proxy's share is what is left after the
    # number of `direct` in the same round has been taken away.
    beyond_direct: bool = False


@dataclass(frozen=True)
class Row:
    """One workload; `options` are the load generator's flags that only some workloads have."""

    name: str
    title: str
    workload: str
    sessions: int
    size: int
    measures: tuple
    options: tuple = ()

    @property
    def needs_cores(self):
        """True when an end of this row has work for more than one core at a time."""
        return self.sessions > 1 or self.workload == "bulk-both"

    def load_options(self):
        """What the load generator has to be told about this row, as flag → value."""
        told = {"workload": self.workload, "sessions": self.sessions, "size": self.size}
        return told | dict(self.options)


def cells(item):
    """The load generator's JSON object as cells of raw.csv."""
    flat = {key: item[key] for key in NUMBERS}
    return flat | {key: json.dumps(item[key]) if item[key] else "" for key in NESTED}


def end_at_its_limit(item):
    """The end that had no time left, so that the row may not have measured the proxy."""
    if (item.get("lag_p99_us") or 0) >= LAG_IS_THE_LATENCY * (item.get("p99_us") or 0) > 0:
        return "load generator"
    for end, key in (("load generator", "load_busy"), ("backend", "backend_busy")):
        if (item.get(key) or 0) >= END_IS_THE_LIMIT:
            return end
    return None


def _rate(item):
    return item["units"] / item["seconds"]


def _cpu(scale):
    return lambda item: item["cpu_seconds"] / item["units"] * scale


def _grown(what, sessions=None):
    """How much memory a session has cost, in KB."""
    return lambda item: (
        (item[what + "_after"] - item[what + "_before"]) / (sessions or item["units"]) / 1000)


P50 = Measure("p50", "µs", False, 0, lambda item: item["p50_us"])
P99 = Measure("p99", "µs", False, 0, lambda item: item["p99_us"])
P999 = Measure("p99.9", "µs", False, 0, lambda item: item["p999_us"])
ROUND_TRIP_RATE = Measure("rate", "round trips/s", True, 0, _rate)
ROUND_TRIP_CPU = Measure("CPU", "µs/round trip", False, 1, _cpu(1e6), of_proxy=True)

BULK = (
    Measure("rate", "GB/s", True, 2, lambda item: _rate(item) / 1e9),
    Measure("CPU", "s/GB", False, 2, _cpu(1e9), of_proxy=True),
)
ECHO_ONE = (P50, P99, ROUND_TRIP_CPU)
ECHO_MANY = (ROUND_TRIP_RATE, P50, P99, ROUND_TRIP_CPU)
# The rate is given: what differs is how long a message takes, and what it costs.
OPEN = (P50, P99, P999, ROUND_TRIP_CPU)
MIXED = (
    Measure("rate", "units/s", True, 0, _rate),
    P50,
    P99,
    Measure("CPU", "µs/unit", False, 1, _cpu(1e6), of_proxy=True),
)
UPGRADES = (
    Measure("rate", "upgrades/s", True, 0, _rate),
    P99,
    Measure("CPU", "µs/upgrade", False, 0, _cpu(1e6), of_proxy=True),
)


def _memory(sessions=None):
    return (
        Measure("PSS", "KB/session", False, 2, _grown("pss", sessions), of_proxy=True),
        Measure("kernel", "KB/session", False, 2, _grown("kernel", sessions), beyond_direct=True),
    )


def parse_rows(text, idle_sessions):
    """Rows from their names, which the head of this file lists; separated by commas."""
    rows = []
    for name in text.split(","):
        rows.extend(_parse_row(name.strip(), idle_sessions))
    names = [row.name for row in rows]
    if twice := {name for name in names if names.count(name) > 1}:
        raise SystemExit("lab: given twice: " + ", ".join(sorted(twice)))
    return rows


def _parse_row(name, idle_sessions):
    for pattern, parse in PATTERNS:
        if found := re.fullmatch(pattern, name):
            if any(text and int(text) == 0 for text in found.groups() if text and text.isdigit()):
                raise SystemExit("lab: a zero in the row %r" % name)
            return parse(name, found, idle_sessions)
    raise SystemExit("lab: no row is called %r; rows: bulkN[-up|-down|-both][-SIZE][-text], "
                     "echoSIZE[xN][-text], openSIZE[xN]@RATE, crowd[N[+B]], slow[N[+B]], mixed[N], "
                     "upgrades, idle[SIZE]" % name)


def _bulk(_, found, __):
    sessions, size = int(found[1]), bytes_of(found[3], found[4], 64 * KIB)
    ways = [found[2]] if found[2] else ["-up", "-down"]
    of_size = "-" + found[3] + found[4] if found[3] else ""
    text, of_text, options = _text(found[5])
    return [
        Row("bulk%d%s%s%s" % (sessions, way, of_size, text),
            "bulk %s, %s%s frames, %s" % (BULK_WAYS[way], shown(size), of_text, count(sessions)),
            "bulk" + way, sessions, size, BULK, options)
        for way in ways
    ]


def _echo(name, found, _):
    size, sessions = bytes_of(found[1], found[2]), int(found[3] or 1)
    _, of_text, options = _text(found[4])
    title = "echo, %s%s, %s" % (shown(size), of_text, count(sessions))
    measures = ECHO_ONE if sessions == 1 else ECHO_MANY
    return [Row(name, title, "echo", sessions, size, measures, options)]


def _text(found):
    """How a row of text frames is told from one of binary ones."""
    return ("-text", " of text", (("payload", "text"),)) if found else ("", "", ())


def _open(name, found, _):
    size, sessions = bytes_of(found[1], found[2]), int(found[3] or 1)
    rate = int(found[4]) * (1000 if found[5] else 1)
    title = "echo at %d/s, open loop, %s, %s" % (rate, shown(size), count(sessions))
    return [Row(name, title, "echo-open", sessions, size, OPEN, (("rate", rate),))]


def _crowd(name, found, _):
    silent, busy = int(found[1] or 2000), int(found[2] or BUSY_AMONG_MANY)
    title = "echo, 64 B, %s, beside %d silent ones" % (count(busy), silent)
    return [Row(name, title, "crowd", silent + busy, 64, ECHO_MANY, (("busy", busy),))]


def _slow(name, found, _):
    # More would fill what the kernel allows all of TCP together, and then everything is slow.
    slow, busy = int(found[1] or 20), int(found[2] or BUSY_AMONG_MANY)
    title = "echo, 64 B, %s, beside %d slow readers; memory per slow reader" % (count(busy), slow)
    measures = (P50, P99, *_memory(slow))
    return [Row(name, title, "slow-readers", slow + busy, 64, measures, (("busy", busy),))]


def _mixed(name, found, _):
    sessions = int(found[1] or 30)
    title = "64 B echo, bulk, and both by turns, a third of %s each" % count(sessions)
    return [Row(name, title, "mixed", sessions, 64, MIXED)]


def _upgrades(name, _, __):
    title = "accept, 101, one echo, close; %d in parallel" % UPGRADES_IN_PARALLEL
    return [Row(name, title, "upgrades", UPGRADES_IN_PARALLEL, 64, UPGRADES)]


def _idle(name, found, idle_sessions):
    # Every session has one echo behind it; its size decides which buffers were ever touched.
    size = bytes_of(found[1], found[2], 64)
    title = "memory, %d idle sessions after one echo of %s" % (idle_sessions, shown(size))
    return [Row(name, title, "idle", idle_sessions, size, _memory())]


BULK_WAYS = {"-up": "up", "-down": "down", "-both": "both ways at once"}
PATTERNS = (
    (r"bulk(\d+)(-up|-down|-both)?(?:-(\d+)(k?))?(-text)?", _bulk),
    (r"echo(\d+)(k?)(?:x(\d+))?(-text)?", _echo),
    (r"open(\d+)(k?)(?:x(\d+))?@(\d+)(k?)", _open),
    (r"crowd(?:(\d+)(?:\+(\d+))?)?", _crowd),
    (r"slow(?:(\d+)(?:\+(\d+))?)?", _slow),
    (r"mixed(\d+)?", _mixed),
    (r"upgrades", _upgrades),
    (r"idle(?:(\d+)(k?))?", _idle),
)


def bytes_of(number, unit, otherwise=None):
    return int(number) * (KIB if unit else 1) if number else otherwise


def shown(size):
    return "%d KiB" % (size // KIB) if size >= KIB and size % KIB == 0 else "%d B" % size


def count(sessions):
    return "1 session" if sessions == 1 else "%d sessions" % sessions
