"""Starting and ending the programs of a run, each on its cores and in its network."""

import ctypes
import os
import resource
import signal
import subprocess
from pathlib import Path

HARD_NOFILE = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
NOFILE = 1 << 20 if HARD_NOFILE == resource.RLIM_INFINITY else min(HARD_NOFILE, 1 << 20)
# HAProxy holds two descriptors per session and two per pipe, and refuses to start without them.
SESSIONS_MAX = min(40000, NOFILE // 3)
PIPES_MAX = min(4096, NOFILE // 10)
LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1


class Failure(Exception):
    """Something that spoils one measurement, not the run."""


def spawn(argv, cpus, network=None, **streams):
    """Starts a program on `cpus`, in `network` unless it is None, with as many descriptors as the
    hard limit allows. It ends when the lab does, even when that is killed."""

    def prepare():
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if network is not None:
            network.enter()
        os.sched_setaffinity(0, cpus)
        resource.setrlimit(resource.RLIMIT_NOFILE, (NOFILE, HARD_NOFILE))

    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, preexec_fn=prepare, **streams)


def stop_process(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def descendants(pid):
    """A program and all that it has started."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(") ", 1)[1].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for one in found:
        found.extend(parents.get(one, ()))
    return found


def first_line(argv):
    """The first line a program prints about its version, wherever it prints it."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return ((done.stdout + done.stderr).strip().splitlines() or ["unknown"])[0]
