"""The keys that an issuer publishes: fetched when a token needs them, kept while fresh."""

import asyncio
import re
import ssl
from collections.abc import Callable, Collection, Sequence
from contextvars import Context
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from time import monotonic

import httpx
import msgspec
import structlog
from msgspec import Struct

from notifier.adapters.tokens.keys import MOST_KEYS, Key, check_signature, keys_of_set
from notifier.adapters.tokens.signed_token import SignedToken
from notifier.core.addresses import PROXY_UNFIT
from notifier.core.bounded_json import read_json
from notifier.core.errors import Invalid, Unauthorized, Unavailable
from notifier.core.header_lists import elements, parameters

LARGEST_ANSWER = 256 * 1024

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SECONDS = re.compile(r"[0-9]{1,9}")
_OPENID = "/.well-known/openid-configuration"
_OAUTH = "/.well-known/oauth-authorization-server"

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FetchIntervals:
    """How often an issuer is asked for its keys, in seconds.

    Between two requests lies a `pause`, for any key ids in tokens; one takes at most `timeout`.
    Keys count as fresh for as long as the answer's Cache-Control says, between `least` and `most`;
    `usual` if it says nothing.
    """

    pause: float = 10
    timeout: float = 3
    least: float = 60
    usual: float = 300
    most: float = 3600

    def freshness(self, cache_control: str) -> float:
        """Return for how long an answer with this header is fresh."""
        directives = [parameters(each).get("max-age", "") for each in elements(cache_control)]
        age = next(filter(_SECONDS.fullmatch, directives), None)
        return self.usual if age is None else min(max(int(age), self.least), self.most)


_UNHURRIED = FetchIntervals()
OnFetch = Callable[[str], None]


def unheard(outcome: str) -> None:
    """Let nobody hear."""


class IssuerKeys:
    """The keys that an issuer publishes (a JWK Set, RFC 7517), fetched when a token needs them.

    `url` is the key set's. With `issuers`, it is that of the issuer's metadata, which names the key
    set: OpenID Connect Discovery 1.0, or RFC 8414; the metadata must be of one of them. All callers
    share one fetch. Keys that are no longer fresh serve on while the issuer is away. Raises
    ValueError for a URL that is neither https nor on this machine. `on_fetch` hears the outcome of
    each fetch: `fetched` or `failed`.
    """

    def __init__(
        self,
        url: str,
        pacing: FetchIntervals = _UNHURRIED,
        on_fetch: OnFetch = unheard,
        *,
        issuers: Collection[str] | None = None,
    ) -> None:
        self._url = _checked_url(url)
        self._issuers = issuers
        self._pacing = pacing
        self._on_fetch = on_fetch
        self._client = _client()
        self._keys: Sequence[Key] = ()
        self._fresh_until = self._next_fetch = float("-inf")
        self._failure: str | None = "its keys have not been fetched yet"
        self._fetches = 0
        self.generation = 0
        self._judged: set[str | int] = set()  # kids or tokens that the last fetch brought no key of
        self._fetching: asyncio.Task[None] | None = None

    @property
    def trouble(self) -> str | None:
        """Why there are no keys; asking tries again, so it must be asked in the event loop."""
        if self._keys:
            return None
        # A pod that is not ready gets no tokens to verify, which else would make it fetch.
        self._fetch_when_due()
        return f"the token issuer's keys are missing: {self._failure}"

    @property
    def is_fresh(self) -> bool:
        """See KeySource."""
        return monotonic() < self._fresh_until

    async def check(self, token: SignedToken) -> None:
        """See KeySource. Fetches keys that are stale, and those that a token seems to need.

        A key with the token's `kid` is the one to judge by. Without one, a token is refused only if
        a fetch that began after this call brought no key of it.
        """
        fetches = self._fetches
        if not self.is_fresh:
            await self._fetched()
        try:
            check_signature(token, self._keys)
        except Unauthorized:
            if token.kid is not None and any(key.kid == token.kid for key in self._keys):
                raise
            await self._check_by_newer(token, fetches)

    async def _check_by_newer(self, token: SignedToken, fetches: int) -> None:
        name = token.kid or hash(token.message)
        if fetches == self._fetches:
            await self._fetched()
        try:
            check_signature(token, self._keys)
        except Unauthorized:
            if self._failure:
                raise Unavailable("issuer", self._failure) from None
            if fetches == self._fetches and name not in self._judged:
                # The key may be new. A client whose token was refused does not try it again.
                reason = "its keys were fetched a moment ago, and not yet again"
                raise Unavailable("issuer", reason) from None
            if len(self._judged) < MOST_KEYS:
                self._judged.add(name)
            raise

    async def open(self) -> None:
        """Fetch the keys for the first time."""
        await self._fetched()

    async def close(self) -> None:
        """End a fetch under way, and the connections."""
        if self._fetching:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})
        await self._client.aclose()

    async def _fetched(self) -> None:
        self._fetch_when_due()
        if self._fetching and not self._fetching.done():
            # A cancelled caller must not take the fetch away from the others.
            await asyncio.shield(self._fetching)

    def _fetch_when_due(self) -> None:
        under_way = self._fetching and not self._fetching.done()
        if under_way or monotonic() < self._next_fetch:
            return
        self._next_fetch = monotonic() + self._pacing.pause
        # In a context of its own: its log lines are not about the first caller.
        self._fetching = asyncio.create_task(self._fetch(), name="issuer keys", context=Context())

    @property
    def place(self) -> str:
        """The host and port that it fetches from first."""
        return self._url.netloc.decode("ascii")

    async def fetch(self, seconds: float) -> tuple[Sequence[Key], str]:
        """Fetch the keys within so many seconds, and keep none; return the Cache-Control too.

        Raises httpx.HTTPError, OSError, and ValueError or Invalid for an answer without a key.
        """
        async with asyncio.timeout(seconds):
            body, cache_control = await self._key_set()
        return keys_of_set(body), cache_control

    async def _fetch(self) -> None:
        try:
            keys, cache_control = await self.fetch(self._pacing.timeout)
        except (httpx.HTTPError, Invalid, ValueError, OSError) as error:
            self._failure = _failure_of(error)
            _log.warning("issuer_keys_not_fetched", reason=self._failure, held=len(self._keys))
            self._on_fetch("failed")
        else:
            self._on_fetch("fetched")
            self.generation += keys != self._keys
            self._keys, self._failure = keys, None
            self._fetches += 1
            self._judged.clear()
            self._fresh_until = monotonic() + self._pacing.freshness(cache_control)

    async def _key_set(self) -> tuple[bytes, str]:
        url = self._url
        if self._issuers is not None:
            body, _ = await self._get(url)
            url = _key_set_url(read_json(body, _metadata, LARGEST_ANSWER), self._issuers)
        return await self._get(url)

    async def _get(self, url: httpx.URL) -> tuple[bytes, str]:
        body = bytearray()
        async with self._client.stream("GET", url) as response:
            if response.status_code != HTTPStatus.OK:
                raise ValueError(f"it answered {response.status_code}")
            # Raw, because a few compressed bytes can become more than memory holds.
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > LARGEST_ANSWER:
                    raise ValueError(f"its answer is larger than {LARGEST_ANSWER} bytes")
            return bytes(body), response.headers.get("cache-control", "")


