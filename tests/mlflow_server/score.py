"""Asks for predictions with MLflow's own clients, unmodified but for the token, and prints what they got."""

from __future__ import annotations

import json
import os
import sys
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import requests
from mlflow.deployments import get_deploy_client
from mlflow.pyfunc.scoring_server.client import ScoringServerClient


class WithToken(requests.Session):
    """What `requests.get` and `requests.post` make for each request: MLflow's scoring client knows no token."""

    def __init__(self) -> None:
        super().__init__()
        self.headers["Authorization"] = f"Bearer {os.environ['MLFLOW_TRACKING_TOKEN']}"


requests.sessions.Session = WithToken


def scored(client: ScoringServerClient, rows: list[list[float]]) -> dict[str, object]:
    """The same rows in every way that the scoring client sends them."""
    client.ping()
    client.wait_server_ready(timeout=10)
    table = client.invoke(pd.DataFrame(rows, columns=["a", "b"]))
    return {
        "version": client.get_version(),
        "table": table.get_predictions("ndarray").tolist(),
        "frame": table.get_predictions().to_numpy().tolist(),
        "array": client.invoke(np.array(rows)).get_predictions("ndarray").tolist(),
        "list": client.invoke(rows)["predictions"],
        "text": client.invoke(json.dumps({"instances": rows}))["predictions"],
    }


def refused(client: ScoringServerClient, data: object) -> str:
    try:
        client.invoke(data)
    except Exception as error:  # noqa: BLE001 - what the client raises has no class of its own
        return str(error)
    return ""


def main() -> None:
    url, rows = sys.argv[1], json.loads(sys.argv[2])
    address = urlsplit(url)
    base = f"{address.port}/models"
    clients = {path: ScoringServerClient(address.hostname, f"{base}/{path}") for path in ("times", "times/versions/1")}
    deployed = get_deploy_client(url)
    records = [{"a": a, "b": b} for a, b in rows]
    found = {
        "scored": {path: scored(client, rows) for path, client in clients.items()},
        "deployed": [
            deployed.predict(endpoint=endpoint, inputs={"dataframe_records": records})["predictions"]
            for endpoint in ("times", "times/versions/1")
        ],
        "wrong": refused(clients["times"], [["a"]]),
        "unknown": refused(ScoringServerClient(address.hostname, f"{base}/none"), rows),
    }
    sys.stdout.write(json.dumps(found) + "\n")


main()
