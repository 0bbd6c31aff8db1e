"""The table of settings in the documents is the one that the settings classes give."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from model_store.settings import Settings
from sluice.settings_table import BEGIN, END, PROCESSES, table, with_table
from tests.deployment import ROOT


@pytest.mark.parametrize("file", ["README.md", "docs/settings.md"])
def test_the_table_in_the_documents_is_current(file: str):
    text = (ROOT / file).read_text()

    assert with_table(text) == text, f"run: python -m sluice.settings_table --write {file}"


def test_every_setting_of_every_class_is_in_the_table():
    written = table()
    classes = {Settings}
    while True:
        more = {below for settings in classes for below in settings.__subclasses__()} - classes
        if not more:
            break
        classes |= more

    assert set(PROCESSES.values()) <= classes
    for settings in classes:
        for name, field in settings.model_fields.items():
            assert f"| `SLUICE_{name.upper()}` |" in written
            assert field.description


def test_the_table_does_not_depend_on_the_machine(tmp_path: Path):
    environment = {"TMPDIR": str(tmp_path), "SLUICE_PORT": "1", "HOSTNAME": "other"}
    elsewhere = subprocess.run(
        [sys.executable, "-m", "sluice.settings_table"],
        env=environment,
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )

    assert elsewhere.stdout.strip() == table()


def test_the_table_is_written_between_the_markers_and_nowhere_else(tmp_path: Path):
    file = tmp_path / "page.md"
    file.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")

    subprocess.run([sys.executable, "-m", "sluice.settings_table", "--write", str(file)], cwd=ROOT, check=True)

    assert file.read_text() == f"before\n{BEGIN}\n{table()}\n{END}\nafter\n"


def test_a_document_without_markers_is_refused():
    with pytest.raises(ValueError, match="markers"):
        with_table("no markers here")