class ForeignMetadata(ValueError):
    """The metadata at an address is another issuer's."""


class _Metadata(Struct):
    issuer: str
    jwks_uri: str


_metadata = msgspec.json.Decoder(_Metadata)


def _key_set_url(metadata: _Metadata, issuers: Collection[str]) -> httpx.URL:
    # OpenID Connect Discovery 1.0, section 4.3; RFC 8414, section 3.3.
    if metadata.issuer not in issuers:
        names = " or ".join(sorted(issuers))
        raise ForeignMetadata(f"its metadata is of issuer {metadata.issuer[:200]}, not of {names}")
    return _checked_url(metadata.jwks_uri)


def discovery_url(url: str) -> str:
    """Return the URL of an issuer's metadata, for that URL or for the issuer's own."""
    return url if "/.well-known/" in url else url.rstrip("/") + _OPENID


def issuers_at(url: str) -> frozenset[str]:
    """Return the issuers whose metadata can be at this URL: with a last slash, and without."""
    for path in (_OPENID, _OAUTH):
        url = url.replace(path, "", 1)
    return frozenset({url.rstrip("/"), url.rstrip("/") + "/"})


def _failure_of(error: Exception) -> str:
    if isinstance(error, Invalid):
        return f"its answer is malformed: {error}"
    return str(error) or "it did not answer in time"  # TimeoutError says nothing


def _client() -> httpx.AsyncClient:
    """Return what fetches keys; raises ValueError for a proxy that cannot be used."""
    try:
        return httpx.AsyncClient(
            verify=trusted_authorities(),
            timeout=None,  # noqa: S113  # a fetch as a whole has one
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )
    except (ImportError, ValueError, httpx.InvalidURL):
        raise ValueError(f"the keys cannot be fetched: {PROXY_UNFIT}") from None


@cache
def trusted_authorities() -> ssl.SSLContext:
    """Trust the public authorities and, beside them, those of SSL_CERT_FILE and the system.

    All issuers of a process share them: reading the files takes 50 ms of CPU. By itself httpx lets
    that file take the place of all others: with a private Redis' authority in it, a public issuer
    would be refused.
    """
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


def _checked_url(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
        host = url.host
    except (httpx.InvalidURL, ValueError):  # a label that is no punycode
        raise ValueError("the address of the keys is no URL") from None
    allowed = ("https", "http") if host in _LOOPBACK else ("https",)
    if not host or url.scheme not in allowed:
        raise ValueError("the URL of the keys must begin with https:// (http:// on loopback only)")
    return url
