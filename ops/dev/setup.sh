#!/usr/bin/env bash
# setup.sh run|test: bring the virtual environment to the state of the lock file, in one go, or say what is missing.
# A stamp of everything that decides the result makes the second call take milliseconds.
set -euo pipefail
cd "$(dirname "$0")/../.."

level=${1:-}
[[ "$level" =~ ^(run|test)$ ]] || { echo "usage: setup.sh run|test" >&2; exit 2; }
venv=${VENV:-.venv}
minimum_disk_mb=${SLUICE_MINIMUM_DISK_MB:-3000}

fail() { echo "sluice: $*" >&2; exit 1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3.13 python3.12 python3.11 python3; do
    if command -v "$candidate" >/dev/null 2>&1 &&
       "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"; return
    fi
  done
  fail "Python 3.11 or newer is needed and none was found on PATH; install it, or name one: make $level PYTHON=/path/to/python3"
}

check_disk() {
  local free_mb
  free_mb=$(df -Pm . | awk 'NR == 2 {print $4}')
  [ "$free_mb" -ge "$minimum_disk_mb" ] ||
    fail "the installation needs ${minimum_disk_mb} MB of free disk here and there are ${free_mb} MB; free some and run make again"
}

check_port() {
  local port=${SLUICE_PORT:-8000}
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    fail "port $port is in use; stop what listens there, or choose another: SLUICE_PORT=8010 make run"
  fi
}

wanted_state() {  # $1: level
  { echo "$1 $venv"; cat constraints.txt requirements-dev.txt ./*/pyproject.toml "$0"; } | cksum
}

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

# PyPI's default torch for Linux brings several gigabytes of CUDA libraries. Without a GPU the CPU build serves.
install_torch() {
  local version requirement
  version=$(sed -n 's/^torch==//p' constraints.txt)
  requirement="torch==$version"
  if [ "$(uname -s)" = Linux ] && [ "${SLUICE_TORCH:-cpu}" = cpu ] && [ ! -e /dev/nvidiactl ]; then
    requirement="torch==$version+cpu"
  fi
  pip install -q -c constraints.txt "$requirement" 2>"$venv/torch.log" && return
  grep -q "No matching distribution found for torch" "$venv/torch.log" || { cat "$venv/torch.log" >&2; fail "installing $requirement failed, see above"; }
  fail "$requirement is not in your package index. Point pip at PyTorch's CPU wheels (PIP_EXTRA_INDEX_URL; the address is on PyTorch's install page) and run make again, or accept the default build of several GB: SLUICE_TORCH=default make $level"
}

# The gateway's request path as machine code (`sluice compile --help`). It is half again as fast, and optional.
compile_gateway() {
  local status=0
  "$venv/bin/sluice" compile >"$venv/compile.log" 2>&1 || status=$?
  gateway_sources >"$venv/.sluice-compiled"  # tried: what cannot be compiled is not tried at every start
  return "$status"
}

gateway_sources() { find router/sluice_router engines/sluice_engines gateway/sluice_gateway -name '*.py' | sort | xargs cat | cksum; }

report_compilation() {  # $1: its exit status
  [ "$1" = 0 ] && return
  echo "sluice: the gateway could not be compiled and serves from Python, at two thirds of the speed:" >&2
  sed 's/^/sluice:   /' "$venv/compile.log" >&2
  echo "sluice: once that is mended: make compile" >&2
}

install() {
  local rest=() dev=() compiling compiled=0
  [ "$level" = test ] && rest=(-e bench) && dev=(-r requirements-dev.txt)
  echo "sluice: installing into $venv (once; about two minutes)"
  [ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || fail "cannot create $venv; on Debian: apt-get install python3-venv"
  echo "sluice: 1/3 gateway"
  pip install -q -c constraints.txt hatchling editables
  pip install -q --no-build-isolation -c constraints.txt -e router -e engines -e "gateway[compile]"
  compile_gateway & compiling=$!
  trap 'kill $compiling 2>/dev/null || true' EXIT
  echo "sluice: 2/3 torch, while the gateway is being compiled"; install_torch
  echo "sluice: 3/3 worker"
  pip install -q --no-build-isolation -c constraints.txt -e worker-core "${rest[@]+"${rest[@]}"}" "${dev[@]+"${dev[@]}"}"
  # The worker's C++ kernels, or a sentence that says what serves without them.
  "$venv/bin/python" -m sluice_worker.kernels.cpu.build >"$venv/kernels.log" 2>&1 || sed 's/^/sluice: /' "$venv/kernels.log" >&2
  wait $compiling || compiled=$?
  trap - EXIT
  report_compilation "$compiled"
}

# Sources that changed since: whoever runs Sluice wants it fast, whoever tests a change does not want to wait.
compile_again() {
  local compiled=0
  [ "$level" = run ] && [ "${SLUICE_COMPILED:-1}" != 0 ] || return 0
  [ "$(cat "$venv/.sluice-compiled" 2>/dev/null)" = "$(gateway_sources)" ] && return 0
  echo "sluice: compiling the gateway (a minute; SLUICE_COMPILED=0 goes without)"
  compile_gateway || compiled=$?
  report_compilation "$compiled"
}

[ "$level" = run ] && check_port
for installed in "$level" test; do  # what the tests need includes what running needs
  stamp=$venv/.sluice-$installed
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(wanted_state "$installed")" ]; then
    compile_again
    exit 0
  fi
done
python=$(find_python)
check_disk
install
wanted_state "$level" >"$venv/.sluice-$level"
