#!/usr/bin/env python3
"""What hurts users of other gateways, and what shows that it does not hurt here?"""

import re
import sys

sys.dont_write_bytecode = True
from note import NOTES, ROOT, Block  # noqa: E402

block = Block("0031")
note = next(NOTES.glob("0031-*.md")).read_text()
rows = re.findall(r"(?m)^\| (\d+) \|.*\| ([^|]*) \|$", note)
files = [*ROOT.glob("tests/**/*.rs"), *ROOT.glob("src/**/*.rs")]
there = set()
for file in files:
    there |= set(re.findall(r"\bfn ([a-z0-9_]+)\(", file.read_text()))
tests, gone = 0, []
for number, shown in rows:
    named = re.findall(r"`([a-z0-9_]+)`", shown)
    tests += len(named)
    gone += ["%s: %s" % (number, name) for name in named if name not in there]
    notes = re.findall(r"note (\d{4})", shown)
    gone += ["%s: note %s" % (number, name) for name in notes if not list(NOTES.glob(name + "-*"))]
    if not named and not notes:
        gone.append("%s: nothing" % number)
block.say("%d pains, %d tests named" % (len(rows), tests))
for line in gone:
    block.say("  not there: " + line)
block.claim(len(rows) == 21 and not gone, "Every pain has its test, and every test is there.")
block.finish()
