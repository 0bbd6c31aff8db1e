"""`map` of the Python client: in order, in batches, several at once, and on from where it was killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from sluice import Client, InputInvalid
from sluice.checkpoint import Checkpoint, CheckpointInvalid, digest_of
from sluice.predicted import Answer
from tests.client_kit import CLIENTS, Login, login
from tests.processes import Cluster
from tests.system import plain_environment

ROWS = np.arange(46, dtype=np.float32).reshape(23, 2)
# A run whose instances come to a halt, and that is killed there.
RUN = """
import sys, time
import numpy as np
from sluice import Client

rows = np.arange(46, dtype=np.float32).reshape(23, 2)

def given():
    yield from rows[:14]
    time.sleep(600)

url, client_id, secret, checkpoint = sys.argv[1:]
with Client(url, client_id, secret) as sluice:
    for row in sluice.map("double", given(), batch=2, concurrency=1, checkpoint=checkpoint):
        print(row.tolist(), flush=True)
"""


@pytest.fixture(scope="module")
def given(serving: Cluster) -> Login:
    return login(serving, "double", "times", "words")


@pytest.fixture(params=CLIENTS, ids=("threads", "asyncio"))
def sluice(request: pytest.FixtureRequest, given: Login) -> Iterator[Any]:
    with request.param(*given) as made:
        yield made


def infers(sluice: Client) -> list[str]:
    """The addresses of predictions that the client asks from now on."""
    asked: list[str] = []

    def note(request: httpx.Request) -> None:
        if request.url.path.endswith("/infer"):
            asked.append(request.url.path)

    sluice._link._http.event_hooks["request"].append(note)
    return asked


def test_every_instance_has_its_prediction_in_order(sluice: Any):  # noqa: ANN401 - of two kinds
    expected = (ROWS * 2).tolist()
    for instances in (ROWS, iter(ROWS), ROWS.tolist(), {"x": ROWS}, ({"x": row} for row in ROWS)):
        found = list(sluice.map("double", instances, batch=5, concurrency=3))
        assert [one.tolist() for one in found] == expected
    named = list(sluice.map("times", ROWS, batch=10, label="stable", outputs=["y"]))
    assert [one["y"].tolist() for one in named] == expected
    assert list(sluice.map("words", ["a", "b", "c"], batch=2, outputs="y")) == [["a"], ["b"], ["c"]]
    assert list(sluice.map("double", [])) == []


class Frame:
    """As a table of pandas: an array of its rows, an iterable of its columns' names."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:  # noqa: ANN401 - as NumPy calls it
        return ROWS

    def __len__(self) -> int:
        return len(ROWS)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return ROWS[rows]

    def __iter__(self) -> Iterator[str]:
        return iter(("a", "b"))


def test_a_table_is_its_rows(sluice: Any):  # noqa: ANN401 - of two kinds
    assert [one.tolist() for one in sluice.map("double", Frame(), batch=5)] == (ROWS * 2).tolist()


def test_what_are_no_instances_and_no_options_is_told(sluice: Any):  # noqa: ANN401 - of two kinds
    for one in ("a text", b"a file", Path("a file")):
        with pytest.raises(TypeError, match="put into a list"):
            list(sluice.map("words", one))
    with pytest.raises(TypeError, match="no option 'batch_size', but batch, concurrency"):
        list(sluice.map("double", ROWS, batch_size=7))


