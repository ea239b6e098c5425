"""The quick cases through each engine: the gateway may not change what an endpoint sees."""

import collections

import comparison
from access_log import joined_lines
from harness import Gateway, Server, node
from report import write_note
from suite import QUICK, QUICK_CASES

ENGINES = ("splice", "copy", "uring", "auto")
MARKER = "autobahn"
CARRIERS = ("bytes_splice", "bytes_copy", "bytes_uring")


def run(wanted, binary, program):
    """Whether all is as it has to be, and the closing line."""
    command, environment = node("ws_server.mjs", "--plain", "--quiet")
    server = Server(command, **environment)
    gateways = [Gateway(binary, engine, [("/", "websocket", server.port)]) for engine in ENGINES]
    ports = {"direct": server.port, **{gateway.engine: gateway.port for gateway in gateways}}
    # The longest family first.
    shards = sorted(QUICK, key=lambda family: family != "6")
    results = comparison.run_all(program, ports, shards, QUICK_CASES, wanted.jobs)
    confirmed = comparison.compare(program, ports, results)
    statuses = [gateway.stop() for gateway in gateways]
    told = [carried(gateway) for gateway in gateways]
    worse, codes = (
        comparison.count(confirmed, kind, results["direct"]) for kind in comparison.KINDS
    )
    closing = f"autobahn: {QUICK_CASES} cases x {len(ENGINES)} engines, "
    closing += f"{worse} worse, {codes} close codes changed"
    logged = "\n".join(line for line, _ in told)
    families = comparison.table(results, confirmed, QUICK)
    print(families, logged, sep="\n")
    if wanted.write_note:
        write_note(wanted.write_note, MARKER, f"{families}\n\n```\n{logged}\n{closing}\n```")
    fine = all(fine for _, fine in told)
    if not fine:
        print("autobahn: the access log does not show that each engine carried every case alone")
    if any(statuses):
        print(f"autobahn: a gateway ended with {statuses}")
        fine = False
    return fine and not worse and not codes, closing


def carried(gateway):
    """What the access log of a stopped gateway says, and whether that is as it should be."""
    lines, joined = joined_lines(gateway)
    names = (*CARRIERS, "bytes_in", "bytes_out", "bytes_discarded")
    total = {name: sum(line[name] for line in joined) for name in names}
    engines = collections.Counter(line["engine"] for line in joined)
    ends = collections.Counter(line["close_reason"] for line in lines)
    ended = ", ".join(f"{count} {reason}" for reason, count in sorted(ends.items()))
    told = f"{gateway.engine:7} sessions: {ended}\n        "
    told += ", ".join(f"{name} {total[name]}" for name in names)
    if gateway.engine == "auto":
        # What is small is copied, what is large spliced; which of the two a case ends with is its own.
        fine = total["bytes_splice"] > 0 and total["bytes_copy"] > 0
        return told, len(joined) >= QUICK_CASES and fine
    other = sum(total[name] for name in CARRIERS if name != "bytes_" + gateway.engine)
    alone = set(engines) == {gateway.engine} and other == 0
    return told, len(joined) >= QUICK_CASES and alone
