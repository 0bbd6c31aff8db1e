"""`sluice predict` and `sluice explain`, with numbers and with files; and what shells complete."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sluice.cli import app
from sluice.client import Client
from sluice.failures import CommandFailed
from sluice.prediction_tables import classes, explained
from sluice.request_files import read_given
from tests.command_line import Shell, shell_for
from tests.demo_kit import TEXTS, undecided
from tests.onnx_models import digits, line
from tests.processes import wait_for
from tests.system import System

IMAGES = {"kind": "image", "height": 28, "width": 28, "channels": 1, "resize": "none", "range": [0, 1]}


@pytest.fixture(scope="module")
def shell(system: System, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return shell_for(system, line(tmp_path_factory.mktemp("models") / "line.onnx", weights=[1.0, 10.0], bias=100.0))


def test_json_arrays_and_archives_give_the_same_predictions(shell: Shell, tmp_path: Path) -> None:
    rows = np.array([[1, 2], [3, 4]], np.float32)
    np.save(tmp_path / "rows.npy", rows)
    np.savez(tmp_path / "rows.npz", x=rows)
    (tmp_path / "rows.json").write_text(json.dumps(rows.tolist()))

    for file in ("rows.npy", "rows.npz", "rows.json"):
        assert shell("predict", shell.model, str(tmp_path / file)).output == "[121.0]\n[143.0]\n"
    document = json.dumps({"instances": rows.tolist()})
    answered = shell("predict", shell.model, "-", "--json", text=document).output
    assert json.loads(answered) == {"predictions": [[121.0], [143.0]]}


def test_the_best_classes_are_a_table_and_json_for_programs(shell: Shell) -> None:
    asked = ("predict", shell.model, "-", "--top", "1")

    table = shell(*asked, text="[[1, 2]]").output
    answered = json.loads(shell(*asked, "--json", text="[[1, 2]]").output)

    assert table.splitlines()[-1].split() == ["0", "0", "121"]
    assert shell(*asked, text='{"inputs": [[1, 2]]}').output == table
    assert answered["predictions"][0][0]["score"] == 121.0


def test_what_is_no_request_is_refused_before_it_is_sent(shell: Shell, tmp_path: Path) -> None:
    for name, content, said in (
        ("torn.json", b"{", "is not JSON"),
        ("number.json", b"7", "a request is"),
        ("pickle.npy", b"\x80\x04.", "holds no arrays"),
        ("torn.npz", b"PK\x03\x04", "holds no arrays"),
    ):
        (tmp_path / name).write_bytes(content)
        ended = shell("predict", shell.model, str(tmp_path / name), fails=True)
        assert isinstance(ended.exception, CommandFailed)
        assert said in str(ended.exception)
    for array in (np.array(["2026-01-01"], "datetime64[D]"), np.array([1j]), np.array([b"x"])):
        np.save(tmp_path / "array.npy", array)
        assert "holds no arrays" in str(
            shell("predict", shell.model, str(tmp_path / "array.npy"), fails=True).exception
        )
    deep = shell("predict", shell.model, "-", text="[" * 100_000, fails=True)
    assert "is not JSON" in str(deep.exception)
    assert "cannot read" in str(shell("predict", shell.model, str(tmp_path / "none"), fails=True).exception)
    both = shell("predict", shell.model, "-", "--version", "1", "--label", "a", fails=True)
    assert "not both" in str(both.exception)


def test_files_are_known_by_their_names_or_by_what_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "b").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "c.txt").write_text("grüß")

    assert read_given(str(tmp_path / "a.jpg")).content_type == "image/jpeg"
    assert read_given(str(tmp_path / "b"), "image/jpeg").as_document() == {"instances": [{"b64": "/9j/"}]}
    assert read_given(str(tmp_path / "c.txt")).as_document() == {"instances": ["grüß"]}


def test_an_image_is_sent_as_it_is_and_explained_by_a_picture(system: System, tmp_path: Path) -> None:
    # given a model whose input takes images
    shell, picture, why = shell_for(system, digits(tmp_path / "digits.onnx")), tmp_path / "7.png", tmp_path / "why.png"
    with system.admin() as admin:
        path = f"/admin/models/{shell.model}/versions/1/metadata"
        admin.put(path, admin.get(path, own="true") | {"input_specification": IMAGES})
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(picture)
    asked = ("predict", shell.model, str(picture))
    # A gateway looks at what was said of models every second.
    wait_for(lambda: CliRunner().invoke(app, asked, env=shell.who).exit_code == 0, 20)

    # then a picture's file is a request, also with options and as a job
    assert json.loads(shell(*asked).output) == pytest.approx([0.1] * 10)
    assert shell(*asked, "--top", "2").output.count("0.1") == 2
    job = shell("jobs", "submit", shell.model, str(picture)).output.strip()
    assert json.loads(shell("jobs", "wait", "--json", "--", job).output)["state"] == "succeeded"

    # and another picture shows what its score is owed to
    shell("explain", shell.model, str(picture), "--overlay", str(why), "--patch", "14")
    assert why.read_bytes().startswith(b"\x89PNG")


def test_an_explanation_names_the_parts_that_count_most(shell: Shell) -> None:
    table = shell("explain", shell.model, "-", text="[[1, 2]]").output
    answered = json.loads(shell("explain", shell.model, "-", "--json", text="[[1, 2]]").output)

    assert [row.split()[-2:] for row in table.splitlines()[1:]] == [["1", "+20"], ["0", "+1"]]
    assert answered["explanations"][0]["attributions"] == {"x": [1.0, 20.0]}
    nothing = shell("explain", shell.model, "-", "--overlay", "why.png", text="[[1, 2]]", fails=True)
    assert "this was no image" in str(nothing.exception)


def test_a_text_gets_as_many_dimensions_as_the_model_has(system: System, tmp_path: Path) -> None:
    shell, text = shell_for(system, undecided(tmp_path / "topics.onnx", TEXTS)), tmp_path / "text.txt"
    text.write_text("so nice")

    assert shell("predict", shell.model, str(text), "--top", "1").output.split()[-2:] == ["0", "0.25"]
    parts = [line.split()[-2] for line in shell("explain", shell.model, str(text)).output.splitlines()[1:]]
    with Client(system.base_url, shell.who["SLUICE_CLIENT_ID"], shell.who["SLUICE_CLIENT_SECRET"]) as sluice:
        for given in (text, "so nice", ["so nice"]):
            assert sluice.explain(shell.model, given)[0].words == {"text": ["so", "nice"]}

    assert parts == ["so", "nice"]


def test_a_patch_of_an_image_is_one_part_of_the_table() -> None:
    whole, patch = np.zeros((20, 20)), np.zeros((20, 20))
    patch[4:8, 10:15] = 0.5
    whole[0, 0] = whole[19, 19] = -0.25
    for image, first in ((patch, ["4-7, 10-14", "+0.5"]), (whole, ["0, 0", "-0.25"])):
        told = explained({"explanations": [{"class": 1, "score": 0.75, "attributions": {"x": image.tolist()}}]})
        assert [next(iter(column.cells)) for column in told.columns][-2:] == first


def test_words_and_names_stand_in_the_tables() -> None:
    told = explained(
        {"explanations": [{
            "class": 1, "class_name": "good", "score": 0.75, "words": {"text": ["so", "nice", "film"]},
            "attributions": {"text": [0.25, -0.5, 0.75]},
        }]}
    )  # fmt: skip
    assert [list(column.cells) for column in told.columns][-2:] == [["film", "nice", "so"], ["+0.75", "-0.5", "+0.25"]]
    assert classes([[0.5, 0.5]]) is None
    named = classes([[{"index": 7, "class": "[seven]", "score": 0.9}]])
    assert named is not None
    assert len(named.columns) == 4
