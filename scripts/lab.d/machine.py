"""Where a run took place, as far as it decides the numbers. No names of hosts or users."""

import os
import platform
import resource
import subprocess
from pathlib import Path

from processes import first_line

SETTINGS = """
    kernel/sched_autogroup_enabled
    kernel/io_uring_disabled
    fs/pipe-max-size fs/pipe-user-pages-soft fs/pipe-user-pages-hard fs/nr_open
    net/core/somaxconn net/core/rmem_max net/core/wmem_max net/core/netdev_max_backlog
    net/core/netdev_budget net/core/busy_poll net/core/busy_read net/core/default_qdisc
    net/ipv4/tcp_rmem net/ipv4/tcp_wmem net/ipv4/tcp_mem net/ipv4/tcp_congestion_control
    net/ipv4/tcp_tw_reuse net/ipv4/ip_local_port_range net/ipv4/tcp_max_syn_backlog
    net/ipv4/tcp_autocorking net/ipv4/tcp_notsent_lowat
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
        "load_at_start": os.getloadavg()[0],
        "settings": {name: read("/proc/sys/" + name) for name in SETTINGS.split()},
        "mitigations": mitigations(),
        "limits": {"files": list(resource.getrlimit(resource.RLIMIT_NOFILE))},
        "tools": {"python": platform.python_version(), "rustc": first_line(["rustc", "--version"]),
                  "ip": first_line(["ip", "-V"])},
        "commit": commit(root),
    }


def mitigations():
    """What the kernel does about flaws of the processor: system calls cost more with some."""
    folder = Path("/sys/devices/system/cpu/vulnerabilities")
    found = {path.name: read(path) for path in sorted(folder.glob("*"))}
    return {name: text for name, text in found.items() if text and text != "Not affected"}


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
