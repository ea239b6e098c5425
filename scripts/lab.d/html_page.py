"""The report of a run as one HTML file that needs nothing else: report.html beside raw.csv."""

from pathlib import Path
from xml.sax.saxutils import escape

import html_matrix as tables
import inspection
import svg
from html_charts import Charts
from html_goals import goal_table
from html_look import looks
from run import Run

HERE = Path(__file__).resolve().parent
NAME = "report.html"


def write(directory):
    """Makes the report of the run in `directory`. Returns its path."""
    path = Path(directory) / NAME
    path.write_text(page(Run(directory)), encoding="utf-8")
    return path


def page(run):
    styles = looks(run)
    sections = Charts(run, styles).sections()
    style, script = ((HERE / name).read_text(encoding="utf-8")
                     for name in ("report.css", "report.js"))
    facts = run.facts
    shape_rules = "".join(
        "body:has(#s-%d:checked) [data-shape]:not([data-shape=\"%s\"]){display:none}" % (
            index, escape(shape)) for index, shape in enumerate(run.shapes))
    parts = [
        "<!doctype html>", '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        "<title>upsplice lab, %s</title>" % escape(facts.get("date", "")),
        "<style>%s@media screen{%s}</style></head><body>" % (style, shape_rules),
        "<header><h1>upsplice lab</h1><p>%s</p></header>" % escape(". ".join(
            str(facts[name]) for name in ("date", "summary", "subject") if facts.get(name))),
        "<main>", tables.tiles(run), navigation(run, sections),
        section("goals", "Goals", "What upsplice has set itself (≥ and ≤ are ours divided by "
                "theirs). A goal is reached when it is in every row and shape measured.",
                goal_table(run)),
        bar(run, styles),
        section("losses", "Where upsplice loses", "Every comparison in which the best peer is "
                "ahead, the worst first. A full bar is a draw.", tables.loss_list(run)),
        section("matrix", "Who wins each cell", peers_words(run), tables.matrix(run, styles)),
    ]
    if shapes := tables.by_shape(run):
        parts.append(section("shapes", "By shape", "The same row over loopback and over a link "
                             "between network namespaces.", shapes))
    if found := inspection.table(run):
        parts.append(section("inspection", inspection.HEADING, inspection.WORDS, found))
    for name, heading, words, figures in sections:
        parts.append(section(name, heading, words, '<div class="figures">%s</div>' %
                             "".join(figures)))
    parts += [
        section("caveats", "Before you quote a number", "", tables.caveats(run) +
                tables.troubles(run)),
        section("machine", "Machine and versions", "", tables.machine(run)),
        section("again", "Measure it again", "Tables and this page are made from raw.csv and "
                "machine.json only; --report DIRECTORY makes them again.",
                "<pre>%s</pre>" % escape("git checkout %s\n%s" % (
                    str(facts.get("commit", "")).split("+")[0], run.command()))),
        '</main><div id="tip" role="status" hidden></div>',
        "<script>%s</script></body></html>" % script,
    ]
    return "\n".join(parts) + "\n"


def section(name, heading, words, content):
    return '<section id="%s"><h2>%s</h2>%s%s</section>' % (
        name, heading, "<p>%s</p>" % escape(words) if words else "", content)


def navigation(run, sections):
    names = [("goals", "Goals"), ("losses", "Losses"), ("matrix", "Matrix")]
    names += [("shapes", "By shape")] if len(run.shapes) > 1 else []
    names += [("inspection", inspection.HEADING)] if inspection.lines(run) else []
    names += [(name, heading) for name, heading, _, _ in sections]
    names += [("caveats", "Caveats"), ("machine", "Machine")]
    return "<nav>%s</nav>" % "".join('<a href="#%s">%s</a>' % pair for pair in names)


def bar(run, styles):
    """Shapes and the legend; it stays in sight."""
    out = []
    if len(run.shapes) > 1:
        choices = [*run.shapes, "all"]
        out.append('<fieldset class="tabs"><legend>shape</legend>%s</fieldset>' % "".join(
            '<input type="radio" name="shape" id="s-%d"%s><label for="s-%d">%s</label>' % (
                index, " checked" if index == 0 else "", index, escape(choice))
            for index, choice in enumerate(choices)))
    chips = "".join(
        '<li><button type="button" data-chip="%s" aria-pressed="true" class="%s">%s%s</button></li>'
        % (escape(name), run.targets[name], svg.sample(style), escape(name))
        for name, style in styles.items())
    out.append('<ul class="legend" aria-label="Targets">%s</ul>' % chips)
    return '<div class="controls">%s</div>' % "".join(out)


def peers_words(run):
    if tables.is_peerless(run):
        return "This run has no peer: the ratios are to the first target of ours."
    return ("Blue is ahead of the best peer, orange behind. The columns under the blue line are "
            "ours.")
