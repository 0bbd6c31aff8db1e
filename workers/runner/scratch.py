"""Private folders of runners: made for one runner, removed with it, swept when their owner died without doing so."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
from pathlib import Path

PREFIX = "sluice-runner-"

log = logging.getLogger(__name__)


class Scratch:
    """One private folder: `work` is the runner's current folder, `home` and `tmp` stand beside it.

    The owner holds a lock on the folder. The kernel drops it however the owner ends, so a folder whose lock is free
    has no owner any more; a process id in its name would prove nothing (ids are used again, and containers share
    folders).
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        name = secrets.token_hex(8)
        made = root / f".{PREFIX}{name}"
        made.mkdir(mode=0o700)
        self._lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Named only now: a sweep looks at finished names, and this one is locked.
        self.folder = made.rename(root / f"{PREFIX}{name}").resolve()
        self.work, self.home, self.tmp = (self.folder / part for part in ("work", "home", "tmp"))
        for folder in (self.work, self.home, self.tmp):
            folder.mkdir(mode=0o700)

    def remove(self) -> None:
        """Remove the folder with all that is in it; again does nothing."""
        if self._lock >= 0:
            remove_tree(self.folder)
            os.close(self._lock)
            self._lock = -1


def sweep(root: Path) -> int:
    """Remove the folders whose owners are gone, say after `kill -9`; returns how many there were."""
    removed = 0
    for folder in root.glob(f"{PREFIX}*"):
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:  # removed by its owner meanwhile, or not ours to read
            continue
        try:
            if os.fstat(lock).st_uid == os.getuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(folder)
                removed += 1
        except BlockingIOError:  # its owner lives
            continue
        finally:
            os.close(lock)
    return removed


def remove_tree(folder: Path) -> None:
    """Remove a tree that a hostile process may have shaped: links are not followed, closed folders are opened."""
    try:
        try:
            shutil.rmtree(folder)
        except PermissionError:
            _open_folders(folder)
            shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except (OSError, RecursionError) as error:
        # A leftover folder costs space; raising here would hide why its runner ended. The next sweep tries again.
        log.warning("a scratch folder could not be removed: %s", type(error).__name__)


def _open_folders(top: Path) -> None:
    for parent, folders, _ in os.walk(top):
        for name in folders:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
