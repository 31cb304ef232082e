"""What the operating system knows: cores, CPU time and memory of process trees, and who else took a core.

Linux only, read straight from /proc. It knows nothing of proxies or load generators.
"""

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")


class SetupError(Exception):
    """This machine lacks something the comparison needs; the message names the remedy."""


@dataclass(frozen=True, slots=True)
class Cores:
    """`load` runs the upstream, the load generator and the bench itself; `proxy` runs what is measured."""

    load: int
    proxy: int


def pick_cores() -> Cores:
    """Two cores this process may use, not hardware threads of one core where there is a choice.

    Raises:
        SetupError: fewer than two cores.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise SetupError("the comparison needs two cores: one for the proxy, one for load and upstream")
    siblings = _siblings(allowed[0])
    others = [core for core in allowed[1:] if core not in siblings] or allowed[1:]
    return Cores(load=allowed[0], proxy=others[-1])


def _siblings(core: int) -> set[int]:
    """The hardware threads that share a physical core with this one."""
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    threads = {core}
    for part in path.read_text().strip().split(",") if path.exists() else []:
        first, _, last = part.partition("-")
        threads.update(range(int(first), int(last or first) + 1))
    return threads


def tree(root: int) -> list[int]:
    """A process and all its descendants, root first."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found = [root]
    for pid in found:  # grows while it is walked
        found.extend(children.get(pid, []))
    return found


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third (state) on; empty if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text[text.rfind(")") + 2 :].split()


def cpu_seconds(pids: list[int]) -> float:
    """User and system time so far of all threads of these processes and of their reaped children.

    The processes' own time is read from their CPU clocks, in nanoseconds, as /proc/PID/stat counts hundredths
    of a second. The clock's id is what clock_getcpuclockid(3) gives.

    Raises:
        OSError: a process is gone.
    """
    total = 0.0
    for pid in pids:
        total += time.clock_gettime(~pid << 3 | 2)
        reaped = _stat(pid)[13:15]
        total += sum(map(int, reaped)) * TICK_SECONDS
    return total


def rss_mib(pids: list[int]) -> float:
    """Resident memory, summed over the processes (pages they share count for each)."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * PAGE_BYTES / 2**20


class CoreWatch:
    """The time for which a core was busy since this object was made, whoever used it.

    Taken from the idle time, which the kernel keeps exactly; user and system time are sampled by its tick.
    Time that a hypervisor stole is busy too.
    """

    def __init__(self, core: int) -> None:
        self.core = core
        self._start = time.monotonic()
        self._idle = self._idle_seconds()

    def elapsed_seconds(self) -> float:
        """Wall time since the start."""
        return time.monotonic() - self._start

    def busy_seconds(self) -> float:
        """Wall time less idle time since the start."""
        return self.elapsed_seconds() - (self._idle_seconds() - self._idle)

    def _idle_seconds(self) -> float:
        for line in Path("/proc/stat").read_text().splitlines():
            name, *times = line.split()
            if name == f"cpu{self.core}":
                return (int(times[3]) + int(times[4])) * TICK_SECONDS  # idle and iowait
        raise RuntimeError(f"/proc/stat does not know core {self.core}")


def await_quiet(cores: Cores, *, share: float, looks: int = 20) -> None:
    """Wait until both cores are idle but for this share, or so many half seconds have passed."""
    for _ in range(looks):
        watches = [CoreWatch(cores.load), CoreWatch(cores.proxy)]
        time.sleep(0.5)
        if all(watch.busy_seconds() <= share * watch.elapsed_seconds() for watch in watches):
            return


def description() -> str:
    """CPU model, number of cores, kernel and Python version."""
    info = Path("/proc/cpuinfo").read_text()
    model = next(
        (line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")), ""
    )
    return (
        f"{model or platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )
