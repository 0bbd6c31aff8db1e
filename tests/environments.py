"""Environments of other people's programs that tests start: made below build/ once, with their own pinned versions."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def install(requirements: Path, environment: Path) -> Path:
    """The Python of an environment with these packages, which are pinned by hash; made unless it is there with them."""
    python, installed = environment / "bin" / "python", environment / "installed.txt"
    if installed.exists() and installed.read_text() == requirements.read_text():
        return python
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--clear", environment], check=True)
    # The list is complete, and may leave out what a package names and does not need.
    command = [uv, "pip", "install", "--quiet", "--python", python, "--no-deps", "--require-hashes", "-r", requirements]
    subprocess.run(command, check=True)
    shutil.copyfile(requirements, installed)
    return python
