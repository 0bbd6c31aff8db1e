"""Metrics of several processes in one folder: each process writes files of its own, whoever is scraped adds them up.

`prometheus_client` keeps one file for each process number. Two things are done differently here. A file is named after
the number *and the start time* of its process: numbers come again (in a container the first is always the same), and a
new process would go on with a dead one's gauges. And what a dead process counted moves into one file for all of the
dead: children are recycled for as long as a worker runs, and their files would slow each scrape down for ever.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client import values
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
RESIDENT = "sluice_resident_bytes"

_DEAD = "dead"
_START_TIME = 19  # index of field 22 of /proc/PID/stat among those after the name


def configured_folder() -> Path | None:
    """The folder that this group of processes shares, made if need be; None where a process counts for itself alone."""
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    folder = Path(named)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_to_folder() -> None:
    """Lets metrics declared from now on write to the folder, whenever `prometheus_client` itself was imported."""
    values.ValueClass = values.MultiProcessValue(_Identity().read)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process in bytes, 0 if it is gone. Read from `/proc`: gateways have no psutil."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


class ProcessFolder(Collector):
    """The folder of one group of processes; collecting adds up all of them, the dead ones included."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def collect(self) -> Iterable[Metric]:
        with self._locked():
            self._fold(lambda identity: not _lives(identity))
            # A process that starts creates its file empty and sizes it an instant later.
            files = [str(file) for file in self._files() if file.stat().st_size]
            metrics = list(MultiProcessCollector.merge(files, accumulate=True))
        for metric in sorted(metrics, key=lambda metric: metric.name):
            yield _measured(metric) if metric.name == RESIDENT else metric

    def forget(self, pid: int) -> None:
        """Ends what a dead process reported as its present state; what it counted stays counted."""
        with self._locked():
            self._fold(lambda identity: identity.split("-")[0] == str(pid) and not _lives(identity))

    def empty(self) -> None:
        """Removes what earlier processes left; files of processes that live stay, for they are being written to."""
        with self._locked():
            for file in self._files():
                if not _lives(_identity_of(file)):
                    file.unlink()

    def _fold(self, chosen: Callable[[str], bool]) -> None:
        for file in self._files():
            identity = _identity_of(file)
            if identity == _DEAD or not chosen(identity):
                continue
            kind = file.name.split("_")[0]
            if kind != "gauge" and file.stat().st_size:
                _add(file, self._root / f"{kind}_{_DEAD}.db")
            file.unlink()

    def _files(self) -> list[Path]:
        return sorted(self._root.glob("*.db"))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One reader at a time: between adding a dead process's file and removing it, it would count twice."""
        with (self._root / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                # Not left to close(): a child forked meanwhile holds this open file too, and the lock with it.
                fcntl.flock(lock, fcntl.LOCK_UN)


class _Identity:
    """Who writes: number and start time of this process, read once and again in each forked child."""

    def __init__(self) -> None:
        self._text = ""
        self._take()
        os.register_at_fork(after_in_child=self._take)

    def _take(self) -> None:
        self._text = f"{os.getpid()}-{_start_time(os.getpid())}"

    def read(self) -> str:
        return self._text


def _start_time(pid: int) -> str:
    """Clock ticks between the machine's start and the process's; empty where no such process lives."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # The name stands in parentheses and may itself hold spaces and parentheses.
    state, *fields = text.rpartition(")")[2].split()
    return "" if state in ("Z", "X") else fields[_START_TIME - 1]


def _identity_of(file: Path) -> str:
    return file.stem.rpartition("_")[2]


def _lives(identity: str) -> bool:
    pid, _, start_time = identity.partition("-")
    return bool(start_time) and _start_time(int(pid)) == start_time


def _add(file: Path, total: Path) -> None:
    kept = MmapedDict(str(total))
    for key, value, _, _ in MmapedDict.read_all_values_from_file(str(file)):
        kept.write_value(key, kept.read_value(key)[0] + value, 0.0)
    kept.close()


def _measured(metric: Metric) -> Metric:
    """Resident memory as it is now, by kind of process; the files only say which processes are of which kind."""
    totals: dict[str, int] = defaultdict(int)
    for sample in metric.samples:
        totals[sample.labels["process"]] += resident_bytes(int(sample.labels["pid"].split("-")[0]))
    measured = Metric(metric.name, metric.documentation, metric.type)
    measured.samples = [Sample(RESIDENT, {"process": process}, total) for process, total in sorted(totals.items())]
    return measured
