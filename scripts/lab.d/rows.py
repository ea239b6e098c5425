"""What the lab measures of each target: rows, and the numbers that a row yields."""

import re
from dataclasses import dataclass
from typing import Callable

KIB = 1024
UPGRADES_IN_PARALLEL = 32


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


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    workload: str
    sessions: int
    size: int
    measures: tuple


def _rate(item):
    return item["units"] / item["seconds"]


def _cpu(scale):
    return lambda item: item["cpu_seconds"] / item["units"] * scale


BULK = (
    Measure("rate", "GB/s", True, 2, lambda item: _rate(item) / 1e9),
    Measure("CPU", "s/GB", False, 2, _cpu(1e9), of_proxy=True),
)
ECHO_ONE = (
    Measure("p50", "µs", False, 0, lambda item: item["p50_us"]),
    Measure("p99", "µs", False, 0, lambda item: item["p99_us"]),
    Measure("CPU", "µs/round trip", False, 1, _cpu(1e6), of_proxy=True),
)
ECHO_MANY = (
    Measure("rate", "round trips/s", True, 0, _rate),
    Measure("p99", "µs", False, 0, lambda item: item["p99_us"]),
    Measure("CPU", "µs/round trip", False, 1, _cpu(1e6), of_proxy=True),
)
UPGRADES = (
    Measure("rate", "upgrades/s", True, 0, _rate),
    Measure("CPU", "µs/upgrade", False, 0, _cpu(1e6), of_proxy=True),
)
IDLE = (
    Measure(
        "PSS",
        "KB/session",
        False,
        2,
        lambda item: (item["pss_after"] - item["pss_before"]) / item["units"] / 1000,
        of_proxy=True,
    ),
)


def parse_rows(text, idle_sessions):
    """Rows from their names: bulkN[-up|-down], echoSIZE[k][xN], upgrades, idle[SIZE[k]]."""
    rows = []
    for name in text.split(","):
        rows.extend(_parse_row(name.strip(), idle_sessions))
    return rows


def _parse_row(name, idle_sessions):
    if name == "upgrades":
        title = "accept, 101, one echo, close; %d in parallel" % UPGRADES_IN_PARALLEL
        return [Row(name, title, "upgrades", UPGRADES_IN_PARALLEL, 64, UPGRADES)]
    if found := re.fullmatch(r"idle(?:(\d+)(k?))?", name):
        # Every session has one echo behind it; its size decides which buffers were ever touched.
        size = bytes_of(found[1], found[2]) if found[1] else 64
        title = "memory, %d idle sessions after one echo of %s" % (idle_sessions, shown(size))
        return [Row(name, title, "idle", idle_sessions, size, IDLE)]
    if found := re.fullmatch(r"bulk(\d+)(-up|-down)?", name):
        sessions, ways = int(found[1]), [found[2]] if found[2] else ["-up", "-down"]
        title = "bulk%s, 64 KiB frames, " + count(sessions)
        bulk = "bulk" + found[1]
        return [
            Row(bulk + way, title % way.replace("-", " "), "bulk" + way, sessions, 64 * KIB, BULK)
            for way in ways
        ]
    if found := re.fullmatch(r"echo(\d+)(k?)(?:x(\d+))?", name):
        size, sessions = bytes_of(found[1], found[2]), int(found[3] or 1)
        title = "echo, %s, %s" % (shown(size), count(sessions))
        measures = ECHO_ONE if sessions == 1 else ECHO_MANY
        return [Row(name, title, "echo", sessions, size, measures)]
    raise SystemExit("lab: no row is called %r" % name)


def bytes_of(number, unit):
    return int(number) * (KIB if unit else 1)


def shown(size):
    return "%d KiB" % (size // KIB) if size >= KIB and size % KIB == 0 else "%d B" % size


def count(sessions):
    return "1 session" if sessions == 1 else "%d sessions" % sessions
