"""The certificate of a port that speaks TLS."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile

from cryptography import x509

_NO_PEM = (
    "must be PEM: the server's certificate and those that signed it, in this order, and its "
    "private key"
)


class ServerCertificate:
    """The certificate of a port, with those that signed it, and its key: both in PEM.

    Raises ValueError for texts that cannot be. Its sentence has no part of them. `expires` is in
    Unix seconds.
    """

    def __init__(self, certificate: str, key: str) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # TLS 1.2 or newer
        self.context.set_alpn_protocols(["http/1.1"])
        self._load(certificate, key)

    def become(self, newer: "ServerCertificate") -> None:
        """Show another one to clients that come from now on."""
        self._load(*newer.pair)

    def _load(self, certificate: str, key: str) -> None:
        try:
            own = x509.load_pem_x509_certificate(certificate.encode())
        except ValueError:
            raise ValueError(_NO_PEM) from None
        try:
            with _readable(certificate) as chain, _readable(key) as private:
                self.context.load_cert_chain(chain, private, password=_no_password)
        except ssl.SSLError as error:
            raise ValueError(_reason(error)) from None
        self.expires = own.not_valid_after_utc.timestamp()
        self.pair = certificate, key


def _reason(error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the first certificate"
    if error.reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
        return "the certificate has a key or a hash that OpenSSL finds too weak; make another"
    return _NO_PEM


def _no_password() -> str:
    raise ValueError("the key must have no password: openssl pkey -in KEY -out KEY_WITHOUT")


@contextmanager
def _readable(text: str) -> Iterator[str]:
    """Yield the path of a file that holds a text: OpenSSL reads paths. On Linux it is in memory."""
    in_memory = getattr(os, "memfd_create", None)
    with os.fdopen(in_memory("pem"), "w+b") if in_memory else TemporaryFile() as file:
        file.write(text.encode())
        file.flush()
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"
