"""Writes docs/hostile-models.md: `python -m tests.hostile.modelscan`. ModelScan gets an environment of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.hostile.bait import Bait, Case
from tests.hostile.corpus import CASES
from tests.models import ROOT

HERE = Path(__file__).resolve().parent
PAGE = ROOT / "docs" / "hostile-models.md"
SCAN_SECONDS = 120
SCAN_BYTES = 8 * 1024**3
VERDICT_CHARACTERS = 90

INTRODUCTION = """\
# Hostile model files, and what they are answered

Every file of the corpus in `tests/hostile/`, made by its code with payloads that would only leave a mark; the tests
send each through the whole preparation. The third column is the code with which Sluice refuses the file (what each
means stands in [models.md](models.md#why-an-upload-is-refused)); the last is the verdict of ModelScan {version} on the
same file, a scanner for model files, with its default settings. A scanner answers another question than a gate does:
it looks for what is known to be dangerous, and says nothing of files that are only broken or too large. A verdict
of *no issue* on such a file is no fault of its own. Neither finds weights that were trained to be wrong.

`python -m tests.hostile.modelscan` writes this page anew. {summary}

| case | file | Sluice | known as | ModelScan {version} |
|---|---|---|---|---|
"""


def environment(folder: Path) -> Path:
    """ModelScan's Python, in a fresh environment with the packages that are pinned beside this file."""
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    command = [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", python, HERE / "requirements.txt"]
    subprocess.run(command, check=True)
    return python


class Scanner:
    """A process of ModelScan; one that hangs or dies is replaced."""

    def __init__(self, python: Path) -> None:
        self._command = [python, HERE / "scan.py"]
        self._process = self._started()

    def verdict(self, path: Path) -> str:
        """Its verdict on a file, in a few words."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(SCAN_SECONDS, self._process.kill)
        watchdog.start()
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        hung = not watchdog.is_alive()
        watchdog.cancel()
        if not line:
            status = self._process.wait()
            self._process = self._started()
            return f"no verdict within {SCAN_SECONDS} s" if hung else f"ended without a verdict, exit status {status}"
        found = json.loads(line)
        return next((f"{kind}: {short(found[kind][0])}" for kind in found if found[kind]), "no issue")

    def close(self) -> None:
        self._process.communicate()

    def _started(self) -> subprocess.Popen[str]:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_AS, (SCAN_BYTES, SCAN_BYTES))

        pipe = subprocess.PIPE
        return subprocess.Popen(
            self._command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, preexec_fn=limit
        )


def short(text: str) -> str:
    """A text that fits into a cell of a table."""
    line = " ".join(text.replace("|", "/").replace("`", "'").split())
    return line if len(line) <= VERDICT_CHARACTERS else f"{line[:VERDICT_CHARACTERS]}…"


def rows(scanner: Scanner, folder: Path) -> Iterator[tuple[Case, str]]:
    """Each case with the verdict on its file."""
    bait = Bait(folder, folder / "mark", 9)
    for case in CASES:
        path = case.file(bait)
        yield case, scanner.verdict(path)
        path.unlink()
    assert not bait.mark.exists()


def main() -> None:
    pinned = (HERE / "requirements.txt").read_text()
    version = pinned.partition("modelscan==")[2].split()[0]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        files = folder / "files"
        files.mkdir()
        scanner = Scanner(environment(folder / "environment"))
        found = list(rows(scanner, files))
        scanner.close()
    told = sum(text.startswith("issue") for _, text in found)
    summary = f"Of the {len(found)} files, Sluice refuses {len(found)}; ModelScan reports an issue in {told}."
    table = [f"| {case.id} | {short(case.what)} | `{case.code}` | {case.known} | {text} |" for case, text in found]
    PAGE.write_text(INTRODUCTION.format(version=version, summary=summary) + "\n".join(table) + "\n")


if __name__ == "__main__":
    main()
