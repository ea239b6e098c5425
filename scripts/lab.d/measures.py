"""The measures of a line of raw.csv, and the words for its row: those of rows.py, but forgiving.

A run can be reported whose rows this version does not know, and one without the columns that came
later. A value that was not measured is None, never 0.
"""

import statistics
from dataclasses import dataclass, field, fields
from typing import Callable

import rows
from rows import KIB, parse_rows, shown


@dataclass(frozen=True)
class Measure(rows.Measure):
    """Two with the same name and unit are the same, whatever a row divides by."""

    value: Callable = field(compare=False)

    @property
    def label(self):
        return "%s, %s" % (self.name, self.unit)

    @property
    def has_no_direct(self):
        return self.of_proxy or self.beyond_direct

    def of(self, line):
        """The value in a line, or none."""
        try:
            return self.value(line)
        except (KeyError, TypeError, ZeroDivisionError):
            return None

    def shown(self, value):
        """A value as people read it; small ones keep a digit more."""
        digits = self.digits + (1 if 0 < abs(value) < 10 and self.digits < 2 else 0)
        return "{:,.{}f}".format(value, digits)


def _known(measure):
    return Measure(**{one.name: getattr(measure, one.name) for one in fields(measure)})


RATE_BULK, CPU_BULK = map(_known, rows.BULK)
P50, P99, CPU = map(_known, rows.ECHO_ONE)
RATE, RATE_UPGRADES = _known(rows.ECHO_MANY[0]), _known(rows.UPGRADES[0])
_IDLE = parse_rows("idle", 1)[0].measures
PSS, KERNEL = map(_known, _IDLE)
UNKNOWN = tuple(map(_known, rows.MIXED))

# Pictures only. A proxy's own time misses what the network stack does on other cores, most of all
# over veth; the machine's has that, and client and backend as well.
CPU_OF_PAYLOAD = Measure("CPU per GB", "s/GB", False, 2, of_proxy=True, value=lambda line: (
    line["cpu_seconds"] / (2e-9 * line["size"] * line["units"])))
MACHINE_BULK = Measure("CPU of the whole machine", "s/GB", False, 2, value=lambda line: (
    line["machine_cpu_seconds"] / line["units"] * 1e9))
MACHINE_ECHO = Measure("CPU of the whole machine", "µs/round trip", False, 1, value=lambda line: (
    line["machine_cpu_seconds"] / line["units"] * 1e6))


def words_and_measures(name, workload, sessions, size):
    """Title and measures of a row."""
    try:
        (row,) = parse_rows(name, sessions)
    except (SystemExit, ValueError):
        return "%s, %s, %s" % (workload, shown_size(size), shown_count(sessions)), UNKNOWN
    return row.title, tuple(map(_known, row.measures))


def shown_size(size):
    size = int(size)
    if size >= KIB * KIB and size % (KIB * KIB) == 0:
        return "%d MiB" % (size // KIB // KIB)
    return shown(size)


def shown_count(sessions):
    return "1 session" if sessions == 1 else "{:,} sessions".format(sessions)
