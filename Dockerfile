# One image for the three roles: `docker run notifier gateway`, `router` or `api`.
# Pin the base by digest for releases: --build-arg BASE=python:3.13-slim@sha256:…
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /build
# Two environments: what builds notifier stays here, what runs it is copied on.
RUN python -m venv /build/tools && python -m venv --without-pip /opt/notifier
COPY requirements/build.txt requirements/image.txt requirements/
RUN /build/tools/bin/pip install --no-cache-dir --require-hashes --only-binary :all: \
        -r requirements/build.txt && \
    /build/tools/bin/pip --python /opt/notifier install --no-cache-dir --require-hashes \
        --only-binary :all: --no-compile -r requirements/image.txt
COPY pyproject.toml README.md LICENSE ./
COPY notifier notifier
# unchecked-hash: the bytecode is used as it is, whatever the times of files become in a layer.
RUN /build/tools/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir wheels . && \
    /build/tools/bin/pip --python /opt/notifier install --no-index --no-deps --no-compile \
        wheels/*.whl && \
    python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/notifier/lib

FROM ${BASE}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="notifier" \
      org.opencontainers.image.description="Pushes events from backend services to the people they concern" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/notifier /opt/notifier
ENV PATH=/opt/notifier/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number: Kubernetes cannot tell whether a name is root.
USER 10001:10001
WORKDIR /
EXPOSE 8000 8001 9000
STOPSIGNAL SIGTERM
ENTRYPOINT ["notifier"]
CMD ["--help"]
