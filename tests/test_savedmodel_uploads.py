"""SavedModels: refused unless a setting allows them, and then read before anything in them runs."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from model_store.database import transaction
from model_store.further_signatures import NO_FURTHER
from model_store.signature import Tensors
from model_store.upload_options import UploadOptions
from model_store.variant_policies import VariantPolicy, set_policy
from tests.models import ROOT
from tests.shop import Ended, Shop
from workers.errors import UploadRefused
from workers.preparation import savedmodel_archive
from workers.preparation.pipeline import prepare
from workers.preparation.savedmodel_archive import unpack
from workers.preparation.savedmodel_operators import OPERATORS
from workers.protocols.body import Body, Dialect
from workers.protocols.contract import Contract
from workers.protocols.examples import parse_classify
from workers.runtimes.loading import load

ALLOWED = "keras,h5,onnx,savedmodel"


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of SavedModels, with TensorFlow's own answers beside them."""
    folder = tmp_path_factory.mktemp("saved_models")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-m", "tests.savedmodels", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def zipped(folder: Path, target: Path) -> Path:
    return Path(shutil.make_archive(str(target), "zip", folder))


def tarred(folder: Path, target: Path, root: str = "model/1") -> Path:
    with tarfile.open(target, "w:gz") as tar:
        tar.add(folder, root)
    return target


def answers(folder: Path, name: str) -> tuple[Tensors, Tensors]:
    """Inputs and TensorFlow's own outputs."""
    with np.load(folder / f"{name}.npz") as arrays:
        found = {key: arrays[key].astype(object) if arrays[key].dtype.kind == "S" else arrays[key] for key in arrays}
    inputs, outputs = (
        {key.partition(".")[2]: array for key, array in found.items() if key.startswith(f"{part}.")}
        for part in ("inputs", "outputs")
    )
    return inputs, outputs


def prepared(shop: Shop, path: Path, signature: str | None = None) -> Ended:
    return shop.prepare(path, "savedmodel", UploadOptions(signature), upload_formats=ALLOWED)


def check_answers(shop: Shop, ended: Ended, known: tuple[Tensors, Tensors]) -> None:
    assert ended.served is not None, ended.error_message
    predictor = load(ended.served, shop.artifacts, shop.settings)
    found = predictor.run(known[0])
    predictor.close()
    assert found.keys() == known[1].keys()
    for name, expected in known[1].items():
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(found[name], expected, 1e-4, 1e-5)
        else:
            assert found[name].tolist() == expected.tolist()


def details(ended: Ended) -> dict[str, str]:
    return {step["name"]: step["detail"] for step in ended.report["steps"]}


def test_a_zipped_savedmodel_serves_its_default_signature_from_onnx(shop: Shop, saved_models: Path, tmp_path: Path):
    ended = prepared(shop, zipped(saved_models / "numbers", tmp_path / "numbers"))

    check_answers(shop, ended, answers(saved_models, "numbers-serving_default"))
    assert ended.served is not None
    assert ended.served.runtime == "onnx"
    assert details(ended)["rebuild"] == "the signature 'serving_default'"
    assert (ended.served.further, ended.report["signatures"]) == (NO_FURTHER, [])
    assert {row["name"]: row["accepted"] for row in ended.report["variants"]} == {"onnx": True, "savedmodel": True}


@pytest.mark.long
@pytest.mark.timeout(600)  # TensorFlow is imported five times
def test_another_signature_with_texts_is_chosen_by_the_uploader_and_served_by_tensorflow(
    shop: Shop, saved_models: Path, tmp_path: Path
):
    ended = prepared(shop, tarred(saved_models / "scorer", tmp_path / "scorer.tar.gz"), "names")

    check_answers(shop, ended, answers(saved_models, "scorer-names"))
    assert ended.served is not None
    # Who asks for it by that name still means this version's.
    assert ended.served.signature.name == "names"
    assert ended.served.runtime == "tensorflow"
    # The file's own default is another signature's name now.
    [other] = ended.served.further.listed
    assert (other.signature.name, other.signature.inputs[0].name) == ("serving_default", "features")
    # What was stored has none of the saver's functions, which read and write files.
    stored = shop.artifacts.path(ended.served.digest).read_bytes()
    assert b"ShardedFilename" not in stored


