"""The same cases by several ways to the same server, one of which is `direct`."""

import concurrent.futures

from report import table_of
from suite import GOOD, SHARD_SECONDS_MAX, family_of, in_order, run_cases


class Incomplete(Exception):
    """The suite did not run all cases."""


def run_all(program, ports, shards, cases, jobs, seconds=SHARD_SECONDS_MAX):
    """{way: {case: Verdict}}: all shards, the longest first, by every way, side by side."""
    results = {way: {} for way in ports}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running = {
            pool.submit(run_cases, program, port, [f"{shard}.*"], seconds): way
            for shard in shards
            for way, port in ports.items()
        }
        for shard in concurrent.futures.as_completed(running):
            results[running[shard]].update(shard.result())
    missing = {way: len(found) for way, found in results.items() if len(found) != cases}
    if missing:
        raise Incomplete(f"not {cases} cases: {missing}")
    return results


def difference(direct, through):
    """What the gateway changed: worse, close code, both or nothing."""
    found = set()
    if direct.behavior in GOOD and through.behavior not in GOOD:
        found.add("worse")
    if direct.code != through.code:
        found.add("close code")
    return found


def compare(program, ports, results):
    """{way: {case: differences}}, of those cases that differ again when they run alone."""
    confirmed = {way: {} for way in ports if way != "direct"}
    for way, differing in confirmed.items():
        for case in sorted(results["direct"], key=in_order):
            before, through = results["direct"][case], results[way][case]
            if not difference(before, through):
                continue
            again = [run_cases(program, ports[by], [case])[case] for by in ("direct", way)]
            found = difference(*again)
            verdict = "again" if found else "not again"
            first = f"direct {said(before)}, {way} {said(through)}"
            alone = f"direct {said(again[0])}, {way} {said(again[1])}"
            print(f"{case}: {first}; alone: {alone}: {verdict}")
            if found:
                differing[case] = found
    return confirmed


def said(verdict):
    """As short as it can be told."""
    return f"{verdict.behavior}/{verdict.code}"


def table(results, confirmed, families):
    """Good cases by family and way, and what differs; in Markdown."""
    head = ["family", "cases", *(f"good, {way}" for way in results)]
    rows = []
    for family in (*families, "all"):
        own = [case for case in results["direct"] if family in ("all", family_of(case))]
        good = [sum(found[case].behavior in GOOD for case in own) for found in results.values()]
        rows.append([family, len(own), *good, *(count(confirmed, kind, own) for kind in KINDS)])
    return table_of([*head, "worse", "close codes changed"], rows)


def count(confirmed, kind, cases):
    """How often the gateway did this to one of `cases`."""
    return sum(kind in found.get(case, ()) for found in confirmed.values() for case in cases)


KINDS = ("worse", "close code")
