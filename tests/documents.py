"""The documents as tests see them: fenced blocks, code spans, links, and what happens when their commands are pasted.

A block whose info string ends in `run` (`sh run`, `python run`) is executed by the tests, beside a system that has what
`make up` prepares; a `json` block that follows it is what its last command answers, but for the values.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deployment import ROOT

DOCUMENTS = tuple(sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]))
ADDRESS = "http://127.0.0.1:8080"
MARK = "=== block"

FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; `line` is that of its first line of text."""

    line: int
    language: str
    runs: bool
    text: str


@dataclass(frozen=True, slots=True)
class Pasted:
    """A block that was executed: what it printed, and the JSON that the document says it answers, if any."""

    block: Block
    printed: str
    answer: str | None

    def last_answer(self) -> Any:  # noqa: ANN401 - any JSON
        """The last JSON value of what was printed; curl ends none of them with a new line."""
        text, decoder = self.printed.splitlines()[-1], json.JSONDecoder()
        at = 0
        while at < len(text):
            value, at = decoder.raw_decode(text, at)
        return value


def blocks(path: Path) -> list[Block]:
    """All fenced blocks of a document, in order."""
    text, found = path.read_text(), []
    for match in FENCE.finditer(text):
        language, _, rest = match["info"].strip().partition(" ")
        line = text.count("\n", 0, match.start("text")) + 1
        found.append(Block(line, language, rest == "run", match["text"]))
    return found


def prose(path: Path) -> str:
    """The document without its fenced blocks."""
    return FENCE.sub("", path.read_text())


def spans(path: Path) -> list[str]:
    """Everything between single backticks."""
    return SPAN.findall(prose(path))


def commands(path: Path) -> Iterator[str]:
    """Code spans and the lines of shell blocks, without comments: wherever a command may be named."""
    yield from spans(path)
    for block in blocks(path):
        if block.language == "sh":
            for line in block.text.splitlines():
                yield re.sub(r"(^|\s)#.*", "", line)


def links(path: Path) -> list[str]:
    """Targets of links that stay within the repository."""
    return [target for target in LINK.findall(prose(path)) if not re.match(r"[a-z]+:", target)]


def anchors(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower().replace(" ", "-")
        for heading in HEADING.findall(prose(path))
    }


def paste(path: Path, folder: Path, home: Path, address: str) -> list[Pasted]:
    """Runs all marked blocks of a document in one shell, in order, as a reader would; fails where one of them does.

    `folder` is the current folder, `home` an empty one; `address` stands for the one that the documents name.
    """
    chosen = [(number, block) for number, block in enumerate(blocks(path)) if block.runs]
    script = "".join(f"printf '\\n{MARK} %s\\n' {block.line}\n{_shell(block)}\n" for _, block in chosen)
    ended = subprocess.run(
        ["sh", "-eu", "-c", script.replace(ADDRESS, address)],
        cwd=folder,
        env={"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    said = re.split(rf"^{MARK} \d+$", ended.stdout, flags=re.MULTILINE)[1:]
    if ended.returncode != 0:
        line = chosen[len(said) - 1][1].line
        raise AssertionError(f"{path.name}:{line} ended with {ended.returncode}:\n{said[-1]}\n{ended.stderr}")
    return [
        Pasted(block, printed.strip(), _answer(blocks(path), number))
        for (number, block), printed in zip(chosen, said, strict=True)
    ]


def differences(documented: Any, answered: Any, place: str = "answer") -> Sequence[str]:  # noqa: ANN401 - any JSON
    """Where two JSON values are of different shapes: other members or other types; null stands for anything."""
    if documented is None or answered is None:
        return ()
    if isinstance(documented, Mapping) and isinstance(answered, Mapping):
        if documented.keys() != answered.keys():
            return (f"{place}: members {sorted(documented)} in the document, {sorted(answered)} in truth",)
        return [found for key in documented for found in differences(documented[key], answered[key], f"{place}.{key}")]
    if isinstance(documented, list) and isinstance(answered, list):
        return differences(documented[0], answered[0], f"{place}[0]") if documented and answered else ()
    kinds = [float if type(value) is int else type(value) for value in (documented, answered)]
    return () if kinds[0] is kinds[1] else (f"{place}: {documented!r} in the document, {answered!r} in truth",)


def _shell(block: Block) -> str:
    return block.text if block.language == "sh" else f"{block.language} - <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK"


def _answer(found: Sequence[Block], number: int) -> str | None:
    following = found[number + 1] if number + 1 < len(found) else None
    return following.text if following is not None and following.language == "json" else None
