"""TorchScript: loaded in a runner only, converted to ONNX and compared with PyTorch's own answers; or refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from model_store.upload_options import UploadOptions
from tests.models import ROOT
from tests.shop import Ended, Shop
from workers.runtimes.loading import load

DEBIAN = Path("/usr/lib/python3/dist-packages/torch")
ALLOWED = "keras,h5,onnx,torchscript"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has Debian's PyTorch beside what this one has."""
    folder = tmp_path_factory.mktemp("torch")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (folder / "site").mkdir()
    (folder / "site" / "torch").symlink_to(DEBIAN)
    [packages] = (folder / "venv" / "lib").glob("python*/site-packages")
    # With what the packages' own .pth files add: this project is among them.
    added = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})"
    (packages / "torch.pth").write_text(f"{added}\n{folder / 'site'}\n")
    # Runners are other users, and read their packages.
    for path in (folder, *folder.parents):
        if path.is_relative_to(tmp_path_factory.getbasetemp().parent):
            path.chmod(0o755)
    return folder / "venv" / "bin" / "python"


@pytest.fixture(scope="module")
def files(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of TorchScript files, with PyTorch's own answers beside them."""
    folder = tmp_path_factory.mktemp("torchscript")
    command = [python, "-m", "tests.torchscript", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def prepared(shop: Shop, path: Path, inputs: str | None) -> Ended:
    return shop.prepare(path, "torchscript", UploadOptions.parse(None, inputs), upload_formats=ALLOWED)


@pytest.mark.debian
@pytest.mark.parametrize(
    ("name", "inputs", "shapes"),
    [
        ("branching", "left:float32[-1,4],right:float32[-1,2]", [(None, 3)]),
        ("digits", "image:float32[-1,1,-1,-1]", [(None, 10)]),
    ],
)
def test_torchscript_is_converted_to_onnx_and_answers_as_pytorch_does(
    shop: Shop, files: Path, python: Path, monkeypatch: pytest.MonkeyPatch, name: str, inputs: str, shapes: list[object]
):
    monkeypatch.setattr(sys, "executable", str(python))  # of which runners are made
    ended = prepared(shop, files / f"{name}.pt", inputs)

    assert ended.served is not None, ended.error_message
    assert ended.served.runtime == "onnx"
    assert [spec.shape for spec in ended.served.signature.outputs] == shapes
    known = json.loads((files / f"{name}.json").read_text())
    predictor = load(ended.served, shop.artifacts, shop.settings)
    found = predictor.run({key: np.array(rows, np.float32) for key, rows in known["inputs"].items()})
    np.testing.assert_allclose(found["output_0"], known["output"], 1e-4, 1e-5)


@pytest.mark.debian
@pytest.mark.parametrize(
    ("name", "inputs", "code", "reason"),
    [
        ("reader", "x:float32[-1,4]", "torchscript_operator", "'aten::from_file'"),
        ("weights", "x:float32[-1,4]", "load_failed", "PyTorch cannot load the file as TorchScript"),
        ("digits", "image:float32[-1,7]", "signature", "fails on zeros of the inputs that were named"),
    ],
)
def test_torchscript_that_cannot_be_served_is_refused_with_the_reason(
    shop: Shop,
    files: Path,
    python: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    inputs: str,
    code: str,
    reason: str,
):
    monkeypatch.setattr(sys, "executable", str(python))
    path = shutil.copyfile(files / f"{name}.pt", tmp_path / f"{name}-{code}.pt")
    ended = prepared(shop, path, inputs)
    assert (ended.state, ended.error_code) == ("END", code), ended.error_message
    assert reason in (ended.error_message or "")


def test_torchscript_without_named_inputs_or_without_pytorch_is_refused_with_what_to_do(shop: Shop, tmp_path: Path):
    for name in "ab":
        (tmp_path / f"{name}.pt").write_bytes(f"PK\x03\x04{name}".encode())
    unnamed, without = prepared(shop, tmp_path / "a.pt", None), prepared(shop, tmp_path / "b.pt", "x:float32[-1,4]")
    assert (unnamed.error_code, without.error_code) == ("torchscript_inputs", "unsupported_format")
    assert "inputs=x:float32[-1,4]" in (unnamed.error_message or "")
    assert "install the extra `torch`" in (without.error_message or "")
