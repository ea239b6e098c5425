"""What the notes about speed share: variants of upsplice, built or wrapped, compared in turn.

A variant is the program with a few lines of its source replaced, or with something preloaded. All
variants run every row of a round before the next round, each round starting with another one, and
each is compared with the first one of the same round: a ratio above 1 is better than the first. The
loads are the lab's (`benches/lab`), and so is the use of cores (`scripts/lab`).
"""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from note import ROOT, Block, median

sys.path.insert(0, str(ROOT / "scripts/lab.d"))
from peers import Haproxy, Nginx  # noqa: E402, F401
from processes import Failure, spawn, stop_process  # noqa: E402
from rows import parse_rows  # noqa: E402
from targets import Place, Upsplice  # noqa: E402

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
ROUNDS, ROUNDS_FOR_VERDICT = 7, 5
OPTIONS = [("--rounds", None, "how often each row runs on each variant [%d]" % ROUNDS),
           ("--seconds", 1.0, "length of one measurement [1]"),
           ("--rows", None, "other rows than the note's, as in scripts/lab"),
           ("--only", None, "only these variants, by name, after the first one"),
           ("--lock", Path(tempfile.gettempdir()) / "upsplice-lab.lock",
            "a file that is locked for the time of each row, so that runs do not meet")]
# Time that a proxy may have waited for its core before a measurement is repeated.
DISTURBED, ATTEMPTS = 0.1, 3
# The whole of a run that is left alone, building included.
RUN_SECONDS_MAX = 5400


class Variant(Upsplice):
    """upsplice with another binary, or with environment variables of its own."""

    def __init__(self, name, binary, engine="splice", **environment):
        super().__init__(name, binary, engine)
        self.variables = environment

    def environment(self):
        return self.variables


def long_block(number, more=()):
    """A block with these options, and the time that building and measuring take."""
    block = Block(number, [*OPTIONS, *more])
    signal.alarm(RUN_SECONDS_MAX)
    # Whoever ends a run early gets a block of what was measured until then.
    signal.signal(signal.SIGTERM, end_early)
    return block


def end_early(*_):
    # timeout(1) sends its signal twice: the second one would meet the cleaning up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


class NotApplicable(Exception):
    """The source has changed: a line that a variant replaces is not there any more."""


def build(changes=()):
    """The path of upsplice, optimised without LTO, with `changes` of (file, old, new) made."""
    home = TARGET / "note-variants"
    tree = home / "tree"
    tree.mkdir(parents=True, exist_ok=True)
    changed = {}
    for name, old, new in changes:
        text = changed.get(name) or (ROOT / name).read_text(encoding="utf-8")
        if text.count(old) != 1:
            raise NotApplicable("%s does not have one %r" % (name, old))
        changed[name] = text.replace(old, new)
    for name in ("Cargo.toml", "Cargo.lock", "src", "benches"):
        copy(ROOT / name, tree / name)
    for name, text in changed.items():
        (tree / name).write_text(text, encoding="utf-8")
    digest = hashlib.sha256()
    for path in sorted(path for path in tree.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(tree)).encode() + path.read_bytes())
    binary = home / digest.hexdigest()[:16]
    if not binary.exists():
        cargo(tree, home / "target")
        shutil.copy(home / "target/release/upsplice", binary)
    return str(binary)


def copy(source, destination):
    """Copies what differs, so that cargo finds as old what has not changed."""
    if source.is_dir():
        destination.mkdir(parents=True, exist_ok=True)
        wanted = {path.name for path in source.iterdir()}
        for path in [path for path in destination.iterdir() if path.name not in wanted]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in source.iterdir():
            copy(path, destination / path.name)
    elif not destination.exists() or destination.read_bytes() != source.read_bytes():
        destination.write_bytes(source.read_bytes())


def cargo(tree, target):
    environment = dict(os.environ, CARGO_TARGET_DIR=str(target), CARGO_PROFILE_RELEASE_LTO="off")
    argv = ["cargo", "build", "--quiet", "--locked", "--release", "--bin", "upsplice"]
    if subprocess.run(argv, cwd=tree, env=environment, check=False, timeout=1200).returncode:
        raise SystemExit("a variant does not build")


