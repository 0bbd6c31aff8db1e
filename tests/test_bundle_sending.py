"""Bundles while they are sent."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest

from gateway.bundles import Bundle, zipped
from model_store.artifacts import Artifacts
from model_store.sealed_files import AtRest
from model_store.sealing import SealingKeys
from tests.bundle_kit import members

PATH = "/admin/models/double/versions/1/bundle"
Files = dict[str, bytes]


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_bundle_that_has_begun_is_whole_though_its_version_is_deleted(tmp_path: Path, encrypted: bool):
    # given an artifact of several pieces
    at_rest = AtRest(SealingKeys.parse(base64.urlsafe_b64encode(b"k" * 32).decode())) if encrypted else None
    artifacts = Artifacts(tmp_path / "store", 2**24, at_rest)
    content = np.arange(300_000, dtype=np.int32).tobytes()
    (tmp_path / "model.onnx").write_bytes(content)
    digest = artifacts.add_file(tmp_path / "model.onnx").digest
    asked = Bundle("b.zip", {"labels.json": b"[]"}, "model.onnx", digest, {})
    # when it leaves the store before it is sent
    pieces = zipped(asked, "signature", artifacts)
    artifacts.delete(digest)
    # then it is sent nevertheless
    sent = list(pieces)
    assert max(map(len, sent)) < 400_000, "it is not held in memory"
    assert members(b"".join(sent)) == {"labels.json": b"[]", "bundle.jws": b"signature", "model.onnx": content}
