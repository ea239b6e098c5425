"""What a gateway said of the sessions that it carried."""

import json

import harness


def joined_lines(gateway):
    """The lines of a stopped gateway's access log: all, and those of joined sessions."""
    lines = []
    while (text := gateway.out.get(timeout=harness.BOUND)) is not None:
        if text.startswith("{"):
            lines.append(json.loads(text))
    return lines, [line for line in lines if "engine" in line]
