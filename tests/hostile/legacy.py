"""M67: legacy `.h5` files, whose own reader in Keras knows no safe mode."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import h5py
import numpy as np

from tests.hostile.bait import Bait, Case, hdf5_bytes
from tests.hostile.foreign import CLASSES, bytecode, function, lambda_layer
from tests.keras_archives import Json, dense, layer, sequential


def _model(make: Callable[[Bait], Json], **attributes: str) -> Callable[[Bait], bytes]:
    """A whole model as Keras 2 wrote it: configuration and training in attributes, no modules."""

    def write(bait: Bait) -> bytes:
        def fill(file: h5py.File) -> None:
            file.attrs["model_config"] = json.dumps(make(bait))
            file.attrs.update(attributes)
            file.create_group("model_weights").attrs["layer_names"] = np.array([], "S1")

        return hdf5_bytes(fill)

    return write


def _old(node: Json) -> Json:
    return {key: value for key, value in node.items() if key not in ("module", "registered_name")}


def _list_of_bytecode(bait: Bait) -> Json:
    """Keras 2 kept a Lambda's code as a list of three."""
    code: object = bytecode(bait)["config"]
    assert isinstance(code, dict)
    return layer("Lambda", function=[code["code"], None, None], function_type="lambda", module="__main__")


def _case(what: str, code: str, make: Callable[[Bait], Json], place: str = "", known: str = "") -> Case:
    write = _model(lambda bait: sequential(dense(), make(bait)))
    return Case("M67", what, code, f"config.layers[2]{place}", write, format="h5", known=known)


def _linked(file: h5py.File) -> None:
    file.attrs["model_config"] = json.dumps(sequential(dense()))
    file["model_weights"] = h5py.ExternalLink("/etc/hostname", "/")


NOT = "class_not_allowed"
PAYLOAD = base64.b64encode(b"cposix\nsystem\n(S'true'\ntR.").decode()

CASES = (
    _case("a Lambda of bytecode", NOT, lambda bait: _old(lambda_layer(bait)), known="CVE-2025-9905"),
    _case("a Lambda whose bytecode is a list", NOT, lambda bait: _old(_list_of_bytecode(bait)), known="CVE-2025-9905"),
    *(_case(f"a Lambda of the class {name}", NOT,
            lambda _, name=name: _old(layer("Lambda", function=function(*name.split(":")))))
      for name in CLASSES[:2]),
    _case("a function of keras.layers in a class's place", NOT, lambda _: {"class_name": "deserialize", "config": {}}),
    _case("a vocabulary from a file", "vocabulary",
          lambda _: _old(layer("StringLookup", vocabulary="/etc/hostname")), ".config.vocabulary", "CVE-2025-12058"),
    _case("a TorchModuleWrapper", NOT, lambda _: _old(layer("TorchModuleWrapper", module=PAYLOAD)),
          known="CVE-2025-49655"),
    _case("10^8 units", "size_field", lambda _: _old(dense(10**8, name="other")), ".config.units"),
    _case("a layer name with a path", "layer_name", lambda _: _old(dense(name="../../x")), ".config.name",
          "CVE-2026-12479"),
    Case("M67", "weights behind an external link", "h5_link", "model_weights", lambda _: hdf5_bytes(_linked),
         format="h5", known="CVE-2026-1669"),
    Case("M67", "weights without a model", "missing_member", "model.save()",
         lambda _: hdf5_bytes(lambda file: file.create_group("model_weights") and None), format="h5"),
    Case("M67", "an optimizer that is a function", "weights_mismatch", "config.layers[1]",
         _model(lambda _: sequential(dense()),
                training_config=json.dumps({"optimizer_config": function("os", "system")})), format="h5"),
)  # fmt: skip
