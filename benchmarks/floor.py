"""The floor: what a FastAPI route costs that admits and parses the same request and has nothing to predict.

`python -m benchmarks.floor`, with the settings of a gateway in the environment. It uses the gateway's own admission and
server settings and the worker's own parser and formatter; only the queue and the model are missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import numpy as np
from fastapi import FastAPI, Request, Response

from auth.scopes import Scope
from auth.signing_keys import SigningKeys
from auth.tokens import Verifier
from gateway import errors
from gateway.admission import Admission
from gateway.key_keeping import KeyKeeping
from gateway.listening import listen
from gateway.settings import GatewaySettings
from gateway.snapshot import Snapshot
from model_store.database import connect, sessions_of
from model_store.signature import Signature, Tensors, TensorSpec
from workers.protocols.tensorflow_serving import format_predict, parse_predict

DIGITS = Signature((TensorSpec("image", "float32", (None, 28, 28)),), (TensorSpec("y", "float32", (None, 10)),))


def create_floor(settings: GatewaySettings) -> FastAPI:
    """An application whose only route answers every digit with the same ten floats."""
    sessions, keys = sessions_of(connect(settings)), SigningKeys(settings.master_keys)
    snapshot = Snapshot(sessions, keys, KeyKeeping(sessions, settings.master_keys, settings))
    verifier = Verifier(
        keys,
        issuer=settings.issuer,
        audience=settings.audience,
        max_seconds=settings.token_seconds,
        clock=snapshot.clock.now,
    )
    admission = Admission(verifier, snapshot)
    answer = np.linspace(0, 1, 10, dtype=np.float32).reshape(1, 10)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        snapshot.start()
        yield
        snapshot.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    errors.install(app)

    @app.post("/v1/models/mnist:predict")
    async def predict(request: Request) -> Response:
        caller = admission.caller(request.scope["headers"], request.scope["query_string"])
        admission.require(caller, Scope.PREDICT)
        parsed = parse_predict(await request.body(), DIGITS, max_instances=settings.max_instances)
        outputs: Tensors = {"y": np.broadcast_to(answer, (parsed.instances, 10))}
        return Response(format_predict(outputs, DIGITS, parsed.row_form), media_type="application/json")

    return app


if __name__ == "__main__":
    found = GatewaySettings()
    listen(create_floor(found), found)
