"""Charts as inline SVG: bars from zero, and lines over linear or logarithmic axes.

Knows nothing of runs. Colours are the variables --c of a class per series, so that light, dark and
print are the style sheet's business. Every mark has a <title>, which is read out and shown.
"""

import math
from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

WIDTH = 360
MARKERS = ("circle", "square", "up", "diamond", "down", "plus")


@dataclass(frozen=True)
class Style:
    """How one series looks everywhere."""

    css: str
    name: str
    marker: str = "circle"
    dash: str = ""
    strong: bool = False
    # Of a target that is shown, but not the one to beat.
    hollow: bool = False


@dataclass(frozen=True)
class Bar:
    style: Style
    # Stacked from zero: one length, or several.
    parts: tuple
    text: str
    title: str
    # p10 and p90, or none.
    spread: tuple = ()
    note: str = ""


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    title: str
    spread: tuple = ()
    # Without a marker: the line goes through it, that is all.
    bare: bool = False


@dataclass
class Series:
    style: Style
    points: list


@dataclass
class Axis:
    """From values to places. Linear axes of lengths begin at zero."""

    label: str
    log: bool = False
    # Value → text; other values get no tick. Empty: ticks are chosen.
    ticks: dict = field(default_factory=dict)
    from_zero: bool = True
    low: float = 0.0
    high: float = 1.0

    def fit(self, values):
        values = [value for value in values if math.isfinite(value) and (value > 0 or not self.log)]
        low, high = (min(values), max(values)) if values else (1.0, 1.0)
        if self.log and self.ticks:
            self.low, self.high = low / 1.25, high * 1.25
        elif self.log:
            self.low, self.high = log_bounds(low, high)
        elif self.from_zero:
            self.low, self.high = min(0.0, low), high * 1.04 if high > 0 else 1.0
        else:
            self.low, self.high = low, high if high > low else low + 1
        if not self.ticks:
            chosen = log_ticks if self.log else linear_ticks
            self.ticks = {tick: compact(tick) for tick in chosen(self.low, self.high)}
        return self

    def at(self, value):
        """0 to 1."""
        if self.log:
            value, low, high = (math.log10(max(x, self.low)) for x in (value, self.low, self.high))
        else:
            low, high = self.low, self.high
        return min(1.0, max(0.0, (value - low) / (high - low)))


def log_bounds(low, high):
    """The nearest ticks around."""
    steps = [mantissa * 10.0 ** power for power in range(-9, 13) for mantissa in (1, 2, 5)]
    below = [step for step in steps if step <= low * 1.0001]
    above = [step for step in steps if step >= high * 0.9999]
    low, high = below[-1] if below else low, above[0] if above else high
    return (low / 2, high * 2) if low == high else (low, high)


def log_ticks(low, high):
    wide = math.log10(high / low) > 3.2
    return [mantissa * 10.0 ** power for power in range(-9, 13)
            for mantissa in ((1,) if wide else (1, 2, 5))
            if low * 0.9999 <= mantissa * 10.0 ** power <= high * 1.0001]


def linear_ticks(low, high, count=4):
    span = (high - low) / count
    power = 10.0 ** math.floor(math.log10(span))
    step = next(mantissa * power for mantissa in (1, 2, 2.5, 5, 10) if mantissa * power >= span)
    first = math.ceil(low / step)
    return [index * step for index in range(first, math.floor(high / step * 1.0001) + 1)]


