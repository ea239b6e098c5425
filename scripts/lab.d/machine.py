"""Where a run took place, as far as it decides the numbers. No names of hosts or users."""

import os
import platform
import subprocess
from pathlib import Path

SETTINGS = """
    kernel/sched_autogroup_enabled
    fs/pipe-max-size fs/pipe-user-pages-soft
    net/core/somaxconn net/core/rmem_max net/core/wmem_max
    net/ipv4/tcp_rmem net/ipv4/tcp_wmem net/ipv4/tcp_congestion_control
    net/ipv4/tcp_tw_reuse net/ipv4/ip_local_port_range
"""


def read(path):
    try:
        return " ".join(Path(path).read_text().split())
    except OSError:
        return None


def cpu_info(key):
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(key):
            return line.split(":", 1)[1].strip()
    return None


def facts(root):
    governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu": cpu_info("model name"),
        "cpus": os.cpu_count(),
        "virtual": "hypervisor" in (cpu_info("flags") or ""),
        "governor": governor,
        "memory": read("/proc/meminfo").split()[1] + " kB",
        "link": "loopback",
        "load_at_start": os.getloadavg()[0],
        "settings": {name: read("/proc/sys/" + name) for name in SETTINGS.split()},
        "commit": commit(root),
    }


def commit(root):
    """The commit that is checked out, with a mark when the tree differs from it."""

    def git(*arguments):
        argv = ["git", "-C", str(root), *arguments]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return (git("rev-parse", "--short=10", "HEAD") or "unknown") + ("+changes" if changed else "")


def summary(found):
    """One line for a table's head."""
    kind = "virtual CPUs" if found["virtual"] else "CPUs"
    return "%d %s (%s), Linux %s, %s" % (
        found["cpus"], kind, found["cpu"], found["kernel"], found["link"]
    )
