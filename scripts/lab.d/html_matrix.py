"""The report's tables: who wins each cell, the losses, and what else a reader must know."""

from xml.sax.saxutils import escape

import goals
import svg
from html_charts import table_of
from run import DISTURBED, NO_FAILURES, PEERS, disturbance, quantile

# From which ratio on a cell has which shade; the first that fits.
SHADES = ((2, "w3"), (1.2, "w2"), (1.01, "w1"), (0.985, "even"), (0.8, "l1"), (0.5, "l2"),
          (0, "l3"))
# More than these fill no screen with what matters.
LOSSES_MAX = 24


def shade(ratio):
    return next(css for least, css in SHADES if ratio >= least)


def sign(ratio, is_clear):
    """The same in a form that does not need colour."""
    if round(ratio, 2) == 1 or not is_clear:
        return "≈"
    return "▲" if ratio > 1 else "▼"


def matrix(run, styles):
    """Rows and measures by targets; the number is how many times better than the best peer."""
    heads = []
    for name, style in styles.items():
        heads.append('<th scope="col" class="target %s" data-target="%s"><span>%s%s</span></th>' % (
            run.targets[name], escape(name), svg.sample(style), escape(name)))
    out = ['<div class="scroll tall"><table class="matrix"><caption>How many times better than the '
           "best peer, paired by round. ★ best of all proxies, ▲ ahead, ▼ behind, ≈ even or within "
           "the noise, · not measured.</caption><thead><tr>"
           '<th scope="col" class="row">row</th><th scope="col" class="measure">measure</th>%s'
           "</tr></thead>" % "".join(heads)]
    for place in dict.fromkeys(cell.where for cell in run.cells):
        cells = [cell for cell in run.cells if cell.where == place]
        out.append('<tbody data-shape="%s"><tr class="place"><th colspan="%d" scope="rowgroup">'
                   "<span>%s</span></th></tr>" % (escape(cells[0].shape), 2 + len(styles),
                                                  escape(place)))
        for cell in cells:
            wanted = [measure for measure in cell.measures
                      if any(run.values(cell, measure, name) for name in styles)]
            for measure in wanted or cell.measures[:1]:
                out.append(_matrix_row(run, styles, cell, measure,
                                       len(wanted or [0]) if measure in (wanted or
                                                                         cell.measures)[:1] else 0))
        out.append("</tbody>")
    return "".join(out) + "</table></div>"


def _matrix_row(run, styles, cell, measure, spans):
    head = '<th scope="rowgroup" class="row" rowspan="%d">%s</th>' % (
        spans, escape(cell.title)) if spans else ""
    out = ['<tr%s>%s<th scope="row" class="measure">%s</th>' % (
        ' class="first"' if spans else "", head, escape(measure.label))]
    proxies = [name for name in styles if run.targets[name] != "direct"]
    winner = run.best_of(proxies, cell, measure)
    for name in styles:
        out.append(_matrix_cell(run, cell, measure, name, winner))
    return "".join(out) + "</tr>"


def _matrix_cell(run, cell, measure, name, winner):
    kind = run.targets[name]
    value = run.median(cell, measure, name)
    if value is None:
        trouble = run.trouble(cell, name)
        failed = trouble not in NO_FAILURES
        return '<td class="%s none%s" title="%s" data-target="%s">%s</td>' % (
            kind, " broken" if failed else "", escape("%s: %s" % (name, trouble or "not measured"),
                                                      {'"': "&quot;"}),
            escape(name), "error" if failed else "·")
    ratio = run.ratio(cell, measure, name)
    best = run.best_peer(cell, measure)
    words = "%s, %s: %s %s" % (name, cell.title, measure.shown(value), measure.unit)
    if ratio is None:
        css, text = "plain", measure.shown(value)
    else:
        mark = "★" if name == winner else ""
        loses = " loses" if run.loses(cell, measure, name) else ""
        css = shade(ratio[0]) + loses
        is_alone = name == best or kind == "direct"
        text = "<b>%.2f</b> %s%s" % (ratio[0], "" if is_alone else sign(*ratio), mark)
        words += ", %.2f× %s%s" % (ratio[0], best, "" if ratio[1] else ", within the noise")
    return '<td class="%s %s" title="%s" data-target="%s">%s<small>%s</small></td>' % (
        kind, css, escape(words, {'"': "&quot;"}), escape(name), text,
        "" if ratio is None else escape(measure.shown(value)))


