from __future__ import annotations

from collections.abc import Iterator

import pytest

from .fuzzed_gateway import FuzzedGateway, fuzzed_gateway


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuzzedGateway]:
    with fuzzed_gateway(tmp_path_factory.mktemp("fuzz")) as found:
        yield found
