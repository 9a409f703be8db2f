# Edge in a container. It serves on port 11435 as soon as it is given keys:
#
#   docker build -t edge-relay .
#   docker run -d --name edge -p 11435:11435 --read-only --cap-drop ALL --stop-timeout 40 \
#     -e EDGE_AUTH_KEYS=... -e EDGE_UPSTREAM_KIND=ollama -e EDGE_UPSTREAM_URL=http://ollama:11434 edge-relay
#
# config/compose.yaml does the same, with the Ollama.

FROM docker.io/library/python:3.13-slim AS build
WORKDIR /src

# What Edge needs, before Edge: this layer stays as long as the lock does. The environment gets no pip of its own.
COPY requirements.lock requirements-build.lock ./
RUN python3 -m venv --without-pip /opt/edge \
    && python3 -m venv --without-pip /opt/build \
    && python3 -m pip --python /opt/edge/bin/python install --no-cache-dir --only-binary :all: --require-hashes --requirement requirements.lock \
    && python3 -m pip --python /opt/build/bin/python install --no-cache-dir --only-binary :all: --require-hashes --requirement requirements-build.lock

COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY edge edge
RUN /opt/build/bin/python -m hatchling build --target wheel --directory /wheels \
    && python3 -m pip --python /opt/edge/bin/python install --no-cache-dir --no-index --no-deps /wheels/*.whl

# Of the clouds' SDKs the bytecode alone: it is what runs, and their sources are another 30 MB.
RUN /opt/edge/bin/python -m compileall -q -b /opt/edge/lib/python3.*/site-packages/openai /opt/edge/lib/python3.*/site-packages/anthropic \
    && find /opt/edge/lib/python3.*/site-packages/openai /opt/edge/lib/python3.*/site-packages/anthropic -name "*.py" -delete \
    && find /opt/edge/lib/python3.*/site-packages/openai /opt/edge/lib/python3.*/site-packages/anthropic -depth -name __pycache__ -exec rm -r {} +

FROM docker.io/library/python:3.13-slim
LABEL org.opencontainers.image.title="Edge" \
      org.opencontainers.image.description="A drop-in OpenAI-compatible endpoint whose token streams can be trusted" \
      org.opencontainers.image.licenses="Apache-2.0"

# The user id is fixed, so that files in the volume keep their owner from one image to the next.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/edge --shell /usr/sbin/nologin edge \
    && install --directory --owner 10001 --group 10001 --mode 0750 /var/lib/edge
COPY --from=build /opt/edge /opt/edge

# A container is reached from outside or not at all. Listening there without keys is refused, as anywhere.
ENV PATH=/opt/edge/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    EDGE_SERVER_LISTEN=0.0.0.0:11435 \
    STATE_DIRECTORY=/var/lib/edge
EXPOSE 11435
VOLUME /var/lib/edge
WORKDIR /var/lib/edge
USER 10001:10001

HEALTHCHECK --interval=15s --timeout=5s --start-period=10s CMD ["edge", "health"]

# No shell in between: Edge is process 1, and a SIGTERM drains it.
ENTRYPOINT ["edge"]
CMD ["serve"]
