#!/bin/bash
# Install the worker beside torch into /opt/sluice, with its C++ kernels compiled: the image has no compiler. Run by
# worker.Dockerfile in its build stages.
set -euo pipefail

/opt/build/bin/pip wheel --no-deps --no-build-isolation -w /wheels ./worker-core
/opt/sluice/bin/pip install --no-compile -c constraints.txt /wheels/*.whl
kernels=$(/opt/sluice/bin/python -c 'from sluice_worker.kernels.cpu.build import PREBUILT; print(PREBUILT)')
/opt/sluice/bin/python -m sluice_worker.kernels.cpu.build "$kernels"
/opt/sluice/bin/pip uninstall -y pip setuptools
# Libraries that wheels bring along (numpy.libs) were patched, and cannot be loaded after `strip`.
find /opt/sluice -name '*.so' -not -path '*/torch/*' -not -path '*/nvidia/*' -not -path '*.libs/*' \
    -exec strip --strip-unneeded {} +
/opt/sluice/bin/python -c 'import numpy, sluice_worker.engine'
find /opt/sluice -depth -type d \( -name tests -o -name __pycache__ \) -not -path '*/torch/*' -exec rm -rf {} +
rm -rf /opt/sluice/lib/python3*/site-packages/torch/include
