"""The kernel note: the whole table, its sums, and how it was made."""

import datetime
import pathlib
import platform
import re

from proxies import REPO
from runner import FAIL, PASS, SKIP

SUBJECTS = {
    "U1": "bytes before the 101",
    "U2": "answers that are no 101",
    "U3": "a 101 nobody asked for",
    "U4": "what makes a WebSocket handshake",
    "U5": "version and key",
    "U6": "which upgrades pass at all",
    "U7": "how a refusal ends",
    "U8": "interim answers, framing in a 101",
    "U9": "head data",
    "U10": "half-close and reset",
    "H1": "Content-Length and Transfer-Encoding",
    "H2": "syntax of heads",
    "H3": "Host",
    "H4": "hop-by-hop fields",
    "H5": "forwarding fields",
    "H6": "paths",
}


def note_path(wanted):
    """The path asked for, or the note of an earlier run, or the next free number."""
    if wanted:
        return pathlib.Path(wanted)
    folder = REPO / "kernel-notes"
    earlier = sorted(folder.glob("[0-9]*-conformance-beside-peers.md"))
    if earlier:
        return earlier[-1]
    taken = [
        int(found.group())
        for name in folder.glob("*.md")
        if (found := re.match(r"\d{4}", name.name))
    ]
    return folder / f"{max(taken, default=0) + 1:04d}-conformance-beside-peers.md"


def tally(cases, results, keep):
    """(passed, failed) of the cases that `keep` takes."""
    verdicts = [results[case.name].verdict for case in cases if keep(case) and case.name in results]
    return verdicts.count(PASS), verdicts.count(FAIL)


def share(passed, failed):
    return f"{passed} of {passed + failed}" if passed + failed else "-"


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "| --- " * len(header) + "|"]
    return "\n".join(lines + ["| " + " | ".join(cells) + " |" for cells in rows])


def summary(cases, columns):
    """One row per rule, one column per proxy, and the sums by where the expectation comes from."""
    rows = []
    for rule, subject in SUBJECTS.items():
        cells = [
            share(*tally(cases, results, lambda case: case.rule == rule)) for _, results in columns
        ]
        if any(case.rule == rule for case in cases):
            rows.append([f"{rule} {subject}", *cells])
    for title, keep in {
        "**all an RFC demands**": lambda case: case.must,
        "**all that is our policy**": lambda case: not case.must,
    }.items():
        rows.append([title, *[share(*tally(cases, results, keep)) for _, results in columns]])
    return table(["rule"] + [proxy.name for proxy, _ in columns], rows)


def cell(result):
    text = result.observed.replace("|", "\\|").replace("<", "&lt;")
    if result.verdict == FAIL:
        return f"**fail**: {text}"
    return f"n.a.: {text}" if result.verdict == SKIP else text


def detail(cases, columns):
    rows = []
    for case in cases:
        cells = [
            cell(results[case.name]) if case.name in results else "-" for _, results in columns
        ]
        rows.append([case.name, case.expects.replace("|", "\\|"), case.basis, *cells])
    return table(["case", "expected", "basis"] + [proxy.name for proxy, _ in columns], rows)


def outlook(cases, columns):
    """The hurried reader's lines: what each proxy fails of the RFCs' demands."""
    lines = []
    for proxy, results in columns:
        if not results:
            lines.append(f"- {proxy.name}: not run ({proxy.version})")
            continue
        must, policy = (
            tally(cases, results, lambda case: case.must is kind) for kind in (True, False)
        )
        lines.append(
            f"- {proxy.name}: {share(*must)} demands of RFCs, {share(*policy)} of our policy"
        )
    return "\n".join(lines)


def write(path, cases, columns, command):
    """Writes the note; its title carries the number of the file name."""
    number = re.match(r"\d{4}", path.name)
    title = f"{number.group()}. " if number else ""
    found = dict((proxy.name, proxy.version) for proxy, _ in columns)
    versions = "\n".join(f"    {name:12} {version}" for name, version in found.items())
    commit = re.search(r"commit (\S+)", found.get("upsplice", ""))
    text = NOTE.format(
        title=title,
        kernel=platform.release(),
        date=datetime.date.today().isoformat(),
        commit=commit.group(1) if commit else "not built",
        outlook=outlook(cases, columns),
        versions=versions,
        command=command,
        count=len(cases),
        summary=summary(cases, columns),
        detail=detail(cases, columns),
    )
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


NOTE = """\
# {title}How does the upgrade path behave beside its peers?

Status: holds. Kernels: {kernel}. Date: {date}. upsplice: {commit}.
Used by: `scripts/conformance`, which wrote this file; edit the script, not the note.

## Answer
{outlook}

"Policy" is upsplice's own rule where the RFCs leave a choice or bind the backend rather than the
proxy: a peer that fails such a row breaks no standard, it made another choice.

## Question
Does a tunnel open only when both sides have agreed to it, does every byte owed arrive once and in
order, does the end of one direction leave the other alone, and can a crooked head pass? And how
do proxies in common use answer?

## Method
    {command}

{count} cases over raw sockets. For each one the backend records every byte that reaches it and answers
by the script of the case; the client sends bytes no library would. Each proxy runs with the WebSocket
configuration its documentation recommends (`scripts/conformance.d/config/`), with forwarding
fields set as an edge sets them and with timers of 3 s, in several processes, one case at a time
on each. Every wait is bounded; a proxy that hangs fails with "timeout". One run, loopback, no
TLS.

{versions}

## Result
Cases passed, of those that apply:

{summary}

Every case, with what was seen; a cell without "fail" passed:

{detail}

## Decision
Every row that upsplice fails is a defect: `scripts/conformance` exits 1 for it, and CI runs
`scripts/conformance --smoke`. The peers' rows change nothing here; they say what users will meet
elsewhere.

## Not covered, and what would change the answer
TLS, HTTP/2 and HTTP/3 towards the client, ordinary requests with bodies, pools of warm
connections, slow and very large heads. Other versions of the peers: these are the ones this
distribution packages, and newer ones may have changed a row. Other configurations: an HAProxy ACL
or an nginx `map` can refuse h2c, for example. Three rows are races (U2.reset, U9.client-fin, U10.both):
a proxy that passes one did not lose it in ten turns, and may lose it in the next run.
"""
