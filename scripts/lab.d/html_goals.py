"""The report's verdicts: one line per goal of DESIGN §7, and below it every row it speaks of."""

from xml.sax.saxutils import escape

import goals

MARKS = {goals.REACHED: "✓", goals.MISSED: "✗"}
CLASSES = {goals.REACHED: "reached", goals.MISSED: "missed"}


def goal_table(run):
    """Per goal the worst row of each shape, and a verdict; every row is below."""
    heads = "".join('<th scope="col">worst over %s</th>' % escape(shape) for shape in run.shapes)
    out = ['<div class="scroll"><table class="goals"><thead><tr><th>row</th><th>goal</th>%s'
           "<th>verdict for %s</th></tr></thead><tbody>" % (
               heads, escape(run.shipped or "upsplice"))]
    for goal in goals.GOALS:
        found = goals.results(run, goal, run.shipped)
        cells = "".join('<td data-label="worst over %s">%s</td>' % (escape(shape), worst(
            run, goal, [result for result in found if result.cell.shape == shape]))
            for shape in run.shapes)
        out.append('<tr><th scope="row">%s</th><td class="words">%s</td>%s'
                   '<td class="verdict">%s</td></tr>' % (
                       escape(goal.row), escape(goal.words), cells,
                       badge(goals.overall(found), reached_in(found))))
    return "".join(out) + "</tbody></table></div>" + every_row(run)


def worst(run, goal, found):
    """The result that decides, with the row's name; and whether another engine does better."""
    found = [result for result in found if result.value is not None]
    if not found:
        return '<span class="unknown">%s</span>' % goals.UNKNOWN
    result = (min if goal.sign == "≥" else max)(found, key=lambda one: one.value)
    other = other_engine(run, goal, result.cell)
    return "%s<small>%s</small>%s" % (
        verdict_of(result), escape(result.cell.title),
        "<small>%s: %s</small>" % (escape(other.target), verdict_of(other)) if other else "")


def other_engine(run, goal, cell):
    """The best of ours beside the shipped one in this goal's terms, or none."""
    others = [name for name in run.of_kind("ours") if name != run.shipped]
    found = [goals.judge(run, goal, cell, name) for name in others
             if goal.against != goals.ZERO_COPY]
    found = [result for result in found if result.value is not None]
    choose = max if goal.sign == "≥" else min
    return choose(found, key=lambda one: one.value) if found else None


def every_row(run):
    out = ["<details><summary>Every row of every goal</summary>"
           '<div class="scroll"><table class="goals"><thead><tr><th>goal</th><th>row</th>'
           "<th>shape</th><th>%s</th><th>best other engine</th></tr></thead><tbody>" % escape(
               run.shipped or "upsplice")]
    for goal in goals.GOALS:
        for result in goals.results(run, goal, run.shipped):
            other = other_engine(run, goal, result.cell)
            out.append('<tr><td>%s %s</td><th scope="row">%s</th><td>%s</td><td>%s</td>'
                       "<td>%s</td></tr>" % (
                           escape(goal.measure.name), escape(goal.words),
                           escape(result.cell.title), escape(result.cell.where),
                           verdict_of(result), "%s <small>%s</small>" % (
                               verdict_of(other), escape(other.target)) if other else ""))
    return "".join(out) + "</tbody></table></div></details>"


def verdict_of(result):
    return '<span class="%s">%s %s</span>' % (
        CLASSES.get(result.verdict, "unknown"), MARKS.get(result.verdict, ""),
        escape(result.shown))


def reached_in(found):
    measured = [result for result in found if result.verdict != goals.UNKNOWN]
    reached = sum(result.verdict == goals.REACHED for result in measured)
    return "in %d of %d rows" % (reached, len(measured)) if measured else ""


def badge(verdict, detail=""):
    return '<span class="badge %s">%s %s</span><small>%s</small>' % (
        CLASSES.get(verdict, "unknown"), MARKS.get(verdict, "?"), escape(verdict), escape(detail))
