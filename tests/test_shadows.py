"""Shadows: copies of answered predictions, compared without anybody noticing, and reported from all gateways."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.scopes import Scope
from gateway import figure_buffer
from gateway.answer_comparison import compare, compare_answers
from gateway.figure_buffer import FigureBuffer
from gateway.shadowing import PIECE_BYTES, wants_best_classes
from model_store import shadows, traffic_figures
from model_store.database import Sessions, connect, sessions_of, transaction
from model_store.registry import make_available
from model_store.settings import StoreSettings
from model_store.shadows import AgreeBy, Shadow
from model_store.signature import Signature, Tensors, TensorSpec
from model_store.tables import Variant
from model_store.traffic_figures import Figure, Figures, Histogram, Key, Measure, bucket_of, read_figures
from tests.databases import make_tables
from tests.processes import Cluster, wait_for
from tests.publishing import prepare, upload
from tests.queue_kit import doubling_model, serve_model, slow_model
from workers.protocols.answers import outputs_of
from workers.protocols.body import Body, Dialect
from workers.protocols.contract import Contract
from workers.protocols.dialects import GRAMMARS

BODY = {"instances": [[1.0, 2.0]]}
TWO = Signature(
    (TensorSpec("x", "float32", (None, 2)),),
    (TensorSpec("y", "float32", (None, 2)), TensorSpec("name", "string", (None,))),
)
BY_CLASS = Shadow(2, agree_by=AgreeBy.TOP1)
BY_NUMBERS = Shadow(2)


@pytest.fixture
def sessions(database_url: str) -> Iterator[Sessions]:
    """With versions 1 and 2 of `mnist`, AVAILABLE."""
    settings = StoreSettings(database_url=database_url)
    make_tables(settings)
    engine = connect(settings)
    made = sessions_of(engine)
    for number in (1, 2):
        upload(made, content=number)
        prepare(made, number)
    yield made
    engine.dispose()


def one(*rows: list[float]) -> Tensors:
    return {"": np.array(rows, np.float32)}


def answered(body: bytes, dialect: Dialect, outputs: Tensors, head: int | None = None) -> Body:
    """The answer's body as a worker writes it."""
    contract = Contract("mnist", 1, TWO, 100)
    sent = Body(body, dialect) if head is None else Body(body, dialect, head)
    return GRAMMARS[dialect].parse(sent, contract).format(outputs, contract)


REQUESTS = {
    "rows": (b'{"instances": [[1, 2], [3, 4]]}', Dialect.TENSORFLOW_SERVING),
    "columns": (b'{"inputs": [[1, 2], [3, 4]]}', Dialect.TENSORFLOW_SERVING),
    "json": (
        b'{"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}]}',
        Dialect.OPEN_INFERENCE,
    ),
    "bytes": (
        b'{"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}],'
        b' "parameters": {"binary_data_output": true}}',
        Dialect.OPEN_INFERENCE,
    ),
}


@pytest.mark.parametrize("form", REQUESTS)
def test_answers_of_every_form_are_read_back_as_the_outputs_that_they_were_made_of(form: str):
    outputs: Tensors = {
        "y": np.array([[0.5, np.nan], [np.inf, -1e-7]], np.float32),
        "name": np.array([b"one", "zw\u00f6lf".encode()], object),
    }
    found = outputs_of(answered(*REQUESTS[form], outputs))
    assert set(found) == {"y", "name"}
    np.testing.assert_allclose(found["y"].astype(np.float64), outputs["y"], rtol=1e-6)
    texts = [text if isinstance(text, str) else text.decode() for text in found["name"].tolist()]
    assert texts == ["one", "zw\u00f6lf"]


def test_answers_agree_within_the_tolerance_or_by_their_largest_output():
    near, far = one([0.1, 0.9], [0.8, 0.2]), one([0.2, 0.8], [0.9, 0.1])
    same = compare(near, one([0.1, 0.9], [0.8, 0.200001]), BY_NUMBERS)
    assert (same.agreed, same.within, same.instances, same.top1) == (True, True, 2, 2)
    assert 0 < (same.largest or 0) < 1e-5
    assert not compare(near, far, BY_NUMBERS).agreed
    by_class = compare(near, far, BY_CLASS)
    assert (by_class.agreed, by_class.within, round(by_class.largest or 0, 3)) == (True, False, 0.1)
    turned = compare(near, one([0.9, 0.1], [0.8, 0.2]), BY_CLASS)
    assert (turned.agreed, turned.instances, turned.top1) == (False, 2, 1)


