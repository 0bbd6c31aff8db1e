"""TensorFlow Serving over gRPC: `tensorflow.serving.PredictionService` and `ModelService`.

Each method is the request of its REST counterpart (docs/tensorflow-serving.md): the same rights, limits, versions and
texts. Sources: tensorflow_serving/apis/*.proto; servables/tensorflow/multi_inference.cc.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import grpc
from google.protobuf import json_format

from auth.scopes import Scope
from gateway.grpc_services import example_messages, predict_messages
from gateway.grpc_services.calls import Application, Call, Reply
from gateway.grpc_services.example_messages import classification_of, regression_of
from gateway.grpc_services.failures import CallFailed
from gateway.grpc_services.messages import Fields, message
from gateway.grpc_services.model_specs import Target, answered_by, target_of
from gateway.grpc_services.rewriting import Rewriting
from gateway.grpc_services.rpcs import Answer, Rpc, Service
from gateway.parts import Parts
from gateway.prediction_bodies import JSON
from gateway.preferences import read_preferences
from workers.protocols.signature_names import CLASSIFY_METHOD, REGRESS_METHOD

PACKAGE = "tensorflow.serving"
PREDICT = (Scope.PREDICT,)
KNOWN = (Scope.MODELS_READ, Scope.PREDICT)
# Each task is a prediction of its own.
MOST_TASKS = 16
SIGNATURE_DEF = "signature_def"
NOT_RELOADED = (
    "there is no configuration to reload: PUT /admin/models/{model}/versions uploads a version, "
    "PUT /admin/models/{model}/labels/{label} moves a label; see docs/tensorflow-serving.md"
)

ClassificationResponse = message(f"{PACKAGE}.ClassificationResponse")
RegressionResponse = message(f"{PACKAGE}.RegressionResponse")
MultiInferenceResponse = message(f"{PACKAGE}.MultiInferenceResponse")
GetModelMetadataResponse = message(f"{PACKAGE}.GetModelMetadataResponse")
GetModelStatusResponse = message(f"{PACKAGE}.GetModelStatusResponse")
SignatureDefMap = message(f"{PACKAGE}.SignatureDefMap")


def services(application: Application, parts: Parts) -> tuple[Service, Service]:
    """Both services, whose methods ask the application."""
    predictions, models = Predictions(application, parts), Models(application)
    return (
        Service(
            f"{PACKAGE}.PredictionService",
            (
                _rpc("Predict", "PredictRequest", PREDICT, predictions.predict),
                _rpc("Classify", "ClassificationRequest", PREDICT, predictions.classify),
                _rpc("Regress", "RegressionRequest", PREDICT, predictions.regress),
                _rpc("MultiInference", "MultiInferenceRequest", PREDICT, predictions.infer_several),
                _rpc("GetModelMetadata", "GetModelMetadataRequest", KNOWN, models.metadata),
            ),
        ),
        Service(
            f"{PACKAGE}.ModelService",
            (
                _rpc("GetModelStatus", "GetModelStatusRequest", KNOWN, models.status),
                _rpc("HandleReloadConfigRequest", "ReloadConfigRequest", KNOWN, models.reload),
            ),
        ),
    )


def _rpc(name: str, request: str, scopes: tuple[Scope, ...], answer: Answer) -> Rpc:
    return Rpc(name, message(f"{PACKAGE}.{request}"), scopes, answer)


class Predictions:
    """Predict, Classify, Regress, and several of the latter two at once."""

    def __init__(self, application: Application, parts: Parts) -> None:
        self._application = application
        self._limit_bytes = parts.settings.body_limit_bytes
        self._rewriting = Rewriting()

    async def predict(self, call: Call, request: Fields) -> Fields:
        target = target_of(request.model_spec)
        body, headers = await self._rewriting.of(
            predict_messages.size_of(request), predict_messages.body_of, request, self._limit_bytes
        )
        try:
            reply = await self._application.ask(call, "POST", f"/v2/models/{target.path}/infer", body, headers)
        except CallFailed as failed:
            if failed.code is not grpc.StatusCode.NOT_FOUND:
                raise
            # The other protocol has words of its own for it.
            raise CallFailed(failed.code, target.unknown().message, failed.trailers) from failed
        return await self._rewriting.of(len(reply.body), predict_messages.response_of, reply, target)

    async def classify(self, call: Call, request: Fields) -> Fields:
        reply, target = await self._ask(call, "classify", request.model_spec, request.input)
        result = await self._rewriting.of(len(reply.body), classification_of, reply)
        return ClassificationResponse(model_spec=answered_by(target, reply), result=result)

    async def regress(self, call: Call, request: Fields) -> Fields:
        reply, target = await self._ask(call, "regress", request.model_spec, request.input)
        result = await self._rewriting.of(len(reply.body), regression_of, reply)
        return RegressionResponse(model_spec=answered_by(target, reply), result=result)

    async def infer_several(self, call: Call, request: Fields) -> Fields:
        """One after the other; the first that fails is what the call fails with."""
        if not 0 < len(request.tasks) <= MOST_TASKS:
            raise CallFailed(grpc.StatusCode.INVALID_ARGUMENT, f"a call has 1 to {MOST_TASKS} inference tasks")
        if len(request.tasks) > 1 and read_preferences(call.headers).asynchronous:
            # Each would be a job of its own, and the call's answer has room for one address.
            raise CallFailed(
                grpc.StatusCode.INVALID_ARGUMENT, "several inferences are no job: call Classify or Regress for each"
            )
        if len({task.model_spec.name for task in request.tasks}) > 1:
            raise CallFailed(
                grpc.StatusCode.INVALID_ARGUMENT,
                "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
            )
        for task in request.tasks:
            if task.method_name not in METHODS:
                raise CallFailed(
                    grpc.StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name[:64]}"
                )
        made: Fields = MultiInferenceResponse()
        for task in request.tasks:
            verb, field, result_of = METHODS[task.method_name]
            reply, target = await self._ask(call, verb, task.model_spec, request.input)
            result = await self._rewriting.of(len(reply.body), result_of, reply)
            made.results.add(model_spec=answered_by(target, reply), **{field: result})
        return made

    async def _ask(self, call: Call, verb: str, spec: Fields, given: Fields) -> tuple[Reply, Target]:
        target = target_of(spec)
        asked = example_messages.body_of, given, target.signature_name, self._limit_bytes
        body = await self._rewriting.of(given.ByteSize(), *asked)
        return await self._application.ask(call, "POST", f"/v1/models/{target.path}:{verb}", body, [JSON]), target


METHODS: Mapping[str, tuple[str, str, Callable[[Reply], Fields]]] = {
    CLASSIFY_METHOD: ("classify", "classification_result", classification_of),
    REGRESS_METHOD: ("regress", "regression_result", regression_of),
}


class Models:
    """What can be known of models: signatures and states."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def metadata(self, call: Call, request: Fields) -> Fields:
        target = target_of(request.model_spec)
        if not request.metadata_field:
            raise CallFailed(
                grpc.StatusCode.INVALID_ARGUMENT,
                "GetModelMetadataRequest must specify at least one metadata_field",
            )
        for field in request.metadata_field:
            if field != SIGNATURE_DEF:
                raise CallFailed(grpc.StatusCode.INVALID_ARGUMENT, f"Metadata field {field[:64]} is not supported")
        document: Fields = (await self._application.ask(call, "GET", f"/v1/models/{target.path}/metadata")).json()
        found: Fields = json_format.ParseDict(document["metadata"][SIGNATURE_DEF], SignatureDefMap())
        made: Fields = GetModelMetadataResponse()
        made.model_spec.name = target.model
        made.model_spec.version.value = int(document["model_spec"]["version"])
        packed = made.metadata[SIGNATURE_DEF]
        packed.type_url = f"type.googleapis.com/{SignatureDefMap.DESCRIPTOR.full_name}"
        packed.value = found.SerializeToString(deterministic=True)
        return made

    async def status(self, call: Call, request: Fields) -> Fields:
        reply = await self._application.ask(call, "GET", f"/v1/models/{target_of(request.model_spec).path}")
        return json_format.ParseDict(reply.json(), GetModelStatusResponse(), ignore_unknown_fields=True)

    async def reload(self, _: Call, __: Fields) -> Fields:
        raise CallFailed(grpc.StatusCode.UNIMPLEMENTED, NOT_RELOADED)
