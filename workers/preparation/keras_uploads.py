"""Uploads that Keras wrote: `.keras` archives and legacy `.h5` files, which meet at the canonical archive."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

from model_store.signature import Tensors
from workers.preparation import archive, budget, strict_json, structure
from workers.preparation.archive import Archive
from workers.preparation.candidates import Candidate, OnnxCandidate, SavedModelCandidate
from workers.preparation.converted_files import ONNX, SAVEDMODEL
from workers.preparation.findings import refused, shown
from workers.preparation.report import VariantFigures
from workers.preparation.samples import Range
from workers.preparation.uploads import Loaded, Upload, signature_of
from workers.runner.process import Runner

HDF5_MARK = b"\x89HDF\r\n\x1a\n"
KERAS_VERSION = re.compile(r"3\.\d{1,4}\.\d{1,4}[A-Za-z0-9.+-]{0,32}")
# Files in the runner's folder; its commands know them by the same names (canonical.py, convert.py).
UPLOADED, CONFIG = "upload.h5", "config.json"


class KerasUpload(Upload):
    """Everything from the canonical archive on."""

    _config: structure.Json

    def load(self, trial: Runner) -> Loaded:  # noqa: ARG002 - for formats that ONNX Runtime loads
        answer = self._call("preparation_load")
        ranges = [Range.from_json(row) for row in answer["ranges"]]
        detail = f"{answer['layers']} layers, {answer['parameters']:,} parameters"
        return Loaded(signature_of(answer), ranges, bool(answer["half"]), detail)

    def convert(self, loaded: Loaded, trial: Runner) -> tuple[list[Candidate], list[VariantFigures]]:
        self._call("preparation_export_savedmodel")
        answer = self._call("preparation_export_onnx")
        candidates: list[Candidate] = []
        failed: list[VariantFigures] = []
        if reason := answer.get("reason"):
            failed.append(VariantFigures("onnx", "onnx", reason=str(reason)))
        else:
            candidates.append(OnnxCandidate(trial, self._take(ONNX), loaded.signature, self._settings))
        candidates.append(SavedModelCandidate(self._runner, self._take(SAVEDMODEL), loaded.signature, self._settings))
        return candidates, failed

    def reference(self, tensors: Tensors) -> Tensors:
        seconds = self._settings.preparation_seconds
        return self._runner.call("preparation_predict", {}, tensors, timeout_seconds=seconds)[1]

    @property
    def _limit_bytes(self) -> int:
        """What an upload may unpack to: packed, nobody saves much on weights."""
        return self._settings.upload_limit_bytes

    def _write_config(self, config: structure.Json) -> None:
        self._config = config
        own = self._folder / CONFIG
        own.write_text(json.dumps(config, allow_nan=False), encoding="utf-8")
        self._runner.give(CONFIG, own)


class KerasArchive(KerasUpload):
    """A `.keras` file: a zip archive of configuration, weights and vocabularies."""

    _archive: Archive

    def inspect(self) -> str:
        found = archive.inspect(self._path, self._limit_bytes)
        check_version(strict_json.parse(found.read(archive.METADATA), archive.METADATA))
        config = structure.inspect(strict_json.parse(found.read(archive.CONFIG), archive.CONFIG))
        self._write_config(config)
        self._archive = found
        return f"{len(found.members)} members, a {config['class_name']} model of allowed classes only"

    def rebuild(self) -> str:
        folder = self._runner.scratch
        self._archive.copy(archive.WEIGHTS, folder / UPLOADED)
        assets = {f"asset-{index}.txt": name for index, name in enumerate(self._archive.assets)}
        for file, name in assets.items():
            self._archive.copy(name, folder / file)
            _check_text(folder / file, name)
        answer = self._call("preparation_rebuild_keras", assets=assets, limit_bytes=self._limit_bytes)
        budget.check(self._config, int(answer["weight_bytes"]))
        return f"{answer['objects']} objects of HDF5, {answer['weight_bytes']:,} bytes of weights"


class KerasH5(KerasUpload):
    """A legacy `.h5` file: HDF5 with the configuration in an attribute, so that only a runner can read it."""

    def inspect(self) -> str:
        with self._path.open("rb") as file:
            if file.read(len(HDF5_MARK)) != HDF5_MARK:
                raise refused("h5_structure", "the file does not begin as an HDF5 file does")
        self._runner.give(UPLOADED, self._path)
        self._found = self._call("preparation_read_config", limit_bytes=self._limit_bytes)
        text = _read_regular(self._runner.scratch / CONFIG)
        config = structure.inspect(strict_json.parse(text, "model_config"), legacy=True)
        self._write_config(config)
        return f"{self._found['objects']} objects of HDF5, a {config['class_name']} model of allowed classes only"

    def rebuild(self) -> str:
        budget.check(self._config, int(self._found["weight_bytes"]))
        self._call("preparation_rebuild_h5", limit_bytes=self._limit_bytes)
        return f"{self._found['weight_bytes']:,} bytes of weights"


def check_version(metadata: object) -> None:
    """Raises UploadRefused (keras_version) unless the archive's metadata names a version of Keras 3."""
    version = metadata.get("keras_version") if isinstance(metadata, dict) else None
    if not isinstance(version, str) or not KERAS_VERSION.fullmatch(version):
        raise refused("keras_version", f"written by Keras {shown(version)}; version 3 is taken", archive.METADATA)


def _check_text(path: Path, name: str) -> None:
    """A vocabulary is UTF-8 text: Keras would fail on anything else, and less clearly."""
    try:
        with path.open(encoding="utf-8") as file:
            for _ in file:
                pass
    except UnicodeDecodeError:
        raise refused("vocabulary", "not UTF-8 text", name) from None


def _read_regular(path: Path) -> bytes:
    """A file that a runner wrote, no larger than a configuration may be; links are not followed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise refused("runner_crashed", "the runner left no configuration") from error
    with os.fdopen(descriptor, "rb") as file:
        # Asked of what was opened: the runner lives, and may put something else under the name at any moment.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise refused("runner_crashed", "the runner left no configuration")
        return file.read(strict_json.SIZE_LIMIT_BYTES + 1)