def by_shape(run):
    """What the shipped target makes of each row in each shape, beside another."""
    if len(run.shapes) < 2 or not run.shipped:
        return ""
    rows = {}
    for cell in run.cells:
        for measure in cell.measures if cell.workers == goals.WORKERS else ():
            if found := run.ratio(cell, measure, run.shipped):
                rows.setdefault((cell.title, measure.label), {})[cell.shape] = (
                    *found, run.best_peer(cell, measure), run.loses(cell, measure, run.shipped))
    heads = "".join('<th scope="col">%s</th>' % escape(shape) for shape in run.shapes)
    out = ['<div class="scroll tall fit"><table class="matrix shapes">'
           "<caption>%s, times the best peer of that shape</caption><thead><tr><th>row</th>"
           "<th>measure</th>%s</tr></thead><tbody>" % (
               escape(run.shipped), heads)]
    for (title, label), found in rows.items():
        out.append('<tr><th scope="row" class="row">%s</th><td class="measure">%s</td>' % (
            escape(title), escape(label)))
        for shape in run.shapes:
            if shape in found:
                ratio, clear, best, loses = found[shape]
                out.append('<td class="ours %s%s"><b>%.2f</b> %s<small>%s</small></td>' % (
                    shade(ratio), " loses" if loses else "", ratio, sign(ratio, clear),
                    escape(best)))
            else:
                out.append('<td class="none">·</td>')
        out.append("</tr>")
    return "".join(out) + "</tbody></table></div>"


def loss_list(run):
    """Where ours is behind, as bars that grow with the loss."""
    out = ['<li><span class="meter"><b>failed</b></span><span>%s <small>%s</small><br><small>%s'
           "</small></span></li>" % tuple(map(escape, (cell.title, cell.where, why)))
           for cell, why in run.defeats(run.shipped)]
    for ratio, cell, measure in run.losses(run.shipped):
        best = run.best_peer(cell, measure)
        ours, theirs = (measure.shown(run.median(cell, measure, name))
                        for name in (run.shipped, best))
        noise = "" if run.ratio(cell, measure, run.shipped)[1] else " (within the noise)"
        out.append(
            '<li><span class="meter" style="--part:%.0f%%"><b>%.2f×</b></span>'
            "<span>%s, <em>%s</em> <small>%s</small><br>"
            "<small>%s against %s of %s%s</small></span></li>" % (
                min(100, 100 * ratio), ratio, escape(cell.title), escape(measure.label),
                escape(cell.where), ours, theirs, escape(best), noise))
    if not out:
        return "<p>No row of this run has a peer ahead of %s.</p>" % escape(run.shipped or "ours")
    first, rest = out[:LOSSES_MAX], out[LOSSES_MAX:]
    shown = '<ol class="losses">%s</ol>' % "".join(first)
    return shown + ('<details><summary>%d more, all nearer to a draw</summary><ol class="losses" '
                    'start="%d">%s</ol></details>' % (len(rest), len(first) + 1, "".join(rest))
                    if rest else "")


def tiles(run):
    """The sum of it."""
    found = [goals.overall(goals.results(run, goal, run.shipped)) for goal in goals.GOALS]
    measured = len(found) - found.count(goals.UNKNOWN)
    compared, losses = run.compared(run.shipped), run.losses(run.shipped)
    worst = "worst: %.2f×, %s, %s" % (losses[0][0], losses[0][1].title, losses[0][2].name) \
        if losses else "no peer is ahead anywhere"
    _, spoilt = run.disturbances()
    items = [
        ("missed" if found.count(goals.REACHED) < measured else "reached",
         "%d of %d" % (found.count(goals.REACHED), measured), "goals reached in all their rows",
         "%d not measured" % found.count(goals.UNKNOWN)),
        ("reached", "%d of %d" % (compared - len(losses), compared),
         "comparisons ahead of or even with the best peer", run.shipped or "no target of ours"),
        ("missed" if losses else "reached", str(len(losses)), "comparisons behind the best peer",
         worst),
        ("unknown", str(len(run.lines)), "measurements",
         "%d failed, %d disturbed" % (run.failures, spoilt)),
    ]
    return '<ul class="tiles">%s</ul>' % "".join(
        '<li class="%s"><b>%s</b><span>%s</span><small>%s</small></li>' % (
            css, escape(value), escape(what), escape(more)) for css, value, what, more in items)


