# One image for every process: the command names the role (api, worker, metering, background,
# release, …). The stores are servers of their own; docker-compose.yml shows them.
FROM python:3.13-slim

ENV PYTHONUNBUFFERED=1 \
    PYTHONPATH=/app \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin gateway

WORKDIR /app
COPY requirements.base.lock .
# Everything is named with its hash, and nothing is built: the image has no compiler.
RUN pip install --no-deps --require-hashes --only-binary :all: --root-user-action=ignore \
    -r requirements.base.lock

COPY shared shared
COPY api api
COPY workers workers
# The code is not writable at run time, so it is compiled now.
RUN python -m compileall -q shared api workers

USER gateway
EXPOSE 8000

# A worker's container says GATEWAY_ROLE=worker; see `gateway health --help` for what is checked.
HEALTHCHECK --interval=15s --timeout=10s --start-period=20s --retries=3 \
    CMD python -m api.cli health "${GATEWAY_ROLE:-api}"

# The command replaces itself by the process it starts, so SIGTERM reaches that and it drains.
ENTRYPOINT ["python", "-m", "api.cli"]
CMD ["api", "--host", "0.0.0.0"]
