"""Tables from a run's raw.csv and machine.json. Nothing else enters them."""

import csv
import json
import statistics
from pathlib import Path

from rows import parse_rows

BEGIN, END = "<!-- lab:begin -->", "<!-- lab:end -->"
NUMBERS = """units seconds cpu_seconds wait_seconds p50_us p99_us p999_us pss_before pss_after""".split()
PEERS = ("peer", "tuned")
# A target that was left out is no failure of the run.
NO_FAILURES = ("", "not installed", "not built", "not applicable")


class Tables:
    """A finished run, ready to be written."""

    def __init__(self, directory):
        self.facts = json.loads((Path(directory) / "machine.json").read_text())
        with open(Path(directory) / "raw.csv", newline="", encoding="utf-8") as file:
            self.lines = [_numbers(line) for line in csv.DictReader(file)]
        flags = self.facts["flags"]
        self.rows = parse_rows(flags["rows"], flags["idle_sessions"])
        self.targets = self.facts["kinds"]
        self.failures = sum(line["error"] not in NO_FAILURES for line in self.lines)

    def of_kind(self, kind):
        return [name for name, found in self.targets.items() if found == kind]

    def values(self, row, measure, target):
        """Round → value."""
        return {
            line["round"]: measure.value(line)
            for line in self.lines
            if (line["row"], line["target"], line["error"]) == (row.name, target, "")
            and not (measure.of_proxy and self.targets[target] == "direct")
        }

    def rivals(self, kinds):
        """Whom ours is compared with; in a run without any peer, with the first of ours."""
        found = [name for name, kind in self.targets.items() if kind in kinds]
        if any(kind in PEERS for kind in self.targets.values()) or "peer" not in kinds:
            return found
        return self.of_kind("ours")[:1]

    def best_peer(self, row, measure, kinds=("peer",)):
        """The rival with the best median, or none."""
        medians = {}
        for name in self.rivals(kinds):
            if values := self.values(row, measure, name):
                medians[name] = statistics.median(values.values())
        choose = max if measure.higher_is_better else min
        return choose(medians, key=medians.get) if medians else None

    def ratios(self, row, measure, target, rival):
        """How many times better than `rival`, paired by round; sorted. Above 1 is better."""
        ours, theirs = (self.values(row, measure, name) for name in (target, rival))
        pairs = [(ours[turn], theirs[turn]) for turn in ours if turn in theirs]
        if not measure.higher_is_better:
            pairs = [(their, our) for our, their in pairs]
        # A cost of nothing, as memory may seem in a short run, has no ratio.
        return sorted(our / their for our, their in pairs if our > 0 and their > 0)

    def verdict(self, row, measure, target, kinds):
        """The ratio to the best of the peers; ours has a mark where it loses."""
        best = self.best_peer(row, measure, kinds)
        if best == target:
            return "best" if self.targets[target] in PEERS else ""
        ratios = self.ratios(row, measure, target, best) if best else []
        if not ratios:
            return ""
        middle, mark = statistics.median(ratios), ""
        if self.targets[target] == "ours" and self.targets[best] in PEERS:
            in_noise = " (in noise)" if quantile(ratios, 0.1) < 1 else ""
            mark = " **loses**" if round(middle, 2) < 1 else in_noise
        return "%.2f×%s" % (middle, mark)

    def trouble(self, row, target):
        """Why a cell is empty."""
        errors = [line["error"] for line in self.lines
                  if (line["row"], line["target"]) == (row.name, target) and line["error"]]
        return errors[0].replace("|", "/") if errors else ""

    def proof(self, row, target):
        """What really carried the bytes; where rounds differ, the first and last by spelling."""
        proofs = {line["proof"] for line in self.lines
                  if (line["row"], line["target"]) == (row.name, target) and line["proof"]}
        return " … ".join(sorted(proofs)[:: max(1, len(proofs) - 1)])

    def caption(self):
        facts, flags = self.facts, self.facts["flags"]
        command = "scripts/lab --rounds %d --seconds %g --rows %s --targets %s" % (
            flags["rounds"], flags["seconds"], flags["rows"], flags["targets"])
        versions = {version for name, version in facts["versions"].items()
                    if self.targets[name] in PEERS and version not in NO_FAILURES}
        waits = sorted(disturbance(line) for line in self.lines if line["cpu_seconds"])
        load = "Proxies that could run waited for their core %.0f %% of the time (p90 %.0f %%)" % (
            100 * quantile(waits, 0.5), 100 * quantile(waits, 0.9)) if waits else "No measurement"
        return "\n".join([
            "%s. %s. %s. %s." % (facts["date"], facts["summary"], facts["subject"], load),
            "Each proxy has one worker on one core of its own; %d interleaved rounds of %g s, "
            "medians." % (flags["rounds"], flags["seconds"]),
            "Peers: %s; their settings are in `scripts/lab.d`. A name with a size is a peer that "
            "we tuned beyond what its documentation shows." % ("; ".join(sorted(versions)) or "none"),
            "A ratio is against the best peer of the line (without peers: the first target), "
            "paired by round; above 1 is better. A single benchmark is never enough.",
            "",
            "    " + command,
        ])

    def short(self):
        """One line per row and measure: direct, ours, the best peers."""
        ours = self.of_kind("ours")
        out = [self.caption(), ""]
        head = ["row", "measure", "direct", *ours, "best peer", "best tuned peer"]
        out += [_cells(head), _cells(["---"] * len(head))]
        for row in self.rows:
            for measure in row.measures:
                cells = [row.title, "%s, %s" % (measure.name, measure.unit)]
                cells.append(self.median(row, measure, "direct"))
                cells += [self.cell_of_ours(row, measure, name) for name in ours]
                for kinds in (("peer",), ("tuned",)):
                    best = self.best_peer(row, measure, kinds)
                    value = self.median(row, measure, best)
                    cells.append("%s (%s)" % (value, best) if best else "")
                out.append(_cells(cells))
        carried = ["%s: %s" % (name, self.carried(name)) for name in ours]
        out += ["", "What carried the bytes, by upsplice's own counters: %s." % "; ".join(carried)]
        return "\n".join(out) + "\n"

    def cell_of_ours(self, row, measure, name):
        value = self.median(row, measure, name)
        if not value:
            return self.trouble(row, name)
        verdict = self.verdict(row, measure, name, ("peer",))
        tuned = self.verdict(row, measure, name, ("tuned",))
        return "; ".join(filter(None, [value, verdict, tuned and "tuned " + tuned]))

    def carried(self, name):
        """Over all rows."""
        proofs = {line["proof"] for line in self.lines if line["target"] == name and line["proof"]}
        return " / ".join(sorted(proofs)) or "not measured"

    def full(self):
        """One line per row, measure and target, with spread and proof."""
        out = [self.caption(), ""]
        head = ["row", "measure", "target", "median", "p10–p90", "× best peer", "× best of all",
                "carried by"]
        out += [_cells(head), _cells(["---"] * len(head))]
        for row in self.rows:
            for measure in row.measures:
                for name in self.targets:
                    values = sorted(self.values(row, measure, name).values())
                    label = [row.title, "%s, %s" % (measure.name, measure.unit), name]
                    if values:
                        low, high = (shown(quantile(values, at), measure) for at in (0.1, 0.9))
                        out.append(_cells([
                            *label, shown(statistics.median(values), measure),
                            "%s–%s" % (low, high), self.verdict(row, measure, name, ("peer",)),
                            self.verdict(row, measure, name, PEERS), self.proof(row, name)]))
                    elif self.trouble(row, name) not in ("", "not applicable"):
                        out.append(_cells([*label, self.trouble(row, name), "", "", "", ""]))
        return "\n".join(out) + "\n"

    def median(self, row, measure, target):
        values = self.values(row, measure, target).values() if target in self.targets else ()
        return shown(statistics.median(values), measure) if values else ""


