"""What a user of the package `openai` does with a gateway: run in an environment of its own, without ours.

`python visit.py BASE_URL TOKEN`; writes what it found as JSON to standard output.
"""

from __future__ import annotations

import io
import json
import sys
import time

import openai

ENDPOINT = "/v1/models/double:predict"
ENDED = ("completed", "failed", "expired", "cancelled")
MOST_SECONDS = 60


def main() -> None:
    client = openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key=sys.argv[2], max_retries=0)
    sys.stdout.write(json.dumps({**answered(client), **refused(client), **listed(client)}))


def answered(client: openai.OpenAI) -> dict[str, object]:
    """A batch from its file to its answers."""
    bodies = [{"instances": [[number, 1.0]]} for number in range(20)] + [{"instances": [[1.0]]}]
    lines = [
        json.dumps({"custom_id": f"row {number}", "method": "POST", "url": ENDPOINT, "body": body}) + "\n"
        for number, body in enumerate(bodies)
    ]
    file = client.files.create(file=("rows.jsonl", io.BytesIO("".join(lines).encode())), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h", metadata={"who": "openai"}
    )
    until = time.monotonic() + MOST_SECONDS
    while batch.status not in ENDED and time.monotonic() < until:
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    found = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    failed = [json.loads(line) for line in client.files.content(batch.error_file_id).text.splitlines()]
    return {
        "status": batch.status,
        "counts": batch.request_counts.model_dump(),
        "metadata": batch.metadata,
        "predictions": [line["response"]["body"]["predictions"][0] for line in found],
        "failed": [line["custom_id"] for line in failed],
        "purposes": [client.files.retrieve(one).purpose for one in (file.id, batch.output_file_id)],
        "deleted": client.files.delete(file.id).deleted,
    }


def refused(client: openai.OpenAI) -> dict[str, object]:
    """The classes that the package makes of refusals, and their codes."""
    found = {}
    for name, call in {
        "no file": lambda: client.files.retrieve("file_x"),
        "no batch": lambda: client.batches.cancel("batch_x"),
        "no token": lambda: client.with_options(api_key="x").files.list(),
        "no endpoint": lambda: client.batches.create(
            input_file_id="file_x", endpoint="/v1/embeddings", completion_window="24h"
        ),
    }.items():
        try:
            call()
        except openai.APIStatusError as error:
            found[name] = [type(error).__name__, error.code]
    return {"refused": found}


def listed(client: openai.OpenAI) -> dict[str, object]:
    """Pages are followed to their end."""
    for number in range(3):
        line = {"custom_id": "a", "method": "POST", "url": ENDPOINT, "body": {"instances": [[number, 1.0]]}}
        file = client.files.create(file=("one.jsonl", json.dumps(line).encode()), purpose="batch")
        client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")
    return {
        "batches": len(list(client.batches.list(limit=2))),
        "inputs": len(list(client.files.list(purpose="batch", limit=2))),
    }


main()
