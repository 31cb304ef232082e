# syntax=docker/dockerfile:1
# The first stage builds a root file system of Python, the sidecar and the libraries they need, the last is that and
# nothing else: no shell, no pip, no apt. Between them stands the image of the init container (`--target init`). deploy/image/README.md says how, and how to give the base by its digest.
ARG PYTHON=3.13.18-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# The compiler of the data path. It stays behind with this stage, so its version does not matter to what runs.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY deploy/image ./deploy/image
# Every file that is installed has a hash in the lock. Byte-compiled by content, not by date: nothing is written at run
# time, and the image can be rebuilt bit by bit. The tests and the programs that some dependencies carry, what a shell
# would read, and what only a compiler needs, stay behind.
RUN python -m venv --without-pip /opt/sidecar \
    && pip --python /opt/sidecar/bin/python install --no-compile --require-hashes --only-binary :all: \
        -r deploy/image/requirements.lock
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY config/minimal.yaml ./config/
COPY sidecar ./sidecar
ARG VERSION=0.2.0
RUN HATCH_BUILD_HOOKS_ENABLE=1 pip wheel --no-deps --wheel-dir /wheels . \
    && pip --python /opt/sidecar/bin/python install --no-compile --no-deps /wheels/*.whl \
    && find /opt/sidecar -depth -type d \( -name tests -o -name test -o -name __pycache__ \) -exec rm -r {} + \
    && find /opt/sidecar/bin -type f ! -name sidecar -delete \
    && rm -rf /opt/sidecar/include /opt/sidecar/share \
    && find /opt/sidecar \( -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' -o -name '*.pyi' \) -delete \
    && python deploy/image/sbom.py /opt/sidecar/lib/python3.13/site-packages sidecar-proxy "${VERSION}" \
        >/opt/sidecar/sbom.json \
    && /opt/sidecar/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/sidecar/lib \
    && python deploy/image/root.py /opt/sidecar /root-of-image config/minimal.yaml

# The second image, for `sidecar inject --intercept`: what writes the rules of the kernel, and nothing that serves.
#   docker build --target init -t sidecar-init .
FROM python:${PYTHON} AS init
# iptables' lock needs a place that can be written to, as the root file system cannot.
ENV PATH=/opt/sidecar/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    XTABLES_LOCKFILE=/dev/shm/xtables.lock
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends iptables nftables \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/sidecar /opt/sidecar
# The rules are root's to write; of root's rights the pod leaves it NET_ADMIN and NET_RAW alone.
# hadolint ignore=DL3002
USER 0:0
ENTRYPOINT ["sidecar"]
CMD ["intercept"]

FROM scratch
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="sidecar" \
      org.opencontainers.image.description="A reverse proxy beside your service: a circuit breaker for each route, deadlines that travel, traces that tell why" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# glibc's allocator maps and unmaps each large buffer by default; kept instead, a 64 KiB answer costs half the CPU.
ENV PATH=/opt/sidecar/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MALLOC_MMAP_THRESHOLD_=16777216 \
    MALLOC_TRIM_THRESHOLD_=134217728 \
    MALLOC_TOP_PAD_=4194304 \
    SIDECAR_CONFIG=/etc/sidecar/sidecar.yaml
COPY --from=build /root-of-image /
# Numeric, so that Kubernetes can see that it is not root. Nothing is written to the root file system.
USER 65532:65532
EXPOSE 15006 15021
STOPSIGNAL SIGTERM
# For Docker and Compose; Kubernetes asks the probes itself.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["sidecar", "healthcheck"]
# The process itself is PID 1: it handles SIGTERM and leaves no children behind, so that no init is needed.
ENTRYPOINT ["sidecar"]
CMD ["run"]
