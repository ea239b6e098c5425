"""A finished run: what raw.csv and machine.json say, and how targets compare. Writes nothing."""

import csv
import json
import math
import re
import statistics
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from measures import words_and_measures
from rows import end_at_its_limit

PEERS = ("peer", "tuned")
# A target that was left out is no failure of the run.
NO_FAILURES = ("", "not installed", "not built", "not applicable")
# A proxy that waited this share of the time for its core has not been measured alone.
DISTURBED = 0.1
WORDS = ("row", "target", "workload", "shape", "proof", "error")
# What a user gets who asks for nothing; where a run lacks it, its first of ours stands in.
SHIPPED = "upsplice-auto"


@dataclass(frozen=True)
class Cell:
    """A row as it was measured: in one shape, with so many workers."""

    name: str
    shape: str
    workers: int
    workload: str
    sessions: int
    size: int
    rate: float

    title: str
    measures: tuple

    @property
    def where(self):
        """What distinguishes it from the same row elsewhere."""
        return self.shape + (", %d workers" % self.workers if self.workers > 1 else "")


class Run:
    """All lines of a run, and comparisons between its targets."""

    def __init__(self, directory):
        self.facts = json.loads((Path(directory) / "machine.json").read_text(encoding="utf-8"))
        with open(Path(directory) / "raw.csv", newline="", encoding="utf-8") as file:
            self.lines = [read_line(line, self.facts) for line in csv.DictReader(file)]
        self.targets = dict(self.facts.get("kinds", {}))
        for line in self.lines:
            self.targets.setdefault(line["target"], guessed_kind(line["target"]))
        self.by_place = {}
        for line in self.lines:
            line["cell"] = (line["row"], line["shape"], line["workers"])
            self.by_place.setdefault((line["cell"], line["target"]), []).append(line)
        # The lines do not change any more, and every picture asks the same of them again.
        for name in ("values", "own_values", "median", "best_peer", "ratio", "spread"):
            setattr(self, name, cache(getattr(self, name)))
        self.cells = self._cells()
        self.failures = sum(line["error"] not in NO_FAILURES for line in self.lines)

    def _cells(self):
        cells = {}
        for line in self.lines:
            kind = line["workload"], line["sessions"], line["size"]
            words = words_and_measures(line["row"], *kind)
            # Lines of targets that did not run have no rate.
            if cells.get(line["cell"], Cell("", "", 0, *kind, None, *words)).rate is None:
                cells[line["cell"]] = Cell(line["row"], line["shape"], line["workers"], *kind,
                                           line.get("rate_wanted"), *words)
        shapes = self.shapes = list(dict.fromkeys(cell.shape for cell in cells.values()))
        # In the order of the rows, but every shape and number of workers in one piece.
        return sorted(cells.values(), key=lambda cell: (shapes.index(cell.shape), cell.workers))

    @property
    def direct(self):
        return next(iter(self.of_kind("direct")), None)

    def of_kind(self, *kinds):
        return [name for name, kind in self.targets.items() if kind in kinds]

    @property
    def shipped(self):
        """The target that stands for upsplice, or none."""
        ours = self.of_kind("ours")
        return SHIPPED if SHIPPED in ours else next(iter(ours), None)

    def lines_of(self, cell, target):
        return self.by_place.get(((cell.name, cell.shape, cell.workers), target), ())

    def values(self, cell, measure, target):
        """Round → value."""
        if not measure.has_no_direct:
            return self.own_values(cell, measure, target)
        if self.targets.get(target) == "direct":
            return {}
        found = self.own_values(cell, measure, target)
        if not measure.beyond_direct:
            return found
        # Client and backend have sessions, too.
        direct = self.own_values(cell, measure, self.direct) if self.direct else {}
        usual = statistics.median(direct.values()) if direct else 0
        return {turn: value - direct.get(turn, usual) for turn, value in found.items() if direct}

    def own_values(self, cell, measure, target):
        found = {line["round"]: measure.of(line)
                 for line in self.lines_of(cell, target) if not line["error"]}
        return {turn: value for turn, value in found.items()
                if value is not None and math.isfinite(value)}

    def median(self, cell, measure, target):
        values = self.values(cell, measure, target).values()
        return statistics.median(values) if values else None

    def spread(self, cell, measure, target):
        """p10, median and p90 over the rounds, or none."""
        values = sorted(self.values(cell, measure, target).values())
        return tuple(quantile(values, at) for at in (0.1, 0.5, 0.9)) if values else None

    def rivals(self, kinds):
        """Whom ours is compared with; in a run without any peer, with the first of ours."""
        if self.of_kind(*PEERS) or "peer" not in kinds:
            return self.of_kind(*kinds)
        return self.of_kind("ours")[:1]

    def best_of(self, names, cell, measure):
        """The one with the best median, or none."""
        medians = {name: found for name in names
                   if (found := self.median(cell, measure, name)) is not None}
        choose = max if measure.higher_is_better else min
        return choose(medians, key=medians.get) if medians else None

    def best_peer(self, cell, measure, kinds=("peer",)):
        return self.best_of(self.rivals(kinds), cell, measure)

    def best_engine(self, cell, measure):
        """The best of ours that is not the shipped one, or none."""
        others = [name for name in self.of_kind("ours") if name != self.shipped]
        return self.best_of(others, cell, measure)

    def ratios(self, cell, measure, target, rival):
        """How many times better than `rival`, paired by round; sorted. Above 1 is better."""
        if target is None or rival is None:
            return []
        ours, theirs = (self.values(cell, measure, name) for name in (target, rival))
        pairs = [(ours[turn], theirs[turn]) for turn in ours if turn in theirs]
        if not measure.higher_is_better:
            pairs = [(their, our) for our, their in pairs]
        # A cost of nothing, as memory may seem in a short run, has no ratio.
        return sorted(our / their for our, their in pairs if our > 0 and their > 0)

    def ratio(self, cell, measure, target, kinds=("peer",)):
        """Median and whether all of it is clear of 1, against the best rival; or none."""
        ratios = self.ratios(cell, measure, target, self.best_peer(cell, measure, kinds))
        if not ratios:
            return None
        middle = statistics.median(ratios)
        worst = quantile(ratios, 0.1) if middle >= 1 else quantile(ratios, 0.9)
        return middle, (worst >= 1) == (middle >= 1)

    def loses(self, cell, measure, target):
        """Whether one of ours is behind the best peer by its median."""
        best = self.best_peer(cell, measure)
        if self.targets.get(target) != "ours" or self.targets.get(best) not in PEERS:
            return False
        found = self.ratio(cell, measure, target)
        return found is not None and round(found[0], 2) < 1

    def losses(self, target):
        """Cells and measures in which `target` is behind the best peer; the worst first."""
        found = [(self.ratio(cell, measure, target)[0], cell, measure) for cell in self.cells
                 for measure in cell.measures if self.loses(cell, measure, target)]
        return sorted(found, key=lambda loss: loss[0])

    def defeats(self, target):
        """Cells in which `target` failed and a peer did not, with the reason."""
        return [(cell, self.trouble(cell, target)) for cell in self.cells
                if self.trouble(cell, target) not in NO_FAILURES
                and not any(self.values(cell, measure, target) for measure in cell.measures)
                and any(self.best_peer(cell, measure) for measure in cell.measures)]

    def compared(self, target):
        """How many cells and measures have both `target` and a peer."""
        return sum(bool(self.ratio(cell, measure, target)) for cell in self.cells
                   for measure in cell.measures
                   if self.targets.get(self.best_peer(cell, measure)) in PEERS)

    def trouble(self, cell, target):
        """Why a place is empty."""
        errors = [line["error"] for line in self.lines_of(cell, target) if line["error"]]
        return errors[0] if errors else ""

    def proof(self, cell, target):
        """What really carried the bytes; where rounds differ, the first and last by spelling."""
        proofs = {line["proof"] for line in self.lines_of(cell, target) if line["proof"]}
        return " … ".join(sorted(proofs)[:: max(1, len(proofs) - 1)])

    def carried(self, target):
        """The same over all rows."""
        proofs = {line["proof"] for line in self.lines
                  if line["target"] == target and line["proof"]}
        return " / ".join(sorted(proofs)) or "not measured"

    def curve(self, cell, target):
        """Pairs of quantile and µs: for each quantile the median over the rounds."""
        by_quantile = {}
        for line in self.lines_of(cell, target):
            for at, value in ([] if line["error"] else line["latencies"]):
                by_quantile.setdefault(at, []).append(value)
        return [(at, statistics.median(values)) for at, values in sorted(by_quantile.items())]

    def command(self):
        """The line that made this run, as far as its flags say."""
        shown = {"rounds", "seconds", "rows", "targets", "shape", "workers", "thin"}
        words = ["scripts/lab"]
        for name, value in self.facts.get("flags", {}).items():
            if name in shown and value is True:
                words.append("--" + name)
            elif name in shown and value not in (None, "", False, []):
                value = ",".join(map(str, value)) if isinstance(value, list) else value
                words.append("--%s %s" % (name.replace("_", "-"), "%g" % value
                                          if isinstance(value, float) else value))
        return " ".join(words)

    def versions(self):
        """Of the peers that were there, each once."""
        versions = self.facts.get("versions", {}).items()
        return sorted({version for name, version in versions
                       if self.targets.get(name) in PEERS and version not in NO_FAILURES})

    def limited(self):
        """Row and end of measurements that may have measured the end; not those of direct."""
        return [(line, end) for line in self.lines
                if not line["error"] and self.targets.get(line["target"]) != "direct"
                and (end := end_at_its_limit(line))]

    def disturbances(self):
        """How long proxies waited for their core, sorted; and how many measurements that spoilt."""
        waits = sorted(disturbance(line) for line in self.lines if line.get("cpu_seconds"))
        return waits, sum(wait > DISTURBED for wait in waits)


