"""Health check of a container: `python alive.py HOST:PORT PATH` ends with 0 where that answers 200 within 3 seconds."""

from __future__ import annotations

import http.client
import sys

SECONDS = 3


def alive(address: str, path: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if alive(*sys.argv[1:3]) else 1)
