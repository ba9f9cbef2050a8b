"""An issuer of tokens that publishes its keys."""

import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

from tests.support.json_server import JsonServer
from tests.support.roles import AUDIENCE, ISSUER


class Issuer(JsonServer):
    """An issuer with one RSA key at a time; within the `with` block `url` serves its key set.

    While it is `away` it serves nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.url = f"{self.origin}/keys"
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
        """Its key set."""
        key = RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {"keys": [{**key, "kid": self._kid, "use": "sig"}]}

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        """See JsonServer."""
        del path
        return (503 if self.away else 200), self.key_set()
