"""KServe's Python server in front of ONNX Runtime; its batcher is a side-car of Kubernetes, so there is none here."""

import os

import onnxruntime
from kserve import InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import get_predict_response


class Digits(Model):
    def __init__(self, name: str):
        super().__init__(name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["THREADS"])
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        self.ready = True

    def predict(self, payload: InferRequest, headers=None) -> InferResponse:
        (outputs,) = self.session.run(None, {self.session.get_inputs()[0].name: payload.inputs[0].as_numpy()})
        return get_predict_response(payload, outputs, self.name)


if __name__ == "__main__":
    ModelServer().start([Digits("model")])
