"""A token issuer: real keys, real signatures, a real server for its discovery document and its keys."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "sluice"


class Issuer:
    """Publishes `jwks`; signs what it is asked to."""

    def __init__(self) -> None:
        self.private: dict[str, Any] = {}
        self.jwks: list[dict[str, Any]] = []
        self.fetched = 0
        self.is_down = False
        self.claimed: str | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def add_key(self, key_id: str, kind: str = "RSA", **more: Any) -> None:
        """A new signing key, published at once."""
        algorithm: Any
        if kind == "RSA":
            self.private[key_id] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            algorithm = RSAAlgorithm
        else:
            self.private[key_id] = ec.generate_private_key(ec.SECP256R1())
            algorithm = ECAlgorithm
        public = json.loads(algorithm.to_jwk(self.private[key_id].public_key()))
        self.jwks.append({**public, "kid": key_id, "use": "sig", **more})

    def token(self, key_id: str = "one", algorithm: str = "RS256", /, **claims: Any) -> str:
        """Signed by that key. A claim that is `None` is left out."""
        now = int(time.time())
        said = {"iss": self.url, "aud": AUDIENCE, "sub": "carol", "iat": now, "exp": now + 600, **claims}
        payload = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(payload, self.private[key_id], algorithm, headers={"kid": key_id})

    def pem(self, key_id: str) -> bytes:
        """The public key as a file would hold it."""
        public = self.private[key_id].public_key()
        pem: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pages = {
                    "/.well-known/openid-configuration": {
                        "issuer": issuer.claimed or issuer.url,
                        "jwks_uri": f"{issuer.url}/jwks",
                    },
                    "/jwks": {"keys": issuer.jwks},
                }
                issuer.fetched += self.path == "/jwks"
                body = json.dumps(pages.get(self.path, {})).encode()
                self.send_response(503 if issuer.is_down else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        return Handler

    @contextmanager
    def serving(self) -> Iterator[Issuer]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
