"""mosec with dynamic batching in front of ONNX Runtime; takes JSON, or raw float32 bytes."""

import os

import numpy as np
import onnxruntime
import orjson
from mosec import Server, Worker


class Digits(Worker):
    """Takes and gives JSON, by a faster parser than the standard library's, which mosec uses unless told."""

    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["THREADS"])
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
        (self.input,) = self.session.get_inputs()

    def deserialize(self, data):
        return orjson.loads(data)

    def serialize(self, data):
        return orjson.dumps(data)

    def forward(self, data):
        images = np.array([request["instances"][0] for request in data], dtype=np.float32)
        return [{"predictions": [answer.tolist()]} for answer in self.session.run(None, {self.input.name: images})[0]]


class RawDigits(Digits):
    """Takes and gives float32 as bytes."""

    def deserialize(self, data):
        return data

    def serialize(self, data):
        return data

    def forward(self, data):
        images = np.frombuffer(b"".join(data), dtype=np.float32).reshape(-1, *self.input.shape[1:])
        return [answer.tobytes() for answer in self.session.run(None, {self.input.name: images})[0]]


if __name__ == "__main__":
    server = Server()
    batch, wait = int(os.environ["BATCH"]), int(os.environ["WAIT_MS"])
    server.append_worker(RawDigits, num=1, max_batch_size=batch, max_wait_time=wait, route="/raw")
    server.append_worker(Digits, num=1, max_batch_size=batch, max_wait_time=wait, route="/predict")
    server.run()
