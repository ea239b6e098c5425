#!/usr/bin/env python3
"""How many system calls does a byte cost, and a message, and which of them move nothing?"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
from note import attempt, median  # noqa: E402
from variants import (Comparison, Failure, Haproxy, Nginx, Variant, build,  # noqa: E402
                      long_block)

ROWS = "bulk1-up,bulk16-up,bulk16-down,echo64,echo64x100,echo16kx100,upgrades"
CALLS = """splice recvfrom recvmsg readv sendto sendmsg writev epoll_wait epoll_pwait epoll_ctl
    io_uring_enter getsockopt setsockopt getsockname getpeername ioctl fcntl pipe2 accept4 socket
    connect shutdown close""".split()
# The calls that can say that there is nothing to do.
PROBES = "splice recvfrom recvmsg sendto sendmsg accept4".split()
EVENTS = Path("/sys/kernel/tracing/events/syscalls")
MIB = 1 << 20


class Perf:
    """Counts in the kernel, by tracepoints: the program keeps its pace."""

    name = "perf stat"

    def __init__(self, pids):
        self.plan = [("all", "raw_syscalls:sys_enter", None)]
        self.plan += [(call, "syscalls:sys_enter_" + call, None) for call in CALLS]
        self.plan += [(call + ": EAGAIN", "syscalls:sys_exit_" + call, "ret == -11")
                      for call in PROBES]
        argv = ["perf", "stat", "-x", ";"]
        for _, event, condition in self.plan:
            argv += ["-e", event, *(["--filter", condition] if condition else [])]
        tasks = sum(len(os.listdir("/proc/%d/task" % pid)) for pid in pids)
        self.process = subprocess.Popen([*argv, "-p", ",".join(map(str, pids))],
                                        stderr=subprocess.PIPE, text=True)
        wait_until(lambda: self.attached() >= tasks * len(self.plan), "perf has attached")

    def attached(self):
        links = list(Path("/proc/%d/fd" % self.process.pid).iterdir())
        return sum("perf_event" in str(attempt(os.readlink, link)) for link in links)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=20)
        values = [line.split(";")[0] for line in said.splitlines() if line.count(";") > 3]
        if len(values) != len(self.plan):
            raise Failure("perf said: " + said.strip()[:200])
        return {name: int(value) for (name, *_), value in zip(self.plan, values)}


class Strace:
    """Counts where perf may not: each call stops the program, so that batches differ."""

    name = "strace -c"

    def __init__(self, pids):
        argv = ["strace", "-f", "-q", "-c", "-U", "name,calls,errors"]
        for pid in pids:
            argv += ["-p", str(pid)]
        self.process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: all(traced(pid) for pid in pids), "strace has attached")

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=20)
        counts = {}
        for line in said.splitlines():
            if found := re.fullmatch(r"(\w+) +(\d+) *(\d*)", line.strip()):
                name, calls, errors = found[1], int(found[2]), int(found[3] or 0)
                counts["all" if name == "total" else name] = calls
                if name in PROBES:
                    counts[name + ": EAGAIN"] = errors
        return counts


def traced(pid):
    return all("TracerPid:\t0" not in (task / "status").read_text()
               for task in Path("/proc/%d/task" % pid).iterdir())


def wait_until(condition, what):
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            raise Failure("waited in vain until " + what)
        time.sleep(0.01)


class Counting(Comparison):
    """Counts calls beside the units of a load; the handshakes of its sessions are in it."""

    def __init__(self, counter, *arguments):
        super().__init__(*arguments)
        self.counter = counter

    def load(self, variant, row):
        counting = self.counter(variant.pids)
        try:
            item = super().load(variant, row)
        finally:
            counts = counting.stop()
        # Counts bear a busy neighbour; attaching takes longer than the load.
        per_unit = {name: count / item["units"] for name, count in counts.items()}
        return dict(item, waited=0.0, counts=per_unit)

    def per(self, row, name, call):
        """The median count per MiB, message or upgrade."""
        scale = MIB if row.workload.startswith("bulk") else 0.5 if row.workload == "echo" else 1
        found = [item["counts"].get(call, 0) for item in self.found[row.name].get(name, ())
                 if "error" not in item]
        return median(found) * scale if found else None


def shown(value):
    return "%12s" % ("–" if value is None else "" if value < 0.005 else "%.2f" % value)


def table(block, found, row):
    names = [variant.name for variant in found.variants]
    of = "MiB" if row.workload.startswith("bulk") else (
        "message" if row.workload == "echo" else "upgrade")
    block.say()
    block.say("%-26s %s" % (row.name + ", per " + of, " ".join("%12s" % name for name in names)))
    calls = ["all", *CALLS, *(call + ": EAGAIN" for call in PROBES)]
    lines = {call: [found.per(row, name, call) for name in names] for call in calls}
    for call in sorted(calls, key=lambda call: (call != "all", call)):
        if any(value and value >= 0.005 for value in lines[call]):
            block.say("  %-24s %s" % (call, " ".join(map(shown, lines[call]))))
    idle = [sum(found.per(row, name, call + ": EAGAIN") or 0 for call in PROBES) for name in names]
    block.say("  %-24s %s" % ("moved nothing", " ".join(map(shown, idle))))


def counter():
    """The best counter that there is, or nothing."""
    if shutil.which("perf") and (EVENTS / "sys_enter_splice").exists():
        tried = subprocess.run(["perf", "stat", "-e", "syscalls:sys_enter_splice", "true"],
                               capture_output=True, check=False)
        if tried.returncode == 0:
            return Perf
    return Strace if shutil.which("strace") else None


block = long_block("0014")
block.options.rounds = block.options.rounds or 2
how = counter()
if how is None:
    block.say("SKIPPED: neither perf nor strace can count here")
    sys.exit(0)
binary = os.environ.get("UPSPLICE") or build()
found = Counting(how, block.options, [
    Variant("splice", binary), Variant("copy", binary, "copy"),
    Haproxy("ha-splice", splice=("request", "response")),
    Haproxy("ha-splice-1m", splice=("request", "response"), tune="tune.pipesize 1048576"),
    Haproxy("haproxy"),
    Nginx("nginx")], ROWS).run()
block.say("counted by %s; %d rounds of %.1f s, medians" % (how.name, found.rounds, found.seconds))
block.say("splice, copy: upsplice's engines; ha-: HAProxy that splices, pipes of 64 KiB and 1 MiB")
for line in found.rows:
    table(block, found, line)
block.say()
shares = {}
for line in found.rows:
    ours, theirs = (found.per(line, name, "all") for name in ("splice", "ha-splice"))
    if ours and theirs:
        shares[line.name] = ours / theirs
        block.say("%-12s engine splice makes %.2f times the calls of ha-splice" % (
            line.name, ours / theirs))
block.claim(all(share < 0.6 for name, share in shares.items() if name.startswith("bulk")),
            "In bulk engine splice makes about half the calls of HAProxy's splice, or far fewer.")
block.claim(all(share < 1 for name, share in shares.items() if name.startswith("echo")),
            "For a message it makes fewer, too: HAProxy probes twice.")
block.finish()
