"""What the documents say is so: their commands work when pasted, and what they name exists."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import typer
from typer.core import TyperGroup

from gateway.openapi import operations
from model_store import golden, registry
from model_store.artifacts import Artifacts
from model_store.database import connect, sessions_of, transaction
from model_store.settings import StoreSettings
from model_store.signature import Signature, TensorSpec
from model_store.tables import Variant
from sluice import demo, demo_messages
from sluice.cli import app
from sluice.settings_table import table
from tests.demo_kit import TEXTS, TONES, describe_all, undecided, write_examples
from tests.deployment import ROOT
from tests.documents import (
    ADDRESS,
    DOCUMENTS,
    anchors,
    blocks,
    commands,
    differences,
    links,
    paste,
    prose,
    spans,
)
from tests.keras_archives import layer, write_archive
from tests.onnx_models import digits, line
from tests.system import System

MNIST = Signature((TensorSpec("image", "float32", (None, 28, 28)),), (TensorSpec("output_0", "float32", (None, 10)),))
LINEAR = Signature((TensorSpec("x", "float32", (None, 2)),), (TensorSpec("y", "float32", (None, 1)),))
PASTED = tuple(path for path in DOCUMENTS if any(block.runs for block in blocks(path)))

# Pages that are no part of the interface's description: they describe it.
UNDESCRIBED = {"/docs", "/openapi.json"}
# Variables of the command and of Compose, which are no settings of a process.
OTHER_VARIABLES = {
    "URL", "CA", "CLIENT_CERTIFICATE", "CLIENT_KEY", "CLIENT_ID", "CLIENT_SECRET", "CREDENTIALS", "PROFILE",
    "WORKER_TARGET", "WEBHOOK_SECRET",
}  # fmt: skip
# Documents whose tables list codes of errors and findings.
CODES_IN = ("http-api.md", "jobs.md", "models.md")

every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


@dataclass(frozen=True, slots=True)
class Place:
    """A checkout's folder beside a running system, as `make up` leaves it, and an empty home folder."""

    folder: Path
    home: Path
    address: str


