"""Runs cases against one proxy: several instances side by side, one case at a time on each."""

import itertools
import queue
import threading
import time

from backend import Backend
from cases import RUNNING, NotApplicable, Wrong
from proxies import Missing
from wire import Ended, Peer, Timeout

PASS, FAIL, SKIP = "pass", "fail", "n.a."
TAGS = itertools.count()


class Result:
    """The verdict on one case and the short word for what was seen."""

    def __init__(self, verdict, observed):
        self.verdict = verdict
        self.observed = " ".join(observed.split())[:90]


class Slot:
    """A proxy instance with a backend of its own."""

    def __init__(self, proxy):
        self.proxy = proxy
        self.backend = Backend()
        self.clients = []
        try:
            self.instance = proxy.start(self.backend.port)
        except Missing:
            self.backend.close()
            raise

    def connect(self):
        client = Peer.connect(self.instance.port)
        self.clients.append(client)
        return client

    def run(self, case):
        RUNNING.tag = f"{next(TAGS):05d}"  # one length, so that every request of a kind has it too
        self.backend.tag = RUNNING.tag.encode()
        try:
            result = Result(PASS, case.judge(self))
        except Wrong as wrong:
            result = Result(FAIL, str(wrong))
        except NotApplicable as reason:
            result = Result(SKIP, str(reason))
        except Timeout:
            result = Result(FAIL, "timeout")
        except (Ended, ConnectionError):
            result = Result(FAIL, "connection ended early")
        self.clear()
        return self.revive() or result

    def clear(self):
        """Ends what the case left open and lets the proxy notice."""
        for client in self.clients:
            client.close()
        self.clients = []
        self.backend.end()
        time.sleep(0.03)

    def revive(self):
        """A proxy that a case has killed fails that case; the next ones get a new process."""
        if self.instance.alive():
            return None
        self.instance.stop()
        self.instance = self.proxy.start(self.backend.port)
        return Result(FAIL, "the process ended")

    def close(self):
        self.instance.stop()
        self.backend.close()


def run_all(proxy, cases, slots, progress):
    """Case name -> `Result`. Raises `Missing` when the proxy does not start."""
    pending = queue.SimpleQueue()
    for case in cases:
        pending.put(case)
    running = []
    try:
        for _ in range(min(slots, len(cases))):
            running.append(Slot(proxy))
        return _share(running, pending, proxy, progress)
    finally:
        for slot in running:
            slot.close()


def _share(running, pending, proxy, progress):
    results, broken = {}, []

    def work(slot):
        while True:
            try:
                case = pending.get_nowait()
            except queue.Empty:
                return
            try:
                results[case.name] = slot.run(case)
            except (
                Exception
            ) as error:  # a fault of the harness: reported, never taken for a verdict
                broken.append(f"{case.name} against {proxy.name}: {error!r}")
                return
            progress(proxy, case, results[case.name])

    threads = [threading.Thread(target=work, args=(slot,), daemon=True) for slot in running]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise RuntimeError("; ".join(broken))
    return results
