"""Peers are pinned, checked before they are timed, ended as a whole, and shown where they fail."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from benchmarks import models
from benchmarks.bodies import rounded
from benchmarks.failures import BenchmarkFailed
from benchmarks.load import Measurement
from benchmarks.peers.__main__ import chosen, main, servers
from benchmarks.peers.catalog import peers
from benchmarks.peers.environment import Environment
from benchmarks.peers.forms import BINARY, JSON, predict_json, raw, v2_binary, v2_json
from benchmarks.peers.measuring import Result, verify
from benchmarks.peers.peer import Peer
from benchmarks.peers.table import Run
from benchmarks.peers.workload import DIGITS, PHOTOGRAPHS, Workload, predictions, workload

FORM = predict_json("/predict")
# A server with a child in its group: both must be gone afterwards.
PROGRAM = """
import json, os, subprocess, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import numpy, onnxruntime

class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        images = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["instances"]
        found = session.run(None, {"image": numpy.array(images, numpy.float32)})[0] + float(os.environ["OFF_BY"])
        body = json.dumps({"predictions": found.tolist()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

session = onnxruntime.InferenceSession(os.environ["MODEL"])
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Answers).serve_forever()
"""
# In a process of its own, as the benchmark does it: TensorFlow stays out of the tests'.
EXPORT = """
import sys
from pathlib import Path
import keras, numpy
from benchmarks.peers.models import save

folder = Path(sys.argv[1])
network = keras.Sequential([keras.Input((3, 2)), keras.layers.Flatten(), keras.layers.Dense(4)])
save(network, folder / "small")
images = numpy.random.default_rng(2).random((5, 3, 2), dtype=numpy.float32)
numpy.save(folder / "images.npy", images)
numpy.save(folder / "expected.npy", network(images).numpy())
"""


@pytest.fixture
def asked(tmp_path: Path) -> Workload:
    models.small(tmp_path)
    (tmp_path / "mnist.onnx").rename(tmp_path / "digits.onnx")
    return workload(DIGITS, tmp_path, (1,))


def a_peer(folder: Path, program: str = PROGRAM, off_by: float = 0.0) -> Peer:
    """A peer of one program, in an environment that is there already: ours."""
    environment = Environment(str(folder), folder / "environment")
    environment.binaries.mkdir(parents=True)
    (environment.binaries / "run").symlink_to(sys.executable)
    (folder / "server.py").write_text(program)
    return Peer(
        name="a peer",
        environment=environment,
        packages=(),
        commands=(f"{sys.executable} server.py",),
        settings_of_programs={"MODEL": "{model}.onnx", "OFF_BY": str(off_by)},
        for_digits=(FORM,),
    )


def test_every_peer_has_its_programs_its_pinned_packages_and_its_settings_written_down(tmp_path: Path) -> None:
    for peer in peers(tmp_path):
        lines = peer.environment.requirements.read_text().splitlines()

        assert all("==" in line and "://" not in line for line in lines), peer.name
        assert all(peer.environment.version(package) in peer.version for package in peer.packages)
        assert len(peer.settings) > 50
        assert peer.forms(DIGITS)
        assert all(form.kind in (JSON, BINARY) for form in peer.forms(DIGITS) + peer.forms(PHOTOGRAPHS))


def test_a_package_that_is_not_pinned_has_no_version(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkFailed, match="pins no sluice"):
        Environment("mosec", tmp_path).version("sluice")


def test_servers_are_chosen_by_words_of_their_names(tmp_path: Path) -> None:
    found = servers(tmp_path)

    assert [one.name for one in chosen(found, ["MOSEC", "triton"])] == ["mosec", "Triton"]
    assert chosen(found, []) == found
    with pytest.raises(BenchmarkFailed, match=r"no server is called torch; there are Sluice, .*Triton"):
        chosen(found, ["torch"])


def test_the_list_names_every_server_and_installs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["peers", "--list", "--root", str(tmp_path / "root")])

    assert main() == 0

    said = capsys.readouterr().out
    assert all(name in said for name in ("Sluice", "Flask", "Celery", "LitServe", "BentoML", "MLServer", "KServe"))
    assert not (tmp_path / "root").exists()


def test_a_form_writes_an_image_as_its_protocol_says_and_reads_the_row_of_the_answer() -> None:
    image = rounded(np.random.default_rng(1).random((1, 28, 28), dtype=np.float32))
    row = np.arange(10, dtype="<f4")

    body = json.loads(predict_json("/p").write(image).body)
    np.testing.assert_array_equal(np.array(body["instances"], np.float32), image)
    tensor = json.loads(v2_json("/p", "x").write(image).body)["inputs"][0]
    assert (tensor["name"], tensor["shape"], tensor["datatype"], len(tensor["data"])) == ("x", [1, 28, 28], "FP32", 784)
    request = v2_binary("/p", "x").write(image)
    head = int(request.headers["Inference-Header-Content-Length"])
    assert json.loads(request.body[:head])["inputs"][0]["parameters"] == {"binary_data_size": 784 * 4}
    np.testing.assert_array_equal(np.frombuffer(request.body[head:], "<f4"), image.ravel())
    assert raw("/p").write(image).body == image.tobytes()

    answer = v2_binary("/p", "x").read({"inference-header-content-length": "2"}, b"{}" + row.tobytes())
    np.testing.assert_array_equal(answer, row)
    np.testing.assert_array_equal(predict_json("/p", answer=None).read({}, json.dumps([row.tolist()]).encode()), row)


def test_a_peer_whose_answers_are_right_is_verified_and_leaves_no_process(tmp_path: Path, asked: Workload) -> None:
    peer = a_peer(tmp_path / "peer")

    with peer.serving(asked) as target:
        verify(target, FORM, asked)
        child = int(next((tmp_path / "peer").rglob("output-0.txt")).read_text().split()[0])
        assert Path(f"/proc/{child}").exists()

    assert not Path(f"/proc/{child}").exists()


def test_a_peer_whose_answers_are_wrong_is_found_out(tmp_path: Path, asked: Workload) -> None:
    with (
        a_peer(tmp_path / "peer", off_by=0.001).serving(asked) as target,
        pytest.raises(BenchmarkFailed, match="wrong answer to image 0"),
    ):
        verify(target, FORM, asked)


def test_a_peer_that_ends_before_it_answers_says_why(tmp_path: Path, asked: Workload) -> None:
    peer = a_peer(tmp_path / "peer", program="raise SystemExit('the library is missing')")

    with pytest.raises(BenchmarkFailed, match="the library is missing"), contextlib.ExitStack() as stack:
        stack.enter_context(peer.serving(asked))


@pytest.mark.long
def test_an_exported_model_answers_as_the_keras_model_does_whatever_the_number_of_images(tmp_path: Path) -> None:
    quiet = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}

    subprocess.run([sys.executable, "-c", EXPORT, str(tmp_path)], check=True, timeout=120, env=os.environ | quiet)

    images, expected = np.load(tmp_path / "images.npy"), np.load(tmp_path / "expected.npy")
    np.testing.assert_allclose(predictions(tmp_path / "small.onnx", images), expected, atol=1e-5)
    assert (tmp_path / "small.keras").exists()


def a_run(*results: Result) -> Run:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    return Run(moment, 4.0, {"processors": "2 x test"}, {"one": "as it comes"}, results)


def test_a_table_shows_the_predictions_that_were_right_and_counts_the_others(tmp_path: Path) -> None:
    measured = {1: Measurement(1000, 1.0, 1.0, 1.5, 2.0, 9.0), 32: Measurement(5000, 1.0, 3, 4, 5, 6, {"status": 1000})}
    good = Result("one", "one 1.0", DIGITS, "JSON", JSON, measured)
    part = Result("two", "two 2.0", DIGITS, "JSON", JSON, {1: measured[1]}, failed="it fell\nover")
    none = Result("two", "two 2.0", DIGITS, "raw bytes", BINARY, failed="not installed " + "x" * 1000)

    path = a_run(good, part, none).write(tmp_path / "results")

    text = path.read_text()
    assert path.name == "2026-01-02T030405Z-peers.md"
    assert "| one | one 1.0 | JSON | 1,000<br>1.00 / 2.00 | 4,000<br>3.00 / 5.00 | 1,000 at 32 |" in text
    assert "| two | two 2.0 | JSON | 1,000<br>1.00 / 2.00 | failed | 0 |" in text
    assert "two (JSON) failed: it fell over\n" in text
    assert "two (raw bytes) failed: not installed xxx" in text
    assert "x" * 400 not in text
    assert "* **one**: as it comes" in text
    document = json.loads(path.with_suffix(".json").read_text())
    assert document["results"][0]["measured"]["32"]["errors"] == {"status": 1000}
    assert document["results"][2]["failed"].startswith("not installed")
    assert document["machine"] == {"processors": "2 x test"}
