"""M45 to M52, M55, M57: files of weights in HDF5 that lead elsewhere, declare too much, or do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable

import h5py
import numpy as np

from tests.hostile.bait import Case, Write, archive, hdf5_bytes
from tests.keras_archives import dense, sequential

CONFIG = json.dumps(sequential(dense())).encode()
MIB = 1024**2


def _filled(fill: Callable[[h5py.File], None]) -> Write:
    return lambda _: archive(CONFIG, hdf5_bytes(fill))


def _linked_dataset(file: h5py.File) -> None:
    file["layers/dense/vars/0"] = h5py.ExternalLink("/etc/hostname", "/x")


def _linked_group(file: h5py.File) -> None:
    file["layers"] = h5py.ExternalLink("/etc/hostname", "/")


def _soft_link(file: h5py.File) -> None:
    file["layers"] = h5py.SoftLink("/elsewhere")


def _soft_cycle(file: h5py.File) -> None:
    file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")


def _external(file: h5py.File) -> None:
    file.create_dataset("layers/dense/vars/0", (4, 3), "u1", external=[("/etc/hostname", 0, 12)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", (4, 3))
    file.create_virtual_dataset("layers/dense/vars/0", layout)


def _filled_with_ones(size: int) -> Callable[[h5py.File], None]:
    def fill(file: h5py.File) -> None:
        file.create_dataset("v", (size,), "f4", chunks=(1024,), compression="gzip", fillvalue=1.0)

    return fill


def _cycle(file: h5py.File) -> None:
    file.create_group("a")["again"] = file["/"]


def _deep(levels: int) -> Callable[[h5py.File], None]:
    def fill(file: h5py.File) -> None:
        file.create_group("/".join(["a"] * levels))

    return fill


def _crowd(file: h5py.File) -> None:
    for index in range(50_001):
        h5py.h5g.create(file.id, b"%d" % index)


def _text(file: h5py.File) -> None:
    file["v"] = "hello"


def _compound(file: h5py.File) -> None:
    file["v"] = np.zeros(3, [("x", "f4")])


def _reference(file: h5py.File) -> None:
    file.create_dataset("v", (1,), h5py.ref_dtype)


def _opaque(file: h5py.File) -> None:
    file["v"] = np.zeros(3, "V7")


def _texts_of_any_length(file: h5py.File) -> None:
    file.create_dataset("v", (2,), h5py.string_dtype())


def _filter(number: int) -> Callable[[h5py.File], None]:
    def fill(file: h5py.File) -> None:
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_chunk((10,))
        layout.set_filter(number, h5py.h5z.FLAG_OPTIONAL, (1,))
        h5py.h5d.create(file.id, b"v", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((100,)), layout)

    return fill


def _wide_attribute(count: int) -> Callable[[h5py.File], None]:
    def fill(file: h5py.File) -> None:
        h5py.h5a.create(file.id, b"x", h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((count,)))

    return fill


def _attribute_of_any_length(file: h5py.File) -> None:
    kind = h5py.h5t.vlen_create(h5py.h5t.IEEE_F64LE)
    h5py.h5a.create(file.id, b"x", kind, h5py.h5s.create_simple((2,)))


def _attributes(count: int) -> Callable[[h5py.File], None]:
    def fill(file: h5py.File) -> None:
        for index in range(count):
            file.attrs[f"a{index}"] = 1

    return fill


def _dense(kernel: np.ndarray, *more: np.ndarray) -> Write:
    def fill(file: h5py.File) -> None:
        for index, values in enumerate((kernel, *more)):
            file[f"layers/dense/vars/{index}"] = values

    return _filled(fill)


BIAS = np.zeros(3, np.float32)
NEVER = np.full((4, 3), np.nan, np.float32)

CASES = (
    Case("M45", "an external link to a dataset", "h5_link", "layers/dense/vars/0", _filled(_linked_dataset),
         known="CVE-2026-1669"),
    Case("M45", "an external link to a group", "h5_link", "layers", _filled(_linked_group), known="CVE-2026-1669"),
    Case("M45", "a soft link", "h5_link", "layers", _filled(_soft_link)),
    Case("M45", "soft links in a circle", "h5_link", "a", _filled(_soft_cycle)),
    Case("M46", "a dataset stored in another file", "h5_external", "layers/dense/vars/0", _filled(_external),
         known="CVE-2026-1669"),
    Case("M47", "a virtual dataset", "h5_virtual", "layers/dense/vars/0", _filled(_virtual), known="CVE-2026-1669"),
    Case("M48", "10^12 numbers that are not there", "h5_bomb", "v", _filled(_filled_with_ones(10**12)),
         known="CVE-2026-0897"),
    Case("M48", "3.9 GiB that are not there", "h5_bomb", "v", _filled(_filled_with_ones(39 * 1024**3 // 40)),
         known="CVE-2026-0897"),
    Case("M49", "a group that holds itself", "h5_cycle", "a/again", _filled(_cycle)),
    Case("M49", "5,000 groups in each other", "h5_depth", "a/a/a", _filled(_deep(5000)), slow=True),
    Case("M49", "40 groups in each other", "h5_depth", "a/a/a", _filled(_deep(40))),
    Case("M49", "50,001 groups", "h5_objects", "50000 objects", _filled(_crowd), slow=True),
    Case("M50", "a text", "h5_dtype", "v", _filled(_text)),
    Case("M50", "a compound type", "h5_dtype", "v", _filled(_compound)),
    Case("M50", "a reference", "h5_dtype", "v", _filled(_reference)),
    Case("M50", "opaque bytes", "h5_dtype", "v", _filled(_opaque)),
    Case("M50", "texts of any length", "h5_dtype", "v", _filled(_texts_of_any_length)),
    *(Case("M51", f"the filter {number}", "h5_filter", "v", _filled(_filter(number)))
      for number in (32015, 4, 65000)),
    Case("M52", "an attribute of 160 KB", "h5_attr", "bytes", _filled(_wide_attribute(20_000))),
    Case("M52", "an attribute of 64 MiB", "h5_attr", "bytes", _filled(_wide_attribute(8 * MIB)), slow=True),
    Case("M52", "an attribute of any length", "h5_attr", "attribute", _filled(_attribute_of_any_length)),
    Case("M52", "300 attributes", "h5_attr", "300 attributes", _filled(_attributes(300))),
    Case("M52", "100,000 attributes", "h5_attr", "100000 attributes", _filled(_attributes(100_000)), slow=True),
    Case("M55", "no weights at all", "weights_mismatch", "config.layers[1]", _filled(lambda _: None)),
    Case("M55", "a kernel of another shape", "weights_mismatch", "(5, 3)",
         _dense(np.ones((5, 3), np.float32), BIAS), slow=True),
    Case("M55", "a missing bias", "weights_mismatch", "dense", _dense(np.ones((4, 3), np.float32)), slow=True),
    Case("M55", "one array too many", "weights_mismatch", "dense",
         _dense(np.ones((4, 3), np.float32), BIAS, BIAS), slow=True),
    Case("M57", "weights that are not numbers", "non_finite_output", "NaN", _dense(NEVER, BIAS), slow=True),
    Case("M57", "infinite weights", "non_finite_output", "infinity",
         _dense(np.full((4, 3), np.inf, np.float32), BIAS), slow=True),
)  # fmt: skip
