"""Folders of MLflow models as uploads: what of them is read, what has to agree, and what is refused with its reason."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from gateway.upload_formats import format_of
from model_store import samples
from model_store.database import transaction
from model_store.formats import Format
from model_store.parameters import Parameter
from model_store.samples import Kind, StoredExample
from model_store.signature import Signature, TensorSpec
from tests.models import ModelFile
from tests.queue_kit import doubling_model
from tests.shop import Ended, Shop
from workers.errors import UploadRefused
from workers.preparation import evidence, mlflow_folder
from workers.preparation.mlflow_upload import example_in
from workers.preparation.pipeline import prepare

# As `mlflow.onnx.log_model` and `mlflow.keras.log_model` of MLflow 3.17 write it, but for ids and times.
MLMODEL = """\
artifact_path: mlflow-artifacts:/0/models/m-31ba9de78eb84b20bf72e402aae6c999/artifacts
flavors:
{flavors}
  python_function:
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: {loader}
    python_version: 3.11.7
is_signature_from_type_hint: false
mlflow_version: 3.17.2
model_size_bytes: 13488
prompts: null
run_id: 8e9063a3019c4ff5b1a59b0136d2dc70
{signature}
type_hint_from_example: false
utc_time_created: '2026-11-23 02:36:48.015164'
"""
ONNX = """\
  onnx:
    code: null
    data: model.onnx
    onnx_session_options: null
    onnx_version: 1.23.2
    providers:
    - CUDAExecutionProvider
    - CPUExecutionProvider"""
KERAS = """\
  keras:
    data: data
    keras_backend: tensorflow
    keras_version: 3.15.1
    save_exported_model: false"""
ANYTHING = "signature: null"


def tensor(dtype: str, *shape: int, name: str | None = None) -> dict[str, object]:
    named = {} if name is None else {"name": name}
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": list(shape)}, **named}


def signature(inputs: list[dict[str, object]], outputs: list[dict[str, object]], params: str = "null") -> str:
    return f"signature:\n  inputs: '{json.dumps(inputs)}'\n  outputs: '{json.dumps(outputs)}'\n  params: {params}"


def document(flavors: str, said: str = ANYTHING, loader: str = "mlflow.onnx") -> bytes:
    return MLMODEL.format(flavors=flavors, signature=said, loader=loader).encode()


def packed(folder: Path, members: Mapping[str, bytes], name: str = "model.mlflow") -> Path:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return folder / name


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return doubling_model(tmp_path_factory.mktemp("double") / "double.onnx").read_bytes()


def refusal(ended: Ended) -> tuple[str, str | None]:
    return ended.state, ended.error_code


def test_a_folder_with_an_onnx_model_serves_and_says_what_it_came_from(shop: Shop, tmp_path: Path, double: bytes):
    spec = tensor("float32", -1, 2)
    params = """'[{"name": "beams", "type": "long", "default": 4, "shape": null}]'"""
    members = {
        "model/MLmodel": document(ONNX, signature([{**spec, "name": "x"}], [{**spec, "name": "y"}], params)),
        "model/model.onnx": double,
        "model/requirements.txt": b"onnx==1.23.2\n",
    }

    ended = shop.prepare(packed(tmp_path, members))

    assert ended.state == "AVAILABLE", ended.error_message
    steps = {step["name"]: step["detail"] for step in ended.report["steps"]}
    assert steps["inspect"].startswith("flavor onnx of MLflow '3.17.2': ")
    assert "the inputs are those of MLflow's signature" in steps["load"]
    assert ended.served is not None
    assert ended.served.signature.parameters == (Parameter("beams", "long", 4),)


@pytest.mark.long  # the real MLflow server's test says the same of a zip archive
def test_a_folder_with_a_keras_model_serves_from_a_tar_as_well(
    shop: Shop, tmp_path: Path, model_files: dict[str, ModelFile]
):
    members = {
        "MLmodel": document(KERAS, loader="mlflow.keras"),
        "data/model.keras": model_files["dense"].path.read_bytes(),
        "data/keras_module.txt": b"keras",
    }
    path = tmp_path / "keras.mlflow"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

    ended = shop.prepare(path)

    assert ended.state == "AVAILABLE", ended.error_message
    assert ended.served is not None
    assert [spec.dtype for spec in ended.served.signature.inputs] == ["float32"]


X, Y = tensor("float32", -1, 2, name="x"), tensor("float32", -1, 2, name="y")


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        pytest.param(signature([X, {**X, "name": "z"}], [Y]), "has 2 inputs, the model 1", id="another number"),
        pytest.param(signature([{**X, "name": "z"}], [Y]), "names 'z'; the model's inputs are x", id="another name"),
        pytest.param(signature([tensor("int64", -1, 2)], [Y]), "says 'int64', the model float32", id="another kind"),
        pytest.param(signature([X], [tensor("float32", -1, 3)]), "the shape '[-1, 3]'", id="another shape"),
    ],
)
def test_a_signature_that_is_not_the_models_own_is_refused(
    shop: Shop, tmp_path: Path, double: bytes, said: str, fault: str
):
    ended = shop.prepare(packed(tmp_path, {"MLmodel": document(ONNX, said), "model.onnx": double}))

    assert refusal(ended) == ("END", "mlflow_signature")
    assert fault in str(ended.error_message)


@pytest.mark.parametrize("said", [ANYTHING, signature([tensor("float64", -1, 2)], [tensor("float64", -1, 2)])])
def test_a_signature_of_another_precision_and_none_at_all_are_taken(
    shop: Shop, tmp_path: Path, double: bytes, said: str
):
    ended = shop.prepare(packed(tmp_path, {"MLmodel": document(ONNX, said), "model.onnx": double}))

    assert ended.state == "AVAILABLE", ended.error_message


def example(text: str, **said: str) -> dict[str, bytes]:
    """Members of a folder whose example is this text; `said` replaces what MLmodel says of it."""
    info = {"artifact_path": "input_example.json", "type": "ndarray", "serving_input_path": "serving.json"} | said
    lines = "".join(f"\n  {name}: {value}" for name, value in info.items() if value)
    described = ANYTHING + "\nsaved_input_example_info:" + lines
    return {"MLmodel": document(ONNX, described), info["serving_input_path"] or "input_example.json": text.encode()}


def test_an_input_example_is_what_variants_are_compared_on_and_becomes_the_models_sample(
    shop: Shop, tmp_path: Path, double: bytes
):
    members = example('{"inputs": [[1.5, null], [2, 1e38]], "params": {"t": 1}}')
    path = packed(tmp_path, {**members, "model.onnx": double})
    name = shop.upload(path)

    prepare(shop.sessions, shop.artifacts, shop.settings, name, 1)

    steps = {step["name"]: step["detail"] for step in shop.look(name).report["steps"]}
    assert steps["load"].endswith(", 2 of the upload's own example")
    with transaction(shop.sessions) as session:
        kept = samples.get(session, name, Kind.INPUTS)
        assert (kept.instances, kept.version, kept.uploaded_by) == (2, 1, "t")
        assert samples.find(session, name, Kind.INPUTS) == kept.digest
        assert samples.find(session, name, Kind.INPUTS, uploaded=True) is None
    signature = Signature((TensorSpec("x", "float32", (None, 2)),), ())
    with shop.artifacts.opened(kept.digest) as archive:
        found = evidence.read(archive, signature)["x"]
    np.testing.assert_array_equal(found, np.array([[1.5, np.nan], [2, 1e38]], np.float32))


def test_an_example_never_replaces_what_was_uploaded_nor_a_newer_versions(shop: Shop, tmp_path: Path, double: bytes):
    name = shop.upload(packed(tmp_path, {"MLmodel": document(ONNX), "model.onnx": double, "note": b"samples"}))
    stored = {number: StoredExample(f"{number}" * 64, 1, 1) for number in range(1, 5)}
    with transaction(shop.sessions) as session:
        assert samples.keep_example(session, name, 2, stored[2], "t")
        assert not samples.keep_example(session, name, 1, stored[1], "t")
        assert samples.keep_example(session, name, 3, stored[3], "t")
        assert samples.find(session, name, Kind.INPUTS) == "3" * 64
        samples.keep(session, name, Kind.INPUTS, digest="a" * 64, size_bytes=1, instances=1, uploaded_by="t")
        assert not samples.keep_example(session, name, 4, stored[4], "t")
        assert samples.find(session, name, Kind.INPUTS, uploaded=True) == "a" * 64
        session.rollback()


@pytest.mark.parametrize(
    ("members", "why"),
    [
        pytest.param(example('{"inputs": [[1]]}'), "expected size: 2 at inputs[0]", id="another shape"),
        pytest.param(example("[["), "JSON Parse error", id="no JSON"),
        pytest.param(
            {"MLmodel": example("", serving_input_path="../a")["MLmodel"]}, "is no file of the folder", id="a way out"
        ),
        pytest.param({"MLmodel": example("", serving_input_path="a")["MLmodel"]}, "there is no file 'a'", id="no file"),
        pytest.param(
            {"MLmodel": example("", serving_input_path='"a\\0"')["MLmodel"]}, "there is no file 'a\\x00'", id="no name"
        ),
        pytest.param(
            {"MLmodel": example("", serving_input_path='"\\ud800"')["MLmodel"]}, "there is no file", id="no text"
        ),
        pytest.param(example("", serving_input_path="", type="sparse_matrix_csr"), "of the kind", id="another kind"),
        pytest.param(example("[" + "1," * 5_000_000), "larger than 8,388,608", id="too large"),
    ],
)
def test_what_is_wrong_with_an_example_is_said_and_refuses_nothing(
    tmp_path: Path, double: bytes, members: dict[str, bytes], why: str
):
    path = packed(tmp_path, {**members, "model.onnx": double})
    root, said = mlflow_folder.unpack(path, tmp_path / "unpacked", 10**8)

    fault = mlflow_folder.leave_example(root, said, tmp_path / "example.json")
    if not fault:
        with pytest.raises(evidence.SamplesUnfit) as found:
            example_in(
                (tmp_path / "example.json").read_bytes(), Signature((TensorSpec("x", "float32", (None, 2)),), ())
            )
        fault = str(found.value)

    assert why in fault


@pytest.mark.parametrize(
    ("text", "kind"),
    [("[[1.0, 2.0]]", "ndarray"), ('{"x": [[1.0, 2.0]]}', "ndarray"), ('{"data": [[1.0, 2.0]]}', "dataframe")],
)
def test_an_example_without_a_serving_form_is_read_as_what_it_is(tmp_path: Path, double: bytes, text: str, kind: str):
    path = packed(tmp_path, {**example(text, type=kind, serving_input_path=""), "model.onnx": double})
    root, said = mlflow_folder.unpack(path, tmp_path / "unpacked", 10**8)

    assert mlflow_folder.leave_example(root, said, tmp_path / "example.json") == ""
    signature = Signature((TensorSpec("x", "float32", (None, 2)),), ())
    assert example_in((tmp_path / "example.json").read_bytes(), signature)["x"].tolist() == [[1, 2]]


PYFUNC = """\
  python_function:
    loader_module: mlflow.sklearn
    model_path: model.pkl"""


@pytest.mark.parametrize(
    ("members", "code"),
    [
        pytest.param({"MLmodel": document(ONNX, loader="my.own")}, "mlflow_code", id="a loader of its own"),
        pytest.param(
            {"MLmodel": document(ONNX.replace("code: null", "code: code"))}, "mlflow_code", id="code beside it"
        ),
        pytest.param({"MLmodel": document("  sklearn:\n    pickled_model: model.pkl")}, "mlflow_flavor", id="sklearn"),
        pytest.param({"custom_objects.cloudpickle": b"x"}, "mlflow_pickle", id="a pickle by its name"),
        pytest.param({"data.bin": pickle.dumps([1, 2])}, "mlflow_pickle", id="a pickle by its bytes"),
        pytest.param({"code/own.py": b"print()"}, "mlflow_pickle", id="a program"),
        pytest.param({"MLmodel": b"a: &a [1]\nb: *a\n"}, "mlflow_document", id="an alias"),
        pytest.param({"MLmodel": b"a: !!python/object/apply:os.system [id]"}, "mlflow_document", id="a tag"),
        pytest.param({"MLmodel": b"[" * 1000}, "mlflow_document", id="depth"),
        pytest.param({"MLmodel": b"a: [" + b"1," * 30_000 + b"1]"}, "mlflow_document", id="many parts"),
        pytest.param({"MLmodel": b"a" * 300_000}, "mlflow_document", id="size"),
        pytest.param({"MLmodel": b"\xff\xfe\x00"}, "mlflow_document", id="no text"),
        pytest.param({"MLmodel": document(ONNX.replace("model.onnx", "../../x"))}, "mlflow_document", id="a way out"),
        pytest.param({"MLmodel": document(ONNX.replace("model.onnx", "m.onnx"))}, "mlflow_document", id="no model"),
        pytest.param({"MLmodel": document(ONNX, "signature:\n  inputs: '[['")}, "mlflow_document", id="no JSON"),
        pytest.param({"a/MLmodel": b"", "b/MLmodel": b"", "MLmodel": None}, "mlflow_archive", id="two of them"),
        pytest.param(
            {"MLmodel": document(ONNX, "signature:\n  inputs: '[{\"x\": NaN}]'")}, "mlflow_document", id="NaN"
        ),
        pytest.param(
            {"MLmodel": document(ONNX, signature([], [], '\'[{"name": "k", "type": "binary"}]\''))},
            "mlflow_document",
            id="params of a type that MLflow has not",
        ),
        pytest.param({"../x": b""}, "mlflow_archive", id="a member that leads elsewhere"),
        pytest.param({"x" * 256: b""}, "mlflow_archive", id="a name that no file system takes"),
    ],
)
def test_what_would_run_code_or_cannot_be_read_is_refused_with_its_reason(
    tmp_path: Path, double: bytes, members: dict[str, bytes | None], code: str
):
    whole = {"MLmodel": document(ONNX), "model.onnx": double} | members
    path = packed(tmp_path, {name: data for name, data in whole.items() if data is not None})

    with pytest.raises(UploadRefused) as found:
        mlflow_folder.unpack(path, tmp_path / "unpacked", 10**7)

    assert found.value.code == code


def test_a_folder_whose_unpacking_takes_too_long_ends_with_its_runner(shop: Shop, tmp_path: Path, double: bytes):
    path = packed(tmp_path, {"MLmodel": document(ONNX), "model.onnx": double, "other": b"x"})

    ended = shop.prepare(path, preparation_seconds=0.001)

    assert refusal(ended) == ("END", "runner_timeout")
    assert [(step["name"], step["outcome"]) for step in ended.report["steps"]][-1] == ("inspect", "refused")


def test_a_model_in_a_folder_is_refused_where_its_own_format_would_be(shop: Shop, tmp_path: Path):
    members = {"MLmodel": document(KERAS, loader="mlflow.keras"), "data/model/saved_model.pb": b"a graph"}

    ended = shop.prepare(packed(tmp_path, members))

    assert refusal(ended) == ("END", "unsupported_format")
    assert "savedmodel" in str(ended.error_message)


def test_a_zip_archive_with_an_mlmodel_file_is_known_by_it(tmp_path: Path, double: bytes):
    path = packed(tmp_path, {"model/MLmodel": document(ONNX), "model/model.onnx": double})
    assert format_of(path.read_bytes(), "") is Format.MLFLOW