def caveats(run):
    waits, spoilt = run.disturbances()
    flags = run.facts.get("flags", {})
    out = []
    if "loopback" in run.shapes:
        out.append("<b>Loopback flatters splice.</b> Pages move by reference there, and no packet "
                   "is ever built or checked. Look at the veth shapes for what a network leaves "
                   "of it." + ("" if len(run.shapes) > 1 else " This run has none of them."))
    out.append("<b>Noise.</b> Values are medians of %s rounds, whiskers and ranges are p10–p90; "
               "ratios are paired by round. ≈ marks what is even or whose p10–p90 includes 1. A "
               "single benchmark is never enough." % flags.get("rounds", "several"))
    if limited := run.limited():
        ends = {}
        for line, end in limited:
            ends.setdefault(end, {})[line["row"]] = True
        words = "; ".join("%s in %s" % (end, ", ".join(rows)) for end, rows in ends.items())
        out.append("<b>Not the proxy alone.</b> In %d measurements one of the two ends had no time "
                   "left and may have been the limit: %s." % (len(limited), escape(words)))
    if flags.get("thin"):
        out.append("<b>A thin run:</b> every row on every target, but each in one shape only.")
    if flags.get("rounds", 10) < 3:
        out.append("<b>Too few rounds</b> to know the spread: take nothing here for a result.")
    share = 100 * quantile(waits, 0.5) if waits else 0
    out.append("<b>Disturbed measurements.</b> A proxy that could run waited for its core %.0f %% "
               "of the time (median); in %d of %d measurements more than %.0f %%: another program "
               "had the core." % (share, spoilt, len(waits), 100 * DISTURBED))
    out.append("<b>Peers</b> run with the settings that their documentation shows. A name with a "
               "size is a peer that we tuned further; it is shown, but not the peer to beat.")
    if any(cell.workload in ("idle", "slow-readers") for cell in run.cells):
        out.append("<b>Kernel memory</b> is counted for the whole machine; a proxy's share is what "
                   "a run through it takes beyond the direct connection.")
    return "<ul>%s</ul>" % "".join("<li>%s</li>" % item for item in out)


def troubles(run):
    """What was not measured, and what was measured while somebody else had the core."""
    rows = {}
    for line in run.lines:
        if line["error"] not in ("", "not applicable"):
            rows.setdefault((line["target"], line["error"]), []).append(line["row"])
    out = ""
    if rows:
        out = "<h3>Not measured</h3>" + table_of(["target", "why", "rows"], [
            [target, error, ", ".join(dict.fromkeys(names))]
            for (target, error), names in rows.items()])
    spoilt = [line for line in run.lines if disturbance(line) > DISTURBED]
    if spoilt:
        out += "<details><summary>%d disturbed measurements</summary>%s</details>" % (
            len(spoilt), table_of(["round", "row", "shape", "target", "core taken"], [
                [line["round"], line["row"], line["shape"], line["target"],
                 "%.0f %%" % (100 * disturbance(line))] for line in spoilt]))
    return out


def machine(run):
    facts = run.facts
    known = (("date", facts.get("date")), ("machine", facts.get("summary")),
             ("upsplice", facts.get("subject")), ("commit", facts.get("commit")),
             ("kernel", facts.get("kernel")), ("memory", facts.get("memory")),
             ("governor", facts.get("governor")), ("load at start", facts.get("load_at_start")),
             ("shapes", ", ".join(run.shapes)))
    versions = [["%s (%s)" % (name, run.targets.get(name, "")), version,
                 run.carried(name) if run.targets.get(name) not in ("direct",) else ""]
                for name, version in facts.get("versions", {}).items()]
    settings = [pair for pair in facts.get("settings", {}).items() if pair[1] is not None]
    # What else the runner knows about the machine, whatever that is.
    for name in ("cores", "limits", "tools", "mitigations", "shapes"):
        settings += [("%s: %s" % (name, key), said) for key, said in facts.get(name, {}).items()]
    return "".join([
        "<dl>%s</dl>" % "".join("<dt>%s</dt><dd>%s</dd>" % (name, escape(str(value)))
                                for name, value in known if value not in (None, "")),
        "<h3>Who was measured</h3>", table_of(["target", "version", "what carried the bytes"],
                                              versions),
        "<details><summary>Settings</summary>%s</details>" % table_of(
            ["name", "value"], settings) if settings else "",
    ])


def is_peerless(run):
    return not run.of_kind(*PEERS)
