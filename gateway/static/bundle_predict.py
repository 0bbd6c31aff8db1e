"""Checks this bundle, then answers with its model: python predict.py [inputs.npz [outputs.npz]]"""

import hashlib
import importlib
import json
import pathlib
import sys

import numpy as np

FOLDER = pathlib.Path(__file__).resolve().parent
for digest, name in (line.split("  ") for line in (FOLDER / "SHA256SUMS").read_text().splitlines()):
    if hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() != digest:
        sys.exit(f"{name} is not the file that was exported")
predict = importlib.import_module("runtime").load(FOLDER, json.loads((FOLDER / "signature.json").read_text()))
with np.load(FOLDER / "golden.npz") as golden:
    inputs, expected = ({n[len(s) :]: golden[n] for n in golden if n.startswith(s)} for s in ("inputs/", "outputs/"))
found, rule = predict(inputs), json.loads((FOLDER / "parity.json").read_text())["tolerance"]
for name, right in expected.items():
    own, numbers = found[name], right.dtype.kind in "fc"
    close = np.allclose(own, right, rule["relative"], rule["absolute"], True) if numbers else np.array_equal(own, right)
    if own.shape != right.shape or (not close and (own.argmax(-1) == right.argmax(-1)).mean() < rule["top1_floor"]):
        sys.exit(f"{name} is not what the model answered where it was exported")
asked = dict(np.load(sys.argv[1])) if sys.argv[1:] else inputs
if set(asked) != set(inputs):
    sys.exit(f"{sys.argv[1]} has the arrays {sorted(asked)}, but the model takes {sorted(inputs)}")
found = predict(asked)
if sys.argv[2:]:
    np.savez(sys.argv[2], **found)
sys.stdout.write(json.dumps({name: value.tolist() for name, value in found.items()}, default=bytes.decode) + "\n")
