"""BentoML with adaptive batching in front of ONNX Runtime."""

import os

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=1, traffic={"timeout": 30, "max_concurrency": 1024})
class Digits:
    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["THREADS"])
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name

    @bentoml.api(batchable=True, max_batch_size=int(os.environ["BATCH"]), max_latency_ms=int(os.environ["LATENCY_MS"]))
    def predict(self, instances: np.ndarray) -> np.ndarray:
        return self.session.run(None, {self.name: instances.astype(np.float32)})[0]
