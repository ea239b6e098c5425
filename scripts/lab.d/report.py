"""Markdown tables from a run's raw.csv and machine.json. Nothing else enters them."""

import statistics

import goals
import inspection
from measures import words_and_measures
from run import PEERS, Run, disturbance, quantile

BEGIN, END = "<!-- lab:begin -->", "<!-- lab:end -->"


class Tables(Run):
    """A finished run, ready to be written."""

    def verdict(self, cell, measure, target, kinds):
        """The ratio to the best of the peers; ours has a mark where it loses."""
        best = self.best_peer(cell, measure, kinds)
        if best == target:
            return "best" if self.targets[target] in PEERS else ""
        ratios = self.ratios(cell, measure, target, best)
        if not ratios:
            return ""
        middle, mark = statistics.median(ratios), ""
        if self.targets[target] == "ours" and self.targets[best] in PEERS:
            is_behind = round(middle, 2) < 1
            in_noise = quantile(ratios, 0.9) > 1 if is_behind else quantile(ratios, 0.1) < 1
            mark = " **loses**" if is_behind else ""
            mark += " (in noise)" if in_noise else ""
            if is_behind and self.is_as_direct(cell, measure, target):
                mark += ", no worse than direct"
        return "%.2f×%s" % (middle, mark)

    def is_as_direct(self, cell, measure, name):
        """Whether a proxy does as well as none: there client and backend are what is measured."""
        if not self.direct or measure.has_no_direct:
            return False
        ratios = self.ratios(cell, measure, name, self.direct)
        return bool(ratios) and statistics.median(ratios) >= 1

    def caption(self):
        facts, flags = self.facts, self.facts["flags"]
        waits, spoilt = self.disturbances()
        load = "Proxies that could run waited for their core %.0f %% of the time (p90 %.0f %%); " \
               "%d of %d measurements were disturbed" % (
                   100 * quantile(waits, 0.5), 100 * quantile(waits, 0.9), spoilt, len(waits)
               ) if waits else "No measurement"
        workers = sorted({cell.workers for cell in self.cells})
        each = "one worker on one core of its own" if workers == [1] else (
            "as many cores of its own as workers: %s" % " or ".join(map(str, workers)))
        return "\n".join([
            "%s. %s. %s. %s." % (facts["date"], facts["summary"],
                                 facts.get("subject", "upsplice"), load),
            "Each proxy has %s; %d interleaved rounds of %g s, "
            "medians." % (each, flags["rounds"], flags["seconds"]),
            "Peers: %s; their settings are in `scripts/lab.d`. A name with a size is a peer that "
            "we tuned beyond what its documentation shows." % (
                "; ".join(self.versions()) or "none"),
            "A ratio is against the best peer of the line (without peers: the first target), "
            "paired by round; above 1 is better. Where \"no worse than direct\" stands, client and backend "
            "set the pace: a slower proxy leaves them shorter queues. A single benchmark is never "
            "enough.",
            "",
            "    " + self.command(),
        ])

    def short(self):
        """The lines with goals, one line for each other row, and every line that ours loses."""
        shipped = self.shipped or "upsplice"
        named = "upsplice" if shipped == "upsplice-auto" else shipped
        head = ["row", "measure", "direct", named, "best other engine", "best peer",
                "best tuned peer", "goal"]
        out = [self.caption(), ""]
        for place in dict.fromkeys(cell.where for cell in self.cells):
            cells = [cell for cell in self.cells if cell.where == place]
            if place != self.cells[0].where:
                out += ["", "The same over %s:" % place, ""]
            out += [_cells(head), _cells(["---"] * len(head))]
            # One shape is shown in full; of the others, what the goals speak of.
            in_full = place == self.cells[0].where
            out += [self.short_line(cell, measure) for cell in cells for measure in cell.measures
                    if self.is_in_short(cell, measure, in_full)]
        carried = ["%s: %s" % (name, self.carried(name))
                   for name in self.of_kind("ours", "inspect")]
        out += inspection.markdown(self)
        out += ["", self.standing()]
        out += ["What carried the bytes, by upsplice's own counters: %s." % "; ".join(carried)]
        return "\n".join(out) + "\n"

    def is_in_short(self, cell, measure, in_full):
        if not any(self.median(cell, measure, name) is not None for name in self.targets):
            return measure == cell.measures[0] and in_full
        headline = in_full and (measure == cell.measures[0] or cell.workload == "idle")
        return headline or bool(goals.goals_of(cell, measure)) or self.loses(
            cell, measure, self.shipped)

    def short_line(self, cell, measure):
        cells = [cell.title, measure.label, self.shown(cell, measure, self.direct),
                 self.cell_of_ours(cell, measure, self.shipped)]
        engine = self.best_engine(cell, measure)
        cells.append("%s (%s)" % (self.cell_of_ours(cell, measure, engine), engine)
                     if engine else "")
        for kinds in (("peer",), ("tuned",)):
            best = self.best_peer(cell, measure, kinds)
            value = self.shown(cell, measure, best)
            is_peer = self.targets.get(best) in PEERS
            cells.append("%s (%s)" % (value, best) if best and is_peer else "")
        return _cells([*cells, self.goal(cell, measure, self.shipped)])

    def goal(self, cell, measure, target):
        """What DESIGN §7 wants of this line, and whether it is so."""
        found = [goals.judge(self, goal, cell, target) for goal in goals.goals_of(cell, measure)]
        words = []
        for one in found:
            of = "" if one.goal.measure == measure else one.goal.measure.name + " "
            verdict = "**not** (%s)" % one.shown if one.verdict == goals.MISSED else one.verdict
            words.append("%s%s: %s" % (of, one.goal.words, verdict))
        return "; ".join(words)

    def standing(self):
        """The sum of it in one sentence."""
        losses = self.losses(self.shipped)
        clear = sum(self.ratio(cell, measure, self.shipped)[1] for _, cell, measure in losses)
        found = [goals.overall(goals.results(self, goal, self.shipped)) for goal in goals.GOALS]
        return "%s is behind the best peer in %d of %d comparisons, in %d of them beyond the noise; " \
               "%d of %d measured goals are reached in all of their rows." % (
                   self.shipped, len(losses), self.compared(self.shipped), clear,
                   found.count(goals.REACHED), len(found) - found.count(goals.UNKNOWN))

    def cell_of_ours(self, cell, measure, name):
        value = self.shown(cell, measure, name)
        if not value:
            return self.trouble(cell, name).replace("|", "/") if name else ""
        verdict = self.verdict(cell, measure, name, ("peer",))
        tuned = self.verdict(cell, measure, name, ("tuned",))
        return "; ".join(filter(None, [value, verdict, tuned and "tuned " + tuned]))

    def full(self):
        """One line per row, measure and target, with spread and proof."""
        out = [self.caption(), "", self.standing(), ""]
        head = ["row", "measure", "target", "median", "p10–p90", "× best peer", "× best of all",
                "carried by", "goal"]
        for place in dict.fromkeys(cell.where for cell in self.cells):
            if len({cell.where for cell in self.cells}) > 1:
                out += ["", "**%s**" % place, ""]
            out += [_cells(head), _cells(["---"] * len(head))]
            for cell in self.cells:
                if cell.where == place:
                    for measure in cell.measures:
                        out += self.full_lines(cell, measure)
        out += inspection.markdown(self)
        return "\n".join(out) + "\n"

    def full_lines(self, cell, measure):
        for name, kind in self.targets.items():
            label = [cell.title, measure.label, name]
            if spread := self.spread(cell, measure, name):
                low, middle, high = (measure.shown(value) for value in spread)
                yield _cells([
                    *label, middle, "%s–%s" % (low, high),
                    self.verdict(cell, measure, name, ("peer",)),
                    self.verdict(cell, measure, name, PEERS), self.proof(cell, name),
                    self.goal(cell, measure, name) if kind == "ours" else ""])
            elif self.trouble(cell, name) not in ("", "not applicable"):
                trouble = self.trouble(cell, name).replace("|", "/")
                yield _cells([*label, trouble, "", "", "", "", ""])

    def shown(self, cell, measure, target):
        value = self.median(cell, measure, target) if target else None
        return measure.shown(value) if value is not None else ""


