"""Triton's Python backend: one call takes all requests of a dynamic batch and runs ONNX Runtime once."""

import os

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["THREADS"])
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name

    def execute(self, requests):
        images = [pb_utils.get_input_tensor_by_name(request, "image").as_numpy() for request in requests]
        (outputs,) = self.session.run(None, {self.name: np.concatenate(images)})
        answers, start = [], 0
        for image in images:
            part = outputs[start : start + len(image)]
            start += len(image)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("probabilities", part)]))
        return answers