def read_line(line, facts):
    """A line of raw.csv with numbers as numbers; columns of later versions may be missing."""
    read = {name: (line.get(name) or "").strip() for name in WORDS}
    # Where the run took place is nobody's business, and makes two errors of one.
    read["error"] = re.sub(r"(?<!\S)/(?:[^\s/]+/)+", "", read["error"])
    for name, text in line.items():
        if name and name not in WORDS and name not in ("latencies", "kernel_parts", "more"):
            read[name] = number(text)
    for name, otherwise in (("round", 1), ("workers", 1), ("sessions", 0), ("size", 0)):
        read[name] = int(read.get(name) or otherwise)
    read["shape"] = read["shape"] or facts.get("link") or "loopback"
    read["latencies"] = pairs(line.get("latencies"))
    if not read["latencies"] and read.get("p99_us"):
        named = ((0.5, "p50_us"), (0.9, "p90_us"), (0.99, "p99_us"), (0.999, "p999_us"),
                 (0.9999, "p9999_us"))
        read["latencies"] = [(at, read[name]) for at, name in named if read.get(name)]
    return read


def number(text):
    """A finite number, or none."""
    try:
        found = float(text)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def pairs(text):
    """A JSON list of pairs of numbers, or nothing."""
    try:
        found = [(float(at), float(value)) for at, value in json.loads(text or "[]")]
    except (TypeError, ValueError):
        return []
    return [pair for pair in found if 0 <= pair[0] <= 1 and math.isfinite(pair[1])]


def guessed_kind(target):
    if target == "direct":
        return "direct"
    return "ours" if target.startswith("upsplice") else "peer"


def disturbance(line):
    """The share of the time that the proxy could have run but did not have its core."""
    waited, seconds = line.get("wait_seconds"), line.get("seconds")
    return min(1, waited / seconds) if waited and seconds else 0


def quantile(ordered, at):
    """By linear interpolation between the closest ranks."""
    place = at * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
