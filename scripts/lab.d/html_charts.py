"""The report's charts: what is asked of a run, and with which picture each is answered."""

import math
from xml.sax.saxutils import escape

import goals
import measures
import svg
from measures import CPU_OF_PAYLOAD, KERNEL, PSS, shown_count, shown_size
from run import NO_FAILURES, PEERS

# What scaling is measured against.
ONE_WORKER = 1
KNOWN = {"bulk-up", "bulk-down", "bulk-both", "echo", "echo-open", "upgrades", "idle", "crowd",
         "slow-readers", "mixed"}
# Where lines differ more than this, only a logarithmic axis shows all of them.
LINEAR_MAX = 12
PERCENTILES = {0.5: "50", 0.9: "90", 0.99: "99", 0.999: "99.9", 0.9999: "99.99"}
IDEAL = svg.Style("ideal", "one worker × n", "diamond", "1 4")


class Charts:
    """Figures of one run, as HTML."""

    def __init__(self, run, styles):
        self.run, self.styles, self.count = run, styles, 0
        self.workers = min([cell.workers for cell in run.cells], default=ONE_WORKER)

    def sections(self):
        """Name, heading, what to look for, figures; those without figures are left out."""
        found = [
            ("throughput", "Throughput", "Higher is better. Bulk is one direction of large frames; "
             "round trips per second count an echo as one.", self.throughput()),
            ("cpu", "CPU", "Lower is better: what the proxy's processes spent, user and system, "
             "divided by the work done. That of the whole machine has client, backend and "
             "the network stack in it, which over veth works on other cores than the proxy.",
             self.cpu()),
            ("latency", "Latency", "Lower is better. The curves show every percentile, because an "
             "average hides what users feel; both axes of a curve are logarithmic.",
             self.latency()),
            ("open", "Latency at a stated rate", "Lower is better. Messages leave on a schedule, "
             "answered or not, so a stall is counted in full.", self.open_loop()),
            ("upgrades", "New sessions", "Accept, 101, one echo, close.",
             self.of("upgrades")),
            ("memory", "Memory of an idle session", "Lower is better. The solid part is the "
             "proxy's own memory (PSS), the light part what the kernel keeps for it beyond the "
             "direct connection.", self.memory()),
            ("crowds", "Crowds, slow readers, mixed traffic", "A few busy sessions among silent "
             "ones, beside readers that take little, and small messages beside bulk.",
             self.of("crowd") + self.of("slow-readers") + self.of("mixed") + self.unknown()),
            ("workers", "Several workers", "Higher is better; the dotted line is what one worker "
             "does, times n.", self.scaling()),
        ]
        return [section for section in found if section[3]]

    def cells(self, *workloads):
        # Text frames differ for those only who look into them: a table of its own has their cost.
        return [cell for cell in self.run.cells
                if cell.workload in workloads and cell.workers == self.workers
                and not cell.name.endswith("-text")]

    def throughput(self):
        bulk = self.by_size(self.cells("bulk-up", "bulk-down", "bulk-both"), measures.RATE_BULK)
        return bulk + self.by_size(self.many("echo"), measures.RATE)

    def cpu(self):
        bulk = self.by_size(self.cells("bulk-up", "bulk-down", "bulk-both"), measures.CPU_BULK)
        echo = self.by_size(self.cells("echo"), measures.CPU)
        payload = [figure for cells in grouped(self.cells("echo"), "shape", "sessions")
                   if len({cell.size for cell in cells}) > 1
                   for figure in self.lines(cells, CPU_OF_PAYLOAD, "size")]
        sessions = [figure for cells in grouped(self.cells("echo"), "shape", "size")
                    if len({cell.sessions for cell in cells}) > 1
                    for figure in self.lines(cells, measures.CPU, "sessions")]
        bulk_cells = self.cells("bulk-up", "bulk-down", "bulk-both")
        machine = self.by_size(bulk_cells, measures.MACHINE_BULK)
        machine += self.by_size(self.cells("echo"), measures.MACHINE_ECHO)
        return bulk + echo + payload + sessions + machine

    def latency(self):
        one = [cell for cell in self.cells("echo") if cell.sessions == 1]
        out = self.by_size(one, measures.P50)
        for cell in self.cells("echo", "crowd", "slow-readers", "mixed", "upgrades"):
            out += self.curves(cell)
        return out

    def open_loop(self):
        out = []
        for cells in grouped(self.cells("echo-open"), "shape", "size", "sessions"):
            if len({cell.rate for cell in cells}) > 1:
                for measure in (measures.P50, measures.P99):
                    out += self.lines(cells, measure, "rate")
            for cell in cells:
                out += self.curves(cell)
        return out

    def many(self, workload):
        return [cell for cell in self.cells(workload) if cell.sessions > 1]

    def of(self, workload):
        """Bars for each measure of each cell; memory has a picture of its own."""
        out = []
        for cell in self.cells(workload):
            for measure in cell.measures:
                if measure not in (PSS, KERNEL):
                    out += self.bars(cell, measure)
            if PSS in cell.measures:
                out += self.memory_bars(cell)
        return out

    def unknown(self):
        """Workloads that this version does not know are shown nevertheless."""
        names = {cell.workload for cell in self.run.cells} - KNOWN
        return [figure for name in sorted(names) for figure in self.of(name)]

    def by_size(self, cells, measure):
        """Lines over frame sizes where there are several, else bars."""
        out = []
        for group in grouped(cells, "shape", "workload", "sessions"):
            if len({cell.size for cell in group}) > 1:
                out += self.lines(group, measure, "size")
            else:
                for cell in group:
                    out += self.bars(cell, measure)
        return out

    def scaling(self):
        out = []
        cells = [cell for cell in self.run.cells if cell.workload != "idle"]
        for group in grouped(cells, "shape", "name"):
            if len({cell.workers for cell in group}) > 1:
                out += self.lines(group, group[0].measures[0], "workers")
        return out

    def bars(self, cell, measure):
        bars = []
        for name, style in self.styles.items():
            if spread := self.run.spread(cell, measure, name):
                low, middle, high = spread
                bars.append(svg.Bar(style, (max(0.0, middle),), measure.shown(middle),
                                    "%s: %s" % (name, self.words(cell, measure, name)),
                                    (max(0.0, low), max(0.0, high))))
        if not bars:
            return []
        title = "%s: %s" % (cell.title, measure.name)
        picture = svg.bars(bars, measure.unit, title, self.summary(cell, measure), self.ident(),
                           self.goal(cell, measure))
        return [self.figure(cell, title, picture, self.table([cell], measure), measure)]

    def memory(self):
        return [figure for cell in self.cells("idle") for figure in self.memory_bars(cell)]

    def memory_bars(self, cell):
        # Equal in name, but each row divides by sessions of its own.
        user_memory, kernel_memory = (cell.measures[cell.measures.index(one)]
                                      for one in (PSS, KERNEL))
        bars = []
        for name, style in self.styles.items():
            user = self.run.spread(cell, user_memory, name)
            kernel = self.run.median(cell, kernel_memory, name)
            if user is None and kernel is None:
                continue
            parts = (max(0.0, user[1] if user else 0.0), max(0.0, kernel or 0.0))
            mine = user_memory.shown(user[1]) if user else "?"
            kernels = kernel_memory.shown(kernel) if kernel is not None else "?"
            words = "%s + %s" % (mine, kernels) if kernel is not None else mine
            said = "%s: %s KB user, %s KB kernel" % (name, mine, kernels)
            bars.append(svg.Bar(style, parts, words, said))
        if not bars:
            return []
        title = cell.title
        picture = svg.bars(bars, "KB per session: user, then kernel", title,
                           self.summary(cell, user_memory), self.ident(),
                           self.goal(cell, user_memory))
        table = self.table([cell], user_memory, kernel_memory)
        return [self.figure(cell, title, picture, table, user_memory)]

    def lines(self, cells, measure, over):
        """Over an attribute of the cells: size, sessions, rate or workers."""
        series = []
        for name, style in self.styles.items():
            points = []
            for cell in sorted(cells, key=lambda cell: getattr(cell, over) or 0):
                spread = self.run.spread(cell, measure, name)
                if spread and getattr(cell, over):
                    points.append(svg.Point(getattr(cell, over), spread[1], "%s: %s" % (
                        named(over, getattr(cell, over)), self.words(cell, measure, name)),
                        (spread[0], spread[2])))
            if points:
                series.append(svg.Series(style, points))
        if not series:
            return []
        if over == "workers":
            series += ideal(series)
        values = [point.y for one in series for point in one.points if point.y > 0]
        # Whether something scales can only be seen from zero.
        log = over != "workers" and bool(values) and max(values) / min(values) > LINEAR_MAX
        x_values = sorted({point.x for one in series for point in one.points})
        x_log = over != "workers"
        x_axis = svg.Axis({"size": "frame size (log)", "sessions": "sessions (log)",
                           "rate": "messages per second, offered (log)",
                           "workers": "workers"}[over], log=x_log, from_zero=not x_log,
                          ticks={value: ticked(over, value) for value in x_values})
        y_axis = svg.Axis("%s %s%s" % (measure.name, measure.unit, " (log)" if log else ""),
                          log=log)
        if log:
            # A cost of nothing has no place on a logarithmic axis.
            for one in series:
                one.points = [point for point in one.points if point.y > 0]
        title = self.title_over(cells[0], measure, over)
        picture = svg.lines(series, x_axis, y_axis, title,
                            "; ".join(self.summary(cell, measure) for cell in cells), self.ident())
        return [self.figure(cells[0], title, picture, self.table(cells, measure), measure,
                            with_workers=over != "workers")]

    def title_over(self, cell, measure, over):
        subject = {"echo": "echo", "echo-open": "open loop"}.get(
            cell.workload, cell.workload.replace("-", " "))
        if over == "workers":
            return "%s: %s by workers" % (cell.title, measure.name)
        fixed = [] if over == "size" else [shown_size(cell.size)]
        fixed += [] if over == "sessions" else [shown_count(cell.sessions)]
        by = {"size": "frame size", "sessions": "session count", "rate": "rate"}[over]
        return "%s, %s: %s by %s" % (subject, ", ".join(fixed), measure.name, by)

    def curves(self, cell):
        """Time by percentile, in rows whose lines say more than two quantiles."""
        series, rows = [], []
        for name, style in self.styles.items():
            curve = [(at, value) for at, value in self.run.curve(cell, name) if value > 0]
            if len(curve) < 3:
                continue
            points = [svg.Point(nines(at), value, "p%g: %s µs" % (100 * at, in_digits(value)),
                                bare=at not in PERCENTILES) for at, value in curve]
            series.append(svg.Series(style, points))
            known = dict(curve)
            rows.append([name] + [in_digits(known[at]) if at in known else ""
                                  for at in PERCENTILES])
        if not series:
            return []
        most = max(point.x for one in series for point in one.points)
        ticks = {nines(at): words for at, words in PERCENTILES.items() if nines(at) <= most + 0.01}
        title = "%s: time by percentile" % cell.title
        picture = svg.lines(series, svg.Axis("percentile (towards 100, log)", ticks=ticks),
                            svg.Axis("time, µs (log)", log=True), title,
                            self.summary(cell, measures.P99), self.ident())
        table = table_of(["µs", *("p" + words for words in PERCENTILES.values())], rows)
        return [self.figure(cell, title, picture, table, measures.P99)]

    # --- What goes with a picture. ---

    def words(self, cell, measure, name):
        """A value with its spread and its ratio to the best peer."""
        low, middle, high = self.run.spread(cell, measure, name)
        said = "%s %s (p10–p90 %s–%s)" % (measure.shown(middle), measure.unit,
                                          measure.shown(low), measure.shown(high))
        ratio = self.run.ratio(cell, measure, name)
        best = self.run.best_peer(cell, measure)
        return said + (", %.2f× %s" % (ratio[0], best) if ratio and best != name else "")

    def summary(self, cell, measure):
        """A picture in one sentence, for those who do not see it."""
        best, shipped = self.run.best_peer(cell, measure), self.run.shipped
        parts = [cell.where]
        for name in (shipped, best):
            value = self.run.median(cell, measure, name) if name else None
            if value is not None:
                parts.append("%s %s %s" % (name, measure.shown(value), measure.unit))
        if ratio := shipped and self.run.ratio(cell, measure, shipped):
            parts.append("%.2f× the best peer" % ratio[0])
        return "%s: %s" % (cell.title, ", ".join(parts))

    def goal(self, cell, measure):
        """Value and words of the line to reach."""
        for goal in goals.goals_of(cell, measure):
            best = self.run.best_peer(cell, measure)
            if goal.measure != measure or goal.against not in (goals.PEER, goals.ABSOLUTE):
                continue
            if goal.against == goals.ABSOLUTE:
                return goal.factor, "goal " + goal.words
            if self.run.targets.get(best) in PEERS:
                return goal.factor * self.run.median(cell, measure, best), "goal " + goal.words
        return None

    def table(self, cells, *wanted):
        rows = []
        for cell in cells:
            for name in self.styles:
                for measure in wanted:
                    if self.run.spread(cell, measure, name):
                        low, middle, high = (measure.shown(x) for x in
                                             self.run.spread(cell, measure, name))
                        ratio = self.run.ratio(cell, measure, name)
                        label = [name] if len(cells) == 1 else [row_label(cell), name]
                        rows.append(label + [measure.label, middle, "%s–%s" % (low, high),
                                             "%.2f×" % ratio[0] if ratio else ""])
        head = ["target", "measure", "median", "p10–p90", "× best peer"]
        return table_of(head if len(cells) == 1 else ["row", *head], rows)

    def figure(self, cell, title, picture, table, measure, with_workers=True):
        better = "higher is better ↑" if measure.higher_is_better else "lower is better ↓"
        where = cell.where if with_workers else cell.shape
        missing = [(name, self.run.trouble(cell, name)) for name in self.styles]
        failed = ["%s: %s" % pair for pair in missing if pair[1] not in NO_FAILURES]
        note = '<p class="failed">Failed: %s</p>' % escape("; ".join(failed)) if failed else ""
        return (
            '<figure data-shape="%s"><figcaption><b>%s</b><span>%s · %s</span></figcaption>'
            "%s%s<details><summary>Numbers</summary>%s</details></figure>" % (
                escape(cell.shape, {'"': "&quot;"}), escape(title), escape(where), better,
                picture, note, table))

    def ident(self):
        self.count += 1
        return "c%d" % self.count


