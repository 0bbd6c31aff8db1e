"""M06 to M14, M36 to M44, M54: archives that are broken, or that two readers would understand differently."""

from __future__ import annotations

import io
import json
import pickle
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.bait import Bait, Case, Write, archive, entries, good_weights
from tests.hostile.zips import Entry, deflated, pack, repeated
from tests.keras_archives import METADATA, dense, layer, sequential

MIB = 1024**2
CONFIG = json.dumps(sequential(dense())).encode()
HOSTILE_CONFIG = json.dumps(sequential(layer("Lambda"))).encode()


class _Touch:
    """Unpickled, it makes the mark."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (self._mark,)


def _good() -> bytes:
    return archive(CONFIG)


def _with(*more: Entry) -> Write:
    return lambda _: pack([*entries(CONFIG), *more])


def _without(name: str) -> Write:
    return lambda _: pack(entry for entry in entries(CONFIG) if entry.name != name)


def _metadata(text: bytes) -> Write:
    return lambda _: pack([Entry("metadata.json", text), *entries(CONFIG)[1:]])


def _config(entry: Entry) -> Write:
    return lambda _: pack([Entry("metadata.json", METADATA), entry, Entry("model.weights.h5", good_weights())])


def _weights(entry: Entry) -> Write:
    return lambda _: pack([*entries(CONFIG)[:2], entry])


def pickled(bait: Bait) -> bytes:
    return pickle.dumps(_Touch(bait.mark))


def _torch(bait: Bait) -> bytes:
    return pack([Entry("archive/data.pkl", pickled(bait)), Entry("archive/version", b"3\n")])


def _npy(bait: Bait) -> bytes:
    held = io.BytesIO()
    np.save(held, np.array([_Touch(bait.mark)], object), allow_pickle=True)
    return held.getvalue()


def _npz(bait: Bait) -> bytes:
    return pack([Entry("0.npy", _npy(bait))])


def _shape_bomb_npz(_: Bait) -> bytes:
    header = str({"descr": "<f4", "fortran_order": False, "shape": (10**12,)}).encode().ljust(117) + b"\n"
    return pack([Entry("0.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)])


def _shell_script(_: Bait) -> bytes:
    return b"#!/bin/sh\nexit 0\n" + _good()


def _adjusted_prefix(_: Bait) -> bytes:
    """A prefix that the offsets take into account, so that the archive is valid."""
    prefix = Entry("x", b"")
    whole = pack([prefix, *entries(CONFIG)])
    # Without its first member's mark and its line in the directory, its bytes stand before the first member.
    line = len(pack([prefix])) - len(pack([])) - 31
    begin = whole.index(b"PK\x01\x02")
    data = b"#!/b" + whole[4:begin] + whole[begin + line :]
    count, size = 3, len(whole) - begin - line - 22
    end = len(data) - 22
    return (
        data[: end + 8] + count.to_bytes(2, "little") * 2 + size.to_bytes(4, "little")
        + begin.to_bytes(4, "little") + data[end + 20 :]
    )  # fmt: skip


def _overlapping(_: Bait) -> bytes:
    """Many members that share one kernel of zeros, as in Fifield's bomb of 2019."""
    kernel = Entry("assets/a/vocabulary.txt", method=8, packed=repeated(bytes(MIB), 10), size=10 * MIB)
    at = len(pack(entries(CONFIG))) - sum(46 + len(entry.raw_name) for entry in entries(CONFIG)) - 22
    copies = [
        Entry(f"assets/b{index}/vocabulary.txt", method=8, packed=kernel.packed, size=10 * MIB, offset=at)
        for index in range(200)
    ]
    return pack([*entries(CONFIG), kernel, *copies])


def _quoted(_: Bait) -> bytes:
    """A member that lies within another's bytes."""
    inner = pack([Entry("config.json", HOSTILE_CONFIG)])
    outer = Entry("model.weights.h5", inner)
    at = 30 + len("metadata.json") + len(METADATA) + 30 + len("model.weights.h5")
    return pack([Entry("metadata.json", METADATA), outer, Entry("config.json", HOSTILE_CONFIG, offset=at)])


NUL = "config.json\0"
ZEROS_OF_4_GIB_CRC = 0xD202D277  # of 4 GiB - 1 MiB zeros

