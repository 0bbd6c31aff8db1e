"""Which format a file of rows is in, by what its caller says of it."""

from __future__ import annotations

import pytest

from model_store.errors import FormatUnsupported
from workers.files.formats import name_of


def test_a_format_is_told_by_its_name_its_type_or_its_files_name():
    assert name_of("csv", "application/jsonl", "a.npz") == "csv"
    assert name_of(None, "Application/X-NDJSON; charset=utf-8", "") == "jsonl"
    assert name_of(None, "application/octet-stream", "Rows.NPZ") == "npz"
    assert name_of(None, "application/zip", "") == name_of(None, "", "Tones.ZIP") == "files"
    for asked, media_type in (("pickle", ""), (None, "application/octet-stream")):
        with pytest.raises(FormatUnsupported, match="jsonl"):
            name_of(asked, media_type, "")
    with pytest.raises(FormatUnsupported, match="'text/plain' names no format"):
        name_of(None, "text/plain; charset=utf-8", "")
