"""The peers, and how each is run: with batching where it has it, one process for the model, no authentication."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.environment import Environment
from benchmarks.peers.forms import predict_json, raw, v2_binary, v2_json
from benchmarks.peers.models import IMAGE
from benchmarks.peers.peer import Peer

ONNX = {"MODEL": "{model}.onnx"}
KERAS = {"MODEL": "{model}.keras"}
V2 = "/v2/models/model/infer"


def peers(root: Path) -> list[Peer]:
    """All peers, with their environments below `root`."""
    return [
        *tutorials(root),
        Peer(
            name="LitServe",
            environment=Environment("litserve", root / "litserve"),
            packages=("litserve", "onnxruntime"),
            commands=("{bin}/python server.py",),
            settings_of_programs=ONNX | {"BATCH": "128", "WAIT_SECONDS": "0.002"},
            for_digits=(predict_json("/predict"),),
            for_photographs=(predict_json("/predict"),),
        ),
        Peer(
            name="BentoML",
            environment=Environment("bentoml", root / "bentoml"),
            packages=("bentoml", "onnxruntime"),
            commands=("{bin}/python -m bentoml serve service:Digits --host 127.0.0.1 --port {port}",),
            settings_of_programs=ONNX
            | {"BATCH": "128", "LATENCY_MS": "10000", "BENTOML_HOME": "{work}", "BENTOML_DO_NOT_TRACK": "True"},
            for_digits=(predict_json("/predict", answer=None),),
        ),
        Peer(
            name="MLServer",
            environment=Environment("mlserver", root / "mlserver"),
            packages=("mlserver", "onnxruntime"),
            commands=("{bin}/mlserver start .",),
            settings_of_programs=ONNX
            | {
                "MLSERVER_HTTP_PORT": "{port}",
                "MLSERVER_GRPC_PORT": "{port2}",
                "MLSERVER_METRICS_PORT": "{port3}",
                "MLSERVER_METRICS_DIR": "{work}",
            },
            for_digits=(v2_json(V2, IMAGE),),
        ),
        Peer(
            name="KServe",
            environment=Environment("kserve", root / "kserve"),
            packages=("kserve", "onnxruntime"),
            commands=("{bin}/python server.py --http_port {port} --enable_grpc false --workers 1",),
            settings_of_programs=ONNX,
            for_digits=(v2_json(V2, IMAGE), v2_binary(V2, IMAGE)),
        ),
        Peer(
            name="mosec",
            environment=Environment("mosec", root / "mosec"),
            packages=("mosec", "onnxruntime"),
            commands=("{bin}/python server.py --address 127.0.0.1 --port {port} --timeout 30000",),
            settings_of_programs=ONNX | {"BATCH": "128", "WAIT_MS": "1"},
            for_digits=(predict_json("/predict"), raw("/raw")),
            for_photographs=(raw("/raw"),),
        ),
        Peer(
            name="Triton",
            environment=Environment("triton", root / "triton"),
            packages=("nvidia-pytriton", "onnxruntime"),
            commands=("{bin}/python serve.py",),
            settings_of_programs=ONNX
            | {"BATCH": "128", "WAIT_MICROSECONDS": "0", "HTTP_THREADS": "4", "WORK": "{work}/server"},
            for_digits=(v2_json(V2, IMAGE), v2_binary(V2, IMAGE)),
            for_photographs=(v2_json(V2, IMAGE), v2_binary(V2, IMAGE)),
        ),
    ]


def tutorials(root: Path) -> list[Peer]:
    """What most guides on serving a Keras model show."""
    flask, celery = (Environment(name, root / name) for name in ("flask", "fastapi-celery"))
    worker = "{bin}/celery --app tasks worker --pool prefork --concurrency 1 --loglevel warning"
    return [
        Peer(
            name="Flask",
            environment=flask,
            packages=("flask", "gunicorn", "tensorflow-cpu"),
            commands=("{bin}/gunicorn server:app --workers 2 --threads 4 --bind 127.0.0.1:{port}",),
            settings_of_programs=KERAS,
            for_digits=(predict_json("/predict"),),
        ),
        *(
            Peer(
                name=f"FastAPI + Celery, {call}",
                environment=celery,
                packages=("fastapi", "celery", "tensorflow-cpu"),
                commands=(
                    "{redis} --port {port2} --bind 127.0.0.1 --dir {work} --appendonly no",
                    worker,
                    "{bin}/uvicorn server:app --host 127.0.0.1 --port {port} --no-access-log",
                ),
                settings_of_programs=KERAS | {"REDIS": "redis://127.0.0.1:{port2}/0", "CALL": call},
                for_digits=(predict_json("/predict"),),
            )
            for call in ("model.predict", "tf.function")
        ),
    ]
