"""Runners: what passes through their frames, what their commands may take, and how they end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from workers.errors import PredictionFailed, RunnerFailed, UploadRefused, brief
from workers.runner import scratch
from workers.runner.limits import Limits
from workers.runner.process import Runner
from workers.settings import WorkerSettings

ENTRY = "tests.runner_commands"
SECONDS = 60.0


@pytest.fixture
def worker_settings(tmp_path: Path) -> WorkerSettings:
    return WorkerSettings(scratch_dir=tmp_path / "scratch")


@pytest.fixture
def runner(worker_settings: WorkerSettings) -> Iterator[Runner]:
    with Runner(worker_settings, entry=ENTRY) as runner:
        yield runner


@contextlib.contextmanager
def limited_runner(worker_settings: WorkerSettings, **limits: int) -> Iterator[Runner]:
    with Runner(worker_settings, limits=replace(Limits.of(worker_settings), **limits), entry=ENTRY) as runner:
        yield runner


def wait_until(fact: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not fact():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# Calls


def test_a_runner_keeps_what_a_command_holds_between_calls(runner: Runner):
    tensors = {"x": np.arange(6, dtype=np.float32).reshape(2, 3).T, "s": np.array([[b"\xff\x00"]], object)}
    runner.call("echo", {}, tensors, timeout_seconds=SECONDS)

    answer, received = runner.call("echo", {"more": [1, None]}, tensors, timeout_seconds=SECONDS)

    assert answer == {"calls": 2, "more": [1, None]}
    assert np.array_equal(received["x"], tensors["x"])
    assert received["s"].tolist() == [[b"\xff\x00"]]


def test_tensors_of_many_megabytes_pass_in_both_directions(runner: Runner):
    large = np.random.default_rng(1).random(4_000_000)
    _, received = runner.call("echo", {}, {"large": large}, timeout_seconds=SECONDS)
    assert np.array_equal(received["large"], large)


def test_two_threads_that_call_one_runner_each_get_their_own_answer(runner: Runner):
    answers: dict[int, list[int]] = {1: [], 2: []}

    def call_often(number: int) -> None:
        for _ in range(50):
            answer, _ = runner.call("echo", {"number": number}, {}, timeout_seconds=SECONDS)
            answers[number].append(answer["number"])

    threads = [threading.Thread(target=call_often, args=(number,)) for number in answers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == {1: [1] * 50, 2: [2] * 50}


def test_errors_keep_their_code_and_message_and_leave_the_runner_alive(runner: Runner):
    with pytest.raises(UploadRefused, match="the third layer is a Lambda") as refused:
        runner.call("fail", {"how": "refused"}, {}, timeout_seconds=SECONDS)
    assert refused.value.code == "class_not_allowed"
    with pytest.raises(PredictionFailed, match=r"^the model does not like this$"):
        runner.call("fail", {"how": "failed"}, {}, timeout_seconds=SECONDS)
    assert runner.alive


def test_an_unexpected_error_shows_no_path_and_no_stack(runner: Runner):
    with pytest.raises(PredictionFailed) as failed:
        runner.call("fail", {"how": "foreign"}, {}, timeout_seconds=SECONDS)
    assert failed.value.message == "ValueError: cannot read … at all"


def test_a_command_that_is_not_listed_does_not_run(worker_settings: WorkerSettings):
    with Runner(worker_settings) as runner, pytest.raises(PredictionFailed):
        runner.call("echo", {}, {}, timeout_seconds=SECONDS)


def test_a_foreign_error_in_brief_is_one_short_printable_line():
    assert brief(ValueError("\n first\x1b[31m /etc/passwd/x C:\\Users\\me\nsecond")) == "ValueError: first[31m … …"
    assert brief(KeyError()) == "KeyError"
    assert len(brief(ValueError("/a/b" * 10_000 + "x" * 10_000))) < 250


# What a runner sees


def test_a_runner_inherits_no_variable_and_no_descriptor(
    worker_settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("SLUICE_DATABASE_URL", "postgresql://user:secret@host/name")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with open(tmp_path / "open", "w") as file, Runner(worker_settings, entry=ENTRY) as runner:
        os.set_inheritable(file.fileno(), True)
        with Runner(worker_settings, entry=ENTRY) as other:
            names = ["AS", "FSIZE", "NOFILE", "CORE"]
            seen, _ = other.call("look_around", {"limits": names}, {}, timeout_seconds=SECONDS)

        assert "secret" not in json.dumps(seen["environment"])
        assert not [name for name in seen["environment"] if name.startswith(("SLUICE_", "AWS_"))]
        for name in ("HOME", "KERAS_HOME", "TMPDIR"):
            assert Path(seen["environment"][name]).parent == other.scratch.parent
        assert seen["environment"]["HDF5_PLUGIN_PATH"] == "/nonexistent"
        # Landlock's rules on entries of /proc hold as long as somebody holds the entries.
        descriptors = [target for target in seen["descriptors"] if not target.startswith("/proc/")]
        kinds = sorted(target.partition(":")[0] for target in descriptors)
        assert kinds == ["pipe", "pipe", "pipe", "socket"]
        assert seen["limits"] == {
            "AS": [worker_settings.runner_memory_bytes] * 2,
            "FSIZE": [worker_settings.runner_file_bytes] * 2,
            "NOFILE": [worker_settings.runner_open_files] * 2,
            "CORE": [0, 0],
        }
        assert seen["session"] == other.pid
        assert seen["folder"] == str(other.scratch)
        assert runner.alive


def test_a_runner_imports_nothing_from_its_folder(worker_settings: WorkerSettings):
    with Runner(worker_settings, entry=ENTRY) as runner:
        (runner.scratch / "model.keras").write_bytes(b"x")
        seen, _ = runner.call("look_around", {"limits": []}, {}, timeout_seconds=SECONDS)
        assert seen["files"] == ["model.keras"]
        assert not {"", ".", str(runner.scratch)} & set(seen["path"])


# Limits


def test_an_allocation_over_the_limit_is_an_error_of_memory(worker_settings: WorkerSettings):
    with limited_runner(worker_settings, memory_bytes=1024**3) as runner:
        with pytest.raises(RunnerFailed) as failed:
            runner.call("allocate", {"bytes": 2 * 1024**3}, {}, timeout_seconds=SECONDS)
        assert failed.value.code == "runner_memory"
        assert not runner.alive
        with pytest.raises(RunnerFailed):
            runner.call("echo", {}, {}, timeout_seconds=SECONDS)


def test_a_library_that_finds_no_room_is_an_error_of_memory(runner: Runner):
    with pytest.raises(RunnerFailed) as failed:
        runner.call("fail", {"how": "memory"}, {}, timeout_seconds=SECONDS)
    assert failed.value.code == "runner_memory"


def test_a_native_abort_for_want_of_memory_is_an_error_of_memory(runner: Runner):
    words = "terminate called after throwing an instance of 'std::bad_alloc'"
    with pytest.raises(RunnerFailed) as failed:
        runner.call("die", {"last_words": words}, {}, timeout_seconds=SECONDS)
    assert failed.value.code == "runner_memory"


def test_a_file_over_the_limit_is_an_error_of_disk(worker_settings: WorkerSettings):
    with limited_runner(worker_settings, file_bytes=10_000) as runner:
        runner.call("write", {"bytes": 9_000}, {}, timeout_seconds=SECONDS)
        with pytest.raises(RunnerFailed) as failed:
            runner.call("write", {"bytes": 11_000}, {}, timeout_seconds=SECONDS)
        assert failed.value.code == "runner_disk"


def test_processor_time_over_the_limit_is_an_error_of_time(worker_settings: WorkerSettings):
    with limited_runner(worker_settings, cpu_seconds=1) as runner:
        with pytest.raises(RunnerFailed) as failed:
            runner.call("spin", {}, {}, timeout_seconds=SECONDS)
        assert failed.value.code == "runner_timeout"


def test_a_native_call_that_hangs_is_ended_at_its_time_out(runner: Runner):
    with pytest.raises(RunnerFailed) as failed:
        runner.call("hold_the_lock", {}, {}, timeout_seconds=1)
    assert failed.value.code == "runner_timeout"
    assert is_gone(runner.pid)
    assert not runner.scratch.exists()


def test_an_answer_over_the_limit_is_an_error_of_the_model(worker_settings: WorkerSettings):
    with limited_runner(worker_settings, answer_bytes=1000) as runner:
        with pytest.raises(PredictionFailed, match="too large"):
            runner.call("answer_with", {"bytes": 1001}, {}, timeout_seconds=SECONDS)
        runner.call("answer_with", {"bytes": 1000}, {}, timeout_seconds=SECONDS)


def test_a_limit_that_is_lower_already_stays(worker_settings: WorkerSettings):
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64));"
        "from workers.runner.limits import Limits; Limits.from_json(sys.argv[1]).apply();"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    command = [sys.executable, "-c", script, Limits.of(worker_settings).to_json()]
    assert subprocess.check_output(command).split() == [b"64", b"64"]


# How a runner ends


def test_what_is_given_to_a_runner_is_never_written_through_a_link_that_it_laid(runner: Runner, tmp_path: Path):
    ours, upload = tmp_path / "ours", tmp_path / "upload"
    ours.write_text("ours")
    upload.write_text("uploaded")
    for lay in (lambda path: path.symlink_to(ours), lambda path: path.hardlink_to(ours), os.mkfifo):
        lay(runner.scratch / "model.onnx")
        runner.give("model.onnx", upload)
        assert (runner.scratch / "model.onnx").read_text() == "uploaded"
        assert ours.read_text() == "ours"
        (runner.scratch / "model.onnx").unlink()


def test_a_runner_that_lies_in_the_way_is_ended(runner: Runner, tmp_path: Path):
    upload = tmp_path / "upload"
    upload.write_text("uploaded")
    (runner.scratch / "model.onnx").mkdir()
    with pytest.raises(RunnerFailed) as caught:
        runner.give("model.onnx", upload)
    assert caught.value.code == "runner_crashed"
    assert not runner.alive


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_runner_that_is_killed_is_an_error_value(runner: Runner, number: int):
    threading.Timer(0.3, os.kill, (runner.pid, number)).start()
    with pytest.raises(RunnerFailed) as failed:
        runner.call("hold_the_lock", {}, {}, timeout_seconds=SECONDS)
    assert failed.value.code == "runner_crashed"
    assert not runner.scratch.exists()


def test_a_command_that_exits_is_a_crash(runner: Runner):
    with pytest.raises(RunnerFailed) as failed:
        runner.call("fail", {"how": "exit"}, {}, timeout_seconds=SECONDS)
    assert failed.value.code == "runner_crashed"


@pytest.mark.parametrize("sent", ["00" * 16, b"SLR1\xff\xff\xff\xff".hex() + "00" * 8, b"SLR1".hex() + "00" * 12])
def test_a_runner_that_breaks_the_frames_is_ended(runner: Runner, sent: str):
    with pytest.raises(RunnerFailed) as failed:
        runner.call("break_the_frame", {"hex": sent}, {}, timeout_seconds=SECONDS)
    assert failed.value.code == "runner_crashed"
    assert is_gone(runner.pid)


def test_what_a_runner_prints_cannot_stop_it_and_only_the_end_is_logged(
    runner: Runner, caplog: pytest.LogCaptureFixture
):
    runner.call("chatter", {"lines": 100_000}, {}, timeout_seconds=SECONDS)
    with pytest.raises(RunnerFailed) as failed:
        runner.call("die", {"last_words": "the last words"}, {}, timeout_seconds=SECONDS)
    assert "the last words" in caplog.text
    assert len(caplog.text) < 6000
    assert "the last words" not in failed.value.message


def test_closing_leaves_no_process_no_folder_and_no_descriptor(worker_settings: WorkerSettings):
    before = os.listdir("/proc/self/fd")
    with Runner(worker_settings, entry=ENTRY) as runner:
        runner.call("echo", {}, {}, timeout_seconds=SECONDS)
        closed = runner.scratch / "closed"
        closed.mkdir()
        (closed / "file").touch()
        closed.chmod(0)
        assert stat.S_IMODE(runner.scratch.parent.stat().st_mode) == 0o700
    assert is_gone(runner.pid)
    assert list(worker_settings.scratch_dir.iterdir()) == []
    wait_until(lambda: len(os.listdir("/proc/self/fd")) == len(before))
    runner.close()


def test_a_runner_that_is_forgotten_is_ended(worker_settings: WorkerSettings):
    runner = Runner(worker_settings, entry=ENTRY)
    pid = runner.pid
    del runner
    assert is_gone(pid)
    assert list(worker_settings.scratch_dir.iterdir()) == []


def test_another_thread_may_close_a_runner_in_the_middle_of_a_call(runner: Runner):
    threading.Timer(0.3, runner.close).start()
    with pytest.raises(RunnerFailed):
        runner.call("hold_the_lock", {}, {}, timeout_seconds=SECONDS)


def test_a_call_that_a_signal_breaks_off_ends_the_runner_so_that_no_answer_meets_another_question(runner: Runner):
    def break_off(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    runner.call("echo", {}, {}, timeout_seconds=SECONDS)
    before = signal.signal(signal.SIGALRM, break_off)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    with pytest.raises(KeyboardInterrupt):
        runner.call("hold_the_lock", {}, {}, timeout_seconds=SECONDS)
    signal.signal(signal.SIGALRM, before)
    assert not runner.alive


PARENT = """
import sys
from pathlib import Path
from workers.runner.process import Runner
from workers.settings import WorkerSettings
runner = Runner(WorkerSettings(scratch_dir=Path(sys.argv[1])), entry="tests.runner_commands")
runner.call("echo", {}, {}, timeout_seconds=60)
print(runner.pid, flush=True)
runner.call("hold_the_lock", {}, {}, timeout_seconds=600)
"""


def test_a_runner_dies_with_its_parent_also_within_a_native_call_and_its_folder_is_swept(tmp_path: Path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not is_gone(pid)
        assert scratch.sweep(tmp_path) == 0  # its owner lives
        parent.kill()
    wait_until(lambda: is_gone(pid))
    assert scratch.sweep(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_new_runner_sweeps_what_a_killed_worker_left_but_no_folder_that_is_in_use(worker_settings: WorkerSettings):
    worker_settings.scratch_dir.mkdir()
    left = worker_settings.scratch_dir / f"{scratch.PREFIX}left"
    (left / "work").mkdir(parents=True)
    (left / "work" / "link").symlink_to("/etc")
    other = worker_settings.scratch_dir / "other"
    other.mkdir()
    with Runner(worker_settings, entry=ENTRY) as first, Runner(worker_settings, entry=ENTRY) as second:
        assert not left.exists()
        assert other.exists()
        assert first.scratch.exists()
        assert second.scratch.exists()


def test_a_runner_without_a_place_for_its_folder_is_an_error_value(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(RunnerFailed):
        Runner(WorkerSettings(scratch_dir=tmp_path / "file" / "below"))


def test_a_runner_that_cannot_start_is_an_error_value(worker_settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(RunnerFailed) as failed:
        Runner(worker_settings)
    assert failed.value.code == "runner_crashed"
    assert list(worker_settings.scratch_dir.iterdir()) == []
