#!/usr/bin/env bash
# build-without-engine.sh NAME [OPTION...]: build ops/docker/NAME.Dockerfile where no Docker engine runs and no registry
# of images is reached: with buildah, in a chroot, on a Debian that debootstrap makes in place of the official base.
# Needs root, and Debian's packages buildah and debootstrap. OPTIONs go to buildah, e.g. --target cpu, or
# -v /etc/pip.conf:/etc/pip.conf:ro. WORK is where base and layers are kept (/var/tmp/sluice-images).
# What it makes shows that the steps work and how large the image is; it is not for publishing.
set -euo pipefail
cd "$(dirname "$0")/../.."

name=${1:?usage: build-without-engine.sh NAME [OPTION...]}
work=${WORK:-/var/tmp/sluice-images}
suite=$(sed -n 's/^ARG DEBIAN=debian:\([a-z]*\)-.*/\1/p' "ops/docker/$name.Dockerfile")
base=localhost/debian-standin

in_store() { buildah --root "$work/storage" --runroot "$work/run" "$@"; }

# As the official slim image: the smallest set of packages, without documentation and translations.
make_base() {
  local container
  mkdir -p "$work"
  rm -rf "$work/base"
  debootstrap --variant=minbase "$suite" "$work/base"
  rm -rf "$work"/base/var/cache/apt/archives/*.deb "$work"/base/var/lib/apt/lists/* "$work"/base/var/log/* \
    "$work"/base/usr/share/{doc,man,locale}/* "$work"/base/usr/share/info
  container=$(in_store from scratch)
  tar -C "$work/base" -cf "$work/base.tar" .
  in_store add "$container" "$work/base.tar" /
  in_store commit "$container" "$base"
  in_store rm "$container"
  rm -rf "$work/base" "$work/base.tar"
}

in_store inspect --type image "$base" >/dev/null 2>&1 || make_base
in_store bud --isolation chroot --format docker --layers --build-arg "DEBIAN=$base" \
  --tag "localhost/sluice-$name" --file "ops/docker/$name.Dockerfile" "${@:2}" .
in_store images "localhost/sluice-$name"