def load_program():
    """The lab's program of client and backend."""
    argv = ["cargo", "bench", "--quiet", "--bench", "lab", "--no-run", "--profile", "release",
            "--message-format", "json-render-diagnostics"]
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False,
                          env=dict(os.environ, CARGO_PROFILE_RELEASE_LTO="off"))
    found = [message["executable"] for message in map(json.loads, done.stdout.splitlines())
             if message.get("executable") and message["target"]["name"] == "lab"]
    if not found:
        raise SystemExit("benches/lab does not build")
    return found[-1]


class Comparison:
    """The backend, and what was measured so far: row → variant → one measurement per round."""

    def __init__(self, options, variants, rows, program=None):
        os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin"
        only = options.only and options.only.split(",")
        self.variants = [variant for place, variant in enumerate(variants)
                         if not (only and place and variant.name not in only)]
        self.rows = parse_rows(options.rows or rows, 0)
        self.rounds, self.seconds = int(options.rounds or ROUNDS), float(options.seconds)
        self.program, self.lock = program or load_program(), open(options.lock, "a")
        free = sorted(os.sched_getaffinity(0))
        self.proxy_cpu, others = {free[-1]}, free[:-1] or free
        self.one = {others[0]}, {others[min(1, len(others) - 1)]}
        self.many = set(others[:2]), set(others[1:3] or others)
        self.found = {row.name: {} for row in self.rows}

    def run(self, around=None):
        """Measures everything. `around(variant, row)`, a context manager, may watch one of them."""
        with tempfile.TemporaryDirectory() as directory:
            argv = [self.program, "backend", "--threads", "2"]
            backend = spawn(argv, self.many[1], stdout=subprocess.PIPE, text=True)
            try:
                self.backend = backend
                self.address = backend.stdout.readline().split()[-1]
                for turn in range(self.rounds):
                    for row in self.rows:
                        self.turn(Path(directory), turn, row)
            except KeyboardInterrupt:
                print("ended early", file=sys.stderr)
            finally:
                for variant in self.variants:
                    variant.stop()
                stop_process(backend)
        return self

    def turn(self, directory, turn, row):
        shift = turn % len(self.variants)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        try:
            for variant in self.variants[shift:] + self.variants[:shift]:
                missing = variant.missing()
                item = dict(error=missing) if missing else self.calmest(directory, variant, row)
                self.found[row.name].setdefault(variant.name, []).append(item)
                print("round %d  %-12s %-24s %s" % (turn + 1, row.name, variant.name, item),
                      file=sys.stderr)
        finally:
            fcntl.flock(self.lock, fcntl.LOCK_UN)

    def calmest(self, directory, variant, row):
        attempts = []
        for _ in range(ATTEMPTS):
            try:
                if row.workload == "upgrades":
                    # Ports in TIME_WAIT may be taken again after a second, as in scripts/lab.
                    time.sleep(1.2)
                if not variant.running():
                    variant.start(Place(directory, self.proxy_cpu, 1, None, "127.0.0.1",
                                        self.address, self.address))
                attempts.append(self.load(variant, row))
            except (Failure, OSError, subprocess.SubprocessError) as failure:
                variant.stop()
                return dict(error=str(failure))
            if attempts[-1]["waited"] < DISTURBED:
                break
        return min(attempts, key=lambda item: item["waited"])

    def load(self, variant, row):
        """One measurement: rate and CPU seconds per unit, of payload byte or round trip."""
        process = self.start(variant, row, self.seconds)
        try:
            said, complaint = process.communicate(timeout=self.seconds + 60)
        finally:
            stop_process(process)
        if process.returncode:
            raise Failure(" ".join(complaint.split()) or "the load generator failed")
        item = json.loads(said)
        return dict(rate=item["units"] / item["seconds"], cost=item["cpu_seconds"] / item["units"],
                    p50=item["p50_us"], p99=item["p99_us"], units=item["units"],
                    waited=item["wait_seconds"] / item["seconds"])

    def start(self, variant, row, seconds):
        """The load generator, at work for that long."""
        client_cpus, backend_cpus = self.one if row.sessions == 1 else self.many
        for task in os.listdir("/proc/%d/task" % self.backend.pid):
            os.sched_setaffinity(int(task), backend_cpus)
        options = dict(row.load_options(), to=variant.address, seconds=seconds,
                       pids=",".join(map(str, variant.pids)),
                       threads=min(row.sessions, len(client_cpus)))
        argv = [self.program, "load"]
        for key, value in options.items():
            argv += ["--" + key, str(value)]
        pipe = subprocess.PIPE
        return spawn(argv, client_cpus, stdout=pipe, stderr=pipe, text=True)

    def ratios(self, row, name, of):
        """How much better than the first variant, round by round; failures are left out."""
        pairs = zip(self.found[row].get(self.variants[0].name, ()), self.found[row].get(name, ()))
        return [better(first, other, of) for first, other in pairs
                if "error" not in first and "error" not in other]

    def print(self, block):
        """One table per row, into the note's block."""
        for row in self.rows:
            bulk = row.workload.startswith("bulk")
            one = row.workload == "echo" and row.sessions == 1
            block.say()
            block.say("%-32s %9s %21s %9s %21s" % (
                row.name, "p50 µs" if one else "GB/s" if bulk else "trips/s", "× first, p10–p90",
                "CPU s/GB" if bulk else "CPU µs", "× first, p10–p90"))
            for variant in self.variants:
                block.say("  %-30s %s" % (variant.name, self.line(row.name, variant, bulk, one)))

    def line(self, row, variant, bulk, one):
        found = self.found[row].get(variant.name) or [dict(error="not measured")]
        items = [item for item in found if "error" not in item]
        if not items:
            return found[0]["error"]
        of = "p50" if one else "rate"
        speed = median([item[of] for item in items]) / (1e9 if bulk else 1)
        cost = median([item["cost"] for item in items]) * (1e9 if bulk else 1e6)
        digits = 2 if bulk else 0
        return "%9.*f %21s %9.*f %21s" % (
            digits, speed, spread(self.ratios(row, variant.name, of)), 3 if bulk else 1, cost,
            spread(self.ratios(row, variant.name, "cost")))

    def middles(self, name, of):
        """The median ratio of a variant in each row; 1 where nothing was measured."""
        return [median(self.ratios(row.name, name, of) or [1.0]) for row in self.rows]

    def beyond_spread(self, row, name, of):
        """1 better in nine rounds of ten, -1 worse in as many, else 0."""
        low, high = quantiles(self.ratios(row, name, of))
        return 1 if low > 1 else -1 if high < 1 else 0


