"""A run that nobody measured: every workload, shape and kind of target, with gaps and failures.

For checks of the report, and to look at it. The numbers follow a formula and mean nothing.
"""

import csv
import json
import math
import random
from pathlib import Path

KINDS = {
    "direct": "direct", "upsplice-auto": "ours", "upsplice-splice": "ours",
    "upsplice-copy": "ours", "upsplice-ring": "ours", "upsplice-busy": "ours", "haproxy": "peer",
    "haproxy-splice": "peer", "haproxy-splice-auto": "peer", "haproxy-splice-1m": "tuned",
    "nginx": "peer", "nginx-64k": "tuned", "caddy": "peer", "http2-proxy": "peer",
    "messages": "peer", "upsplice-inspect": "inspect", "upsplice-payload": "inspect",
    "absent": "peer",
}
# How fast each is: with large frames, with small ones.
SPEED = {
    "direct": (4.0, 3.0), "upsplice-auto": (2.4, 0.93), "upsplice-splice": (2.4, 0.85),
    "upsplice-copy": (1.0, 1.05), "upsplice-ring": (1.2, 1.2), "upsplice-busy": (2.5, 1.3),
    "haproxy": (1.0, 1.0), "haproxy-splice": (1.7, 0.9), "haproxy-splice-auto": (1.6, 0.95),
    "haproxy-splice-1m": (2.1, 0.9), "nginx": (0.9, 1.0), "nginx-64k": (1.1, 0.98),
    "caddy": (0.5, 0.4), "http2-proxy": (0.4, 0.3), "messages": (0.45, 0.35), "absent": (1, 1),
    "upsplice-inspect": (2.0, 0.9), "upsplice-payload": (0.7, 0.8),
}
MEMORY = {"upsplice-ring": 1.4, "upsplice-copy": 0.97, "haproxy": 4.7, "haproxy-splice": 4.8,
          "nginx": 17.6, "nginx-64k": 17.9, "caddy": 72.0, "http2-proxy": 15.0, "messages": 30.0}
# Name, workload, sessions, frame size, messages per second.
ROWS = [
    *[("bulk%d-%s" % (count, way), "bulk-" + way, count, 65536, None)
      for count in (1, 16) for way in ("up", "down", "both")],
    *[("bulk1-up-%dk" % size, "bulk-up", 1, 1024 * size, None) for size in (1, 1024)],
    *[("echo%dx%d" % (size, count), "echo", count, size, None)
      for size in (64, 1024, 16384, 131072) for count in (1, 10, 100)],
    *[("open64x100@%dk" % rate, "echo-open", 100, 64, 1000 * rate) for rate in (1, 5, 20)],
    ("upgrades", "upgrades", 32, 64, None), ("idle", "idle", 5000, 64, None),
    ("idle16k", "idle", 5000, 16384, None), ("crowd", "crowd", 2010, 64, None),
    ("slow", "slow-readers", 30, 64, None), ("mixed", "mixed", 30, 64, None),
    ("later", "of-a-later-version", 8, 64, None),
]
SHAPES = {"loopback": 1.0, "veth": 0.8, "veth-plain": 0.3}
WORKERS_MAX = 4
COLUMNS = """round row target workload sessions size units seconds cpu_seconds wait_seconds p50_us
             p90_us p99_us p999_us p9999_us max_us rate_wanted latencies pss_before pss_after
             kernel_before kernel_after machine_cpu_seconds
             load_busy shape workers load_average attempts
             more proof error""".split()
# What lines of an earlier version have.
FIRST_COLUMNS = """round row target workload sessions size units seconds cpu_seconds wait_seconds
                   p50_us p99_us p999_us pss_before pss_after load_average attempts proof
                   error""".split()
QUANTILES = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999)