CASES = (
    Case("M06", "truncated in the middle", "zip_structure", "truncated", lambda _: _good()[: len(_good()) // 2]),
    Case("M06", "last 22 bytes cut off", "zip_structure", "truncated", lambda _: _good()[:-22]),
    Case("M07", "a mebibyte of noise", "zip_structure", "no zip archive",
         lambda _: np.random.default_rng(7).bytes(MIB)),
    Case("M11", "HDF5 weights named keras", "zip_structure", "no zip archive", lambda _: good_weights()),
    Case("M12", "a pickle", "zip_structure", "no zip archive", pickled),
    Case("M12", "a file of PyTorch", "zip_member", "archive/data.pkl", _torch),
    Case("M12", "an array of objects", "zip_structure", "no zip archive", _npy),
    Case("M12", "a program", "zip_structure", "no zip archive", lambda _: b"\x7fELF\x02\x01\x01" + bytes(500)),
    Case("M12", "a web page", "zip_structure", "no zip archive", lambda _: b"<!doctype html><title>x</title>" * 9),
    Case("M12", "a PDF", "zip_structure", "no zip archive", lambda _: b"%PDF-1.7\n%%EOF\n" * 9),
    Case("M13", "a shell script before the archive", "zip_prefix", "archive", _shell_script),
    Case("M13", "a prefix that the offsets know of", "zip_prefix", "first member", _adjusted_prefix),
    Case("M14", "a mebibyte behind the end", "zip_suffix", "behind its end", lambda _: _good() + bytes(MIB)),
    Case("M14", "an archive comment", "zip_suffix", "comment",
         lambda _: pack(entries(CONFIG), comment=b"x" * 65535)),
    Case("M36", "a configuration followed by 500 MiB of spaces", "json_size", "config.json",
         _config(Entry("config.json", method=8, packed=repeated(b" " * MIB, 500), size=500 * MIB, crc=1))),
    Case("M37", "two configurations, the benign one first", "zip_duplicate_member", "config.json",
         _with(Entry("config.json", HOSTILE_CONFIG))),
    Case("M37", "two configurations, the hostile one first", "zip_duplicate_member", "config.json",
         lambda _: pack([*entries(HOSTILE_CONFIG), Entry("config.json", CONFIG)])),
    Case("M38", "another name in the member's own header", "zip_mismatch", "config.json",
         _config(Entry("config.json", CONFIG, local_name=b"c0nfig.json"))),
    Case("M38", "a stored member of two sizes", "zip_mismatch", "config.json",
         _config(Entry("config.json", CONFIG, size=len(CONFIG) + 1))),
    Case("M38", "another checksum", "zip_mismatch", "config.json", _config(Entry("config.json", CONFIG, crc=1))),
    Case("M39", "members that overlap", "zip_overlap", "assets/", _overlapping),
    Case("M39", "a member within another", "zip_overlap", "config.json", _quoted),
    Case("M40", "almost 4 GiB of zeros", "zip_size", "members unpack",
         _weights(Entry("model.weights.h5", method=8, packed=repeated(bytes(MIB), 4095), size=4095 * MIB,
                        crc=ZEROS_OF_4_GIB_CRC))),
    Case("M40", "64 MiB of zeros", "zip_ratio", "model.weights.h5",
         _weights(Entry("model.weights.h5", bytes(64 * MIB), method=8))),
    Case("M41", "an archive in the archive", "zip_member", "assets/inner.zip",
         _with(Entry("assets/inner.zip", archive(HOSTILE_CONFIG)))),
    Case("M41", "60,000 members", "zip_members", "60000 members",
         lambda _: pack(Entry(f"assets/{index}/vocabulary.txt") for index in range(60_000))),
    *(Case("M42", f"a member named {name!r}", "zip_member", place, _with(Entry(name, b"x")))
      for name, place in (("assets/../../x", "assets/../../x"), ("/etc/x", "/etc/x"), ("C:\\x", "C:"),
                          ("a\\..\\b", "'a"), (NUL, "config.json"), ("assets/x/../vocabulary.txt", "../"))),
    Case("M43", "a symbolic link", "zip_member", "assets/a/vocabulary.txt",
         _with(Entry("assets/a/vocabulary.txt", b"/etc/hostname", mode=stat.S_IFLNK | 0o777))),
    Case("M43", "a device", "zip_member", "assets/a/vocabulary.txt",
         _with(Entry("assets/a/vocabulary.txt", mode=stat.S_IFCHR | 0o666))),
    Case("M43", "an encrypted member", "zip_encrypted", "config.json", _config(Entry("config.json", CONFIG, flags=1))),
    *(Case("M43", f"a member packed by method {method}", "zip_method", "config.json",
           _config(Entry("config.json", CONFIG, method=method))) for method in (12, 14, 99)),
    Case("M43", "sizes behind the data", "zip_structure", "config.json",
         _config(Entry("config.json", CONFIG, flags=8))),
    *(Case("M44", f"no {name}", "missing_member", name, _without(name))
      for name in ("metadata.json", "config.json", "model.weights.h5")),
    Case("M44", "metadata of Keras 99", "keras_version", "metadata.json", _metadata(b'{"keras_version": "99.0.0"}')),
    Case("M44", "metadata that is not JSON", "json_syntax", "metadata.json", _metadata(b"not JSON")),
    Case("M54", "weights as an archive of arrays", "zip_member", "model.weights.npz",
         lambda bait: pack([*entries(CONFIG)[:2], Entry("model.weights.npz", _npz(bait))])),
    Case("M54", "an archive of arrays as the weights", "h5_structure", "HDF5",
         lambda bait: archive(CONFIG, _npz(bait)), known="Keras #23016"),
    Case("M54", "an array of 10^12 numbers", "zip_member", "model.weights.npz",
         lambda bait: pack([*entries(CONFIG)[:2], Entry("model.weights.npz", _shape_bomb_npz(bait))])),
    Case("M71", "a deflated member with bytes behind its end", "zip_mismatch", "config.json",
         _config(Entry("config.json", CONFIG, method=8, packed=deflated(CONFIG) + b"behind"))),
    Case("M71", "a deflated member that is longer than it says", "zip_mismatch", "config.json",
         _config(Entry("config.json", CONFIG, method=8, packed=deflated(CONFIG + b" " * 4096)))),
)  # fmt: skip
