# Locust with the journeys of bench/locustfile.py, as master and as worker. Built from the root of the repository:
# docker build -f ops/docker/load.Dockerfile .
ARG DEBIAN=debian:bookworm-20250520-slim

FROM ${DEBIAN} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3-venv
WORKDIR /src
COPY constraints.txt ./
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN python3 -m venv /opt/load && /opt/load/bin/pip install --no-compile -c constraints.txt locust msgspec psutil
COPY bench bench

FROM ${DEBIAN}
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3-minimal libpython3-stdlib \
    && rm -rf /var/lib/apt/lists/* \
    && echo 'sluice:x:10001:10001:Sluice:/tmp:/usr/sbin/nologin' >>/etc/passwd \
    && echo 'sluice:x:10001:' >>/etc/group
COPY --from=build /opt/load /opt/load
COPY --from=build /src/bench /opt/bench
ENV PATH=/opt/load/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 PYTHONPATH=/opt/bench
LABEL org.opencontainers.image.title="Sluice load" org.opencontainers.image.licenses="MIT"
WORKDIR /tmp
USER 10001:10001
EXPOSE 8089
# The journeys take their key from OPENAI_API_KEY; Compose gives it as a file.
ENTRYPOINT ["/bin/sh", "-c", "OPENAI_API_KEY=$(cat \"$SLUICE_API_KEY_FILE\") exec locust -f /opt/bench/locustfile.py \"$@\"", "locust"]
CMD ["--help"]
