"""Which colour, marker and dash a target has in the report, everywhere the same."""

from svg import MARKERS, Style

# Families of peers, by what their names begin with; each has a muted colour of its own.
FAMILIES = ("upsplice", "haproxy", "nginx", "caddy", "http2-proxy", "messages")
OURS_MAX = 6
DASHES = {"peer": "", "tuned": "2 3", "direct": "7 4"}


def looks(run):
    """Target → style. The shipped target of ours is the strongest."""
    styles, ours, members = {}, 0, {}
    for name, kind in run.targets.items():
        if kind == "direct":
            styles[name] = Style("direct", name, "plus", DASHES["direct"])
        elif kind == "ours":
            is_shipped = name == run.shipped
            css = "ours-0" if is_shipped else "ours-%d" % (1 + ours % (OURS_MAX - 1))
            ours += not is_shipped
            marker = "circle" if is_shipped else MARKERS[1 + ours % 4]
            styles[name] = Style(css, name, marker, strong=is_shipped)
        else:
            family = next((known for known in FAMILIES if name.startswith(known)), "other")
            place = members[family] = members.get(family, 0) + 1
            tint = " m%d" % min(place, 4) if place > 1 else ""
            styles[name] = Style(family + tint, name, MARKERS[(place - 1) % 5],
                                 DASHES.get(kind, ""), hollow=kind == "tuned")
    # Ours first: people look for it.
    order = {"ours": 0, "direct": 1}
    first = sorted(styles, key=lambda name: (name != run.shipped,
                                             order.get(run.targets[name], 2)))
    return {name: styles[name] for name in first}
