"""An issuer of tokens that publishes its keys."""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from tests.support.roles import AUDIENCE, ISSUER


class Issuer:
    """An issuer with one RSA key at a time; within the `with` block `url` serves its key set.

    While it is `away` it serves nothing.
    """

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.away = False
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"
        self.rotate()

    def rotate(self) -> None:
        """Sign with a new key from now on, and publish it instead of the old one."""
        self._key: RSAPrivateKey = generate_private_key(65_537, 2_048)
        self._kid = f"key-{time.monotonic_ns()}"

    @property
    def public_key(self) -> str:
        """The public key in PEM."""
        form = PublicFormat.SubjectPublicKeyInfo
        return self._key.public_key().public_bytes(Encoding.PEM, form).decode()

    def token(self, user: str) -> str:
        """A token of `user`."""
        claims = {"sub": user, "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 600}
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": self._kid})

    def key_set(self) -> dict[str, Any]:
        """What it publishes."""
        key = RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {"keys": [{**key, "kid": self._kid, "use": "sig"}]}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Answering(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # so http.server calls it
                body = json.dumps(issuer.key_set()).encode()
                self.send_response(503 if issuer.away else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Answering

    def __enter__(self) -> Self:
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
