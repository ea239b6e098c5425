"""Mode inspect: what a peer may not send goes nowhere, and what it may send passes.

The suite judges an endpoint. Behind a gateway that inspects, an endpoint that validates nothing has
to do as well as one that does: only the gateway can have told the suite what was wrong. Seen from
the other side, so has a client that validates nothing."""

import collections
import subprocess

import comparison
import harness
from access_log import joined_lines
from harness import HERE, Gateway, Server, node
from report import table_of, write_note
from suite import (
    FULL,
    FULL_CASES,
    QUICK,
    QUICK_CASES,
    FuzzingServer,
    family_of,
    in_order,
    is_good,
    run_cases,
)

QUICK_MARKER, FULL_MARKER = "autobahn-inspect", "autobahn-inspect-full"
# Some parts of 9, 12 and 13 take minutes each in an interpreter.
FULL_SECONDS_MAX = 3000
# Cases of one client side by side; the suite is one interpreter.
SIDE_BY_SIDE = 6
# An endpoint that validates nothing cannot be good in more of the quick cases than this.
LAX_GOOD_MAX = 150
PAYLOAD = ('mode = "inspect"', 'inspect = "payload"')


def lax_server():
    return Server(["node", HERE / "lax_server.mjs"])


def inspecting(binary, port, *keys):
    """A gateway that reads every byte."""
    return Gateway(binary, "auto", [("/", "websocket", port)], keys=(*PAYLOAD, *keys))


def run_quick(wanted, binary, program):
    """Whether all is as it has to be, and the closing line."""
    found, told = {}, []
    for name, judge in (("lax server", judge_server), ("lax client", judge_client)):
        results, gateway, again = judge(binary, program, wanted.jobs)
        for case in sorted(results["inspect"], key=in_order):
            if not is_good(results["inspect"][case]):
                alone = again(case)
                print(f"{name}: {case}: inspect {results['inspect'][case]}, alone {alone}")
                results["inspect"][case] = alone
        found[name] = results
        told.append((name, *seen(gateway)))
    families = families_of(found)
    logged = "\n".join(
        f"{name}: {verdicts(found[name]['inspect'])}\n            {line}" for name, line, _ in told
    )
    good = [sum(map(is_good, results["inspect"].values())) for results in found.values()]
    closing = f"autobahn: inspect: {good[0]} of {QUICK_CASES} good before a lax server, "
    closing += f"{good[1]} of {QUICK_CASES} behind a lax client"
    print(families, logged, sep="\n")
    if wanted.write_note:
        write_note(wanted.write_note, QUICK_MARKER, f"{families}\n\n```\n{logged}\n{closing}\n```")
    fine = all(fine for _, _, fine in told)
    lax = all(
        sum(map(is_good, results["direct"].values())) <= LAX_GOOD_MAX for results in found.values()
    )
    if not lax:
        print("autobahn: the lax peers validate something")
    return fine and lax and good == [QUICK_CASES] * 2, closing


def judge_server(binary, program, jobs):
    """{way: {case: Verdict}} of a server that validates nothing, and the gateway."""
    server = lax_server()
    gateway = inspecting(binary, server.port)
    ports = {"direct": server.port, "inspect": gateway.port}
    shards = sorted(QUICK, key=lambda family: family != "6")
    results = comparison.run_all(program, ports, shards, QUICK_CASES, jobs)
    return results, gateway, lambda case: run_cases(program, gateway.port, [case])[case]


def judge_client(binary, program, _jobs):
    """The same of a client that validates nothing."""
    fuzzing = FuzzingServer(program, [f"{family}.*" for family in QUICK])
    gateway = inspecting(binary, fuzzing.port)
    for agent, port in (("direct", fuzzing.port), ("inspect", gateway.port)):
        run_client(port, fuzzing.port, agent)
    results = fuzzing.reports()
    fuzzing.stop()
    for way, cases in results.items():
        if len(cases) != QUICK_CASES:
            raise comparison.Incomplete(f"{way}: {len(cases)} of {QUICK_CASES} cases")
    return results, gateway, lambda case: client_alone(binary, program, case)


def client_alone(binary, program, case):
    """The verdict on one case of the client behind a gateway."""
    fuzzing = FuzzingServer(program, [case])
    gateway = inspecting(binary, fuzzing.port)
    run_client(gateway.port, fuzzing.port, "inspect")
    [(_, verdict)] = fuzzing.reports()["inspect"].items()
    gateway.stop()
    fuzzing.stop()
    return verdict


def run_client(port, suite_port, agent):
    command = ["node", HERE / "lax_client.mjs", port, f"127.0.0.1:{suite_port}", agent]
    subprocess.run(
        [str(word) for word in (*command, SIDE_BY_SIDE)],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=harness.BOUND * 10,
    )


def seen(gateway):
    """What the access log of a gateway says, and whether that is as it should be."""
    status = gateway.stop()
    _, joined = joined_lines(gateway)
    modes = collections.Counter(line["mode"] for line in joined)
    rules = collections.Counter(
        line["detail"] for line in joined if line["close_reason"] == "violation"
    )
    broken = ", ".join(f"{rule} {count}" for rule, count in sorted(rules.items()))
    told = f"{len(joined)} sessions, {sum(rules.values())} violations: {broken}"
    fine = status == 0 and set(modes) == {"inspect"} and len(joined) >= QUICK_CASES
    if not fine:
        print(f"autobahn: the gateway ended with {status}; modes {dict(modes)}")
    return told, fine


def verdicts(cases):
    """How often the suite said what."""
    counts = collections.Counter(verdict.behavior for verdict in cases.values())
    return ", ".join(f"{count} {word}" for word, count in counts.most_common())


def families_of(found):
    """Good cases by family, for each lax peer alone and with the gateway; in Markdown."""
    ways = [(name, way) for name in found for way in ("direct", "inspect")]
    titles = {"direct": "good, {} alone", "inspect": "good, {} and inspect"}
    head = ["family", "cases", *(titles[way].format(name) for name, way in ways)]
    rows = []
    for family in (*QUICK, "all"):
        row = []
        for name, way in ways:
            cases = found[name][way].items()
            own = [verdict for case, verdict in cases if family in ("all", family_of(case))]
            row.append(sum(map(is_good, own)))
        rows.append([family, len(own), *row])
    return table_of(head, rows)


def run_full(wanted, binary, program):
    """All cases in front of a server that compresses: none is worse than direct."""
    command, environment = node("ws_server.mjs", "--quiet")
    server = Server(command, **environment)
    gateway = inspecting(binary, server.port, 'deflate = "see_through"')
    ports = {"direct": server.port, "inspect": gateway.port}
    # What takes longest comes last in the list, and has to begin first.
    shards = FULL[::-1]
    results = comparison.run_all(
        program, ports, shards, FULL_CASES, wanted.jobs, FULL_SECONDS_MAX
    )
    confirmed = comparison.compare(program, ports, results)
    told, fine = seen(gateway)
    told = f"{verdicts(results['inspect'])}\n{told}"
    worse, codes = (
        comparison.count(confirmed, kind, results["direct"]) for kind in comparison.KINDS
    )
    families = comparison.table(results, confirmed, (*QUICK[:7], "9", "10", "12", "13"))
    closing = f"autobahn: inspect: {FULL_CASES} cases, "
    closing += f"{worse} worse, {codes} close codes changed"
    print(families, told, sep="\n")
    if wanted.write_note:
        write_note(wanted.write_note, FULL_MARKER, f"{families}\n\n```\n{told}\n{closing}\n```")
    return fine and not worse and not codes, closing