@pytest.mark.long
def test_a_model_that_parses_examples_classifies_those_of_a_request(shop: Shop, saved_models: Path, tmp_path: Path):
    ended = prepared(shop, zipped(saved_models / "parser", tmp_path / "parser"))
    assert ended.served is not None, ended.error_message
    terms = Contract("m", 1, ended.served.signature, 8)
    examples = b'[{"x": [1.0, 2.5]}, {"x": [3.0, 4.0], "bias": 0}]'
    body = b'{"signature_name": "classify", "context": {"bias": 1}, "examples": %s}' % examples
    request = parse_classify(Body(body, Dialect.CLASSIFY), terms)
    predictor = load(ended.served, shop.artifacts, shop.settings)
    answer = request.format(predictor.run(request.tensors), terms)
    predictor.close()
    assert json.loads(answer.data) == {"results": [[["left", 2.0], ["right", 3.5]], [["left", 3.0], ["right", 4.0]]]}


@pytest.mark.long
def test_an_export_of_keras_with_two_inputs_is_served(shop: Shop, saved_models: Path, tmp_path: Path):
    ended = prepared(shop, zipped(saved_models / "branches", tmp_path / "branches"))
    check_answers(shop, ended, answers(saved_models, "branches-serving_default"))
    assert ended.served is not None
    # A SavedModel has no order of its own; callers of later preparations rely on one.
    assert [spec.name for spec in ended.served.signature.inputs] == ["left", "right"]
    assert ended.served.runtime == "onnx"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_all_signatures_that_can_be_called_are_served_beside_the_default(
    shop: Shop, saved_models: Path, tmp_path: Path
):
    ended = prepared(shop, zipped(saved_models / "several", tmp_path / "several"))
    assert ended.served is not None, ended.error_message
    assert ended.served.runtime == "tensorflow"
    assert [one.signature.name for one in ended.served.further.listed] == ["classify", "joined", "tripled"]
    # Two names of one function are one signature.
    assert ended.served.further.aliases == ("again",)
    reasons = {row["name"]: row["reason"] or "" for row in ended.report["signatures"] if not row["served"]}
    assert reasons.keys() == {"drawn", "single", "failing"}
    assert "answers the same input differently" in reasons["drawn"]
    assert "without a batch dimension" in reasons["single"]
    assert "out of its range" in reasons["failing"]
    predictor = load(ended.served, shop.artifacts, shop.settings)
    found = predictor.further["joined"].run({"word": np.array([b"a", b""], object), "number": np.array([1, 2])})
    assert (found["text"].tolist(), found["next"].tolist()) == ([b"a-1", b"-2"], [2, 3])
    predictor.close()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_where_another_variant_serves_there_is_the_default_signature_only(
    shop: Shop, saved_models: Path, tmp_path: Path
):
    path = zipped(saved_models / "several", tmp_path / "converted")
    name = shop.upload(path, "savedmodel")
    with transaction(shop.sessions) as session:
        set_policy(session, name, VariantPolicy(serve="onnx"))
    prepare(shop.sessions, shop.artifacts, shop.settings.model_copy(update={"upload_formats": ALLOWED}), name, 1)
    ended = shop.look(name)
    assert ended.served is not None, ended.error_message
    assert (ended.served.runtime, ended.served.further.listed, ended.served.further.aliases) == ("onnx", (), ("again",))
    reasons = {row["name"]: row["reason"] for row in ended.report["signatures"] if not row["served"]}
    assert reasons["tripled"] == "the policy has onnx serve, and nothing else has more than the default signature"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_no_version_has_more_than_sixteen_signatures(shop: Shop, saved_models: Path, tmp_path: Path):
    ended = prepared(shop, zipped(saved_models / "many", tmp_path / "many"))
    assert ended.served is not None, ended.error_message
    assert len(ended.served.further.listed) == 15
    left_out = [row for row in ended.report["signatures"] if not row["served"]]
    assert [row["name"] for row in left_out] == [f"s{number}" for number in range(15, 20)]


@pytest.mark.parametrize(
    ("name", "signature", "code", "reason"),
    [
        ("writer", None, "savedmodel_operator", "'WriteFile'"),
        pytest.param("reader", None, "savedmodel_operator", "'ReadFile'", marks=pytest.mark.long),
        pytest.param("plain", None, "savedmodel_signature", "no signatures", marks=pytest.mark.long),
        pytest.param(
            "unnamed", None, "savedmodel_signature", "signature=NAME: 'first', 'second'", marks=pytest.mark.long
        ),
        pytest.param("scorer", "other", "savedmodel_signature", "'names', 'serving_default'", marks=pytest.mark.long),
    ],
)
def test_a_savedmodel_that_does_more_than_compute_or_has_no_such_signature_is_refused(
    shop: Shop, saved_models: Path, tmp_path: Path, name: str, signature: str | None, code: str, reason: str
):
    ended = prepared(shop, tarred(saved_models / name, tmp_path / f"{name}.tar.gz", f"{name}/{code}"), signature)
    assert (ended.state, ended.error_code) == ("END", code)
    assert reason in (ended.error_message or "")


