import sluice_gateway.upstream


def test_the_package_shows_its_two_transports() -> None:
    assert sluice_gateway.upstream.__all__ == ["HttpTransport", "HttpxTransport"]
    assert all(hasattr(sluice_gateway.upstream, name) for name in sluice_gateway.upstream.__all__)
