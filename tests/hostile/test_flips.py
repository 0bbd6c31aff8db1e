"""M53: a file of weights with single bytes changed, read by libhdf5 in a runner."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.hostile.bait import archive, good_weights
from tests.hostile.corpus import EVERYTHING
from tests.keras_archives import dense, sequential
from workers.errors import RunnerFailed, UploadRefused
from workers.preparation.keras_uploads import KerasArchive
from workers.runner.process import Runner
from workers.settings import WorkerSettings

FLIPS = 500 if EVERYTHING else 20
CONFIG = json.dumps(sequential(dense())).encode()


def outcome(runner: Runner, path: Path, folder: Path, settings: WorkerSettings) -> str:
    """The code with which the file is refused, or `passed` where the canonical archive could be written."""
    upload = KerasArchive(path, runner, folder, settings)
    try:
        upload.inspect()
        upload.rebuild()
    except (UploadRefused, RunnerFailed) as error:
        return error.code
    return "passed"


def test_weights_with_flipped_bytes_are_refused_or_read_and_never_harm_the_parent(tmp_path: Path):
    settings = WorkerSettings(scratch_dir=tmp_path / "scratch")
    random = np.random.default_rng(53)
    weights = np.frombuffer(good_weights(), np.uint8)
    found: dict[str, int] = {}
    runner = Runner(settings)
    for place in random.choice(len(weights), min(FLIPS, len(weights)), replace=False):
        flipped = weights.copy()
        flipped[place] ^= random.integers(1, 256, dtype=np.uint8)
        path = tmp_path / "flipped.keras"
        path.write_bytes(archive(CONFIG, flipped.tobytes()))
        code = outcome(runner, path, tmp_path, settings)
        found[code] = found.get(code, 0) + 1
        if not runner.alive:
            runner = Runner(settings)
        (runner.scratch / "upload.h5").unlink(missing_ok=True)
    runner.close()
    assert list((tmp_path / "scratch").iterdir()) == []
    # What refuses is the gate, or the end of the process: nothing else.
    assert all(code == "passed" or code.startswith(("h5_", "runner_", "weights_mismatch")) for code in found), found
    assert found["h5_structure"] > 0
