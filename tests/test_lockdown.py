"""The lock-down of a runner: no way out of it, nothing that models need is missing, and each end has its cause."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import workers
from tests.lockdown_commands import OUT
from workers.errors import PredictionFailed, RunnerFailed
from workers.runner.limits import Limits
from workers.runner.process import Runner
from workers.settings import WorkerSettings

ENTRY = "tests.lockdown_commands"
SECONDS = 120.0


@dataclass(frozen=True)
class Tried:
    """What a runner tried, with a neighbour, a store and a listener beside it."""

    answer: dict[str, Any]
    stored: Path
    neighbour: Path
    reached: bool


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    root = tmp_path_factory.mktemp("lockdown")
    stored, upload = root / "store" / "upload", root / "upload.keras"
    stored.parent.mkdir()
    stored.write_text("stored")
    upload.write_text("uploaded")
    settings = WorkerSettings(scratch_dir=root / "scratch")
    with Runner(settings, entry=ENTRY) as runner, Runner(settings, entry=ENTRY) as neighbour, socket.socket() as ear:
        neighbour.give("upload.keras", upload)
        ear.bind(("127.0.0.1", 0))
        ear.listen()
        ear.settimeout(0.0)
        arguments = {
            "neighbour": str(neighbour.scratch),
            "stored": str(stored),
            "source": str(Path(workers.__file__).parents[1]),
            "port": ear.getsockname()[1],
        }
        answer, _ = runner.call("get_out", arguments, {}, timeout_seconds=SECONDS)
        try:
            ear.accept()
            reached = True
        except BlockingIOError:
            reached = False
        yield Tried(answer, stored, neighbour.scratch, reached)


@pytest.mark.parametrize("attempt", OUT)
def test_a_runner_does_not_get_out(tried: Tried, attempt: str):
    assert tried.answer["outcomes"][attempt] in {"EPERM", "EACCES", "ENOSYS"}


def test_nothing_came_of_what_a_runner_tried(tried: Tried):
    assert tried.stored.read_text() == "stored"
    assert os.listdir(tried.neighbour) == ["upload.keras"]
    assert not tried.reached


def test_what_libraries_of_models_do_goes_on(tried: Tried):
    assert {name for name, done in tried.answer["legitimate"].items() if not done} == set()


def test_a_runner_has_no_rights_and_stands_apart(tmp_path: Path):
    with Runner(WorkerSettings(scratch_dir=tmp_path), entry=ENTRY) as runner:
        missing = runner.lockdown.missing
        status = dict(line.split(":\t") for line in Path(f"/proc/{runner.pid}/status").read_text().splitlines())
        apart = [
            os.readlink(f"/proc/{runner.pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
            for kind in ("net", "ipc")
        ]
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert apart == [("namespaces" not in missing)] * 2


def test_a_runner_that_does_not_say_how_far_it_is_locked_down_is_not_called(tmp_path: Path):
    with Runner(WorkerSettings(scratch_dir=tmp_path), entry="tests.opened_files") as runner:  # ends without a word
        with pytest.raises(RunnerFailed) as failed:
            runner.call("echo", {}, {}, timeout_seconds=SECONDS)
        assert failed.value.code == "runner_crashed"


def test_a_call_of_a_foreign_architecture_is_a_cause_of_its_own(tmp_path: Path):
    with Runner(WorkerSettings(scratch_dir=tmp_path), entry=ENTRY) as runner:
        with pytest.raises(RunnerFailed) as failed:
            runner.call("call_as_a_foreign_machine", {}, {}, timeout_seconds=SECONDS)
        assert failed.value.code == "runner_forbidden"


@pytest.mark.parametrize(
    ("command", "arguments", "limits", "seconds", "code"),
    [
        ("allocate", {"bytes": 2 * 1024**3}, {"memory_bytes": 1024**3}, SECONDS, "runner_memory"),
        ("die", {"last_words": ""}, {}, SECONDS, "runner_crashed"),
        ("hold_the_lock", {}, {}, 1.0, "runner_timeout"),
        ("write", {"bytes": 11_000}, {"file_bytes": 10_000}, SECONDS, "runner_disk"),
    ],
)
def test_the_cause_of_a_runners_end_is_still_told_right(
    tmp_path: Path, command: str, arguments: dict[str, Any], limits: dict[str, int], seconds: float, code: str
):
    settings = WorkerSettings(scratch_dir=tmp_path, runner_lockdown="partial")
    with Runner(settings, limits=replace(Limits.of(settings), **limits), entry=ENTRY) as runner:
        with pytest.raises(RunnerFailed) as failed:
            runner.call(command, arguments, {}, timeout_seconds=seconds)
        assert failed.value.code == code


def test_keras_cannot_be_made_to_load_a_savedmodel_of_a_neighbour(tmp_path: Path):
    settings = WorkerSettings(scratch_dir=tmp_path)
    with Runner(settings, entry=ENTRY) as runner, Runner(settings, entry=ENTRY) as neighbour:
        runner.call("make_savedmodel", {}, {}, timeout_seconds=SECONDS)
        assert runner.call("load_layer", {"path": "made"}, {}, timeout_seconds=SECONDS)[0]["name"] == "tfsm_layer"

        beside = (runner.scratch / "made").rename(neighbour.scratch / "made")
        for path in (beside, Path("..") / ".." / neighbour.scratch.parent.name / "work" / "made"):
            with pytest.raises(PredictionFailed):
                runner.call("load_layer", {"path": str(path)}, {}, timeout_seconds=SECONDS)
