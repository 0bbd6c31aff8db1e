"""The table of all settings, made from the settings classes: `python -m sluice.settings_table --write README.md ...`.

In each file it replaces what stands between the two marker lines.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from gateway.settings import GatewaySettings
from model_store.settings import PREFIX, Settings, StoreSettings
from workers.settings import BackgroundSettings, WorkerSettings

BEGIN = "<!-- settings:begin -->"
END = "<!-- settings:end -->"

# In the order of the table's last column; `sluice migrate` reads the store's settings alone.
PROCESSES: dict[str, type[Settings]] = {
    "gateway": GatewaySettings,
    "worker": WorkerSettings,
    "background": BackgroundSettings,
    "migrate": StoreSettings,
}

# Defaults that depend on the machine; a new one without words here makes the table fail rather than lie.
WORDS = {
    "gateway_name": "made up at start",
    "worker_name": "the host's name",
    "scratch_dir": "the system's folder for temporary files",
}


def table() -> str:
    """The table as Markdown, in the order in which the classes declare their fields."""
    rows = ["| variable | default | what it is | read by |", "|---|---|---|---|"]
    rows += [
        f"| `{PREFIX}{name.upper()}` | {_default(name, field)} | {_text(field)} | {', '.join(readers)} |"
        for name, field, readers in _fields()
    ]
    return "\n".join(rows)


def with_table(text: str) -> str:
    """The text with the table between its markers; ValueError where they are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the markers {BEGIN} and {END} are missing")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the table of all settings, or write it into files.")
    parser.add_argument("--write", nargs="+", type=Path, metavar="FILE", help="files that hold the two markers")
    files = parser.parse_args().write
    if not files:
        sys.stdout.write(table() + "\n")
        return
    for file in files:
        file.write_text(with_table(file.read_text()))


def _fields() -> Iterator[tuple[str, FieldInfo, list[str]]]:
    seen: set[str] = set()
    for settings in PROCESSES.values():
        # A class lists the fields of its bases in reverse order of the bases: the store's come first.
        for name, field in settings.model_fields.items():
            if name not in seen:
                seen.add(name)
                yield name, field, [process for process, other in PROCESSES.items() if name in other.model_fields]


def _text(field: FieldInfo) -> str:
    return (field.description or "").replace("|", "\\|")


def _default(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return "none: required"
    if field.default_factory is not None or field.default == Path(tempfile.gettempdir()):
        return WORDS[name]
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None:
        return "none"
    if isinstance(value, float):
        value = f"{value:g}"
    if isinstance(value, bool):
        value = str(value).lower()
    if name.endswith("_bytes"):
        return f"`{value}` ({_readable(int(value))})"
    return f"`{value}`"


def _readable(size: int) -> str:
    for unit, name in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if size >= unit:
            return f"{size / unit:g} {name}"
    return f"{size} B"


if __name__ == "__main__":
    main()
