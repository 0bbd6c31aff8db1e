"""Rolling from one version to the next under load: no request is lost, fails, or gets another version's numbers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from model_store.database import Sessions
from tests.conftest import RedisServer
from tests.processes import Cluster, cluster
from tests.queue_kit import doubling_model, wait_until
from tests.version_kit import administrator, let_serve, publish, states, wait_for_end, worker_settings_of
from workers.warm_up import warm_up

MODEL = "rolling"
CONNECTIONS = 32


@dataclass
class Load:
    """Connections that ask at least `least` times; each answer is held against its own version's factor."""

    url: str
    headers: dict[str, str]
    path: str
    least: int
    factors: dict[str, float]
    wrong: list[str] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    versions: list[str] = field(default_factory=list)
    _asked: int = 0
    _rolled: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, while_it_runs: Callable[[], None]) -> None:
        """All of it, and on until what is done meanwhile is done."""
        threads = [threading.Thread(target=self._connection) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        try:
            while_it_runs()
        finally:
            self._rolled = True
        for thread in threads:
            thread.join()

    @property
    def progress(self) -> float:
        return sum(self.answered.values()) / self.least

    def _connection(self) -> None:
        with httpx.Client(base_url=self.url, headers=self.headers, timeout=60) as client:
            while (number := self._next()) is not None:
                self._ask(client, number)

    def _next(self) -> int | None:
        with self._lock:
            if self.wrong or (self._rolled and self._asked >= self.least):
                return None
            self._asked += 1
            return self._asked

    def _ask(self, client: httpx.Client, number: int) -> None:
        try:
            found = client.post(self.path, json={"instances": [[number, 1]]})
        except httpx.HTTPError as error:
            self.wrong.append(f"{number}: {type(error).__name__}")
            return
        version = found.headers.get("sluice-model-version", "")
        factor = self.factors.get(version, 0.0)
        with self._lock:
            if found.status_code != 200 or found.json() != {"predictions": [[factor * number, factor]]}:
                self.wrong.append(f"{number}: {found.status_code} {version} {found.text}")
            self.answered[version] += 1
            self.versions.append(version)


def roll(admin: httpx.Client, least: int, next_version: Callable[[int, float], None]) -> Load:
    """Under load: from version 1 on to 2 and 3, back to 2, and on to 4, each time so that the one before leaves."""
    factors = {"1": 2.0, "2": 3.0, "3": 4.0, "4": 5.0}
    next_version(1, factors["1"])
    admin.put(f"/admin/models/{MODEL}/version-policy", json={"latest": 1}).raise_for_status()
    load = Load(str(admin.base_url), dict(admin.headers), f"/v1/models/{MODEL}:predict", least, factors)
    steps: list[Callable[[], object]] = [
        lambda: next_version(2, factors["2"]),
        lambda: next_version(3, factors["3"]),
        lambda: admin.post(f"/admin/models/{MODEL}/rollback").raise_for_status(),
        lambda: next_version(4, factors["4"]),
    ]

    def one_after_the_other() -> None:
        for place, step in enumerate(steps, start=1):
            wait_until(lambda place=place: load.progress >= place / (len(steps) + 2) or load.wrong, 300)
            step()
        final = sum(load.answered.values())
        wait_until(lambda: sum(load.answered.values()) >= final + 5 * CONNECTIONS or load.wrong, 60)

    load.run(one_after_the_other)
    assert not load.wrong, load.wrong[:5]
    assert sum(load.answered.values()) >= least
    return load


def assert_rolled(load: Load, sessions: Sessions) -> None:
    """Every version answered, 4 last, and what left has ended."""
    assert set(load.answered) == {"1", "2", "3", "4"}
    assert set(load.versions[-CONNECTIONS:]) == {"4"}
    for number in (1, 2, 3):
        wait_for_end(sessions, MODEL, number)
    assert states(sessions, MODEL)[4] == "AVAILABLE"


def test_1500_requests_over_32_connections_lose_nothing_while_versions_roll(serving: Cluster):
    admin = administrator(serving)

    def next_version(number: int, factor: float) -> None:
        """The last two steps of a preparation: warm, then AVAILABLE."""
        made = publish(serving.sessions, serving.artifacts, serving.folder, MODEL, factor, warming=True)
        assert made == number
        warmed = warm_up(serving.sessions, serving.artifacts, worker_settings_of(serving), MODEL, number)
        assert warmed.slot is not None, warmed.told
        let_serve(serving.sessions, MODEL, number)
        admin.get(f"/admin/models/{MODEL}/versions/{number}").raise_for_status()

    assert_rolled(roll(admin, 1500, next_version), serving.sessions)


@pytest.mark.long
def test_20000_requests_over_32_connections_lose_nothing_while_uploads_roll(redis_server: RedisServer, tmp_path: Path):
    """The same with uploads that a preparing worker prepares."""
    with cluster(tmp_path, redis_server.url, f"sqlite:///{tmp_path / 'sluice.db'}") as made:
        for command in ("worker", "prepare-worker"):
            made.start(command, worker_name=command)
        made.start_gateway()
        made.wait_for_slots(2)
        admin = administrator(made)

        def next_version(number: int, factor: float) -> None:
            file = doubling_model(tmp_path / f"{factor}.onnx", factor)
            uploaded = admin.put(
                f"/admin/models/{MODEL}/versions", params={"format": "onnx"}, content=file.read_bytes()
            )
            assert uploaded.json()["version"] == number, uploaded.text
            address = f"/admin/models/{MODEL}/versions/{number}"
            wait_until(lambda: admin.get(address).json()["state"] in {"AVAILABLE", "END"}, 120)
            shown = admin.get(address).json()
            assert shown["error"] is None, shown
            [warm] = [step for step in shown["report"]["steps"] if step["name"] == "warm"]
            assert "loaded it" in warm["detail"]

        assert_rolled(roll(admin, 20_000, next_version), made.sessions)