@pytest.fixture(scope="module")
def place(system: System, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """What the demo makes, in small: the same names, models that need no training, registered as AVAILABLE."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "sluice-data").symlink_to(system.data)
    # Found again from noisy points, as the demo's are: what a document asserts must not need exact ones.
    weights = line(folder / "linear.onnx", weights=[2.0004, -3.4002], bias=4.1997)
    pair = ({"x": np.array([[1, 2]], np.float32)}, {"y": np.array([[-0.6003]], np.float32)})
    serve(system, "linear", weights, LINEAR, golden.pack(*pair))
    serve(system, "mnist", digits(folder / "mnist.onnx"), MNIST)
    serve(system, "topics", undecided(folder / "topics.onnx", TEXTS), TEXTS)
    serve(system, "tones", undecided(folder / "tones.onnx", TONES), TONES)
    (system.data / "demo").mkdir(exist_ok=True)
    linear_keras(system.data / "demo" / "linear.keras")
    (system.data / "digit.json").write_text(json.dumps({"instances": np.zeros((1, 28, 28)).tolist()}))
    write_examples(system.data)
    with system.admin() as admin:
        describe_all(admin)
        grants = [{"model": model} for model in ("linear", "mnist", "topics", "tones")]
        made = admin.post("/admin/clients", {"name": "demo", "scopes": list(demo.SCOPES), "grants": grants})
    known = {
        "base_url": system.base_url,
        "client_id": made["id"],
        "client_secret": made["client_secret"],
        "admin_client_id": system.admin_client_id,
        "admin_client_secret": system.admin_client_secret,
    }
    (system.data / "demo.json").write_text(json.dumps(known))
    for name, whose in (("demo", ""), ("admin", "admin_")):
        login = f"{known[f'{whose}client_id']}:{known[f'{whose}client_secret']}"
        (system.data / f"{name}.curl").write_text(f'user = "{login}"\n')
    return Place(folder, tmp_path_factory.mktemp("home"), system.base_url)


@pytest.fixture(scope="module")
def routes(system: System) -> list[tuple[str, re.Pattern[str]]]:
    """Method and pattern of each path of the interface."""
    with system.admin() as admin:
        document: dict[str, Any] = admin.get("/openapi.json")
    return [
        (method.upper(), re.compile(re.sub(r"\\{.*?\\}", "[^/]+", re.escape(path))))
        for path, method, _ in operations(document["paths"])
    ]


@pytest.mark.parametrize(
    "path",
    [path if path.name == "README.md" else pytest.param(path, marks=pytest.mark.long) for path in PASTED],
    ids=lambda path: path.name,
)
def test_the_commands_work_when_they_are_pasted(path: Path, place: Place) -> None:
    for pasted in paste(path, place.folder, place.home, place.address):
        where = f"{path.name}:{pasted.block.line}"
        if pasted.answer is None:
            assert '"type": "about:blank"' not in pasted.printed, f"{where} answered {pasted.printed}"
            assert '{"error"' not in pasted.printed, f"{where} answered {pasted.printed}"
            continue
        assert not differences(json.loads(pasted.answer), pasted.last_answer()), f"{where} answered {pasted.printed}"


def test_the_readme_opens_with_the_commands_that_the_demo_prints() -> None:
    first, second, *_ = blocks(ROOT / "README.md")
    printed = demo_messages.commands(ADDRESS, Path("sluice-data/demo.curl"), Path("sluice-data/digit.json"))

    assert first.text == "make up\n"
    assert second.text.splitlines() == list(printed)


@every_document
def test_links_lead_to_what_exists(path: Path) -> None:
    for target in links(path):
        file, _, anchor = target.partition("#")
        named = (path.parent / file).resolve() if file else path
        assert named.exists(), target
        assert not anchor or anchor in anchors(named), target


@every_document
def test_commands_and_options_that_are_named_exist(path: Path) -> None:
    for text in commands(path):
        for named in re.findall(r"(?:^|[\s/(])sluice((?: [a-z][a-z-]*)+(?: +\S+)*)", text):
            options = resolve(named.split())
            assert set(re.findall(r"(?<!\S)--[a-z][a-z-]*", named)) <= options | {"--help"}, text


@every_document
def test_routes_that_are_named_are_in_the_interface(path: Path, routes: list[tuple[str, re.Pattern[str]]]) -> None:
    named = [found for text in spans(path) for found in re.findall(r"^(GET|PUT|POST|DELETE) (/\S*)$", text)]
    for block in blocks(path):
        named += [("", address) for address in re.findall(rf"{re.escape(ADDRESS)}(/[^\s\"']*)", block.text)]
    for method, address in named:
        plain = address.partition("?")[0]
        fits = any(method in ("", known) and pattern.fullmatch(plain) for known, pattern in routes)
        assert fits or plain in UNDESCRIBED, f"{method} {address}"


@every_document
def test_settings_and_metrics_that_are_named_exist(path: Path) -> None:
    settings = set(re.findall(r"`SLUICE_([A-Z_]+)`", table()))
    declared = (ROOT / "monitoring" / "metrics.py").read_text() + (ROOT / "monitoring" / "processes.py").read_text()

    for name in re.findall(r"\bSLUICE_([A-Z][A-Z_]*[A-Z])\b", path.read_text()):
        assert name.removesuffix("_FILE").removesuffix("_COMMAND") in settings | OTHER_VARIABLES, name
    for named in spans(path):
        if re.fullmatch(r"sluice_[a-z_]+", named):
            assert f'"{named}"' in declared, named


@every_document
def test_files_and_make_targets_that_are_named_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    for named in spans(path):
        if re.fullmatch(r"[a-z_]+(?:/[a-z_]+)*/[a-z_]+\.py", named):
            assert (ROOT / named).is_file(), named
    for text in commands(path):
        for named in re.findall(r"^make ([a-z]+)\b", text):
            assert named in targets, named


@pytest.mark.parametrize("name", CODES_IN)
def test_codes_in_tables_are_those_of_the_source(name: str) -> None:
    folders = ("auth", "gateway", "model_store", "workers")
    source = "\n".join(file.read_text() for folder in folders for file in (ROOT / folder).rglob("*.py"))
    rows = [row for row in prose(ROOT / "docs" / name).splitlines() if row.startswith("| ")]
    codes = {code for row in rows for code in re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`", row)}

    assert len(codes) > 3
    assert {code for code in codes if f'"{code}"' not in source} == set()


def test_the_table_of_errors_has_every_code_that_a_class_of_errors_gives() -> None:
    # What a process ends with at its start is answered to nobody; of a refused upload each version says the reason.
    unanswered = {"sealing_keys_invalid", "keys_invalid", "store_encrypted", "upload_refused"}
    folders = ("auth", "gateway", "model_store", "workers")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    given = {code for file in files for code in re.findall(r'^    code = "(\w+)"$', file.read_text(), re.MULTILINE)}
    told = set(re.findall(r"`([a-z_]+)`", (ROOT / "docs" / "http-api.md").read_text()))

    assert len(given) > 60
    assert given - unanswered - told == set()


@every_document
def test_blocks_of_json_are_json(path: Path) -> None:
    for block in blocks(path):
        if block.language == "json":
            json.loads(block.text)


@cache
def everything() -> Any:  # noqa: ANN401 - typer's own kind of group
    """All commands, of which each has help (tests/test_cli.py)."""
    return typer.main.get_command(app)


def resolve(words: list[str]) -> set[str]:
    """The options of the command that these words begin with; fails where there is none."""
    command: Any = everything()
    known: list[str] = []
    while isinstance(command, TyperGroup):
        assert words[len(known) :], f"sluice {' '.join(words)} is no whole command"
        known.append(words[len(known)])
        command = command.commands.get(known[-1])
    assert command is not None, f"there is no command sluice {' '.join(known)}"
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


def serve(system: System, model: str, path: Path, signature: Signature, samples: bytes | None = None) -> None:
    """Registers an ONNX file as version 1 of a model that serves, with its golden samples."""
    settings = StoreSettings(database_url=f"sqlite:///{system.data / 'sluice.db'}", store_dir=system.data / "store")
    engine = connect(settings)
    stored = Artifacts.of(settings).add_file(path)
    kept = None
    if samples is not None:
        path.with_suffix(".npz").write_bytes(samples)
        kept = Artifacts.of(settings).add_file(path.with_suffix(".npz")).digest
    with transaction(sessions_of(engine)) as session:
        version, _ = registry.publish(
            session, model, format="onnx", digest=stored.digest, size_bytes=stored.size_bytes, uploaded_by="tests"
        )
        variant = Variant(
            name="onnx", runtime="onnx", digest=stored.digest, size_bytes=stored.size_bytes, memory_bytes=1_000_000
        )
        registry.make_available(
            session, model, version.number, signature=signature, variant="onnx", variants=[variant], max_batch=8,
            max_parallelism=2, batch_seconds=0.0001, report={"steps": []}, golden=kept,
        )  # fmt: skip
    engine.dispose()


def linear_keras(path: Path) -> None:
    """The demo's line as Keras saves it, written without Keras."""
    weights = path.with_suffix(".weights.h5")
    with h5py.File(weights, "w") as file:
        group = file.create_group("layers/dense/vars")
        group["0"], group["1"] = np.array([[2.0], [-3.4]], np.float32), np.array([4.2], np.float32)
        file.create_group("vars")
    inputs = layer("InputLayer", batch_shape=[None, 2], dtype="float32", sparse=False, ragged=False)
    inputs["config"]["name"] = "x"
    dense = layer("Dense", units=1, activation="linear") | {"build_config": {"input_shape": [None, 2]}}
    config = {"name": "line", "trainable": True, "layers": [inputs, dense], "build_input_shape": [None, 2]}
    model = layer("Sequential", "keras") | {"config": config, "build_config": {"input_shape": [None, 2]}}
    write_archive(path, model, weights=weights.read_bytes(), method=zipfile.ZIP_STORED)
    weights.unlink()
