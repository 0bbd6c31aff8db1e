"""MLflow's scoring protocol: which bodies give which tensors, what is refused and how, and what is answered."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.signature import Signature, Tensors, TensorSpec
from tests.dialect_kit import LINEAR, TWO_INPUTS, signature_of, taking
from tests.open_inference_kit import contract_of
from workers.errors import InputInvalid
from workers.protocols import mlflow_scoring
from workers.protocols.answers import outputs_of
from workers.protocols.body import Body, Dialect
from workers.protocols.csv_table import read_csv
from workers.protocols.dialects import GRAMMARS
from workers.protocols.mlflow_scoring import ScoringRequest

ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
PIXELS = taking("float32", None, 2, 2)


def read(document: object, signature: Signature = LINEAR) -> ScoringRequest:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return mlflow_scoring.parse(Body(body, Dialect.MLFLOW), contract_of(signature))


def read_lines(text: str | bytes, signature: Signature = LINEAR) -> ScoringRequest:
    body = text if isinstance(text, bytes) else text.encode()
    return mlflow_scoring.parse_csv(Body(body, Dialect.MLFLOW_CSV), contract_of(signature))


def refusal(document: object, signature: Signature = LINEAR) -> str:
    with pytest.raises(InputInvalid) as caught:
        read(document, signature)
    assert len(caught.value.message) <= 300
    return caught.value.message


def refusal_of_lines(text: str | bytes, signature: Signature = LINEAR) -> str:
    with pytest.raises(InputInvalid) as caught:
        read_lines(text, signature)
    assert len(caught.value.message) <= 300
    return caught.value.message


FORMS = {
    "inputs": {"inputs": ROWS},
    "instances": {"instances": ROWS},
    "inputs by name": {"inputs": {"x": ROWS, "other": "dropped"}},
    "rows by name": {"instances": [{"x": row} for row in ROWS]},
    "inputs as rows by name": {"inputs": [{"x": row, "y": 0} for row in ROWS]},
    "a table": {"dataframe_split": {"columns": ["a", "b", "c"], "data": ROWS}},
    "a table with an index": {"dataframe_split": {"index": [7, 8], "columns": [0, 1, 2], "data": ROWS}},
    "a table without names": {"dataframe_split": {"data": ROWS}},
    "a column of lists": {"dataframe_split": {"columns": ["y", "x"], "data": [[0, row] for row in ROWS]}},
    "one column of any name": {"dataframe_split": {"columns": ["any"], "data": [[row] for row in ROWS]}},
    "records": {"dataframe_records": [dict(zip("abc", row, strict=True)) for row in ROWS]},
    "records with its name": {"dataframe_records": [{"x": row, "y": 0} for row in ROWS]},
    "no params": {"inputs": ROWS, "params": {}},
    "null for params": {"inputs": ROWS, "params": None},
    "params of no schema": {"inputs": ROWS, "params": {"temperature": "hot"}},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_every_form_gives_the_same_tensor(form: dict[str, object]):
    request = read(form)
    assert request.tensors["x"].tolist() == ROWS
    assert (request.tensors["x"].dtype, request.instances) == (np.float32, 2)


@pytest.mark.parametrize(
    "text",
    [
        "a,b,c\n1.0,2.0,3.0\n4,5,6\n",
        "a,b,c\r\n1,2,3\r\n\r\n4,5,6",
        '"a","b ""c""","d,e"\n"1.0",2e0,3.\n 4,5 ,+6\n',
        ",a,b,c\n0,1,2,3\n1,4,5,6\n",
        "\ufeffa,b,c\n1,2,3\n4,5,6\n",
    ],
    ids=["plain", "empty lines", "quoted", "an index", "a byte order mark"],
)
def test_csv_gives_the_same_tensor(text: str):
    request = read_lines(text)
    assert request.tensors["x"].tolist() == ROWS
    assert (request.tensors["x"].dtype, request.instances) == (np.float32, 2)


def test_an_underscore_in_a_name_is_no_part_of_a_number():
    assert read_lines("a_1,b_1,c_1\n1,2,3\n4,5,6\n").tensors["x"].tolist() == ROWS
    assert 'JSON Value: "4_0"' in refusal_of_lines("a_1,b_1,c_1\n1,2,3\n4_0,5,6\n")