def grouped(cells, *names):
    """Cells that agree in these attributes, in their order."""
    groups = {}
    for cell in cells:
        groups.setdefault(tuple(getattr(cell, name) for name in names), []).append(cell)
    return list(groups.values())


def ideal(series):
    """What one worker of the first series does, times n."""
    points = {point.x: point.y for point in series[0].points}
    if ONE_WORKER not in points or len(points) < 2:
        return []
    line = [svg.Point(n, points[ONE_WORKER] * n, "%d times %s" % (n, series[0].style.name),
                      bare=True) for n in sorted(points)]
    return [svg.Series(IDEAL, line)]


def row_label(cell):
    return "%s%s" % (cell.title, ", %d workers" % cell.workers if cell.workers > 1 else "")


def named(over, value):
    return {"size": shown_size, "sessions": shown_count,
            "rate": lambda rate: "%s/s" % in_digits(rate),
            "workers": lambda n: "%d worker%s" % (n, "s" * (n > 1))}[over](value)


def ticked(over, value):
    return shown_size(value) if over == "size" else svg.compact(value)


def nines(quantile):
    """0.9 → 1, 0.99 → 2: the tail gets as much room as it deserves."""
    return -math.log10(1 - min(quantile, 0.99999))


def in_digits(value):
    return "{:,.0f}".format(value) if value >= 10 else "%.1f" % value


def table_of(head, rows):
    cells = "".join('<th scope="col">%s</th>' % escape(word) for word in head)
    body = "".join("<tr>%s</tr>" % "".join("<td>%s</td>" % escape(str(cell)) for cell in row)
                   for row in rows)
    return '<div class="scroll"><table><thead><tr>%s</tr></thead><tbody>%s</tbody></table></div>' \
        % (cells, body)
