"""What the numbers of a measurement mean: the measures of each workload, and the words for a row.

Everything is derived from a line of raw.csv, so that a run can be reported whose rows have names
that this version does not know. A value that was not measured is None, never 0.
"""

from dataclasses import dataclass
from typing import Callable

KIB = 1024


@dataclass(frozen=True)
class Measure:
    """One number of a measurement; `value` takes a line of raw.csv and returns None without it."""

    name: str
    unit: str
    higher_is_better: bool
    digits: int
    value: Callable
    # True when it is the proxy's cost, which the direct connection does not have.
    of_proxy: bool = False

    @property
    def label(self):
        return "%s, %s" % (self.name, self.unit)

    def shown(self, value):
        """A value as people read it; small ones keep a digit more."""
        digits = self.digits + (1 if 0 < abs(value) < 10 and self.digits < 2 else 0)
        return "{:,.{}f}".format(value, digits)


def _known(*names):
    """Makes a function of fields into one of a line that answers None when a field is missing."""

    def wrap(function):
        def value(line):
            fields = [line.get(name) for name in names]
            if any(field is None for field in fields):
                return None
            try:
                return function(*fields)
            except ZeroDivisionError:
                return None
        return value
    return wrap


def _rate(scale=1.0):
    return _known("units", "seconds")(lambda units, seconds: units / seconds * scale)


def _cpu(scale):
    return _known("cpu_seconds", "units")(lambda cpu, units: cpu / units * scale)


def _time(name):
    return _known(name)(lambda value: value)


def _user_memory(line):
    found = _known("pss_before", "pss_after", "sessions")(
        lambda before, after, sessions: (after - before) / sessions / 1000)
    return found(line) if line.get("pss_after") else None


def _kernel_memory(line):
    """What the proxy adds to the direct connection's; the run has found it for each line."""
    return line.get("kernel_share")


RATE_BULK = Measure("rate", "GB/s", True, 2, _rate(1e-9))
CPU_BULK = Measure("CPU", "s/GB", False, 2, _cpu(1e9), of_proxy=True)
RATE = Measure("rate", "round trips/s", True, 0, _rate())
P50 = Measure("p50", "µs", False, 0, _time("p50_us"))
P99 = Measure("p99", "µs", False, 0, _time("p99_us"))
P999 = Measure("p99.9", "µs", False, 0, _time("p999_us"))
CPU = Measure("CPU", "µs/round trip", False, 1, _cpu(1e6), of_proxy=True)
RATE_UPGRADES = Measure("rate", "upgrades/s", True, 0, _rate())
CPU_UPGRADES = Measure("CPU", "µs/upgrade", False, 0, _cpu(1e6), of_proxy=True)
RATE_MIXED = Measure("rate", "messages/s", True, 0, _rate())
CPU_MIXED = Measure("CPU", "µs/message", False, 1, _cpu(1e6), of_proxy=True)
PSS = Measure("PSS", "KB/session", False, 2, _user_memory, of_proxy=True)
KERNEL = Measure("kernel", "KB/session", False, 2, _kernel_memory, of_proxy=True)

BY_WORKLOAD = {
    "bulk-up": (RATE_BULK, CPU_BULK),
    "bulk-down": (RATE_BULK, CPU_BULK),
    "bulk-both": (RATE_BULK, CPU_BULK),
    "echo": (RATE, P99, CPU),
    "echo-open": (P50, P99, P999, CPU),
    "upgrades": (RATE_UPGRADES, CPU_UPGRADES),
    "idle": (PSS, KERNEL),
    "crowd": (RATE, P99, CPU),
    "slow-readers": (RATE, P99, CPU, PSS, KERNEL),
    "mixed": (RATE_MIXED, P99, CPU_MIXED),
}
# One session alone is a question of latency: its rate is the reciprocal.
ECHO_ONE = (P50, P99, CPU)
UNKNOWN = (RATE_MIXED, P99, CPU_MIXED)


def measures_of(workload, sessions):
    if workload == "echo" and sessions == 1:
        return ECHO_ONE
    return BY_WORKLOAD.get(workload, UNKNOWN)


def title_of(workload, sessions, size, rate=None):
    """A row in words."""
    size, count = shown_size(size), shown_count(sessions)
    titles = {
        "echo": "echo, %s, %s" % (size, count),
        "echo-open": "echo, open loop, %s, %s" % (size, count),
        "upgrades": "accept, 101, one echo, close; %d in parallel" % sessions,
        "idle": "memory, %s idle sessions after one echo of %s" % ("{:,}".format(sessions), size),
        "crowd": "few busy among %s, %s" % (count, size),
        "slow-readers": "echo beside slow readers, %s, %s" % (size, count),
        "mixed": "mixed, small messages and bulk, %s" % count,
    }
    if workload.startswith("bulk-"):
        titles[workload] = "bulk %s, %s frames, %s" % (workload[5:], size, count)
    title = titles.get(workload, "%s, %s, %s" % (workload, size, count))
    return title + (", %s/s" % "{:,.0f}".format(rate) if rate else "")


def shown_size(size):
    size = int(size)
    if size >= KIB * KIB and size % (KIB * KIB) == 0:
        return "%d MiB" % (size // KIB // KIB)
    return "%d KiB" % (size // KIB) if size >= KIB and size % KIB == 0 else "%d B" % size


def shown_count(sessions):
    return "1 session" if sessions == 1 else "{:,} sessions".format(sessions)