def _numbers(line):
    line["round"] = int(line["round"])
    for name in NUMBERS:
        line[name] = float(line[name]) if line[name] else 0.0
    return line


def disturbance(line):
    """The share of the time that the proxy could have run but did not have its core."""
    return min(1, line["wait_seconds"] / line["seconds"]) if line.get("seconds") else 0


def _cells(cells):
    return "| %s |" % " | ".join(cells)


def shown(value, measure):
    return "{:,.{}f}".format(value, measure.digits)


def quantile(ordered, at):
    """By linear interpolation between the closest ranks."""
    place = at * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def one_line(line):
    """A measurement for the person who waits."""
    name = "%-14s %-16s" % (line["row"], line["target"])
    if line.get("error"):
        return "%s %s" % (name, line["error"])
    row = parse_rows(line["row"], line["sessions"])[0]
    if disturbance(line) > 0.05:
        # Ends on the screen, and as a share of all in the tables' caption.
        name += " (core taken %.0f %%)" % (100 * disturbance(line))
    measures = [m for m in row.measures if not (m.of_proxy and line["target"] == "direct")]
    numbers = ["%s %s %s" % (m.name, shown(m.value(line), m), m.unit) for m in measures]
    return "%s %s  %s" % (name, ", ".join(numbers), line["proof"])


def insert(path, table):
    """Replaces what stands between the marks of `path`; a new file gets the marks."""
    text = path.read_text(encoding="utf-8") if path.exists() else "%s\n%s\n" % (BEGIN, END)
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit("lab: %s has no lines %s and %s" % (path, BEGIN, END))
    path.write_text(before + BEGIN + "\n" + table + END + after, encoding="utf-8")
