"""The environments of the peers: each has its own below one folder, with the versions of its requirements.txt."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.failures import BenchmarkFailed

FOLDERS = Path(__file__).resolve().parent
PYTHON = "3.11"
INSTALL_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment at `root` for the programs in a folder of this package."""

    folder: str
    root: Path

    @property
    def programs(self) -> Path:
        return FOLDERS / self.folder

    @property
    def requirements(self) -> Path:
        return self.programs / "requirements.txt"

    @property
    def binaries(self) -> Path:
        return self.root / "bin"

    @property
    def settings(self) -> str:
        """What its programs are set to, in a paragraph for people."""
        return " ".join((self.programs / "settings.md").read_text().split())

    def version(self, package: str) -> str:
        """The pinned version of a package; raises BenchmarkFailed for one that is not."""
        for line in self.requirements.read_text().splitlines():
            name, _, version = line.partition("==")
            if name == package:
                return version
        raise BenchmarkFailed(f"{self.requirements} pins no {package}")

    def install(self) -> None:
        """Make it, unless it is there with these versions; raises BenchmarkFailed."""
        installed = self.root / "installed.txt"
        if installed.exists() and installed.read_text() == self.requirements.read_text():
            return
        uv(["venv", "--quiet", "--clear", "--python", PYTHON, str(self.root)])
        python = str(self.binaries / "python")
        uv(["pip", "install", "--quiet", "--python", python, "--requirement", str(self.requirements)])
        shutil.copyfile(self.requirements, installed)


def uv(arguments: list[str]) -> None:
    """Run the `uv` of this environment, else the one on the path; raises BenchmarkFailed."""
    beside = Path(sys.executable).with_name("uv")
    command = [str(beside) if beside.exists() else "uv", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchmarkFailed(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        raise BenchmarkFailed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-1500:]}")