def _cells(cells):
    return "| %s |" % " | ".join(cells)


def one_line(line):
    """A measurement for the person who waits."""
    name = "%-14s %-16s" % (line["row"], line["target"])
    if line.get("error"):
        return "%s %s" % (name, line["error"])
    if disturbance(line) > 0.05:
        # Ends on the screen, and as a share of all in the tables' caption.
        name += " (core taken %.0f %%)" % (100 * disturbance(line))
    numbers = []
    words = words_and_measures(line["row"], line["workload"], line["sessions"], line["size"])
    for measure in words[1]:
        value = None if measure.of_proxy and line["target"] == "direct" else measure.of(line)
        if value is not None:
            # Another line has what belongs to the ends.
            name_of = "all " if measure.beyond_direct else ""
            numbers.append("%s%s %s %s" % (name_of, measure.name, measure.shown(value),
                                               measure.unit))
    return "%s %s  %s" % (name, ", ".join(numbers), line.get("proof") or "")


def insert(path, table):
    """Replaces what stands between the marks of `path`; a new file gets the marks."""
    text = path.read_text(encoding="utf-8") if path.exists() else "%s\n%s\n" % (BEGIN, END)
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit("lab: %s has no lines %s and %s" % (path, BEGIN, END))
    path.write_text(before + BEGIN + "\n" + table + END + after, encoding="utf-8")
