"""Fuzzes every target for a while: `python -m tests.fuzzing [--seconds 7] [--seed 1] [TARGET …]`.

Exits with 1 if one broke. What breaks one is left in the folder that is printed; it belongs into findings.py, with its
cure.
"""

from __future__ import annotations

import argparse
import os
import re
import site
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzzing.findings import FINDINGS
from tests.fuzzing.targets import SEEDS, TARGETS
from tests.models import ROOT

HERE = Path(__file__).resolve().parent / "atheris"
SLOWEST_SECONDS = 10
MOST_MEGABYTES = 2048


def environment(folder: Path) -> Path:
    """The Python of a fresh environment with atheris, as it is pinned."""
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    command = [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", python, HERE / "requirements.txt"]
    subprocess.run(command, check=True)
    return python


def fuzz(python: Path, name: str, asked: argparse.Namespace, folder: Path) -> bool:
    """Whether a target held for so long as was asked for."""
    seeds = folder / name
    seeds.mkdir()
    for number, data in enumerate((*SEEDS[name], *FINDINGS.get(name, ()))):
        (seeds / f"seed-{number}").write_bytes(data)
    options = [f"-max_total_time={asked.seconds}", f"-seed={asked.seed}"]
    options += [f"-timeout={SLOWEST_SECONDS}", f"-rss_limit_mb={MOST_MEGABYTES}"]
    command = [python, HERE / "run.py", name, *options, f"-artifact_prefix={folder}/{name}-", seeds]
    paths = os.pathsep.join([str(ROOT), *site.getsitepackages()])
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False, cwd=folder
    )
    runs = re.findall(r"stat::number_of_executed_units: (\d+)|Done (\d+) runs", done.stderr)
    sys.stdout.write(f"{name}: {'held' if done.returncode == 0 else 'BROKE'}, {runs[-1:] and max(runs[-1])} inputs\n")
    if done.returncode != 0:
        sys.stdout.write(done.stdout[-2000:] + done.stderr[-4000:])
    return done.returncode == 0


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("targets", nargs="*", default=[], metavar="TARGET", help=", ".join(TARGETS))
    reader.add_argument("--seconds", type=int, default=7, help="how long each target is fuzzed")
    reader.add_argument("--seed", type=int, default=1, help="what the inputs are drawn from; 0 is another at each run")
    asked = reader.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sluice-fuzzing-"))
    sys.stdout.write(f"findings, if any, are in {folder}\n")
    python = environment(folder / "environment")
    held = [fuzz(python, name, asked, folder) for name in asked.targets or TARGETS]
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
