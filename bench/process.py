"""CPU time and memory of process trees, from the kernel's own accounts."""

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
CPUCLOCK_SCHED = 2
"""Linux: bits of a clock id that ask for the time a process really ran, in nanoseconds."""
BUSY_FIELDS = (0, 1, 2, 5, 6, 7)
"""Of the `cpu` line in /proc/stat: user, nice, system, irq, softirq, steal; not idle and iowait."""

Roles = Mapping[str, Sequence[int]]
"""What a role is called, and the processes it was started as."""


@dataclass(frozen=True, slots=True)
class Stat:
    """What is needed of one line of /proc/<pid>/stat."""

    parent: int
    reaped_seconds: float
    """CPU of children that have ended and were waited for: Postgres's back ends, say."""


def parse_stat(line: str) -> Stat:
    # The name in brackets may itself hold brackets and spaces.
    fields = line[line.rindex(")") + 2 :].split()
    return Stat(
        parent=int(fields[1]), reaped_seconds=sum(map(int, fields[13:15])) / TICKS_PER_SECOND
    )


def cpu_by_role(roles: Roles) -> dict[str, float]:
    """Seconds of CPU each role has used so far, its descendants and their dead included."""
    stats = _all_stats()
    return {
        role: sum(_process_seconds(pid, stats[pid]) for pid in members)
        for role, members in members_by_role(roles, stats).items()
    }


def pss_by_role(roles: Roles) -> dict[str, float]:
    """MiB of each role: a page that n processes share counts one n-th for each."""
    stats = _all_stats()
    return {
        role: sum(_pss_kib(pid) for pid in members) / 1024
        for role, members in members_by_role(roles, stats).items()
    }


def members_by_role(roles: Roles, stats: Mapping[int, Stat]) -> dict[str, list[int]]:
    """Each role's live processes. A role that started another does not count it again."""
    children: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        children.setdefault(stat.parent, []).append(pid)
    roots = {pid for pids in roles.values() for pid in pids}
    return {role: list(_tree(pids, children, roots, stats)) for role, pids in roles.items()}


def busy_seconds() -> float:
    """CPU seconds this machine has spent on anything since it started."""
    numbers = [int(field) for field in _read(Path("/proc/stat")).split("\n", 1)[0].split()[1:]]
    return sum(numbers[field] for field in BUSY_FIELDS) / TICKS_PER_SECOND


def _tree(
    pids: Iterable[int],
    children: Mapping[int, list[int]],
    roots: set[int],
    alive: Mapping[int, Stat],
) -> Iterable[int]:
    todo = [pid for pid in pids if pid in alive]
    while todo:
        pid = todo.pop()
        yield pid
        todo += [child for child in children.get(pid, ()) if child not in roots]


def _all_stats() -> dict[int, Stat]:
    stats = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (line := _read(Path("/proc", entry, "stat"))):
            stats[int(entry)] = parse_stat(line)
    return stats


def _process_seconds(pid: int, stat: Stat) -> float:
    try:
        # clock_getcpuclockid(3) makes the same number; Python offers that call for threads only.
        own = time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)
    except OSError:
        return 0.0  # it ended since the listing; its parent's account has it next time
    return own + stat.reaped_seconds


def _pss_kib(pid: int) -> int:
    for line in _read(Path("/proc", str(pid), "smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def _read(path: Path) -> str:
    """Empty where the process has ended."""
    try:
        return path.read_text()
    except OSError:
        return ""
