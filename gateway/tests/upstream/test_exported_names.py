import sluice_gateway.upstream


def test_the_package_shows_its_transport_and_its_pump() -> None:
    assert sluice_gateway.upstream.__all__ == ["HttpTransport", "pump"]
    assert all(hasattr(sluice_gateway.upstream, name) for name in sluice_gateway.upstream.__all__)
