"""TLS in front of servers that speak without, as a proxy would put it there."""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from notifier.adapters.tokens.issuer import trusted_authorities
from notifier.telemetry.metrics import Metrics

NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For a client over plain HTTP: reading the authorities takes more CPU than most tests."""


@contextmanager
def authorities_read_anew() -> Iterator[None]:
    """Have those of this test's environment trusted inside, and by no other test."""
    trusted_authorities.cache_clear()
    yield
    trusted_authorities.cache_clear()


def expiry(metrics: Metrics, backend: str) -> float | None:
    """When the metrics say that the certificate of a backend expires."""
    name = "notifier_certificate_expiry_timestamp_seconds"
    return metrics.registry.get_sample_value(name, {"backend": backend})


def expiry_of(authority: Path) -> float:
    """When a certificate expires."""
    certificate = x509.load_pem_x509_certificate(authority.read_bytes())
    return certificate.not_valid_after_utc.timestamp()


@asynccontextmanager
async def tls_in_front_of(port: int, authority: Path) -> AsyncIterator[int]:
    """Take TLS for a server without, with a certificate that signs itself; yield the port."""

    clients: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        clients.add(task)
        task.add_done_callback(clients.discard)
        # asyncio's server would complain of a task that is cancelled.
        with closing(writer), suppress(OSError, asyncio.CancelledError):
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_copied(reader, inner_writer), _copied(inner_reader, writer))

    context = _certified(authority)
    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        # `wait_closed` waits for the clients too, from Python 3.12 on: they end first.
        listener.close()
        for client in tuple(clients):
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with closing(writer):
        while data := await reader.read(65_536):
            writer.write(data)


@dataclass(frozen=True)
class Pair:
    """A certificate for 127.0.0.1 that signs itself, and its key: in PEM."""

    certificate: str
    key: str

    @property
    def client(self) -> ssl.SSLContext:
        """For a client that trusts it."""
        return ssl.create_default_context(cadata=self.certificate)


def made_pair(hours: float = 1) -> Pair:
    """Make one that expires in so many hours."""
    key = ec.generate_private_key(ec.SECP256R1())
    own = f"test {token_hex(8)}"  # OpenSSL tells authorities apart by their names
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, own)])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=abs(hours) + 1))
    builder = builder.not_valid_after(now + timedelta(hours=hours))
    builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    return Pair(public.decode(), private.decode())


def _certified(authority: Path) -> ssl.SSLContext:
    pair, private = made_pair(), authority.with_suffix(".key")
    authority.write_text(pair.certificate)
    private.write_text(pair.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority, private)
    return context