def test_several_inputs_take_the_columns_of_their_names_whatever_their_order():
    rows = [[7, [1, 2], "a"], [8, [3, 4], "é"]]
    names = ["dropped", "size", "word"]
    records = [dict(zip(names, row, strict=True)) for row in rows]
    columns = {name: [row[number] for row in rows] for number, name in enumerate(names)}
    for document in (
        {"dataframe_split": {"columns": names, "data": rows}},
        {"dataframe_records": records},
        {"instances": records},
        {"inputs": columns},
    ):
        request = read(document, TWO_INPUTS)
        assert list(request.tensors) == ["size", "word"]
        assert request.tensors["size"].tolist() == [[1, 2], [3, 4]]
        assert request.tensors["word"].tolist() == [b"a", "é".encode()]
    scalars = signature_of(TensorSpec("n", "int64", (None, 1)), TensorSpec("word", "string", (None,)))
    found = read_lines('word,n\n"two\nlines",1\n,2.0\n', scalars)
    assert found.tensors["n"].tolist() == [[1], [2]]
    assert found.tensors["word"].tolist() == [b"two\nlines", b""]


def test_images_lie_flat_in_a_row_of_columns_or_in_a_cell():
    expected = [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    flat = [[1, 2, 3, 4], [5, 6, 7, 8]]
    for document in (
        {"inputs": expected},
        {"dataframe_split": {"columns": ["p1", "p2", "p3", "p4"], "data": flat}},
        {"dataframe_split": {"columns": ["x"], "data": [[row] for row in flat]}},
        {"dataframe_split": {"columns": ["x"], "data": [[rows] for rows in expected]}},
    ):
        assert read(document, PIXELS).tensors["x"].tolist() == expected
    assert read_lines("a,b,c,d\n1,2,3,4\n5,6,7,8\n", PIXELS).tensors["x"].tolist() == expected


def test_what_is_missing_in_a_table_is_not_a_number_and_integers_widen():
    request = read({"dataframe_records": [{"x": [1, None, 3]}, {"x": [4, 5, 2**60]}]})
    assert np.isnan(request.tensors["x"][0, 1])
    assert request.tensors["x"][1].tolist() == [4, 5, 2.0**60]
    lines = read_lines("a,b,c\n,NaN,null\ninf,-Infinity,1e400\n").tensors["x"]
    assert np.isnan(lines[0]).all()
    assert lines[1].tolist() == [math.inf, -math.inf, math.inf]
    # what pandas makes of integers beside a missing one
    assert read({"inputs": [[1.0], [2]]}, taking("int32", None, 1)).tensors["x"].tolist() == [[1], [2]]
    assert read_lines("x\nTrue\nfalse\n", taking("bool", None)).tensors["x"].tolist() == [True, False]


def test_a_row_that_lacks_a_column_has_a_missing_value_there():
    two = signature_of(TensorSpec("a", "float64", (None,)), TensorSpec("b", "float64", (None,)))
    request = read({"dataframe_records": [{"a": 1}, {"b": 2, "a": 3}]}, two)
    assert request.tensors["a"].tolist() == [1, 3]
    assert np.isnan(request.tensors["b"][0])


def test_an_object_of_tensors_lacks_none_of_them_in_any_row():
    two = signature_of(TensorSpec("a", "float64", (None,)), TensorSpec("b", "float64", (None,)))
    for form in ("instances", "inputs"):
        said = refusal({form: [{"a": 1, "b": 2}, {"a": 3}]}, two)
        assert said == f"{form}[1] lacks \"b\"; input 'b' takes double of shape [-1]"


REFUSED = [
    ([], "The input must be a JSON dictionary with exactly one of the input fields"),
    ({}, "with input fields: []"),
    ({"inputs": ROWS, "instances": ROWS}, 'with input fields: ["inputs", "instances"]'),
    ({"messages": [{"role": "user"}]}, 'with input fields: ["messages"]'),
    ({"inputs": ROWS, "signature_name": "serving_default"}, '"signature_name" parameter is currently not supported'),
    ({"inputs": ROWS, "params": [1]}, "Parameters must be a dictionary"),
    ({"inputs": []}, "No values in 'inputs'"),
    ({"instances": {"x": ROWS}}, "Expecting 'instances' value to be a list"),
    ({"inputs": {"y": ROWS}}, "Model is missing inputs [\"x\"]: input 'x' takes float of shape [-1,3]"),
    ({"inputs": [[1, 2]]}, "expected size: 3 at inputs[0]"),
    ({"inputs": [["1", 2, 3]]}, 'JSON Value: "1" Type: String is not of expected type: float at inputs[0][0]'),
    ({"inputs": [[True, 2, 3]]}, "JSON Value: true Type: True is not of expected type"),
    ({"inputs": [[1, 2, 3]] * 9}, "9 instances in one request, but this version takes at most 8"),
    ({"dataframe_split": [ROWS]}, "Dataframe split format must be a dictionary"),
    ({"dataframe_split": {"columns": ["a"]}}, "must have 'data' field"),
    ({"dataframe_split": {"data": ROWS, "rows": 1}}, 'Got ["data", "rows"]'),
    ({"dataframe_split": {"data": []}}, "dataframe_split.data must be a list of rows"),
    ({"dataframe_split": {"data": [1, 2, 3]}}, "dataframe_split.data must be a list of rows"),
    ({"dataframe_split": {"data": [[1, 2, 3], [1]]}}, "data[1] has 1 cells, but there are 3 columns"),
    ({"dataframe_split": {"data": ROWS, "columns": ["a", "b"]}}, "has 3 cells, but there are 2 columns"),
    ({"dataframe_split": {"data": ROWS, "columns": ["a", "b", "a"]}}, 'The column "a" is given twice'),
    ({"dataframe_split": {"data": ROWS, "columns": ["a", "b", None]}}, "must be a list of the columns' names"),
    ({"dataframe_split": {"data": ROWS, "index": [1]}}, "index must be a list with a value for each of the 2 rows"),
    ({"dataframe_split": {"data": [[1, 2]]}}, "has 2 columns, but input 'x' takes float of shape [-1,3]: 3 columns"),
    ({"dataframe_split": {"data": [[1, 2, None], ["a", 2, 3]]}}, "is not of expected type: float at dataframe_split"),
    ({"dataframe_records": {"x": 1}}, "Dataframe records format must be a list of records"),
    ({"dataframe_records": []}, "dataframe_records has no records"),
    ({"dataframe_records": [{"x": [1, 2, 3]}, 5]}, "dataframe_records[1] must be an object by column. Got 5."),
    ({"dataframe_records": [{"a": 1, "b": 2, "c": 3}, {"a": 1}]}, "dataframe_records[1] has other columns than"),
    (b'{"inputs": [[1, 2, 3]], "inputs": []}', 'the key "inputs" is given twice'),
    (b'{"inputs": ' + b"[" * 65 + b"]" * 65 + b"}", "nested deeper than 64 levels"),
    (b"\xff", "Invalid UTF-8"),
    (b"", "The document is empty"),
]


@pytest.mark.parametrize(("document", "said"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_what_does_not_fit_is_refused_with_its_place(document: object, said: str):
    assert said in refusal(document)


REFUSED_LINES = [
    ("", "CSV: the body is empty"),
    ("a,b,c\n", "CSV: there is no line behind"),
    ("a,b,c\n1,2\n", "CSV: line 2 has 2 cells, but there are 3 columns"),
    ("a,b,c\n1,2,3\n1,2,3,4\n", "CSV: line 3 has 4 cells"),
    ("a,b,a\n1,2,3\n", 'The column "a" is given twice'),
    ('a,b,c\n"1,2,3\n', "CSV: line 2: unexpected end of data"),
    ('a,b,c\n"1"x,2,3\n', "CSV: line 2: ',' expected after '\"'"),
    ("a,b,c\n1_000,2,3\n", 'JSON Value: "1_000" Type: String'),
    ("a,b,c\n\u0661,2,3\n", "Type: String is not of expected type: float"),
    ("a,b,c\n0x10,2,3\n", 'JSON Value: "0x10" Type: String'),
    ("a,b\n1,2\n", "csv has 2 columns, but input 'x' takes float of shape [-1,3]"),
    (b"a,b,c\n\xff,2,3\n", "CSV: Invalid UTF-8 at offset: 6"),
    ("a,b,c\n1,2," + "3" * 140_000, "CSV: line 2: field larger than field limit"),
    ("a,b,c\n" + "1,2,3\n" * 9, "more than 8 instances in one request"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED_LINES, ids=[str(number) for number in range(len(REFUSED_LINES))])
def test_csv_that_does_not_fit_is_refused_with_its_line(text: str | bytes, said: str):
    assert said in refusal_of_lines(text)


def test_what_would_lose_something_is_not_narrowed():
    whole = taking("int32", None)
    assert "is not of expected type: int32 at inputs[1]" in refusal({"inputs": [1, 1.5]}, whole)
    assert "is out of the range of int32" in refusal({"inputs": [1.0, 2.0**40]}, whole)
    assert "is not of expected type: int32" in refusal({"inputs": [None]}, whole)
    assert "is not of expected type: int32" in refusal_of_lines("x\n\n1.5\n", whole)
    # as float64 it is 2**53, and nobody knows which of the two was meant
    long = taking("int64", None)
    assert "is not of expected type: int64" in refusal({"inputs": [2**53 + 1.0]}, long)
    assert "is not of expected type: int64" in refusal_of_lines("x\n9007199254740993.0\n", long)
    assert read_lines("x\n9007199254740993\n", long).tensors["x"].tolist() == [2**53 + 1]
    assert read({"inputs": [2.0**53 - 1]}, long).tensors["x"].tolist() == [2**53 - 1]
    assert "is not of expected type: string" in refusal({"inputs": [1]}, taking("string", None))


def test_a_table_without_a_column_for_an_input_is_refused_by_the_names_that_are_missing():
    said = refusal({"dataframe_split": {"columns": ["word"], "data": [["a"]]}}, TWO_INPUTS)
    assert said == "Model is missing inputs [\"size\"]: input 'size' takes float of shape [-1,2]"
    assert "the model takes several by name" in refusal({"inputs": ROWS}, TWO_INPUTS)
    single = refusal({"dataframe_split": {"columns": ["size", "word"], "data": [[1, "a"]]}}, TWO_INPUTS)
    assert single == "The column 'size' contains single values, but input 'size' takes float of shape [-1,2]"
    assert "send one column of its name" in refusal({"dataframe_split": {"data": [[1, 2]]}}, taking("float32", None))
    fixed = refusal({"dataframe_split": {"data": ROWS}}, taking("float32", 3, 3))
    assert fixed == "dataframe_split.data has 2 rows, but input 'x' takes float of shape [3,3]"
    uneven = refusal({"inputs": {"size": [[1, 2]], "word": ["a", "b"]}}, TWO_INPUTS)
    assert uneven == "All inputs must have the same number of instances, but size has 1, word has 2"


@pytest.mark.parametrize(
    ("outputs", "body"),
    [
        ({"y": np.array([[1.5, np.nan]], np.float32)}, b'{"predictions":[[1.5,NaN]]}'),
        ({"y": np.array([b"a", "é".encode()], object)}, '{"predictions":["a","é"]}'.encode()),
        ({"a": np.array([1, 2]), "b": np.array([[0.5], [1.0]])}, b'{"predictions":{"a":[1,2],"b":[[0.5],[1.0]]}}'),
    ],
    ids=["one", "texts", "several"],
)
def test_predictions_are_lists_and_those_of_several_outputs_by_name(outputs: Tensors, body: bytes):
    specs = tuple(TensorSpec(name, "float32", (None,)) for name in outputs)
    contract = contract_of(signature_of(*LINEAR.inputs, outputs=specs))
    answer = read({"inputs": ROWS}).format(outputs, contract)
    assert (answer.data, answer.dialect) == (body, Dialect.MLFLOW)
    found = outputs_of(answer)
    assert list(found) == (list(outputs) if len(outputs) > 1 else [""])


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "BAD_REQUEST"), (401, "UNAUTHENTICATED"), (403, "PERMISSION_DENIED"), (404, "RESOURCE_DOES_NOT_EXIST"),
        (413, "BAD_REQUEST"), (415, "BAD_REQUEST"), (429, "REQUEST_LIMIT_EXCEEDED"), (500, "INTERNAL_ERROR"),
        (503, "TEMPORARILY_UNAVAILABLE"), (504, "DEADLINE_EXCEEDED"),
    ],
)  # fmt: skip
def test_a_refusal_has_the_code_that_mlflow_has_for_its_status(status: int, code: str):
    for dialect in (Dialect.MLFLOW, Dialect.MLFLOW_CSV):
        assert json.loads(GRAMMARS[dialect].format_error("no", status)) == {"error_code": code, "message": "no"}


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=3), min_size=1, max_size=8))
def test_a_table_means_the_same_as_json_and_as_csv_to_the_last_bit(rows: list[list[float]]):
    plain = read({"inputs": rows}).tensors["x"].tobytes()
    assert read({"dataframe_split": {"data": rows}}).tensors["x"].tobytes() == plain
    lines = "".join(",".join(map(repr, row)) + "\n" for row in rows)
    assert read_lines("a,b,c\n" + lines).tensors["x"].tobytes() == plain