class Waits(Comparison):
    """What a message waits for its turn."""

    beside = ""

    def print(self, block):
        for row in self.rows:
            block.say()
            block.say("%-32s %9s %9s %21s" % (
                row.name + self.beside, "p50 µs", "p99 µs", "× first, p10–p90"))
            for variant in self.variants:
                found = self.found[row.name].get(variant.name, ())
                items = [item for item in found if "error" not in item]
                if items:
                    block.say("  %-30s %9.0f %9.0f %21s" % (
                        variant.name, median([item["p50"] for item in items]),
                        median([item["p99"] for item in items]),
                        spread(self.ratios(row.name, variant.name, "p99"))))


class BesideBulk(Waits):
    """The same, while sixteen other sessions keep the worker busy with bulk."""

    beside = " beside bulk16-up"

    def load(self, variant, row):
        [bulk] = parse_rows("bulk16-up", 0)
        busy = self.start(variant, bulk, self.seconds + 1)
        try:
            # Until the sixteen have filled their buffers.
            time.sleep(0.3)
            return super().load(variant, row)
        finally:
            stop_process(busy)


def better(first, other, of):
    return other[of] / first[of] if of == "rate" else first[of] / other[of]


def quantiles(values):
    ordered = sorted(values) or [1.0]
    last = len(ordered) - 1
    return ordered[round(0.1 * last)], ordered[round(0.9 * last)]


def spread(values):
    if not values:
        return ""
    return "%.2f (%.2f–%.2f)" % (median(values), *quantiles(values))


def winners(block, comparison, of="cost"):
    """Says which variants are better or worse than the first beyond the spread, row by row."""
    if comparison.rounds < ROUNDS_FOR_VERDICT:
        block.say("too few rounds to tell better from worse: %d" % comparison.rounds)
        return
    for row in comparison.rows:
        for word, sign in (("cheaper", 1), ("dearer", -1)):
            names = ["%s %.2f" % (name, median(comparison.ratios(row.name, name, of)))
                     for name in comparison.found[row.name]
                     if comparison.beyond_spread(row.name, name, of) == sign]
            if names:
                block.say("%s, %s beyond the spread: %s" % (row.name, word, ", ".join(names)))