def test_a_savedmodel_is_refused_where_no_setting_allows_it(shop: Shop, tmp_path: Path):
    path = tmp_path / "x.zip"
    path.write_bytes(b"PK\x03\x04")
    ended = shop.prepare(path, "savedmodel")
    assert ended.error_code == "unsupported_format"
    assert "SLUICE_UPLOAD_FORMATS" in (ended.error_message or "")
    assert "a SavedModel is a program" in (ended.error_message or "")


def zip_of(*members: tuple[str, bytes], mode: int = 0o100644, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            entry.compress_type = method
            archive.writestr(entry, content)
    return held.getvalue()


def tar_of(member: tarfile.TarInfo) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as tar:
        tar.addfile(member)
    return held.getvalue()


def headers_of(count: int) -> bytes:
    """A tar of nothing but headers that tell the name of the next one."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 4
    return gzip.compress((header.tobuf(tarfile.GNU_FORMAT) + b"name".ljust(512, b"\0")) * count)


def linking(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


ARCHIVES = {
    "out of the folder": zip_of(("../saved_model.pb", b"x")),
    "from the root": zip_of(("/etc/saved_model.pb", b"x")),
    "a backslash": zip_of(("a\\saved_model.pb", b"x")),
    "a link": zip_of(("saved_model.pb", b"/etc/hostname"), mode=0o120777),
    "a link in a tar": tar_of(linking("saved_model.pb", "/etc/hostname", tarfile.SYMTYPE)),
    "a hard link": tar_of(linking("saved_model.pb", "x", tarfile.LNKTYPE)),
    "a device": tar_of(linking("saved_model.pb", "", tarfile.CHRTYPE)),
    "a bomb": zip_of(("saved_model.pb", b"\0" * 64 * 1024**2)),
    "a name that no file system takes": zip_of(("x" * 256, b"x")),
    "bzip2": zip_of(("saved_model.pb", b"x" * 5000), method=zipfile.ZIP_BZIP2),
    "LZMA": zip_of(("saved_model.pb", b"x" * 5000), method=zipfile.ZIP_LZMA),
    "headers without end": headers_of(3000),
    "no archive": b"\x08\x01 a graph by itself",
    "cut off": zip_of(("saved_model.pb", b"x"))[:-10],
}


@pytest.mark.parametrize("what", ARCHIVES)
def test_archives_that_lead_elsewhere_or_grow_are_refused(tmp_path: Path, what: str):
    (tmp_path / "packed").write_bytes(ARCHIVES[what])
    with pytest.raises(UploadRefused) as caught:
        unpack(tmp_path / "packed", tmp_path / "unpacked", limit_bytes=2**30)
    assert caught.value.code == "savedmodel_archive"
    written = [path for path in (tmp_path / "unpacked").rglob("*") if path.is_file() and path.stat().st_size]
    assert sum(path.stat().st_size for path in written) <= 8 * 1024**2
    assert not (tmp_path / "saved_model.pb").exists()


def test_an_archive_with_too_many_files_or_one_of_them_twice_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(savedmodel_archive, "MEMBERS", 10)
    (tmp_path / "many").write_bytes(zip_of(*((f"assets/{number}", b"") for number in range(11))))
    with pytest.warns(UserWarning, match="Duplicate name"):
        (tmp_path / "twice").write_bytes(zip_of(("saved_model.pb", b"a"), ("saved_model.pb", b"b")))
    for name, reason in (("many", "more than 10 files"), ("twice", "twice")):
        with pytest.raises(UploadRefused, match=reason):
            unpack(tmp_path / name, tmp_path / f"{name}-unpacked", limit_bytes=2**30)


def test_no_operator_that_reaches_out_of_the_process_is_allowed():
    reaching = """
        ReadFile WriteFile MatchingFiles WholeFileReaderV2 SaveV2 RestoreV2 MergeV2Checkpoints ShardedFilename
        InitializeTableFromTextFileV2 ImmutableConst DatasetFromGraph TextLineDataset IteratorGetNext PyFunc
        EagerPyFunc Print PrintV2 DebugIdentity DebugIdentityV3 CreateSummaryFileWriter CollectiveReduce
        DataServiceDatasetV4 FileSystemSetConfiguration MlirPassthroughOp XlaLaunch RpcCall TPUExecute Send Recv
    """
    assert not OPERATORS & set(reaching.split())
    assert len(OPERATORS) == 547