@given(st.binary(max_size=64), st.booleans())
def test_any_bytes_are_a_request_or_a_refusal(data: bytes, lines: bool):
    body = Body(data, Dialect.MLFLOW_CSV if lines else Dialect.MLFLOW)
    said, request = "", None
    try:
        request = GRAMMARS[body.dialect].parse(body, contract_of(LINEAR))
    except InputInvalid as error:
        said = error.message
    assert len(said) <= 300
    assert request is None or request.tensors["x"].shape == (request.instances, 3)


def test_names_and_rows_without_end_take_no_longer_than_reading_them():
    wide = ",".join(str(number) for number in range(100_000))
    assert len(read_csv(f"{wide}\n{wide}\n".encode(), 1).names) == 100_000
    assert "given twice" in refusal_of_lines(f"{wide},7\n{wide},7\n")
    assert "has 100000 columns" in refusal_of_lines(f"{wide}\n{wide}\n")
    # what follows is not even looked at
    assert refusal_of_lines("a,b,c\n" + "1,2,3\n" * 9 + "1\n").startswith("more than 8 instances")
    # a first record with many names, and records with none: nobody multiplies the two
    records = [dict.fromkeys(map(str, range(100_000)), 0), *[{}] * 100_000]
    many = mlflow_scoring.parse_document
    with pytest.raises(InputInvalid, match="has 100000 columns"):
        many({"dataframe_records": records}, LINEAR, 10**6)
