"""A run while it goes on: who has which cores, what stands where, round after round."""

import json
import os
import subprocess
import time
from pathlib import Path

import report
from processes import Failure, spawn, stop_process
from rows import NESTED, NUMBERS
from targets import Place

# A proxy that waited this share of the time for its core has not been measured alone.
DISTURBED = 0.1
# What this program adds to a measurement: see `Watch`.
WATCHED = """machine_cpu_seconds machine_softirq_seconds proxy_core_seconds wire_packets
             wire_bytes""".split()
# Whatever else the load generator says goes into `more` as JSON.
COLUMNS = ["round", "row", "target", "shape", "workers", "workload", "sessions", "size", *NUMBERS,
           *WATCHED, "load_average", "attempts", "proof", "error", *NESTED, "more"]


class Cores:
    """Who runs where. The proxy shares its cores with nobody while one is left for the others."""

    def __init__(self, workers):
        free = sorted(os.sched_getaffinity(0))
        if workers > 1 and workers >= len(free):
            raise SystemExit("lab: %d workers need %d cores, one for client and backend; there are "
                             "%d" % (workers, workers + 1, len(free)))
        self.proxy, others = set(free[-workers:]), free[:-workers] or free
        # One session: an end that stays on its core saves migrations, which doubles the rate here.
        self.one = {others[0]}, {others[min(1, len(others) - 1)]}
        # Many sessions: two threads at each end; the middle one of three cores belongs to both.
        self.many = set(others[:2]), set(others[1:3] or others)

    def of(self, sessions):
        return self.one if sessions == 1 else self.many


class Watch:
    """What the whole machine does while the load generator runs, its start and the opening of its
    sessions included. On veth much work for the proxy is no time of its process: the kernel does
    it in soft interrupts, on the core of whoever sent the packet."""

    def __init__(self, shape, proxy_cores):
        self.shape, self.cores = shape, proxy_cores
        self.before = self.read()

    def read(self):
        tick, busy, soft, own = os.sysconf("SC_CLK_TCK"), 0, 0, 0
        for line in Path("/proc/stat").read_text().splitlines():
            name, *fields = line.split()
            if not name.startswith("cpu"):
                break
            # user nice system idle iowait irq softirq; what a host steals is not this machine's.
            numbers = [int(field) for field in fields[:7]]
            worked = sum(numbers) - numbers[3] - numbers[4]
            if name == "cpu":
                busy, soft = worked, numbers[6]
            elif int(name[3:]) in self.cores:
                own += worked
        return [busy / tick, soft / tick, own / tick, *(self.shape.wire() or ())]

    def result(self):
        spent = [round(after - before, 3) for before, after in zip(self.before, self.read())]
        return dict(zip(WATCHED, spent))


class Site:
    """A shape with a backend in it, and all targets of the run."""

    def __init__(self, shape, targets, program, directory, cores, workers):
        self.shape, self.targets, self.cores, self.workers = shape, targets, cores, workers
        self.program, self.directory = program, directory / shape.name
        self.missing, self.backend = shape.missing(), None

    def open(self):
        if self.missing:
            return
        try:
            self.shape.open()
        except (Failure, OSError) as failure:
            self.missing = str(failure)
            return
        argv = [self.program, "backend", "--threads", "2"]
        if self.shape.backend:
            argv += ["--listen", "0.0.0.0:0"]
        self.backend = spawn(argv, self.cores.many[1], self.shape.backend, stdout=subprocess.PIPE,
                             text=True)
        port = self.backend.stdout.readline().rsplit(":", 1)[-1].strip()
        self.place = Place(self.directory, self.cores.proxy, self.workers, self.shape.proxy,
                           self.shape.proxy_host, "%s:%s" % (self.shape.backend_host, port),
                           "%s:%s" % (self.shape.direct_host, port))

    def close(self):
        for target in self.targets:
            target.stop()
        if self.backend:
            stop_process(self.backend)
            self.shape.close()


