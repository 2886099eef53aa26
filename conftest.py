"""Settings for every test of the project."""

import gc
import os
import sys
from collections.abc import Generator, Iterator

import hypothesis
import pytest

from sluice_gateway.compiled import finder

# A loaded machine is slow, not wrong: nothing here is judged by the clock.
hypothesis.settings.register_profile(
    "sluice", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("sluice")

# Every engine that a test starts would take all cores, which other tests need. Tests of threads say how many.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Each test says how wide its terminal is. A console that is made with a width in the environment keeps it,
# and pytest-xdist's workers have one: its main process loads readline, which writes it there.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

# The tests run on what would serve: the gateway's compiled modules when they are of these sources.
finder.install()


def pytest_configure(config: pytest.Config) -> None:
    """pytest-xdist would begin with the files of most tests, and end with those that take longest, which have
    few. `testpaths` has small ones last."""
    config.option.loadscopereorder = False


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules and tests stay until the end: no collection of garbage need look through them, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """An engine in this process flushes denormals to zero; give the next test a whole float back."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_flush_denormal(False)


def pytest_report_header() -> str:
    """Which of the two it is."""
    return f"gateway and router: {'compiled modules' if finder.is_active() else 'Python sources'}"
