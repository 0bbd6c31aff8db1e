"""The demo's models of texts and recordings: what they are trained on, and what they answer when files are sent."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from sluice.demo_artifacts import grant
from sluice.demo_descriptions import TOPICS, WAVES
from sluice.demo_examples import png_of, wav_of
from sluice.demo_messages import FILES
from sluice.trained import DIGIT, SENTENCE, TONE, TrainedFiles
from tests.system import System, plain_environment, start_up, stop_up, wait_for_output


def test_the_example_files_are_what_other_programs_read():
    pixels = np.random.default_rng(1).integers(0, 256, (28, 27), dtype=np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_of(pixels)))), pixels)
    samples = np.linspace(-1, 1, 101)
    frames, rate = soundfile.read(io.BytesIO(wav_of(samples, 8000)))
    assert rate == 8000
    assert np.abs(frames - samples).max() < 2**-14


def test_a_client_of_an_earlier_demo_keeps_what_it_was_granted(system: System):
    with system.admin() as admin:
        given = [{"model": "mnist", "weight": 3.0, "actions": ["predict"]}, {"model": "mine"}]
        made = admin.post("/admin/clients", {"name": "earlier", "scopes": ["predict"], "grants": given})
        for _ in range(2):
            grant(admin, made["id"], [{"model": "mnist"}, {"model": "topics"}])
        found = {one["model"]: one for one in admin.get(f"/admin/clients/{made['id']}/grants")["grants"]}
    assert found.keys() == {"mnist", "mine", "topics"}
    assert (found["mnist"]["weight"], found["mnist"]["actions"]) == (3.0, ["predict"])


@pytest.mark.long
def test_the_whole_demo_answers_files_with_what_they_are(tmp_path: Path):
    output = tmp_path / "output"
    process, address = start_up(tmp_path / "data", output, "--demo")
    try:
        wait_for_output(process, output, "/v1/models/tones:predict", seconds=300)
        pasted = [line for line in output.read_text().splitlines() if line.startswith(("TOKEN=", "curl "))]
        assert len(pasted) == 2 + len(FILES)
        shell = ["sh", "-eu", "-c", "\necho\n".join(pasted)]
        ended = subprocess.run(shell, env=plain_environment(), capture_output=True, text=True, timeout=60, check=True)
        answers = [json.loads(line)["predictions"][0] for line in ended.stdout.splitlines() if line]
    finally:
        stop_up(process)
    trained = TrainedFiles.read(tmp_path / "data" / "demo")
    assert trained is not None
    digit_as_numbers, digit, topic, wave = answers
    assert np.abs(np.array(digit_as_numbers) - digit).max() < 1e-3
    assert TOPICS[int(np.argmax(topic))] == trained.topic
    assert WAVES[int(np.argmax(wave))] == trained.wave
    assert min(trained.topics_accuracy, trained.tones_accuracy) >= 0.9
    for file in (DIGIT, SENTENCE, TONE):
        assert (tmp_path / "data" / file).is_file()
    assert address in output.read_text()
