"""The threads of a session: what runs beside its loop, and which lanes stay unread meanwhile.

One group of a version and priority runs at a time, two where the next is read ahead of its turn. The files of a group
are no part of that: they are read in threads of their own, some of each lane in turn, while the numbers of other
clients go on. A lane whose files are being read waits for them.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from workers.entries import Group
from workers.files_aside import FilesLeft
from workers.hot_lanes import Place

log = logging.getLogger(__name__)

THREADS = 8
# Files are decoded one after the other; while one is, others are parsed and run.
FILE_THREADS = 4
# Of requests whose files wait for their turn. Beyond that they hold up their version, and no more are read.
ASIDE_BYTES = 256 * 1024**2

Held = set[tuple[bytes, bytes]]
"""Entries by their lane's key and their id."""


class BatchThreads:
    """`wake` is called in a thread with the keys of lanes that can be read again."""

    def __init__(self, wake: Callable[[Iterable[bytes]], None], go_on: Callable[[FilesLeft], bool]) -> None:
        """`go_on` answers some of the files that are left, and says whether there are more."""
        self._wake = wake
        self._go_on = go_on
        self._batches = ThreadPoolExecutor(THREADS, thread_name_prefix="batch")
        self._files = ThreadPoolExecutor(FILE_THREADS, thread_name_prefix="files")
        self._batch_futures: set[Future[None]] = set()
        self._file_futures: set[Future[None]] = set()
        self._lock = threading.Lock()
        # How many batches of a version and priority are under way, for a while those of a dead session too.
        self._busy: Counter[Place] = Counter()
        self._in_hand: Held = set()
        self._aside: set[FilesLeft] = set()
        self._lanes_aside: Counter[bytes] = Counter()
        self._keeps_files = False

    def __bool__(self) -> bool:
        """Whether anything runs."""
        return bool(self._batch_futures or self._file_futures)

    @property
    def running(self) -> int:
        """How many batches run, or wait for a thread."""
        return len(self._batch_futures)

    @property
    def hold_lanes(self) -> bool:
        """Whether any lane may have to stay unread."""
        return bool(self._busy or self._lanes_aside)

    def busy(self, place: Place) -> int:
        """How many groups of a version and priority are under way."""
        return self._busy.get(place, 0)

    def has_files_of(self, lane_key: bytes) -> bool:
        """Whether files that were read from a lane are not answered yet."""
        return lane_key in self._lanes_aside

    def in_hand(self) -> Held:
        """The entries that are being run, and those whose files are."""
        with self._lock:
            files = {(entry.lane_key, entry.id) for left in self._aside for entry in left.entries}
            return self._in_hand | files

    def run(self, group: Group, run: Callable[[Group], None]) -> None:
        """Run a group in a thread; its lanes are woken when it ends."""
        place = (group.version, group.priority)
        held = {(entry.lane_key, entry.id) for entry in group.entries}
        with self._lock:
            self._busy[place] += 1
            self._in_hand |= held

        def work() -> None:
            try:
                run(group)
            except Exception:  # the thread's edge: entries stay pending, and are run again
                log.exception("a batch of %s failed unexpectedly", group.version)
            finally:
                with self._lock:
                    self._busy[place] -= 1
                    if not self._busy[place]:
                        del self._busy[place]
                    self._in_hand -= held
                self._wake({key for key, _ in held})

        self._submit(self._batches, self._batch_futures, work)

    def start(self, lane_key: bytes, run: Callable[[], None]) -> None:
        """Run something else in a thread, after which a lane can be read."""

        def work() -> None:
            try:
                run()
            except Exception:  # the thread's edge: whoever is read next is told
                log.exception("what was to be done before %s is read failed unexpectedly", lane_key)
            finally:
                self._wake([lane_key])

        self._submit(self._batches, self._batch_futures, work)

    def set_aside(self, left: FilesLeft) -> None:
        """Read a group's files beside other groups, or at once where too much is set aside. In a group's thread."""
        with self._lock:
            full = self._keeps_files or sum(other.size_bytes for other in self._aside) > ASIDE_BYTES
            if not full:
                self._aside.add(left)
                self._lanes_aside.update(left.lanes)
        if full:
            while self._go_on(left):
                pass
        else:
            self._submit(self._files, self._file_futures, lambda: self._read_files(left))

    def keep_files(self) -> None:
        """Set no files aside from now on: a session that is to be handed over needs a moment without any."""
        self._keeps_files = True

    def finish(self, pat: Callable[[], None]) -> None:
        """Wait for all of it; `pat` is called every second."""
        while self:
            wait([*self._batch_futures, *self._file_futures], timeout=1.0)
            pat()

    def close(self) -> None:
        """The same, without `pat`."""
        self.finish(lambda: None)
        self._batches.shutdown(wait=True)
        self._files.shutdown(wait=True)

    def _read_files(self, left: FilesLeft) -> None:
        more = False
        try:
            more = self._go_on(left)
        except Exception:  # the thread's edge, as above
            log.exception("files for %s failed unexpectedly", left.version)
        if more:
            # Behind those of other groups: who sends many does not keep the others waiting.
            self._submit(self._files, self._file_futures, lambda: self._read_files(left))
            return
        with self._lock:
            self._aside.discard(left)
            self._lanes_aside -= Counter(left.lanes)
        self._wake(left.lanes)

    @staticmethod
    def _submit(pool: ThreadPoolExecutor, futures: set[Future[None]], work: Callable[[], None]) -> None:
        future = pool.submit(work)
        futures.add(future)
        future.add_done_callback(futures.discard)
