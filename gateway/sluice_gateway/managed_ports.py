"""Ports for managed engines that were given none: each engine its own, also across gateways.

An engine needs seconds before it listens, and until then its port looks free to everybody else who asks. So
a chosen port is claimed for as long as the gateway lives. On Linux the claim is an abstract Unix socket named
after the port: it is atomic, leaves nothing behind however the gateway ends, and is as wide as the ports
are, one network namespace. Elsewhere only the engines of one gateway are kept apart.
"""

from __future__ import annotations

import socket
import sys

from sluice_gateway.config import ConfigError

_TRIES = 50


class ManagedPorts:
    """The ports that one gateway's managed engines have."""

    def __init__(self) -> None:
        self._claims: dict[int, socket.socket | None] = {}

    def choose(self, preferred: int) -> int:
        """A free TCP port on 127.0.0.1, `preferred` if it can be had. Raises `ConfigError` without one."""
        for wanted in (preferred, *([0] * _TRIES)):
            port = _free(wanted)
            if port is not None and self._claim(port):
                return port
        raise ConfigError("There is no free TCP port on 127.0.0.1 for a managed engine.")

    def release(self, port: int) -> None:
        """Give one claim back, if there is one."""
        claim = self._claims.pop(port, None)
        if claim is not None:
            claim.close()

    def close(self) -> None:
        """Give the claims back. Idempotent."""
        for claim in self._claims.values():
            if claim is not None:
                claim.close()
        self._claims.clear()

    def _claim(self, port: int) -> bool:
        if port in self._claims:
            return False
        claim = None
        if sys.platform == "linux":
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                claim.bind(f"\0sluice-managed-port-{port}")
            except OSError:
                claim.close()
                return False
        self._claims[port] = claim
        return True


def _free(wanted: int) -> int | None:
    """`wanted`, or any port for 0; `None` when somebody has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return None
        port: int = probe.getsockname()[1]
        return port
