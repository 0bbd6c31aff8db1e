# Images of Sluice, one target for each kind of process:
#
#   docker build --target gateway -t sluice-gateway .   HTTP, tokens, migrations; no TensorFlow, no ONNX Runtime
#   docker build --target worker  -t sluice-worker  .   serves converted versions with ONNX Runtime; no TensorFlow
#   docker build --target prepare -t sluice-prepare .   prepares uploads with TensorFlow; can serve every version, too
#   docker build --target background -t sluice-background .   sends webhooks, reads files; neither of the two
#
# Packages are installed from the lock files, each checked against its hash. No secret is built in or passed as an
# argument: all of them are files that exist only at run time (docker-compose.yml).

FROM python:3.12-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never \
    VIRTUAL_ENV=/opt/venv
WORKDIR /opt/sluice
COPY requirements/uv.txt requirements/
RUN pip install --require-hashes -r requirements/uv.txt && uv venv --python /usr/local/bin/python /opt/venv

# The project itself, installed as a source tree: migrations are read from beside the packages. The root file system is
# read-only at run time, so byte code is written now.
FROM build AS source
COPY pyproject.toml README.md alembic.ini ./
COPY requirements/dev.txt requirements/
COPY alembic alembic
COPY auth auth
COPY gateway gateway
COPY model_store model_store
COPY monitoring monitoring
COPY sluice sluice
COPY workers workers
COPY deploy/alive.py deploy/
RUN uv pip install --no-deps --build-constraint requirements/dev.txt --editable . \
    && python -m compileall -q alembic auth deploy gateway model_store monitoring sluice workers \
    && rm -rf requirements

FROM source AS gateway-packages
COPY requirements/gateway.txt /tmp/
RUN uv pip install --require-hashes -r /tmp/gateway.txt

FROM source AS worker-packages
COPY requirements/worker.txt /tmp/
RUN uv pip install --require-hashes -r /tmp/worker.txt

FROM source AS prepare-packages
COPY requirements/prepare.txt /tmp/
RUN uv pip install --require-hashes -r /tmp/prepare.txt

FROM source AS background-packages
COPY requirements/background.txt /tmp/
RUN uv pip install --require-hashes -r /tmp/background.txt

# What all images share at run time. The folders exist here so that named volumes take over their owner.
FROM python:3.12-slim-bookworm AS runtime
RUN groupadd --gid 10001 sluice \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin sluice \
    && install -d -o 10001 -g 10001 -m 0700 \
        /run/sluice /var/lib/sluice /var/lib/sluice/keys /var/lib/sluice/scratch /var/lib/sluice/store
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PROMETHEUS_MULTIPROC_DIR=/run/sluice/metrics \
    SLUICE_STORE_DIR=/var/lib/sluice/store
WORKDIR /var/lib/sluice
USER 10001:10001
ENTRYPOINT ["sluice"]

FROM runtime AS gateway
ENV SLUICE_HOST=0.0.0.0 \
    SLUICE_PORT=8080 \
    SLUICE_GRPC_PORT=8081 \
    SLUICE_GATEWAY_METRICS_HOST=0.0.0.0 \
    SLUICE_GATEWAY_METRICS_PORT=9100 \
    SLUICE_KEYS_DIR=/var/lib/sluice/keys
COPY --from=gateway-packages /opt/venv /opt/venv
COPY --from=gateway-packages /opt/sluice /opt/sluice
EXPOSE 8080 8081 9100
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-I", "/opt/sluice/deploy/alive.py", "127.0.0.1:8080", "/health/live"]
CMD ["gateway"]

FROM runtime AS worker
ENV SLUICE_SCRATCH_DIR=/var/lib/sluice/scratch \
    SLUICE_WORKER_METRICS_HOST=0.0.0.0 \
    SLUICE_WORKER_METRICS_PORT=9100
COPY --from=worker-packages /opt/venv /opt/venv
COPY --from=worker-packages /opt/sluice /opt/sluice
EXPOSE 9100
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-I", "/opt/sluice/deploy/alive.py", "127.0.0.1:9100", "/metrics"]
CMD ["worker"]

FROM runtime AS prepare
ENV SLUICE_SCRATCH_DIR=/var/lib/sluice/scratch \
    SLUICE_WORKER_METRICS_HOST=0.0.0.0 \
    SLUICE_WORKER_METRICS_PORT=9100
COPY --from=prepare-packages /opt/venv /opt/venv
COPY --from=prepare-packages /opt/sluice /opt/sluice
EXPOSE 9100
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-I", "/opt/sluice/deploy/alive.py", "127.0.0.1:9100", "/metrics"]
CMD ["prepare-worker"]

FROM runtime AS background
ENV SLUICE_SCRATCH_DIR=/var/lib/sluice/scratch \
    SLUICE_WORKER_METRICS_HOST=0.0.0.0 \
    SLUICE_WORKER_METRICS_PORT=9100
COPY --from=background-packages /opt/venv /opt/venv
COPY --from=background-packages /opt/sluice /opt/sluice
EXPOSE 9100
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-I", "/opt/sluice/deploy/alive.py", "127.0.0.1:9100", "/metrics"]
CMD ["background-worker"]
