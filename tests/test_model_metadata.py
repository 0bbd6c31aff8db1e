"""What is said of models and versions, samples, and what comes of them: shown, checked, kept with the version."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from sqlalchemy import select

from auth.audit_tables import AuditEntry
from auth.grants import ADMINISTRATION, GrantSpec, set_grants
from auth.scopes import Scope
from model_store import samples
from model_store.database import transaction
from model_store.model_settings import ModelSettings, Serving, replace_settings
from model_store.registry import digests_in_use, retire, served
from model_store.samples import Kind
from model_store.signature import Signature, TensorSpec
from tests.publishing import DIGITS, prepare, upload
from tests.quiet_gateway import QuietGateway, bearer, quiet_gateway
from tests.submit_kit import MODEL, caller, submitting
from workers.files import sample_archives
from workers.files.contract import FileInvalid

SETTINGS = "/admin/models/mnist/settings"
OWN = "/admin/models/mnist/versions/1/metadata"
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
IMAGE = {
    "kind": "image", "input": None, "height": 28, "width": 28, "channels": 1, "resize": "none",
    "range": [0.0, 1.0], "mean": None, "std": None,
}  # fmt: skip
NOTHING = {
    "description": None, "class_names": None, "input_specification": None, "tags": {}, "pool": None, "pinned": False,
    "max_parallelism": None, "max_instances": None, "warm_up": [],
}  # fmt: skip


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path) as made:
        upload(made.parts.sessions)
        prepare(made.parts.sessions, 1)
        yield made


@pytest.fixture
def admin(gateway: QuietGateway) -> Iterator[httpx.Client]:
    client_id, secret = gateway.client("operator", [Scope.MODELS_READ, Scope.MODELS_WRITE])
    with transaction(gateway.parts.sessions) as session:
        set_grants(session, client_id, [GrantSpec("*", actions=ADMINISTRATION)])
    gateway.parts.snapshot.refresh()
    headers = bearer(gateway.token(client_id, secret))
    with httpx.Client(base_url=gateway.http.base_url, headers=headers) as http:
        yield http


def archive(**arrays: object) -> bytes:
    target = io.BytesIO()
    np.savez_compressed(target, allow_pickle=True, **arrays)  # type: ignore[arg-type]
    return target.getvalue()


def images(count: int) -> np.ndarray:
    return np.zeros((count, 28, 28), np.float32)


def test_settings_are_replaced_as_a_whole_and_reach_whoever_runs_the_model(gateway: QuietGateway, admin: httpx.Client):
    assert admin.get(SETTINGS).json() == NOTHING
    said = NOTHING | {
        "pool": "large", "pinned": True, "max_parallelism": 1, "max_instances": 4, "class_names": NAMES,
        "tags": {"team": "vision"}, "input_specification": IMAGE, "description": "Digits <b>",
        "warm_up": [{"instances": [[[0.0]]]}],
    }  # fmt: skip
    answer = admin.put(SETTINGS, json=said)
    assert (answer.status_code, answer.json()) == (200, said)
    assert admin.get(SETTINGS).json() == said
    gateway.parts.snapshot.refresh()
    known = gateway.parts.snapshot.catalog.models["mnist"]
    assert (known.serving.pool, known.serving.pinned, known.serving.instances(9)) == ("large", True, 4)
    assert known.versions[1].max_parallelism == 1, "which preparation had measured as 3"
    with transaction(gateway.parts.sessions, write=False) as session:
        found = served(session, "mnist", 1)
    assert (found.max_parallelism, found.serving, found.metadata.class_names) == (1, known.serving, tuple(NAMES))

    assert admin.put(SETTINGS, json={"pool": "small"}).json() == NOTHING | {"pool": "small"}
    gateway.parts.snapshot.refresh()
    assert gateway.parts.snapshot.catalog.models["mnist"].versions[1].max_parallelism == 3


def test_a_version_says_for_itself_what_it_says_and_stays_the_same_file(admin: httpx.Client):
    admin.put(SETTINGS, json={"description": "of the model", "class_names": NAMES})
    before = admin.get("/admin/models/mnist/versions/1").json()
    shown = admin.put(OWN, json={"description": "of the version", "input_specification": IMAGE}).json()
    assert shown == {"description": "of the version", "class_names": NAMES, "input_specification": IMAGE}
    assert admin.get(OWN).json() == shown
    assert admin.get(OWN, params={"own": "true"}).json()["class_names"] is None
    assert admin.get("/admin/models/mnist/versions/1").json() == before
    # null leaves it to the model again
    assert admin.put(OWN, json={}).json()["description"] == "of the model"
    assert admin.put("/admin/models/mnist/versions/2/metadata", json={}).status_code == 404


@pytest.mark.parametrize(
    ("names", "said"),
    [(NAMES[:9], "9 class names, but the model's output has 10"), (["a", *NAMES[1:9], "a"], "2 times")],
)
def test_class_names_are_those_of_the_output(admin: httpx.Client, names: list[str], said: str):
    for address in (SETTINGS, OWN):
        answer = admin.put(address, json={"class_names": names})
        assert (answer.status_code, answer.json()["code"]) == (422, "class_names_invalid")
        assert said in answer.json()["detail"]


def test_who_may_use_a_model_may_read_what_describes_it_and_not_change_it(gateway: QuietGateway, admin: httpx.Client):
    admin.put(OWN, json={"class_names": NAMES})
    client_id, secret = gateway.client("caller", [Scope.PREDICT])
    with transaction(gateway.parts.sessions) as session:
        set_grants(session, client_id, [GrantSpec("mnist")])
    gateway.parts.snapshot.refresh()
    headers = bearer(gateway.token(client_id, secret))
    assert gateway.http.get(OWN, headers=headers).json()["class_names"] == NAMES
    assert gateway.http.put(OWN, headers=headers, json={}).status_code == 403
    assert gateway.http.get(SETTINGS, headers=headers).status_code == 403


def test_changes_are_in_the_audit_log(gateway: QuietGateway, admin: httpx.Client):
    admin.put(SETTINGS, json={"pinned": True})
    admin.put(OWN, json={"description": "x"})
    admin.put("/admin/models/mnist/samples/inputs", content=archive(image=images(2)))
    with transaction(gateway.parts.sessions, write=False) as session:
        wanted = select(AuditEntry).where(AuditEntry.model == "mnist").order_by(AuditEntry.number)
        rows = session.scalars(wanted).all()
    found = [(row.act, row.model, row.outcome) for row in rows]
    assert [model for _, model, _ in found] == ["mnist"] * 3, found


UNFIT = {
    "an unknown member": {"colour": "red"},
    "no name of a pool": {"pool": "a b"},
    "no parallelism": {"max_parallelism": 0},
    "no class names": {"class_names": []},
    "an empty class name": {"class_names": [""]},
    "a NUL": {"description": "a\0b"},
    "no kind of input": {"input_specification": {"kind": "video"}},
    "an image without a size": {"input_specification": {"kind": "image"}},
    "means of other channels": {"input_specification": {**IMAGE, "mean": [0.5, 0.5]}},
    "a division by zero": {"input_specification": {**IMAGE, "std": [0.0]}},
    "a sample rate of nothing": {"input_specification": {"kind": "audio", "sample_rate": 0}},
    "a warm-up that is no request": {"warm_up": [{"x": 1}]},
    "a name that no tag has": {"tags": {"a b": "c"}},
}


def test_what_cannot_be_is_refused(admin: httpx.Client):
    for name, body in UNFIT.items():
        assert admin.put(SETTINGS, json=body).status_code == 422, name
    assert admin.get(SETTINGS).json() == NOTHING


@pytest.mark.parametrize("value", ["NaN", "1e999", '"\\ud800"'], ids=["nan", "infinity", "half_a_character"])
def test_a_warm_up_is_json_that_can_be_shown_again(admin: httpx.Client, value: str):
    body = f'{{"warm_up": [{{"instances": [{value}]}}]}}'
    answer = admin.put(SETTINGS, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert admin.get(SETTINGS).json() == NOTHING


def test_inputs_that_are_no_images_are_specified_too(admin: httpx.Client):
    text = {"kind": "text", "input": None, "language": "en", "lowercase": True, "max_characters": 512}
    audio = {
        "kind": "audio",
        "input": "wave",
        "sample_rate": 16000,
        "channels": 1,
        "seconds": 1.0,
        "range": [-1.0, 1.0],
    }
    for specification in (text, audio):
        shown = admin.put(OWN, json={"input_specification": specification}).json()
        assert shown["input_specification"] == specification


def test_samples_are_kept_shown_replaced_and_deleted(gateway: QuietGateway, admin: httpx.Client):
    labels = np.array([3, 1, 9], np.uint8)
    first = admin.put("/admin/models/mnist/samples/labelled", content=archive(image=images(3), labels=labels))
    assert first.status_code == 200, first.text
    assert (first.json()["kind"], first.json()["instances"]) == ("labelled", 3)
    second = admin.put("/admin/models/mnist/samples/labelled", content=archive(image=images(2), labels=labels[:2]))
    assert admin.get("/admin/models/mnist/samples").json() == [second.json()]
    digest = second.json()["digest"]
    with transaction(gateway.parts.sessions, write=False) as session:
        assert samples.find(session, "mnist", "labelled") == digest
        assert samples.find(session, "mnist", Kind.CALIBRATION) is None
        assert digest in digests_in_use(session)
        assert first.json()["digest"] not in digests_in_use(session)
    with gateway.parts.artifacts.opened(digest) as path:
        (piece,) = sample_archives.pieces(path, DIGITS, labelled=True)
    assert piece.labels is not None
    assert (piece.labels.tolist(), piece.inputs["image"].shape) == ([3, 1], (2, 28, 28))

    assert admin.delete("/admin/models/mnist/samples/labelled").status_code == 204
    assert admin.get("/admin/models/mnist/samples/labelled").json()["code"] == "samples_not_found"
    assert admin.delete("/admin/models/mnist/samples/labelled").status_code == 404


def test_samples_are_read_as_many_as_are_wanted(tmp_path: Path):
    path = tmp_path / "samples.npz"
    path.write_bytes(archive(image=np.arange(5 * 784).reshape(5, 28, 28)))
    found = sample_archives.read(path, DIGITS, 3)
    assert found["image"].shape == (3, 28, 28)
    assert found["image"].dtype == np.float32


def bomb() -> bytes:
    """Two gigabytes of zeros, announced and never written."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as made:
        head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (700000, 28, 28), }"
        made.writestr("image.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
    return target.getvalue()


def long_row() -> bytes:
    """A kilobyte or two that unpack to one sample of more than a gateway takes at once."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        head = b"{'descr': '<U5000000', 'fortran_order': False, 'shape': (1,)}"
        made.writestr("image.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(20_000_000))
    return target.getvalue()


def test_a_sample_is_no_larger_than_a_gateway_reads_at_once(tmp_path: Path):
    path = tmp_path / "samples.npz"
    path.write_bytes(long_row())
    signature = Signature((TensorSpec("image", "string", (None,)),), (TensorSpec("scores", "float32", (None, 10)),))
    with pytest.raises(FileInvalid, match="a row may have 16777216"):
        sample_archives.check(path, signature, labelled=False)


WRONG = {
    "no archive": (b"PK, but no more", "cannot be read"),
    "a pickle": (archive(image=np.array([{"a": 1}], object)), "objects are never read"),
    "another shape": (archive(image=np.zeros((2, 3, 3), np.float32)), "the input takes [-1,28,28]"),
    "another name": (archive(image=images(1), more=images(1)), "an array for each input, and no other"),
    "no rows": (archive(image=images(0)), "has 0 samples"),
    "a bomb": (bomb(), "unpacks to"),
    "an archive that ends": (archive(image=images(64))[:-90], "cannot be read"),
}


def test_an_archive_that_does_not_fit_is_refused_and_replaces_nothing(admin: httpx.Client):
    for name, (content, said) in WRONG.items():
        answer = admin.put("/admin/models/mnist/samples/calibration", content=content)
        assert (answer.status_code, answer.json()["code"]) == (400, "file_invalid"), name
        assert said in answer.text, name
    assert admin.get("/admin/models/mnist/samples").json() == []


def test_labels_are_numbers_of_classes_one_for_each_sample(admin: httpx.Client):
    for labels in ([0, 10], [-1, 0], [0.0, 1.0], [[0], [1]], [0]):
        content = archive(image=images(2), labels=np.array(labels))
        assert admin.put("/admin/models/mnist/samples/labelled", content=content).status_code == 400, labels


def test_samples_need_a_version_that_says_what_they_look_like(gateway: QuietGateway, admin: httpx.Client):
    upload(gateway.parts.sessions, "new")
    answer = admin.put("/admin/models/new/samples/inputs", content=archive(image=images(1)))
    assert (answer.status_code, answer.json()["code"]) == (409, "version_not_available")
    assert admin.put("/admin/models/none/samples/inputs", content=b"x").status_code == 404
    assert admin.put("/admin/models/mnist/samples/others", content=b"x").status_code == 422


def test_metadata_leaves_with_its_version(gateway: QuietGateway, admin: httpx.Client):
    admin.put(OWN, json={"description": "x"})
    with transaction(gateway.parts.sessions) as session:
        retire(session, "mnist", 1)
    assert admin.delete("/admin/models/mnist/versions/1").status_code == 204
    assert admin.get(OWN).status_code == 404


def test_a_job_of_more_instances_than_the_model_takes_is_refused_at_once(tmp_path: Path):
    with submitting(tmp_path) as gateway:
        headers = caller(gateway)
        body = {"instances": [[1.0, 2.0], [3.0, 4.0]]}
        assert gateway.http.post(f"/v1/models/{MODEL}:submit", headers=headers, json=body).status_code == 202
        with transaction(gateway.parts.sessions) as session:
            replace_settings(session, MODEL, ModelSettings(Serving(max_instances=1)))
        gateway.parts.snapshot.refresh()
        refused = gateway.http.post(f"/v1/models/{MODEL}:submit", headers=headers, json=body)
        assert refused.status_code == 400
        assert "takes at most 1" in refused.text
