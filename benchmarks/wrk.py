"""The same load by wrk, where it is installed: written in C, it takes less of the processors that the servers need."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.load import Load, LoadFailed, Measurement

MOST_SECONDS_OVER = 60.0

# The file holds each request after a line with its length: they may have any bytes in them.
SCRIPT = """
local file = io.open(%s, "rb")
local requests, number = {}, 0
for length in file:lines() do
  requests[#requests + 1] = file:read(tonumber(length))
end
file:close()

request = function()
  number = number %% #requests + 1
  return requests[number]
end

done = function(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests": %%d, "seconds": %%.6f, "p50": %%.3f, "p90": %%.3f, "p99": %%.3f, "longest": %%.3f, ' ..
    '"status": %%d, "broken": %%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(90) / 1000,
    latency:percentile(99) / 1000, latency.max / 1000, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
"""


def installed() -> bool:
    return shutil.which("wrk") is not None


def run(load: Load) -> Measurement:
    """As `load.run`; wrk counts answers of status 400 and above as errors and does not say which. Raises LoadFailed.

    It cannot end after a number of requests.
    """
    with tempfile.TemporaryDirectory() as folder:
        # In a file that only this user can read: among the arguments others could see the tokens.
        requests, script = Path(folder) / "requests", Path(folder) / "load.lua"
        requests.write_bytes(b"".join(b"%d\n%s" % (len(request), request) for request in load.requests))
        script.write_text(SCRIPT % json.dumps(str(requests)))
        command = ["wrk", "-t1", f"-c{load.connections}", f"-d{max(1, round(load.seconds))}s", "--timeout", "35s"]
        command += ["-s", str(script), f"http://{load.host}:{load.port}/"]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=dict(os.environ),
            timeout=load.seconds + MOST_SECONDS_OVER,
            check=False,
        )
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if done.returncode != 0 or line is None:
        raise LoadFailed(f"wrk failed: {done.stderr[-500:] or done.stdout[-500:]}")
    found = json.loads(line.removeprefix("RESULT "))
    status, broken = found.pop("status"), found.pop("broken")
    errors = {name: count for name, count in (("status", status), ("connection", broken)) if count}
    return Measurement(**found, errors=errors)
