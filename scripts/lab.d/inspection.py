"""What it costs to look at the frames of a session, by frame size: a section of table and report.

Every number is CPU of the proxy, and every ratio is to zero-copy in the same round: 1.3 is three
tenths dearer. The relay that parses every message stands beside as what inspection costs elsewhere.
"""

import statistics
from dataclasses import dataclass
from xml.sax.saxutils import escape

import goals
from measures import CPU, CPU_BULK, shown_count, shown_size

MESSAGES = "messages"
HEADING = "Cost of inspection"
WORDS = ("CPU of the proxy, relative to zero-copy in the same round. Payload of large frames that "
         "nobody has to read is spliced; text is read at the depth payload, binary is not.")


@dataclass(frozen=True)
class Line:
    """One load with one frame size; `ratios` by target: median, and what eight of ten rounds lie in."""

    load: str
    size: int
    microseconds: float
    seconds_per_gb: float
    ratios: dict
    goal: str


def targets(run):
    """Those that look at frames, and the relay of messages when it was measured as well."""
    return run.of_kind("inspect") + [name for name in run.targets if name == MESSAGES]


def lines(run):
    """One for each echo and bulk of one worker over the first shape; none without inspection."""
    base = run.shipped
    if not base or not goals.inspecting(run):
        return []
    found = []
    for cell in run.cells:
        measure = {"echo": CPU, "bulk-up": CPU_BULK, "bulk-down": CPU_BULK,
                   "bulk-both": CPU_BULK}.get(cell.workload)
        cost = measure and run.median(cell, measure, base)
        if not cost or cell.where != run.cells[0].where:
            continue
        # Microseconds of a round trip of two messages, or seconds of 1e9 bytes.
        message = cost / 2 if measure == CPU else cost * cell.size / 1000
        ratios = {name: quotients(run, cell, measure, name, base) for name in targets(run)}
        text = " of text" if cell.name.endswith("-text") else ""
        load = "%s%s, %s" % (cell.workload.replace("-", " "), text, shown_count(cell.sessions))
        found.append(Line(load, cell.size, message, 1000 * message / cell.size, ratios,
                          verdict(run, cell)))
    order = list(dict.fromkeys(line.load for line in found))
    return sorted(found, key=lambda line: (order.index(line.load), line.size))


def quotients(run, cell, measure, name, base):
    """Least and most in eight rounds of ten, and the median between; or none."""
    ratios = sorted(1 / ratio for ratio in run.ratios(cell, measure, name, base))
    if not ratios:
        return None
    last = len(ratios) - 1
    return ratios[round(0.1 * last)], statistics.median(ratios), ratios[round(0.9 * last)]


def verdict(run, cell):
    found = [goals.judge(run, goal, cell, run.shipped) for goal in goals.GOALS
             if goal.against == goals.ZERO_COPY and goal.holds_for(cell)]
    return "; ".join(one.verdict for one in found)


def cells(run):
    """Head and rows of the table, as text."""
    head = ["load", "frame", "%s, µs/message" % run.shipped, "s/GB",
            *(name + ", ×" for name in targets(run)), "goal ≤ 1.3"]
    rows = []
    for line in lines(run):
        ratios = ["%.2f (%.2f–%.2f)" % (found[1], found[0], found[2]) if found else "not measured"
                  for found in line.ratios.values()]
        rows.append([line.load, shown_size(line.size), "%.2f" % line.microseconds,
                     "%.3f" % line.seconds_per_gb, *ratios, line.goal])
    return head, rows


def markdown(run):
    """Lines of the tables' text; none without inspection."""
    head, rows = cells(run)
    if not rows:
        return []
    table = [head, ["---"] * len(head), *rows]
    return ["", "%s. %s" % (HEADING, WORDS), "", *("| %s |" % " | ".join(row) for row in table)]


def table(run):
    """The same for the report."""
    head, rows = cells(run)
    if not rows:
        return ""
    out = ['<div class="scroll"><table class="goals"><thead><tr>%s</tr></thead><tbody>' % "".join(
        '<th scope="col">%s</th>' % escape(text) for text in head)]
    for first, *rest in rows:
        out.append('<tr><th scope="row">%s</th>%s</tr>' % (
            escape(first), "".join("<td>%s</td>" % escape(text) for text in rest)))
    return "".join(out) + "</tbody></table></div>"
