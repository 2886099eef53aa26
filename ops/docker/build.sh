#!/usr/bin/env bash
# build.sh [gateway|worker|worker-cuda|load ...]: build our images with Docker's buildx, by default all but the CUDA one.
# PLATFORMS=linux/amd64,linux/arm64 builds for both; PUSH=1 pushes, which several platforms need. REGISTRY=NAME/ goes
# before the names. TORCH_INDEX is a package index with PyTorch's CPU wheels, for the worker on amd64.
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() { echo "docker: $*" >&2; exit 1; }

version=${SLUICE_VERSION:-$(sed -n 's/^SLUICE_VERSION=//p' .env.example)}
platforms=${PLATFORMS:-}
command -v docker >/dev/null 2>&1 || fail "there is no Docker here; install it, or run the stack without: make stack-local"
docker info >/dev/null 2>&1 || fail "no Docker engine answers; start it, or run the stack without: make stack-local"
docker buildx version >/dev/null 2>&1 || fail "Docker's buildx is missing; install the package docker-buildx-plugin"
[[ "$platforms" != *,* || -n "${PUSH:-}" ]] || fail "an image for several platforms must be pushed: PUSH=1 REGISTRY=NAME/ make docker"

build() {  # build NAME TAG DOCKERFILE OPTION...
  local image="${REGISTRY:-}sluice/$1:$2"
  echo "docker: building $image"
  docker buildx build --file "ops/docker/$3" --tag "$image" ${platforms:+--platform "$platforms"} \
    "$([ -n "${PUSH:-}" ] && echo --push || echo --load)" "${@:4}" .
}

for image in "${@:-gateway worker load}"; do
  for name in $image; do
    case "$name" in
      gateway | load) build "$name" "$version" "$name.Dockerfile" ;;
      worker) build worker "$version" worker.Dockerfile --target cpu --build-arg "TORCH_INDEX=${TORCH_INDEX:-}" ;;
      worker-cuda) build worker "$version-cuda" worker.Dockerfile --target cuda --build-arg "TORCH_INDEX=${TORCH_INDEX:-}" ;;
      *) fail "there is no image '$name'; there are gateway, worker, worker-cuda and load" ;;
    esac
  done
done
