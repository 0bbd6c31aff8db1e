"""Starts the tritonserver that the package nvidia-pytriton carries, with a repository of one Python model.

The server, its Python backend and the stub for this Python are laid out in the folder WORK as Triton looks for them;
the process then becomes the server.
"""

import os
import shutil
import sys
from pathlib import Path

import onnxruntime
import pytriton

CONFIG = """
backend: "python"
max_batch_size: {batch}
input [{{ name: "image" data_type: TYPE_FP32 dims: {shape} }}]
output [{{ name: "probabilities" data_type: TYPE_FP32 dims: {outputs} }}]
instance_group [{{ count: 1 kind: KIND_CPU }}]
dynamic_batching {{ max_queue_delay_microseconds: {delay} }}
"""

package = Path(pytriton.__file__).parent
work = Path(os.environ["WORK"])
shutil.rmtree(work, ignore_errors=True)

server = work / "tritonserver"
shutil.copytree(package / "tritonserver", server, ignore=shutil.ignore_patterns("python_backend_stubs"))
stub = Path("python_backend_stubs", f"{sys.version_info.major}.{sys.version_info.minor}", "triton_python_backend_stub")
shutil.copy(package / "tritonserver" / stub, server / "backends" / "python")

session = onnxruntime.InferenceSession(os.environ["MODEL"], providers=["CPUExecutionProvider"])
shapes = [list(tensor.shape[1:]) for tensor in (session.get_inputs()[0], session.get_outputs()[0])]
model = work / "repository" / "model"
(model / "1").mkdir(parents=True)
shutil.copy(Path(__file__).with_name("model.py"), model / "1")
settings = {"batch": os.environ["BATCH"], "delay": os.environ["WAIT_MICROSECONDS"]}
(model / "config.pbtxt").write_text(CONFIG.format(shape=shapes[0], outputs=shapes[1], **settings))

arguments = {
    "model-repository": work / "repository",
    "backend-directory": server / "backends",
    "http-address": "127.0.0.1",
    "http-port": os.environ["PORT"],
    "http-thread-count": os.environ["HTTP_THREADS"],
    "allow-grpc": "false",
    "allow-metrics": "false",
}
command = [str(server / "bin" / "tritonserver"), *(f"--{name}={value}" for name, value in arguments.items())]
variables = {
    "LD_LIBRARY_PATH": str(package.parent / "nvidia_pytriton.libs"),
    # The stub takes for its own the environment of the first Python on the path.
    "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}",
}
os.execve(command[0], command, os.environ | variables)  # noqa: S606 - this process becomes the server