def compact(value):
    """12000 → 12k; six digits fit no axis."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return "%g%s" % (round(value / size, 3), unit)
    return "%g" % round(value, 6)


def number(value):
    """For an attribute. What is not finite would draw nothing, in silence."""
    if not math.isfinite(value):
        raise ValueError("not a place in a chart: %r" % value)
    return "%g" % round(value, 2)


def element(name, content="", **attributes):
    """`class_` is class, and other underscores are hyphens; numbers have to be finite."""
    text = "".join(
        " %s=%s" % (key.rstrip("_").replace("_", "-"),
                    quoteattr(value if isinstance(value, str) else number(value)))
        for key, value in attributes.items() if value != "")
    return "<%s%s>%s</%s>" % (name, text, content, name) if content else "<%s%s/>" % (name, text)


def text(x, y, words, **attributes):
    return element("text", escape(words), x=x, y=y, **attributes)


def line(x1, y1, x2, y2, css):
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=css)


def title(words):
    return "<title>%s</title>" % escape(words)


def frame(height, name, description, content, ident):
    """The picture with its name and what it shows in words."""
    return element(
        "svg", '<title id="%s-t">%s</title><desc id="%s-d">%s</desc>%s' % (
            ident, escape(name), ident, escape(description), content),
        viewBox="0 0 %d %s" % (WIDTH, number(height)), role="img",
        aria_labelledby="%s-t %s-d" % (ident, ident))


def marker(style, x, y, radius=3.2):
    """A shape per series: colour alone is not for everybody."""
    css = "mark hollow" if style.hollow else "mark"
    if style.marker == "circle":
        return element("circle", cx=x, cy=y, r=radius, class_=css)
    r = radius * 1.15
    shapes = {
        "square": ((-r, -r), (r, -r), (r, r), (-r, r)),
        "up": ((0, -r), (r, r), (-r, r)),
        "down": ((0, r), (r, -r), (-r, -r)),
        "diamond": ((0, -r * 1.25), (r * 1.25, 0), (0, r * 1.25), (-r * 1.25, 0)),
        "plus": ((-1, -r), (1, -r), (1, -1), (r, -1), (r, 1), (1, 1), (1, r), (-1, r), (-1, 1),
                 (-r, 1), (-r, -1), (-1, -1)),
    }
    places = " ".join("%s,%s" % (number(x + dx), number(y + dy)) for dx, dy in shapes[style.marker])
    return element("polygon", points=places, class_=css)


def bars(bars_, label, name, description, ident, goal=None):
    """Horizontal bars from zero, a name on the left, the value on the right, p10–p90 as whiskers.

    `goal` is a value and its words; it becomes a line through all bars.
    """
    left, top, step = 132, 22 if goal else 6, 21
    right = 14 + 6.3 * max([6, *(len(bar.text) for bar in bars_)])
    ends = [max(sum(bar.parts), *bar.spread) if bar.spread else sum(bar.parts) for bar in bars_]
    axis = Axis(label).fit([0, *ends, *([goal[0]] if goal else [])])
    width, bottom = WIDTH - left - right, top + step * len(bars_)

    def place(value):
        return left + width * axis.at(value)

    out = []
    for tick, words in axis.ticks.items():
        out += [line(place(tick), top, place(tick), bottom, "grid"),
                text(place(tick), bottom + 13, words, class_="tick", text_anchor="middle")]
    out.append(text(left + width / 2, bottom + 27, label, class_="axis", text_anchor="middle"))
    for index, bar in enumerate(bars_):
        out.append(_bar(bar, top + step * index, place, axis))
    out.append(line(place(0), top, place(0), bottom, "base"))
    if goal:
        x = place(goal[0])
        out += [line(x, top - 4, x, bottom, "goal"),
                text(min(max(x, left + 30), WIDTH - 62), top - 9, goal[1], class_="goal-text",
                     text_anchor="middle")]
    return frame(bottom + 34, name, description, "".join(out), ident)


def _bar(bar, y, place, axis):
    middle, out = y + 10.5, [title(bar.title)]
    css = "name strong" if bar.style.strong else "name"
    out += [text(126, middle + 4, bar.style.name, class_=css, text_anchor="end")]
    at = 0.0
    for index, part in enumerate(bar.parts):
        start, end = place(at), place(at + part)
        if end > start:
            shape = "bar part%d" % index + (" hollow" if bar.style.hollow else "")
            out.append(element("rect", x=start, y=y + 3.5, width=end - start, height=14,
                               rx=1.5, class_=shape))
        at += part
    if bar.spread and bar.spread[1] > bar.spread[0]:
        low, high = (place(max(axis.low, value)) for value in bar.spread)
        # The halo keeps it visible on a bar of its own colour.
        for css in ("halo", "whisker"):
            out += [line(low, middle, high, middle, css),
                    line(low, middle - 3.5, low, middle + 3.5, css),
                    line(high, middle - 3.5, high, middle + 3.5, css)]
    out.append(text(WIDTH - 2, middle + 4, bar.text, class_="value strong" if bar.style.strong
                    else "value", text_anchor="end"))
    out.append(element("rect", x=0, y=y, width=WIDTH, height=21, class_="hit"))
    return element("g", "".join(out), class_="series " + bar.style.css, data_target=bar.style.name)


def lines(series, x_axis, y_axis, name, description, ident, height=240):
    """Lines with markers; whiskers where a point has a spread. The strong are drawn last."""
    left, right, top, bottom = 44, 14, 24, height - 38
    points = [point for one in series for point in one.points]
    x_axis.fit([point.x for point in points])
    y_axis.fit([value for point in points for value in (point.y, *point.spread)])

    def place_x(value):
        return left + (WIDTH - left - right) * x_axis.at(value)

    def place_y(value):
        return bottom - (bottom - top) * y_axis.at(value)

    out = [text(4, 11, y_axis.label, class_="axis")]
    for tick, words in y_axis.ticks.items():
        y = place_y(tick)
        out += [line(left, y, WIDTH - right, y, "base" if tick == 0 else "grid"),
                text(left - 6, y + 3.5, words, class_="tick", text_anchor="end")]
    for tick, words in x_axis.ticks.items():
        x = place_x(tick)
        out += [line(x, top, x, bottom, "grid"),
                text(x, bottom + 14, words, class_="tick", text_anchor="middle")]
    out.append(text((left + WIDTH - right) / 2, bottom + 31, x_axis.label, class_="axis",
                    text_anchor="middle"))
    for one in sorted(series, key=lambda one: one.style.strong):
        out.append(_line(one, place_x, place_y))
    return frame(height, name, description, "".join(out), ident)


def _line(one, place_x, place_y):
    places = [(place_x(point.x), place_y(point.y)) for point in one.points]
    out = []
    if len(places) > 1:
        path = "M" + "L".join("%s %s" % (number(x), number(y)) for x, y in places)
        out.append(element("path", d=path, class_="line", stroke_dasharray=one.style.dash))
    for point, (x, y) in zip(one.points, places):
        if point.bare:
            continue
        marks = [title("%s, %s" % (one.style.name, point.title))]
        if point.spread and point.spread[1] > point.spread[0]:
            low, high = (place_y(value) for value in point.spread)
            marks.append(line(x, low, x, high, "whisker thin"))
        marks += [marker(one.style, x, y), element("circle", cx=x, cy=y, r=9, class_="hit")]
        out.append(element("g", "".join(marks), class_="point"))
    css = "series %s%s" % (one.style.css, " strong" if one.style.strong else "")
    return element("g", "".join(out), class_=css, data_target=one.style.name)


def sample(style):
    """A piece of a legend."""
    content = element("path", d="M1 7L27 7", class_="line", stroke_dasharray=style.dash)
    return element("svg", content + marker(style, 14, 7, 3.6), viewBox="0 0 28 14", width=28,
                   height=14, aria_hidden="true", class_="series sample " + style.css + (
                       " strong" if style.strong else ""))