class Lab:
    """A run: its sites, one per shape, and how a measurement is made."""

    def __init__(self, options, sites, cores):
        self.options, self.sites, self.cores = options, sites, cores

    def __enter__(self):
        for site in self.sites:
            site.open()
        return self

    def __exit__(self, *_):
        for site in self.sites:
            site.close()

    def run(self, rows):
        """Yields the lines of raw.csv."""
        for turn in range(self.options.rounds):
            for row, site, target in self.plan(rows, turn):
                fixed = dict(round=turn + 1, row=row.name, target=target.name, error="",
                             shape=site.shape.name, workers=self.options.workers,
                             workload=row.workload, sessions=row.sessions, size=row.size,
                             load_average=os.getloadavg()[0])
                yield fixed | self.measure_in_peace(row, target, site)

    def plan(self, rows, turn):
        """One round. A thin one has every row on every target, but each of these in one shape only,
        another one for each neighbour."""
        for index, row in enumerate(rows):
            for place, site in enumerate(self.sites):
                shift = (turn + place) % len(site.targets)
                for target in site.targets[shift:] + site.targets[:shift]:
                    number = index + site.targets.index(target)
                    if not self.options.thin or number % len(self.sites) == place:
                        yield row, site, target

    def measure_in_peace(self, row, target, site):
        """Measures again while other programs had the proxy's core; keeps the calmest attempt."""
        attempts = [self.measure(row, target, site)]
        # Several threads of one proxy may wait for each other.
        alone = target.single_threaded and self.options.workers == 1
        while alone and len(attempts) <= self.options.again:
            if report.disturbance(attempts[-1]) < DISTURBED:
                break
            attempts.append(self.measure(row, target, site))
        return dict(min(attempts, key=report.disturbance), attempts=len(attempts))

    def measure(self, row, target, site):
        """One measurement as columns of raw.csv; a failure is one as well."""
        if site.missing:
            return dict(error="no shape %s: %s" % (site.shape.name, site.missing))
        if missing := target.missing():
            return dict(error=missing)
        if self.options.workers > getattr(target, "workers_max", self.options.workers):
            return dict(error="not applicable")
        try:
            return self.measure_running(row, target, site)
        except (Failure, OSError) as failure:
            target.stop()
            return dict(error=str(failure))

    def measure_running(self, row, target, site):
        if row.workload == "idle":
            # Memory that earlier rows left behind is not memory of these sessions.
            target.stop()
        if row.workload == "upgrades":
            # A port in TIME_WAIT may be taken again after one second (tcp_tw_reuse). Without
            # this pause a target looks for free ports among those its predecessor has just
            # used, which was measured to cost four times the upgrade itself.
            time.sleep(min(1.2, self.options.seconds))
        if not target.running():
            target.start(site.place)
        before, watch = target.counters(), Watch(site.shape, self.cores.proxy)
        line = self.load(row, target, site)
        line.update(watch.result())
        payload = line.get("payload_bytes")
        if payload is None:
            payload = line["units"] * (1 if row.workload.startswith("bulk") else 2 * row.size)
        line["proof"] = target.proof(before, target.counters(), payload)
        if row.workload == "idle":
            # Nor shall the next row meet a proxy that is still closing thousands of sessions.
            target.stop()
        return self.columns(line)

    @staticmethod
    def columns(line):
        """Lists and objects as JSON; what has no column, in `more`."""
        rest = {key: line.pop(key) for key in list(line) if key not in COLUMNS}
        for name in NESTED:
            line[name] = json.dumps(line[name]) if line.get(name) else ""
        return dict(line, more=json.dumps(rest) if rest else "")

    def load(self, row, target, site):
        client_cpus, backend_cpus = self.cores.of(row.sessions)
        backend = str(site.backend.pid)
        for task in os.listdir("/proc/%s/task" % backend):
            os.sched_setaffinity(int(task), backend_cpus)
        options = dict(row.load_options(), to=target.address, seconds=self.options.seconds,
                       settle=self.options.settle, threads=min(row.sessions, len(client_cpus)))
        options["backend-pids"] = backend
        if target.pids:
            options["pids"] = ",".join(map(str, target.pids))
        argv = [site.program, "load"]
        for key, value in options.items():
            argv += ["--" + key, str(value)]
        pipe = subprocess.PIPE
        process = spawn(argv, client_cpus, site.shape.client, stdout=pipe, stderr=pipe, text=True)
        try:
            # The program gives up by itself, 20 seconds after its time, in each of two phases.
            said, complaint = process.communicate(timeout=2 * self.options.seconds + 60)
        except subprocess.TimeoutExpired:
            raise Failure("the load generator hangs") from None
        finally:
            stop_process(process)
        if process.returncode:
            raise Failure(" ".join(complaint.split()) or "the load generator failed")
        return json.loads(said)
