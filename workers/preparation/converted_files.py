"""Names of the files that converting leaves in a runner's folder, for the runner and for the worker that takes them."""

from __future__ import annotations

SAVEDMODEL, ONNX = "savedmodel.tar", "model.onnx"
