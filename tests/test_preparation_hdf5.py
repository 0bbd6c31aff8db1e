"""The gate for HDF5 files, and what becomes of files that pass it, in a runner with Keras."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.keras_archives import dense, sequential
from tests.models import ModelFile
from workers.errors import RunnerFailed, UploadRefused
from workers.preparation import hdf5
from workers.runner.process import Runner
from workers.settings import WorkerSettings

LIMIT = 64 * 1024**2


def refusal(path: Path) -> str:
    with hdf5.open_file(path) as file, pytest.raises(UploadRefused) as caught:
        hdf5.check(file, path, LIMIT)
    return caught.value.code


def write(path: Path, fill: Callable[[h5py.File], None]) -> Path:
    with h5py.File(path, "w", libver="latest") as file:
        fill(file)
    return path


def test_weights_that_keras_wrote_pass(model_files: dict[str, ModelFile], tmp_path: Path):
    with zipfile.ZipFile(model_files["conv"].path) as archive:
        path = Path(archive.extract("model.weights.h5", tmp_path))
    with hdf5.open_file(path) as file:
        contents = hdf5.check(file, path, LIMIT)
    assert "layers/conv2d/vars/0" in contents.datasets
    assert contents.declared_bytes > 0


def external_link(file: h5py.File) -> None:
    file["vars"] = h5py.ExternalLink("/etc/hostname", "/")


def soft_link(file: h5py.File) -> None:
    file["vars"] = h5py.SoftLink("/")


def cycle(file: h5py.File) -> None:
    file.create_group("a")["again"] = file["/"]


def two_names(file: h5py.File) -> None:
    file["a"] = np.ones(3)
    file["b"] = file["a"]


def external_storage(file: h5py.File) -> None:
    file.create_dataset("a", (4,), "u1", external=[("/etc/hostname", 0, 4)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (4,))
    file.create_virtual_dataset("a", layout)


def empty_shape_bomb(file: h5py.File) -> None:
    file.create_dataset("a", (10**12,), "f4", chunks=(1024,), compression="gzip", fillvalue=1.0)


def unwritten_shape_bomb(file: h5py.File) -> None:
    file.create_dataset("a", (10**6,), "f4")


def zeros_bomb(file: h5py.File) -> None:
    file.create_dataset("a", data=np.zeros(15 * 1024**2, np.float32), chunks=(1024**2,), compression="gzip")


def deep(file: h5py.File) -> None:
    file.create_group("/".join(["a"] * 40))


def text(file: h5py.File) -> None:
    file["a"] = "hello"


def compound(file: h5py.File) -> None:
    file["a"] = np.zeros(3, [("x", "f4")])


def references(file: h5py.File) -> None:
    file.create_dataset("a", (1,), h5py.ref_dtype)


def long_double(file: h5py.File) -> None:
    file["a"] = np.zeros(3, np.longdouble)


def named_type(file: h5py.File) -> None:
    file["a"] = np.dtype("f4")


def other_filter(file: h5py.File) -> None:
    file.create_dataset("a", data=np.zeros(100), chunks=(10,), compression="lzf")


def wide_attribute(file: h5py.File) -> None:
    # In the newest format, which has no limit of its own.
    h5py.h5a.create(file.id, b"x", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((20_000,)))


def attribute_of_objects(file: h5py.File) -> None:
    file.attrs["x"] = file.ref


def many_attributes(file: h5py.File) -> None:
    for index in range(300):
        file.attrs[f"a{index}"] = 1


def name_with_a_newline(file: h5py.File) -> None:
    h5py.h5g.create(file.id, b"x\n")


@pytest.mark.parametrize(
    ("fill", "code"),
    [
        (external_link, "h5_link"),
        (soft_link, "h5_link"),
        (cycle, "h5_cycle"),
        (two_names, "h5_cycle"),
        (external_storage, "h5_external"),
        (virtual, "h5_virtual"),
        (empty_shape_bomb, "h5_bomb"),
        (unwritten_shape_bomb, "h5_bomb"),
        (zeros_bomb, "h5_bomb"),
        (deep, "h5_depth"),
        (text, "h5_dtype"),
        (compound, "h5_dtype"),
        (references, "h5_dtype"),
        (long_double, "h5_dtype"),
        (named_type, "h5_dtype"),
        (other_filter, "h5_filter"),
        (attribute_of_objects, "h5_attr"),
        (many_attributes, "h5_attr"),
        (wide_attribute, "h5_attr"),
        (name_with_a_newline, "h5_name"),
    ],
)
def test_a_file_that_leads_elsewhere_or_declares_too_much_is_refused(
    tmp_path: Path, fill: Callable[[h5py.File], None], code: str
):
    assert refusal(write(tmp_path / "x.h5", fill)) == code


def test_plain_numbers_in_all_the_ways_in_which_keras_stores_them_pass(tmp_path: Path):
    def fill(file: h5py.File) -> None:
        file["b"] = np.array([True, False])
        file["i"] = np.int64(3)
        file["empty"] = np.zeros((0, 3))
        file.create_dataset("packed", data=np.arange(9000.0), compression="gzip", shuffle=True, fletcher32=True)
        file.create_dataset("half", data=np.zeros(3, "V2")).attrs["dtype"] = "bfloat16"
        file.create_group("g").attrs["weight_names"] = np.array([])
        file["g"].attrs["names"] = [b"a/b:0", "ü".encode()]

    path = write(tmp_path / "x.h5", fill)
    with hdf5.open_file(path) as file:
        assert hdf5.check(file, path, LIMIT).datasets == ["b", "empty", "half", "i", "packed"]


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04" * 100, b"\x89HDF\r\n\x1a\n" + b"\0" * 500])
def test_a_file_that_is_no_hdf5_is_refused(tmp_path: Path, data: bytes):
    path = tmp_path / "x.h5"
    path.write_bytes(data)
    with pytest.raises(UploadRefused) as caught:
        hdf5.open_file(path)
    assert caught.value.code == "h5_structure"


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """One runner for all of these files: it imports TensorFlow once."""
    with Runner(WorkerSettings(scratch_dir=tmp_path_factory.mktemp("scratch"))) as runner:
        yield runner


def rebuild(runner: Runner, config: object, weights: Path) -> None:
    (runner.scratch / "config.json").write_text(json.dumps(config))
    shutil.copyfile(weights, runner.scratch / "upload.h5")
    runner.call("preparation_rebuild_keras", {"assets": {}, "limit_bytes": LIMIT}, {}, timeout_seconds=60)


def weights_of_dense(path: Path, kernel: np.ndarray) -> Path:
    def fill(file: h5py.File) -> None:
        file["layers/dense/vars/0"] = kernel
        file["layers/dense/vars/1"] = np.zeros(3, np.float32)
        file["optimizer/vars/0"] = np.zeros(100)

    return write(path, fill)


def test_the_canonical_archive_holds_the_weights_and_nothing_of_the_training(runner: Runner, tmp_path: Path):
    kernel = np.arange(12, dtype=np.float32).reshape(4, 3)
    rebuild(runner, sequential(dense()), weights_of_dense(tmp_path / "w.h5", kernel))
    with zipfile.ZipFile(runner.scratch / "canonical.keras") as archive:
        assert archive.namelist() == ["metadata.json", "config.json", "model.weights.h5"]
        archive.extract("model.weights.h5", tmp_path)
    with h5py.File(tmp_path / "model.weights.h5") as file:
        assert list(file) == ["layers"]
        assert np.array_equal(file["layers/dense/vars/0"], kernel)
    answer, _ = runner.call("preparation_load", {}, {}, timeout_seconds=120)
    assert answer["inputs"] == [{"name": "inputlayer", "dtype": "float32", "shape": [None, 4]}]
    assert answer["parameters"] == 15
    (inputs,) = (np.ones((2, 4), np.float32),)
    _, outputs = runner.call("preparation_predict", {}, {"inputlayer": inputs}, timeout_seconds=60)
    assert np.allclose(outputs["output_0"], inputs @ kernel)


def test_weights_of_another_shape_are_a_finding(runner: Runner, tmp_path: Path):
    rebuild(runner, sequential(dense()), weights_of_dense(tmp_path / "w.h5", np.zeros((5, 3), np.float32)))
    with pytest.raises(UploadRefused, match=r"\(5, 3\)") as caught:
        runner.call("preparation_load", {}, {}, timeout_seconds=120)
    assert caught.value.code == "weights_mismatch"


def test_a_configuration_that_keras_cannot_build_is_a_finding(runner: Runner, tmp_path: Path):
    config = sequential(dense(no_such_argument=1))
    rebuild(runner, config, weights_of_dense(tmp_path / "w.h5", np.zeros((4, 3), np.float32)))
    with pytest.raises(UploadRefused, match="no_such_argument") as caught:
        runner.call("preparation_load", {}, {}, timeout_seconds=120)
    assert caught.value.code == "load_failed"


def test_a_legacy_file_without_a_model_is_a_finding(runner: Runner, tmp_path: Path):
    shutil.copyfile(weights_of_dense(tmp_path / "w.h5", np.zeros((4, 3), np.float32)), runner.scratch / "upload.h5")
    with pytest.raises(UploadRefused, match="whole model") as caught:
        runner.call("preparation_read_config", {"limit_bytes": LIMIT}, {}, timeout_seconds=60)
    assert caught.value.code == "missing_member"


def test_a_damaged_file_is_refused_or_read_and_never_harms_the_parent(tmp_path: Path):
    path = weights_of_dense(tmp_path / "w.h5", np.zeros((4, 3), np.float32))
    random = np.random.default_rng(53)
    data = np.fromfile(path, np.uint8)
    settings = WorkerSettings(scratch_dir=tmp_path / "scratch")
    codes = set()
    runner = Runner(settings)
    for _ in range(40):
        flipped = data.copy()
        flipped[random.integers(0, len(data), 3)] = random.integers(0, 256, 3)
        flipped.tofile(path)
        try:
            rebuild(runner, {}, path)
        except UploadRefused as error:
            codes.add(error.code)
        except RunnerFailed:
            runner = Runner(settings)
    runner.close()
    assert "h5_structure" in codes
