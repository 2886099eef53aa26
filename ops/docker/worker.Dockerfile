# The worker, for CPUs (target `cpu`) and for NVIDIA GPUs (target `cuda`, whose torch brings its own CUDA libraries;
# the host gives the driver). Built from the root of the repository:
# docker build -f ops/docker/worker.Dockerfile --target cpu .
ARG DEBIAN=debian:bookworm-20250520-slim

FROM ${DEBIAN} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils ca-certificates g++ python3-dev python3-venv
WORKDIR /src
COPY constraints.txt ./
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
RUN python3 -m venv /opt/build /opt/sluice && /opt/build/bin/pip install -c constraints.txt hatchling

# torch comes first: it is most of the image, and changes least. PyPI's build for amd64 is the one for CUDA; the one
# for CPUs is in PyTorch's own index, which TORCH_INDEX names. For arm64 PyPI's is the one for CPUs.
FROM build AS torch-cpu
ARG TORCH_INDEX=
ARG TARGETARCH
RUN version=$(sed -n 's/^torch==//p' constraints.txt) \
    && if [ "${TARGETARCH:-$(dpkg --print-architecture)}" = amd64 ]; then version="$version+cpu"; fi \
    && /opt/sluice/bin/pip install --no-compile -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
        "torch==$version" numpy

FROM build AS torch-cuda
ARG TORCH_INDEX=
RUN /opt/sluice/bin/pip install --no-compile -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
        torch numpy

FROM torch-cpu AS built-cpu
COPY worker-core worker-core
COPY ops/docker/install-worker.sh ops/docker/
RUN ops/docker/install-worker.sh

FROM torch-cuda AS built-cuda
COPY worker-core worker-core
COPY ops/docker/install-worker.sh ops/docker/
RUN ops/docker/install-worker.sh

FROM ${DEBIAN} AS base
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3-minimal libpython3-stdlib \
    && rm -rf /var/lib/apt/lists/* \
    && echo 'sluice:x:10001:10001:Sluice:/var/cache/sluice:/usr/sbin/nologin' >>/etc/passwd \
    && echo 'sluice:x:10001:' >>/etc/group \
    && install -d -o 10001 -g 10001 /var/cache/sluice /models
ENV PATH=/opt/sluice/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/var/cache/sluice \
    HF_HOME=/var/cache/sluice/huggingface
LABEL org.opencontainers.image.title="Sluice worker" org.opencontainers.image.licenses="MIT"
WORKDIR /var/cache/sluice
USER 10001:10001
EXPOSE 8006
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=300s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8006/ready', timeout=2)"]
ENTRYPOINT ["sluice-worker"]
CMD ["serve", "--host", "0.0.0.0"]

FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=built-cuda /opt/sluice /opt/sluice

FROM base AS cpu
COPY --from=built-cpu /opt/sluice /opt/sluice
