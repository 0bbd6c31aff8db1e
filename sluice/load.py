"""Load on a gateway from this process: so many connections, each with one request at a time, for so long.

It is a closed loop: a connection sends its next request when it has its answer, so a slow gateway gets fewer of them.
What this process can do is bounded as well, and `Findings.busy` says how near it came to that.
"""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httpx

from sluice.answers import SluiceFailed, refusal
from sluice.peers import is_loopback, trusted

TOKEN_SECONDS = 10.0
# A connection that was refused pauses: what is measured must not become an attack.
LEAST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 1.0
# Latencies of so many answers are kept, 8 bytes each; more are counted and not kept.
MOST_KEPT = 5_000_000
# The share of one processor beyond which a figure says more of this process than of the gateway.
BUSY = 0.85


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent, by how many connections, and when that is enough: the first of both, either may be None."""

    base_url: str
    path: str
    content: bytes
    headers: Mapping[str, str]
    connections: int
    seconds: float | None
    requests: int | None
    timeout_seconds: float = 60.0


@dataclass(slots=True)
class Findings:
    """What came of it: `latencies` of good answers in seconds, errors by kind, and this process's own part in it."""

    latencies: array[float] = field(default_factory=lambda: array("d"))
    good: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    # Of each kind, what the first one said.
    examples: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def fail(self, kind: str, message: str) -> None:
        """Count an error."""
        self.errors[kind] += 1
        self.examples.setdefault(kind, message)

    @property
    def busy(self) -> float:
        """The share of one processor that this process used meanwhile; it cannot use more than 1."""
        return self.cpu_seconds / self.seconds if self.seconds else 0.0

    def quantile(self, share: float) -> float | None:
        """The latency in seconds that this share of the good answers stayed within (nearest rank)."""
        if not self.latencies:
            return None
        ordered = sorted(self.latencies)
        return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


def run(plan: Plan, token: Callable[[], str], look: Callable[[Findings], None]) -> Findings:
    """Carry it out; `look` is called now and then with what there is. Ctrl-C ends it early with what was found.

    Raises Refused, Unreachable where no token is given at the start.
    """
    findings = Findings()
    # With its token: fetching that is no prediction.
    load = _Load(plan, token, findings)
    cpu, started = time.process_time(), time.perf_counter()
    try:
        asyncio.run(load.run(look))
    except KeyboardInterrupt:
        pass
    finally:
        findings.seconds = time.perf_counter() - started
        findings.cpu_seconds = time.process_time() - cpu
    return findings


class _Load:
    """The connections of one plan."""

    def __init__(self, plan: Plan, token: Callable[[], str], findings: Findings) -> None:
        self._plan = plan
        self._token = token
        self._findings = findings
        self._headers = {**plan.headers, "Authorization": f"Bearer {token()}"}
        self._left = plan.requests
        self._until = None if plan.seconds is None else time.perf_counter() + plan.seconds

    async def run(self, look: Callable[[Findings], None]) -> None:
        plan = self._plan
        limits = httpx.Limits(max_connections=plan.connections, max_keepalive_connections=plan.connections)
        async with httpx.AsyncClient(
            base_url=plan.base_url,
            limits=limits,
            timeout=plan.timeout_seconds,
            trust_env=not is_loopback(plan.base_url),
            verify=trusted() if plan.base_url.startswith("https:") else True,
        ) as http:
            beside = [asyncio.create_task(self._renew()), asyncio.create_task(self._tell(look))]
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(plan.connections):
                        group.create_task(self._send_on(http))
            finally:
                for task in beside:
                    task.cancel()
                await asyncio.gather(*beside, return_exceptions=True)

    async def _send_on(self, http: httpx.AsyncClient) -> None:
        """One connection's requests, one after the other."""
        findings = self._findings
        while self._more():
            sent_at = time.perf_counter()
            try:
                response = await http.post(self._plan.path, content=self._plan.content, headers=self._headers)
            except httpx.HTTPError as error:
                findings.fail(_kind(error), str(error))
                await asyncio.sleep(LEAST_PAUSE_SECONDS)
                continue
            if response.is_success:
                findings.good += 1
                if len(findings.latencies) < MOST_KEPT:
                    findings.latencies.append(time.perf_counter() - sent_at)
                continue
            refused = refusal(response)
            findings.fail(f"HTTP {refused.status}" + (f" {refused.code}" if refused.code else ""), str(refused))
            asked = float(refused.retry_after_seconds or 0)
            await asyncio.sleep(min(max(asked, LEAST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS))

    def _more(self) -> bool:
        """Whether one more is to be sent; it is counted then."""
        if self._until is not None and time.perf_counter() >= self._until:
            return False
        if self._left is None:
            return True
        self._left -= 1
        return self._left >= 0

    async def _renew(self) -> None:
        """Keep the token fresh. A gateway that gives none for a while shows by what it answers to the others."""
        while True:
            await asyncio.sleep(TOKEN_SECONDS)
            try:
                self._headers["Authorization"] = f"Bearer {await asyncio.to_thread(self._token)}"
            except SluiceFailed:
                continue

    async def _tell(self, look: Callable[[Findings], None]) -> None:
        while True:
            look(self._findings)
            await asyncio.sleep(0.2)


def _kind(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpx.ConnectError):
        return "no connection"
    return f"the connection broke ({type(error).__name__})"