def write(directory, rounds=5, columns=None, kinds=None, shapes=None, rows=None):
    """Fills a directory with a run."""
    directory, chance = Path(directory), random.Random(7)
    directory.mkdir(parents=True, exist_ok=True)
    kinds, columns = kinds or KINDS, columns or COLUMNS
    rows = [row for row in ROWS if rows is None or row[0] in rows]
    facts = {
        "kernel": "6.18.0", "architecture": "x86_64", "cpu": "A processor", "cpus": 4,
        "virtual": True, "governor": None, "memory": "16000000 kB", "link": "loopback",
        "load_at_start": 0.1, "settings": {"fs/pipe-max-size": "1048576"}, "commit": "0123456789",
        "date": "2026-01-31", "summary": "4 CPUs (A processor), Linux 6.18.0, <synthetic> & such",
        "subject": "upsplice 0123456789, release build",
        "flags": {"rounds": rounds, "seconds": 2.0, "rows": ",".join(row[0] for row in rows),
                  "targets": ",".join(kinds), "idle_sessions": 5000, "settle": 2.0, "again": 2,
                  "profile": "release"},
        "versions": {name: name + " 1.2.3" for name in kinds}, "kinds": kinds,
    }
    (directory / "machine.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    with open(directory / "raw.csv", "w", newline="", encoding="utf-8") as file:
        raw = csv.DictWriter(file, columns, extrasaction="ignore")
        raw.writeheader()
        for turn in range(1, rounds + 1):
            for row in rows:
                for place in places(row, shapes or SHAPES):
                    for target in kinds:
                        raw.writerow(line(chance, turn, row, place, target))
    return directory


def places(row, shapes):
    """Shapes with one worker, and on the first of them more."""
    found = [(shape, 1) for shape in shapes]
    if row[0] in ("echo64x100", "bulk16-up"):
        found += [(next(iter(shapes)), workers) for workers in range(2, WORKERS_MAX + 1)]
    return found


def line(chance, turn, row, place, target):
    name, workload, sessions, size, rate = row
    shape, workers = place
    found = dict(round=turn, row=name, target=target, workload=workload, sessions=sessions,
                 size=size, shape=shape, workers=workers, load_average=0.5, attempts=1)
    if target == "absent":
        return dict(found, error="not installed")
    if name == "open64x100@20k" and target == "upsplice-auto":
        return dict(found, error="overloaded: 20000 per second wanted, 32 % answered in time")
    if workload == "of-a-later-version" and target == "caddy":
        return dict(found, error="did not start: /a/b/c: <no> \"such\" | flag")
    speed = SPEED[target][0 if size > 8192 else 1] * SHAPES.get(shape, 1)
    speed *= chance.gauss(1, 0.04) * workers ** 0.9
    bulk = workload.startswith("bulk")
    units = 2 * speed * (1.6e9 if bulk else 40000 / (1 + size / 32768) * sessions ** 0.1)
    units = {"idle": sessions, "echo-open": 2 * (rate or 0)}.get(workload, units)
    found.update(units=round(units), seconds=2.0, wait_seconds=max(0, chance.gauss(0, 0.12)),
                 cpu_seconds=0 if target == "direct" else 2 * (
                     workers if workload != "echo-open" else rate / 40000 / speed),
                 rate_wanted=rate, machine_cpu_seconds=5.0, more="{}",
                 load_busy=0.95 if target == "messages" else 0.4,
                 proof="splice 100 %" if "splice" in target else "")
    if not bulk and workload != "idle":
        found.update(times(sessions * 25 / speed ** 1.2 * (1 + (rate or 0) / 9000)))
    if workload in ("idle", "slow-readers"):
        each = MEMORY.get(target, 0.9) * chance.gauss(1, 0.01)
        found.update(pss_before=3e6, pss_after=3e6 + 1000 * each * sessions,
                     kernel_before=9e7, kernel_after=9e7 + sessions * (
                         7000 if target == "direct" else 13500 + 900 * each ** 0.5))
    return found


def times(middle):
    curve = [(at, round(middle * (0.7 + 0.45 * -math.log10(1 - at)) ** 1.3, 1))
             for at in QUANTILES]
    known = dict(curve)
    return dict(p50_us=known[0.5], p90_us=known[0.9], p99_us=known[0.99], p999_us=known[0.999],
                p9999_us=known[0.9999], max_us=known[0.9999] * 2, latencies=json.dumps(curve))
