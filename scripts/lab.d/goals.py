"""The numbers to reach (DESIGN §7), and whether a run has reached them."""

from dataclasses import dataclass
from typing import Callable

from measures import CPU, CPU_BULK, P50, PSS, RATE, RATE_BULK, RATE_UPGRADES, Measure
from rows import KIB

ABSOLUTE, PEER, DIRECT, ZERO_COPY = "absolute", "best peer", "direct", "zero-copy"
REACHED, MISSED, UNKNOWN = "reached", "not reached", "not measured"


@dataclass(frozen=True)
class Goal:
    """`measure` of ours, divided by that of `against`, has to be `sign` `factor`."""

    row: str
    measure: Measure
    sign: str
    factor: float
    against: str
    holds_for: Callable

    @property
    def words(self):
        if self.against == ABSOLUTE:
            return "%s %g %s" % (self.sign, self.factor, self.measure.unit.split("/")[0])
        of = {PEER: "best peer", DIRECT: "direct", ZERO_COPY: "CPU of zero-copy"}[self.against]
        return "%s %s" % (self.sign, of) if self.factor == 1 else "%s %g × %s" % (
            self.sign, self.factor, of)


@dataclass(frozen=True)
class Result:
    """How one of ours stands with a goal in one cell."""

    goal: Goal
    cell: object
    target: str
    value: float
    verdict: str

    @property
    def shown(self):
        if self.value is None:
            return UNKNOWN
        return "%.2f%s" % (self.value, " KB" if self.goal.against == ABSOLUTE else "×")


def _bulk(sessions):
    return lambda cell: (cell.workload in ("bulk-up", "bulk-down") and cell.sessions == sessions
                         and cell.size == 64 * KIB)


def _echo(sizes, sessions):
    return lambda cell: (cell.workload == "echo" and cell.size in sizes
                         and sessions in (None, cell.sessions))


def _is(workload):
    return lambda cell: cell.workload == workload


def _any_bulk(cell):
    return cell.workload in ("bulk-up", "bulk-down", "bulk-both") and cell.size == 64 * KIB


def _frames_of_16k(workload):
    return lambda cell: cell.workload.startswith(workload) and cell.size >= 16 * KIB


_LARGE = (16 * KIB, 128 * KIB)
_ONE, _SIXTEEN = "bulk, 64 KiB, 1 session", "bulk, 16 sessions"
GOALS = (
    Goal(_ONE, RATE_BULK, "≥", 1.2, PEER, _bulk(1)),
    Goal(_ONE, RATE_BULK, "≥", 0.75, DIRECT, _bulk(1)),
    Goal(_SIXTEEN, RATE_BULK, "≥", 2, PEER, _bulk(16)),
    Goal("CPU seconds per GB", CPU_BULK, "≤", 0.6, PEER, _any_bulk),
    Goal("echo, 64 B, 1 session: p50", P50, "≤", 1, PEER, _echo((64,), 1)),
    Goal("echo, 64 B, 1 session: p50", P50, "≤", 2, DIRECT, _echo((64,), 1)),
    Goal("echo, 64 B and 1 KiB, 100 sessions: CPU per round trip", CPU, "≤", 0.8, PEER,
         _echo((64, KIB), 100)),
    Goal("echo, 16 KiB and 128 KiB: rate", RATE, "≥", 1.3, PEER, _echo(_LARGE, None)),
    Goal("upgrades per second", RATE_UPGRADES, "≥", 1.5, PEER, _is("upgrades")),
    Goal("memory per idle session (PSS)", PSS, "≤", 1, ABSOLUTE, _is("idle")),
    Goal("inspect mode, frame metrics only: CPU, echo", CPU, "≤", 1.3, ZERO_COPY,
         _frames_of_16k("echo")),
    Goal("inspect mode, frame metrics only: CPU, bulk", CPU_BULK, "≤", 1.3, ZERO_COPY,
         _frames_of_16k("bulk-")),
)
# The goals are for one worker on one core.
WORKERS = 1


def judge(run, goal, cell, target):
    """The result of `target`; its value is ours divided by theirs, or ours where absolute."""
    value = _value(run, goal, cell, target)
    if value is None:
        return Result(goal, cell, target, None, UNKNOWN)
    # What the tables show is what is judged, so that no reader has to wonder.
    shown = round(value, 2)
    reached = shown >= goal.factor if goal.sign == "≥" else shown <= goal.factor
    return Result(goal, cell, target, value, REACHED if reached else MISSED)


def _value(run, goal, cell, target):
    if goal.against == ABSOLUTE:
        return run.median(cell, goal.measure, target)
    if goal.against == ZERO_COPY:
        target, rival = inspecting(run), run.shipped
    elif goal.against == DIRECT:
        rival = run.direct
    else:
        rival = run.best_peer(cell, goal.measure)
        rival = rival if run.targets.get(rival) == "peer" else None
    ratios = run.ratios(cell, goal.measure, target, rival)
    if not ratios:
        return None
    middle = ratios[len(ratios) // 2] if len(ratios) % 2 else sum(
        ratios[len(ratios) // 2 - 1:len(ratios) // 2 + 1]) / 2
    return middle if goal.measure.higher_is_better else 1 / middle


def inspecting(run):
    """The target that follows frames, or none; the first, where several look to some depth."""
    return next(iter(run.of_kind("inspect")), None)


def results(run, goal, target):
    """One for each cell that the goal speaks of."""
    cells = [cell for cell in run.cells if cell.workers == WORKERS and goal.holds_for(cell)]
    if goal.against == ZERO_COPY and not inspecting(run):
        return []
    return [judge(run, goal, cell, target) for cell in cells]


def overall(found):
    """Of several results: reached only where all that were measured are."""
    verdicts = {result.verdict for result in found} - {UNKNOWN}
    return MISSED if MISSED in verdicts else REACHED if verdicts else UNKNOWN


def goals_of(cell, measure):
    """Those that a line of a table can be judged by."""
    if cell.workers != WORKERS:
        return []
    # The rate of a single session stands in the tables as its reciprocal, p50.
    wanted = [RATE, P50] if measure == P50 and cell.sessions == 1 else [measure]
    return [goal for goal in GOALS if goal.measure in wanted and goal.holds_for(cell)
            and goal.against != ZERO_COPY]
