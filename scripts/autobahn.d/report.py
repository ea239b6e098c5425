"""Tables, and the way into a kernel note."""

import datetime
import platform
import re
import subprocess

from harness import REPO


def markers(part):
    """What the lines of a part of a note stand between."""
    return f"<!-- {part}:begin -->", f"<!-- {part}:end -->"


def table_of(head, rows):
    """In Markdown: the first column is words, the others are numbers."""
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (head, rule, *rows))


def write_note(path, part, block):
    """Puts `block` between the markers of a note."""
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=REPO, capture_output=True, text=True
    ).stdout.strip()
    made = f"upsplice {revision}, Linux {platform.release()}, {datetime.date.today()}"
    begin, end = markers(part)
    text = re.sub(
        f"{begin}.*?{end}",
        lambda _: f"{begin}\n{made}\n\n{block}\n{end}",
        path.read_text(),
        flags=re.DOTALL,
    )
    path.write_text(text)