def test_what_has_no_difference_does_not_agree():
    numbers = one([0.1, 0.9])
    for other in (one([0.1, 0.9], [0, 1]), one([np.nan, 0.9]), {"other": numbers[""]}, {"": np.array(["a"], object)}):
        found = compare(numbers, other, BY_CLASS)
        assert (found.within, found.largest) == (False, None)
    shorter = compare(numbers, one([0.1, 0.9, 0.0]), BY_CLASS)
    assert (shorter.agreed, shorter.top1) == (False, 0)
    assert not compare_answers(Body(b'{"predictions": [1]}'), Body(b"{}"), BY_NUMBERS).agreed
    # Both say that there is no number, or the same text.
    assert compare(one([np.nan, np.inf]), one([np.nan, np.inf]), BY_NUMBERS).agreed
    assert compare({"": np.array(["a"], object)}, {"": np.array(["a"], object)}, BY_NUMBERS).agreed


def test_texts_take_the_room_of_their_own_lengths_only():
    # As an array of NumPy's own texts this would be 400 MB.
    body = Body(json.dumps({"predictions": ["a" * 100_000, *(["b"] * 1000)]}).encode())
    assert outputs_of(body)[""].nbytes < 10_000
    assert compare_answers(body, body, BY_NUMBERS).agreed


def test_an_answer_of_no_numbers_has_no_largest_output():
    nothing = one([np.nan, np.nan], [np.nan, np.nan])
    found = compare(one([0.9, 0.1], [0.1, 0.9]), nothing, BY_CLASS)
    assert (found.agreed, found.instances, found.top1) == (False, 2, 0)
    assert compare(nothing, nothing, BY_CLASS).agreed


def test_numbers_at_the_end_of_what_a_float_holds_are_compared():
    large = {"": np.array([[1e308, 0.0]])}
    turned = compare(large, {"": -large[""]}, BY_NUMBERS)
    assert (turned.within, turned.largest) == (False, None)
    assert compare(large, large, Shadow(2, relative=1e30)).agreed


def test_requests_for_the_best_classes_are_found_wherever_they_say_so_but_not_in_bytes_of_tensors():
    for before in (0, 7, PIECE_BYTES - 3, PIECE_BYTES, 3 * PIECE_BYTES):
        assert wants_best_classes(Body(b" " * before + b'"top_k": 3}'))
        assert not wants_best_classes(Body(b" " * before + b'"top": 3}'))
    head = b'{"inputs": []}'
    sent = head + b'"classification"'
    assert wants_best_classes(Body(sent, Dialect.OPEN_INFERENCE))
    assert not wants_best_classes(Body(sent, Dialect.OPEN_INFERENCE, len(head)))


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
def test_quantiles_are_a_tenth_off_at_most(values: list[float], share: float):
    histogram = Histogram()
    for value in values:
        histogram.add(Histogram({bucket_of(value): 1}, value))
    found = histogram.quantile(share)
    ordered = sorted(values)
    least = next(value for place, value in enumerate(ordered, 1) if place >= share * len(ordered) - 1e-6)
    assert found is not None
    assert least / 1.1 <= found <= least * 1.1


def test_gateways_figures_are_added_up_and_those_of_an_earlier_shadow_forgotten(sessions: Sessions):
    key = Key("mnist", 7, 0, 1, Measure.SECONDS)

    async def write() -> None:
        first, second = FigureBuffer(sessions), FigureBuffer(sessions)
        for buffer, value in ((first, 0.5), (second, 0.002), (first, 0.5)):
            buffer.observe(key, value)
            buffer.count(key._replace(measure=Measure.REQUESTS))
            await buffer.write()
        second.count(key._replace(measure=Measure.REQUESTS), 2)
        await second.close()

    asyncio.run(write())
    with transaction(sessions, write=False) as session:
        found = read_figures(session, "mnist", 7)[1]
    assert found.count(Measure.REQUESTS) == 5
    assert found.histogram(Measure.SECONDS) == Histogram({bucket_of(0.5): 2, bucket_of(0.002): 1}, 0.5)
    assert found.count(Measure.SECONDS, stage=1) == 0
    # What belongs to no shadow and no canary any more, these among them, goes.
    with transaction(sessions) as session:
        first = shadows.set_shadow(session, "mnist", Shadow(2))
        for run in (first.run, first.run + 1):
            key = Key("mnist", run, 0, 1, Measure.COMPARED)
            traffic_figures.add_figures(session, {key: traffic_figures.Figure(3)})
    with transaction(sessions) as session:
        assert traffic_figures.forget_figures(session) == 2
        assert shadows.agreement(session, "mnist", 2) == (3, 0.0)
        assert shadows.agreement(session, "mnist", 1) == (0, 0.0)
        assert read_figures(session, "mnist", first.run + 1) == {}


