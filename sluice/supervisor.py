"""Keeps a group of programs running: starts them in order, starts the dead again, stops all in reverse order."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sluice.child import Child, Program
from sluice.logbook import Logbook
from sluice.orphans import Orphans

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 10.0
HEALTHY_SECONDS = 60.0
ORPHANS_SECONDS = 10.0
LAST_LINES = 5
# A child that warns without end must not fill the terminal; its log has every line.
WARNINGS_SHOWN = 5
WARNINGS_SECONDS = 10.0


@dataclass(slots=True)
class Member:
    """A program that shall run, and how it fared."""

    program: Program
    logbook: Logbook
    child: Child | None = None
    deaths: int = 0
    delay_seconds: float = FIRST_DELAY_SECONDS
    restart_at: float = 0.0
    warned: list[float] = field(default_factory=list)


class Supervisor:
    """Runs programs in tiers; `warn` is told in sentences what goes wrong. All methods belong to one thread.

    With `orphans`, it ends what dead programs leave behind; then all children of this process must be its own.
    """

    def __init__(self, logs: Path, warn: Callable[[str], None], orphans: Orphans | None = None) -> None:
        self._logs = logs
        self._warn = warn
        self._tiers: list[list[Member]] = []
        self._errands: list[Child] = []
        self._look_for_orphans_at = 0.0
        self._orphans = orphans

    @property
    def members(self) -> list[Member]:
        return [member for tier in self._tiers for member in tier]

    def start(self, programs: Sequence[Program]) -> None:
        """Start the next tier; it is stopped before the tiers that were started earlier."""
        tier = [Member(program, self._logbook(program)) for program in programs]
        self._tiers.append(tier)
        for member in tier:
            member.child = Child(member.program, member.logbook)

    def errand(self, program: Program) -> Child:
        """Start a program that does one thing and ends; it is not started again."""
        child = Child(program, self._logbook(program))
        self._errands.append(child)
        return child

    def watch(self) -> None:
        """One look at everybody; call it a few times a second."""
        now = time.monotonic()
        for member in self.members:
            self._pass_warnings_on(member, now)
            member.logbook.cut()
            if member.child is not None:
                self._look_after(member, member.child, now)
            elif now >= member.restart_at:
                member.child = Child(member.program, member.logbook)
        if now >= self._look_for_orphans_at:
            self._look_for_orphans(now)

    def stop(self) -> None:
        """End everything within the programs' bounds, at once on KeyboardInterrupt; afterwards nothing of it runs."""
        try:
            for errand in self._errands:
                errand.ask_to_stop()
            for tier in reversed(self._tiers):
                self._stop_tier(tier)
        finally:
            left = [member.child for member in self.members if member.child is not None]
            for child in (*self._errands, *left):
                child.wait(time.monotonic())
            if self._orphans is not None:
                self._orphans.end()

    def _stop_tier(self, tier: Sequence[Member]) -> None:
        running = [(member, member.child) for member in tier if member.child is not None]
        for _, child in running:
            child.ask_to_stop()
        asked_at = time.monotonic()
        for member, child in running:
            if child.wait(asked_at + member.program.stop_seconds).code == -9:
                self._warn(f"{member.program.name} did not stop by itself and was killed")
            member.child = None

    def _look_after(self, member: Member, child: Child, now: float) -> None:
        ending = child.ending()
        if ending is None:
            return
        if now - child.started_at >= HEALTHY_SECONDS:
            member.delay_seconds = FIRST_DELAY_SECONDS
        lines = "".join(f"\n    {line[:300]}" for line in member.logbook.last_lines(LAST_LINES))
        self._warn(
            f"{member.program.name} (process {child.pid}) {ending}; starting it again in {member.delay_seconds:g} s."
            + (f" The end of {member.logbook.path}:{lines}" if lines else "")
        )
        member.child = None
        member.deaths += 1
        member.restart_at = now + member.delay_seconds
        member.delay_seconds = min(2 * member.delay_seconds, LONGEST_DELAY_SECONDS)
        self._look_for_orphans_at = now + 1

    def _pass_warnings_on(self, member: Member, now: float) -> None:
        for text in member.logbook.warnings():
            member.warned = [moment for moment in member.warned if now - moment < WARNINGS_SECONDS]
            if len(member.warned) < WARNINGS_SHOWN:
                self._warn(f"{member.program.name}: {text}")
            elif len(member.warned) == WARNINGS_SHOWN:
                self._warn(f"{member.program.name}: more warnings are in {member.logbook.path}")
            member.warned.append(now)
            del member.warned[: -WARNINGS_SHOWN - 1]

    def _look_for_orphans(self, now: float) -> None:
        self._errands = [errand for errand in self._errands if errand.ending() is None]
        own = {child.pid for child in self._errands}
        own |= {member.child.pid for member in self.members if member.child is not None}
        left = self._orphans is not None and self._orphans.look(own)
        self._look_for_orphans_at = now + (1 if left else ORPHANS_SECONDS)

    def _logbook(self, program: Program) -> Logbook:
        return Logbook(self._logs / f"{program.name}.log")
