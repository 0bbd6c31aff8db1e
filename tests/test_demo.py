"""`sluice up --demo`, from an empty folder to the two commands that a new user pastes."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sluice.client import Client
from sluice.demo_artifacts import ARTIFACTS, is_in_place
from sluice.trained import DIGIT, Trained
from tests.system import plain_environment, start_up, stop_up, wait_for_output

DONE = "Sluice's answer just now"

pytestmark = pytest.mark.long  # it trains and starts twice


@dataclass(frozen=True, slots=True)
class Demo:
    """A data folder with a demo, started twice: what the first start and the second one printed; the second runs."""

    data: Path
    address: str
    first: str
    second: str
    first_credentials: dict[str, str]


def finish_demo(folder: Path, name: str) -> tuple[subprocess.Popen[bytes], str, str]:
    """A `sluice up --demo` whose demo is complete, its address and its output."""
    output = folder / name
    process, address = start_up(folder / "data", output, "--demo", "--small")
    try:
        wait_for_output(process, output, DONE, seconds=150)
    except BaseException:
        stop_up(process)
        raise
    return process, address, output.read_text()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    process, _, first = finish_demo(folder, "first")
    assert stop_up(process) == 0
    credentials = json.loads((folder / "data" / "demo.json").read_text())
    # Another port: the folder is the same, the address is not.
    process, address, second = finish_demo(folder, "second")
    yield Demo(folder / "data", address, first, second, credentials)
    stop_up(process)


def pasted(output: str) -> str:
    """What the two printed commands print when they are pasted into a POSIX shell."""
    commands = [line for line in output.splitlines() if line.startswith(("TOKEN=", "curl "))]
    assert len(commands) == 2
    shell = ["sh", "-eu", "-c", "\n".join(commands)]
    return subprocess.run(shell, env=plain_environment(), capture_output=True, text=True, timeout=60, check=True).stdout


def test_the_printed_commands_predict_the_digit(demo: Demo) -> None:
    trained = Trained.read(demo.data / "demo")
    assert trained is not None

    (probabilities,) = json.loads(pasted(demo.second))["predictions"]

    assert len(probabilities) == 10
    assert probabilities.index(max(probabilities)) == trained.digit
    assert f"the digit is a {trained.digit} (" in demo.first
    # the same digit as a picture, for whoever pastes on at once
    assert (demo.data / DIGIT).read_bytes() == (demo.data / "demo" / DIGIT).read_bytes()


def test_the_network_learned_its_digits_and_the_line_was_found_again(demo: Demo) -> None:
    trained = Trained.read(demo.data / "demo")
    assert trained is not None

    assert trained.accuracy >= 0.90
    assert f"accuracy {trained.accuracy:.3f} on 1,000 held-out digits" in demo.first
    assert max(trained.weights_error, trained.bias_error) < 0.01


def test_the_credentials_are_in_a_file_that_only_this_user_can_read(demo: Demo) -> None:
    names = ["base_url", "client_id", "client_secret", "admin_client_id", "admin_client_secret"]
    assert list(demo.first_credentials) == names
    assert stat.S_IMODE((demo.data / "demo.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((demo.data / "demo.curl").stat().st_mode) == 0o600
    assert stat.S_IMODE((demo.data / "admin.curl").stat().st_mode) == 0o600
    # and no secret was printed
    assert "sls_" not in demo.first + demo.second


def test_both_files_and_the_line_serve_and_agree(demo: Demo) -> None:
    digit = json.loads((demo.data / "digit.json").read_text())["instances"]

    with Client.from_file(demo.data / "demo.json") as sluice:
        assert sluice.get("/v1/models") == {"models": ["linear", "mnist"]}
        (keras,), (h5,) = sluice.predict("mnist", digit, version=1), sluice.predict("mnist", digit, version=2)
        assert keras == pytest.approx(h5, abs=1e-6)
        # called as the documents' examples call it
        (at_origin,) = sluice.predict("linear", [[0.0, 0.0]], outputs="y")
        assert at_origin == pytest.approx([4.2], abs=0.01)


def test_a_second_start_finds_everything_there(demo: Demo) -> None:
    assert "Training mnist" in demo.first
    assert "Training" not in demo.second
    assert "Preparing" not in demo.second
    # the same client, at today's address
    credentials = json.loads((demo.data / "demo.json").read_text())
    assert credentials == demo.first_credentials | {"base_url": demo.address}
    with Client.from_file(demo.data / "demo.json", admin=True) as sluice:
        versions = {model["name"]: len(model["versions"]) for model in sluice.get("/admin/models")["models"]}
    assert versions == {"linear": 1, "mnist": 2}


def test_a_version_that_was_retired_is_not_uploaded_again(demo: Demo) -> None:
    with Client.from_file(demo.data / "demo.json", admin=True) as sluice:
        sluice.post("/admin/models/mnist/versions/2/retire")

        assert all(is_in_place(sluice, artifact) for artifact in ARTIFACTS)