def test_figures_that_are_being_written_at_the_end_are_written_once(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(figure_buffer, "WRITE_SECONDS", 0.01)
    key = Key("mnist", 7, 0, 1, Measure.REQUESTS)

    async def end_while_writing() -> None:
        buffer = FigureBuffer(sessions)
        with transaction(sessions) as session:
            # given somebody who keeps the row, so that a write takes its time
            traffic_figures.add_figures(session, {key: Figure(1)})
            buffer.count(key)
            await buffer.start()
            while buffer.waiting:
                await asyncio.sleep(0.01)
            ending = asyncio.create_task(buffer.close())
            await asyncio.sleep(0.05)
        await ending

    asyncio.run(end_while_writing())
    with transaction(sessions, write=False) as session:
        assert read_figures(session, "mnist", 7)[1].count(Measure.REQUESTS) == 2


def test_a_shadow_that_was_prepared_again_and_answers_otherwise_begins_anew(sessions: Sessions):
    with transaction(sessions) as session:
        shadow = shadows.set_shadow(session, "mnist", Shadow(2))
        key = Key("mnist", shadow.run, 0, 1, Measure.COMPARED)
        traffic_figures.add_figures(session, {key: Figure(10), key._replace(measure=Measure.AGREED): Figure(10)})
    for number, variant, known in ((2, "onnx", 10), (1, "savedmodel", 10), (2, "savedmodel", 0)):
        prepare_again(sessions, number, variant)
        with transaction(sessions, write=False) as session:
            assert shadows.agreement(session, "mnist", 2)[0] == known


def prepare_again(sessions: Sessions, number: int, chosen: str) -> None:
    names = {"onnx": f"{number:e>64}", "savedmodel": "f" * 64}
    variants = [Variant(name=n, runtime="onnx", digest=d, size_bytes=9, memory_bytes=9) for n, d in names.items()]
    with transaction(sessions) as session:
        assert make_available(
            session, "mnist", number, signature=TWO, variant=chosen, variants=variants, max_batch=8, max_parallelism=1,
            batch_seconds=0.001, report={"steps": []}, again=True,
        )  # fmt: skip


def test_what_was_never_measured_has_no_quantile():
    assert Figures().histogram(Measure.SECONDS).quantile(0.5) is None


def report_of(caller: httpx.Client, model: str, copies: int) -> dict[str, Any]:
    """The report once so many copies are accounted for."""
    found: dict[str, Any] = {}

    def settled() -> bool:
        found.update(caller.get(f"/admin/models/{model}/shadow/report").raise_for_status().json())
        return bool(found["compared"] + found["failed"] + found["dropped"] >= copies)

    wait_for(settled, 60)
    return found


def set_shadow(caller: httpx.Client, model: str, version: int, **more: object) -> dict[str, Any]:
    answer = caller.put(f"/admin/models/{model}/shadow", json={"version": version, "share": 1, **more})
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def test_copies_of_both_dialects_are_compared_and_reported(serving: Cluster, tmp_path: Path):
    # given version 1, which traffic goes to, and two others: one that answers as it does, and one that does not
    model = "shadowed"
    for number, factor in enumerate((2.0, 2.000001, 3.0)):
        path = doubling_model(tmp_path / f"{number}.onnx", factor)
        serve_model(serving.sessions, serving.artifacts, path, model)
    caller = serving.caller(model, scopes=frozenset(Scope))
    caller.put(f"/admin/models/{model}/traffic", json={"weights": {"1": 1}}).raise_for_status()
    infer = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}
    tensor = struct.pack("<2f", 1, 2)
    described = {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    head = json.dumps({"inputs": [described], "parameters": {"binary_data_output": True}}).encode()

    def ask() -> None:
        assert caller.post(f"/v1/models/{model}:predict", json=BODY).json() == {"predictions": [[2.0, 4.0]]}
        assert caller.post(f"/v2/models/{model}/infer", json=infer).json()["outputs"][0]["data"] == [2.0, 4.0]
        as_bytes = caller.post(
            f"/v2/models/{model}/infer",
            content=head + tensor,
            headers={"inference-header-content-length": str(len(head))},
        )
        assert as_bytes.content.endswith(struct.pack("<2f", 2, 4))

    # when the like one is the shadow
    set_shadow(caller, model, 2)
    ask()
    found = report_of(caller, model, 3)
    # then all agrees
    assert (found["compared"], found["agreement"], found["top1_agreement"]) == (3, 1.0, 1.0)
    assert found["difference"]["largest"] < 1e-5
    assert found["stable_seconds"]["count"] == found["shadow_seconds"]["count"] == 3
    assert found["versions"]["1"]["compared"] == 3

    # when the other one is, then nothing does, though the largest output is at the same place
    set_shadow(caller, model, 3)
    ask()
    found = report_of(caller, model, 3)
    assert (found["compared"], found["agreement"], found["top1_agreement"]) == (3, 0.0, 1.0)
    assert 1.8 < found["difference"]["median"] <= found["difference"]["largest"] == 2.0
    assert sum(bucket["count"] for bucket in found["difference"]["histogram"]) == 3
    with transaction(serving.sessions, write=False) as session:
        assert shadows.agreement(session, model, 3) == (3, 0.0)

    # and what the shadow itself answers, or no caller is answered, is not copied
    assert caller.post(f"/v1/models/{model}/versions/3:predict", json=BODY).status_code == 200
    assert caller.post(f"/v1/models/{model}:predict", json={"instances": [[1]]}).status_code == 400
    assert report_of(caller, model, 3)["compared"] == 3
    assert caller.delete(f"/admin/models/{model}/shadow").status_code == 204
    assert caller.get(f"/admin/models/{model}/shadow/report").json()["code"] == "shadow_not_found"


def test_a_shadow_that_cannot_keep_up_or_fails_touches_nobody(serving: Cluster, tmp_path: Path):
    # given a shadow that takes a second for what takes no time
    model = "overshadowed"
    serve_model(serving.sessions, serving.artifacts, doubling_model(tmp_path / "quick.onnx"), model)
    serve_model(serving.sessions, serving.artifacts, slow_model(tmp_path / "slow.onnx"), model, batch_seconds=0.5)
    caller = serving.caller(model, scopes=frozenset(Scope))
    caller.put(f"/admin/models/{model}/traffic", json={"weights": {"1": 1}}).raise_for_status()
    set_shadow(caller, model, 2)

    # when many come, then each gets its answer, and copies beyond the bound are dropped and counted
    def predict(_: int) -> object:
        return caller.post(f"/v1/models/{model}:predict", json={"instances": [[1.0, 10_000.0]]}).json()

    with ThreadPoolExecutor(8) as callers:
        assert all(answer == {"predictions": [[2.0, 20_000.0]]} for answer in callers.map(predict, range(300)))
    found = report_of(caller, model, 300)
    assert found["compared"] + found["dropped"] == 300
    assert found["dropped"] > 0
    assert found["agreement"] == 1.0


def test_a_shadow_that_fails_disagrees(serving: Cluster, tmp_path: Path):
    model = "shadow-fails"
    serve_model(serving.sessions, serving.artifacts, doubling_model(tmp_path / "good.onnx"), model)
    other = Signature((TensorSpec("x", "float32", (None, 3)),), (TensorSpec("y", "float32", (None, 3)),))
    path = doubling_model(tmp_path / "bad.onnx", 5.0)
    serve_model(serving.sessions, serving.artifacts, path, model, signature=other)
    caller = serving.caller(model, scopes=frozenset(Scope))
    caller.put(f"/admin/models/{model}/traffic", json={"weights": {"1": 1}}).raise_for_status()
    set_shadow(caller, model, 2, agree_by="top1")
    assert caller.post(f"/v1/models/{model}:predict", json=BODY).status_code == 200
    found = report_of(caller, model, 1)
    assert (found["failed"], found["compared"], found["agreement"]) == (1, 0, 0.0)