def test_what_is_refused_ends_it_at_its_place(sluice: Any):  # noqa: ANN401 - of two kinds
    rows = [[1.0, 2.0]] * 4 + [[1.0, 2.0, 3.0]] * 4
    found: list[object] = []
    with pytest.raises(InputInvalid, match="unexpected size"):
        found.extend(sluice.map("double", rows, batch=2, concurrency=1))
    for wrong in ({"batch": 0}, {"concurrency": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            list(sluice.map("double", rows, **wrong))
    with pytest.raises(ValueError, match="equally many"):
        list(sluice.map("double", {"x": ROWS, "z": ROWS[1:]}))


def test_no_more_is_read_than_is_under_way(given: Login):
    taken: list[int] = []

    def rows() -> Iterator[np.ndarray]:
        for number, row in enumerate(ROWS):
            taken.append(number)
            yield row

    with Client(*given) as sluice:
        found = sluice.map("double", rows(), batch=2, concurrency=2)
        next(found)
        # Four batches, of which the first is being given out.
        assert len(taken) == 8
        found.close()


def test_a_progress_bar_is_shown_where_it_is_asked_for(given: Login, capfd: pytest.CaptureFixture[str]):
    with Client(*given) as sluice:
        assert len(list(sluice.map("double", ROWS, progress=True))) == 23
    said = capfd.readouterr()
    assert "double" in said.err
    assert "23/23" in said.err
    assert said.out == ""


def test_a_map_that_was_killed_sends_only_what_is_missing(given: Login, tmp_path: Path):
    # given a run that was killed after it had given out six batches
    checkpoint = tmp_path / "answers"
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, *given, checkpoint], stdout=subprocess.PIPE, env=plain_environment(), text=True
    )
    assert run.stdout is not None
    with run:
        before = [run.stdout.readline() for _ in range(12)]
        run.kill()
    assert checkpoint.stat().st_mode & 0o077 == 0
    # and in the middle of a write
    with checkpoint.open("ab") as file:
        file.write(b"half of a record")
    # when the same call is made again
    with Client(*given) as sluice:
        asked = infers(sluice)
        found = [row.tolist() for row in sluice.map("double", ROWS, batch=2, concurrency=1, checkpoint=checkpoint)]
        # then all predictions come, and only those of six of twelve batches were asked for
        assert found == (ROWS * 2).tolist()
        assert [f"{row}\n" for row in found[:12]] == before
        assert len(asked) == 6
        # and a third run asks for nothing
        again = [row.tolist() for row in sluice.map("double", ROWS, batch=2, concurrency=1, checkpoint=checkpoint)]
        assert again == found
        assert len(asked) == 6
        # and another call is not mistaken for it
        with pytest.raises(CheckpointInvalid, match="another call"):
            list(sluice.map("double", ROWS, batch=3, checkpoint=checkpoint))
        with pytest.raises(CheckpointInvalid, match="other instances"):
            list(sluice.map("double", ROWS + 1, batch=2, checkpoint=checkpoint))


@pytest.mark.parametrize("lost", [1, 16, 30, 60, 200])
def test_what_was_cut_off_is_written_anew(tmp_path: Path, lost: int):
    answers = [Answer(bytes([number]) * 20, None if number % 2 else 5, number or None) for number in range(4)]
    digests = [digest_of([number]) for number in range(4)]
    path, call = tmp_path / "kept", {"model": "m"}
    with Checkpoint(path, call) as kept:
        for digest, answer in zip(digests, answers, strict=True):
            kept.append(digest, answer)
        with pytest.raises(CheckpointInvalid, match="in use"):
            Checkpoint(path, call)
    path.write_bytes(path.read_bytes()[:-lost])
    with Checkpoint(path, call) as kept:
        place = 0
        while (found := kept.next(digests[place])) is not None:
            assert found == answers[place]
            place += 1
        assert place < 4
        for digest, answer in zip(digests[place:], answers[place:], strict=True):
            kept.append(digest, answer)
    with Checkpoint(path, call) as kept:
        assert [kept.next(digest) for digest in digests] == answers


def test_a_changed_record_is_not_believed(tmp_path: Path):
    path = tmp_path / "kept"
    with Checkpoint(path, {}) as kept:
        kept.append(digest_of([1]), Answer(b"answer", None, 1))
    path.write_bytes(path.read_bytes().replace(b"answer", b"forged"))
    with Checkpoint(path, {}) as kept:
        assert kept.next(digest_of([1])) is None


def test_instances_are_told_from_one_another():
    given = [
        np.zeros(2),
        np.zeros(2, np.float32),
        np.zeros((2, 1)),
        [0, 0],
        {"x": np.zeros(2)},
        {"y": np.zeros(2)},
        "a",
        b"a",
    ]
    assert len({digest_of(one) for one in given}) == len(given)
    assert digest_of(np.array(["a"], object)) == digest_of(np.array(["a"], object))
