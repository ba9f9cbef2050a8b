"""Every setting of notifier, validated at start and known to nobody but the composition root.

A setting comes from the environment (`NOTIFIER_…`), a file that `NOTIFIER_…_FILE` names, or `.env`.
"""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from notifier.core import origins

PREFIX = "NOTIFIER_"
Role = Literal["gateway", "router", "api", "dev"]
Port = Annotated[int, Field(ge=0, le=65535)]

CLIENT_VARIABLES = {
    "NOTIFIER_API_KEY": "API key that `notifier send` posts with.",
    "NOTIFIER_TOKEN": "Token that `notifier listen` connects with.",
}
_SHORTEST_SECRET = 32
_QUOTES = "\"'[]{}"
_KEY_ENTRY = re.compile(r"[A-Za-z0-9._-]{1,64}:[0-9a-f]{64}")
_LISTS = ("api_keys", "allowed_origins", "jwt_discovery_url", "jwt_issuer", "jwt_audience")
_URLS = ("amqp_url", "redis_url", "jwks_url", "rabbitmq_management_url")
_SCHEMES = {
    "amqp_url": ("amqp", "amqps"),
    "redis_url": ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"),
}
# What Kubernetes puts into every container for a Service of that name, unless told not to.
_SERVICE_LINK = re.compile(r"(.*_)?(SERVICE_(HOST|PORT\w*)|PORT_\d+_(TCP|UDP)\w*)")

_COMPARED = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}
_WANTED = {
    "int": "must be a whole number",
    "float": "must be a number",
    "finite": "must be a finite number",
    "bool": "must be true or false",
    "string": "must be text",
}


class SettingsError(Exception):
    """The settings cannot work. `lines` name the variables, what is wrong, and a good value."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Settings(BaseSettings):
    """The settings; every field is also its documentation (`notifier settings` prints it)."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    amqp_url: SecretStr = Field(
        SecretStr("amqp://guest:guest@localhost:5672/"),
        description="RabbitMQ; several addresses separated by commas are tried in turn.",
        examples=["amqps://notifier:secret@rabbitmq:5671/"],
    )
    redis_url: SecretStr = Field(
        SecretStr("redis://localhost:6379/0"),
        description="Redis or Valkey; rediss:// for TLS, redis+sentinel://host,host/master behind "
        "Sentinel.",
        examples=["rediss://notifier:secret@redis:6379/0"],
    )
    host: str = Field(
        "0.0.0.0",  # noqa: S104 - a container's port is opened by who deploys it; dev takes loopback
        description="Address to listen on; `notifier dev` listens on 127.0.0.1 unless this is set.",
        examples=["127.0.0.1"],
    )
    gateway_port: Port = Field(8000, description="Public port of the gateway.", examples=[8000])
    api_port: Port = Field(8001, description="Port of the producer API.", examples=[8001])
    private_port: Port = Field(
        9000, description="Port of /livez, /readyz and /metrics, each role's own.", examples=[9000]
    )
    partitions: int = Field(
        1,
        ge=1,
        le=64,
        description="Partitions of the event queue, the same for all routers and apis; more than "
        "one needs RabbitMQ 4.3, or its plugin rabbitmq_sharding.",
        examples=[4],
    )
    jwt_secret: SecretStr | None = Field(
        None,
        description="Secret of tokens: 32 bytes for HS256, 48 for HS384 too, 64 for HS512 too. "
        "Several, one a line, while it is being rotated; the first signs.",
        examples=['"$(openssl rand -base64 48)"'],
    )
    jwt_public_key: str | None = Field(
        None,
        description="Public key or certificate in PEM: RSA (RS256 to PS512), EC (ES256, ES384, "
        "ES512) or Ed25519. Several while it is being rotated; line breaks may be written \\n.",
        examples=["-----BEGIN PUBLIC KEY-----…"],
    )
    jwks_url: str | None = Field(
        None,
        description="Address of the issuer's key set (JWKS).",
        examples=["https://issuer.example/.well-known/jwks.json"],
    )
    jwt_discovery_url: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Address of the issuer, or of its metadata (OpenID Connect Discovery, RFC "
        "8414), which names the key set; several issuers separated by commas.",
        examples=["https://issuer.example/.well-known/openid-configuration"],
    )
    jwt_issuer: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="The iss that a token must have, one of several separated by commas; * for "
        "any. With NOTIFIER_JWT_DISCOVERY_URL: one for each, or unset for those of the addresses.",
        examples=["https://issuer.example/"],
    )
    jwt_audience: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="The aud that a token must have, one of several separated by commas; * where "
        "tokens have none, or any will do.",
        examples=["notifier"],
    )
    jwt_user_claim: str = Field(
        "sub",
        min_length=1,
        description="Claim that holds the user's id; a dot leads into an object.",
        examples=["https://app.example/uid"],
    )
    jwt_topics_claim: str = Field(
        "topics",
        min_length=1,
        description="Claim that holds the topics that a user may follow; a dot leads into an "
        "object.",
        examples=["https://app.example/topics"],
    )
    jwt_leeway_seconds: float | None = Field(
        None,
        ge=0,
        le=300,
        description="Seconds that an issuer's clock may differ, for exp, nbf and iat. Unset: 10 "
        "for nbf and iat, none for exp.",
        examples=[30],
    )
    api_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Producers' keys, name:sha256 separated by commas (`notifier key` makes one); "
        "two with one name while a key is being rotated.",
        examples=["billing:(64 hexadecimal digits)"],
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins of the pages that may connect beside those of the gateway's own host, "
        "separated by commas; https://*.app.example for subdomains, http://localhost:* for ports, "
        "* for any.",
        examples=["https://app.example"],
    )
    deduplication_seconds: int = Field(
        3600,
        ge=1,
        le=7 * 86400,
        description="An event posted again within this time is delivered once.",
        examples=[3600],
    )
    history_size: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Publications a topic keeps for clients that come back.",
        examples=[100],
    )
    history_seconds: int = Field(
        86400, ge=1, le=30 * 86400, description="How long it keeps them.", examples=[86400]
    )
    heartbeat_seconds: float = Field(
        25.0, ge=1, le=300, description="Time between a connection's heartbeats.", examples=[25]
    )
    send_buffer_bytes: int = Field(
        1024 * 1024,
        ge=64 * 1024,
        le=64 * 1024 * 1024,
        description="Bytes that may wait for one slow client before it is closed with 4002.",
        examples=[1048576],
    )
    send_buffer_total_bytes: int = Field(
        128 * 1024 * 1024,
        ge=1024 * 1024,
        le=64 * 1024 * 1024 * 1024,
        description="Bytes that may wait for all slow clients of a gateway together; past it those "
        "for whom most waits are closed with 4002, or their answers cut off.",
        examples=[134217728],
    )
    drain_rate: float = Field(
        1000.0,
        gt=0,
        description="Connections closed a second when a gateway stops; in NOTIFIER_DRAIN_SECONDS "
        "as many as NOTIFIER_MAX_CONNECTIONS.",
        examples=[1000],
    )
    drain_seconds: float = Field(
        60.0,
        ge=0,
        description="Time after which a stopping gateway closes the rest at once.",
        examples=[60],
    )
    max_connections: int = Field(
        50_000,
        ge=1,
        description="Connections that one gateway holds; more are refused with 503.",
        examples=[50000],
    )
    connect_rate: float = Field(
        2000.0,
        ge=1,
        description="Connections that one gateway takes a second, and five times as many at once; "
        "more are refused with 503.",
        examples=[2000],
    )
    connections_per_user: int | None = Field(
        None,
        ge=1,
        description="Connections of one user over all gateways; more are closed with 4504. "
        "Unset: not counted.",
        examples=[20],
    )
    topics_per_connection: int = Field(
        100,
        ge=1,
        le=100,
        description="Topics that one connection follows beside its own two.",
        examples=[100],
    )
    frame_rate: float = Field(
        20.0,
        ge=1,
        description="Frames that one client sends a second, and ten times as many at once; "
        "a client that sends more is closed with 4502.",
        examples=[20],
    )
    byte_rate: int = Field(
        16 * 1024,
        ge=8 * 1024,
        description="Bytes that one client sends a second, and ten times as many at once; "
        "a client that sends more is closed with 4502.",
        examples=[16384],
    )
    max_connection_age_seconds: float | None = Field(
        None,
        ge=1,
        description="Age at which a connection is closed with 4005, so that clients spread over "
        "gateways anew; each at 80 to 100 % of it. Unset: never.",
        examples=[3600],
    )
    rabbitmq_management_url: SecretStr | None = Field(
        None,
        description="Management API that `notifier check` asks for policies; made of the AMQP "
        "address where it is not given.",
        examples=["http://notifier:secret@rabbitmq:15672"],
    )
    traces: bool = Field(
        default=False,
        description="Send traces by OpenTelemetry, to where its own variables (OTEL_…) say; needs "
        "the extra notifier[otel].",
        examples=["true"],
    )
    log_format: Literal["console", "json"] | None = Field(
        None, description="console or json; console in a terminal by itself.", examples=["json"]
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe log lines that are written.", examples=["INFO"]
    )

    @field_validator(*_LISTS, mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, re.split(r"[,\s]+", value))) if isinstance(value, str) else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("gateway_port", "api_port", "private_port", mode="before")
    @classmethod
    def _no_service_link(cls, value: object) -> object:
        if isinstance(value, str) and value.startswith("tcp://"):
            raise ValueError(
                "holds the address of a Kubernetes Service, not a port: "
                "set enableServiceLinks: false in the pod"
            )
        return value

    @field_validator(*_URLS, mode="before")
    @classmethod
    def _strip(cls, value: object) -> object:
        return value.strip() if isinstance(value, str) else value

    @field_validator(*_URLS)
    @classmethod
    def _are_addresses(
        cls, value: SecretStr | str | None, info: ValidationInfo
    ) -> SecretStr | str | None:
        schemes = _SCHEMES.get(info.field_name or "", ("http", "https"))
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        for url in () if text is None else _addresses(text):
            if " " in url or not url.isprintable():
                raise ValueError("must have no spaces or control characters but as %20, %0A …")
            if not _is_address(url, schemes):
                begins = " or ".join(f"{scheme}://" for scheme in schemes)
                raise ValueError(
                    f"must begin with {begins}, and have no / # ? @ in its password "
                    "but as %2F %23 %3F %40"
                )
        return value

    @field_validator("jwt_issuer", "jwt_audience", "jwt_discovery_url")
    @classmethod
    def _are_bare(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(each[0] in _QUOTES or each[-1] in _QUOTES for each in value):
            raise ValueError("must be names separated by commas, without quotes or brackets")
        return value

    @field_validator("jwt_secret")
    @classmethod
    def _is_long(cls, value: SecretStr | None) -> SecretStr | None:
        secrets = () if value is None else _lines_of(value)
        if value is not None and not secrets:
            raise ValueError(f"must have at least {_SHORTEST_SECRET} bytes")
        if any(len(secret.encode()) < _SHORTEST_SECRET for secret in secrets):
            each = ", each of its lines" if len(secrets) > 1 else ""
            raise ValueError(f"must have at least {_SHORTEST_SECRET} bytes{each}")
        return value

    @field_validator("jwt_discovery_url")
    @classmethod
    def _are_web_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_is_address(url, ("http", "https")) for url in value):
            raise ValueError("must begin with https://")
        return value

    @field_validator("api_keys")
    @classmethod
    def _are_entries(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(_KEY_ENTRY.fullmatch, value)):
            raise ValueError("must be name:sha256 entries; `notifier key --name billing` makes one")
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(origins.ENTRY.fullmatch, value)):
            raise ValueError(
                "must be origins without a path, such as https://app.example, where * stands for "
                "subdomains or any port (https://*.app.example, http://localhost:*); or * for any"
            )
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - ours takes its place
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put `NOTIFIER_…_FILE` between the environment and `.env`."""
        return init_settings, env_settings, _NamedFiles(settings_cls), dotenv_settings

    @classmethod
    def load(cls, role: Role | None = None, **given: object) -> Self:
        """Read and validate the settings, those that `role` needs too; raises SettingsError."""
        try:
            settings = cls(**given)  # type: ignore[arg-type] # validated in there
        except ValidationError as error:
            lines = [_line(item) for item in error.errors()]
            raise SettingsError([*lines, *_unknown(_environment())]) from None
        lines = [
            *_unknown(_environment()),
            *(_missing(settings, role) if role else ()),
        ]
        if lines:
            raise SettingsError(lines)
        return settings

    def given_keys(self) -> list[str]:
        """Return the names of the settings that give keys of tokens: a gateway needs one."""
        names = ("jwt_secret", "jwt_public_key", "jwks_url", "jwt_discovery_url")
        return [name for name in names if getattr(self, name) not in (None, ())]

    @property
    def jwt_secrets(self) -> tuple[str, ...]:
        """The secrets of tokens; the first one signs."""
        return () if self.jwt_secret is None else _lines_of(self.jwt_secret)

    def is_given(self, name: str) -> bool:
        """Whether a setting was given, rather than left at its default."""
        return name in self.model_fields_set


class _NamedFiles(PydanticBaseSettingsSource):
    """Reads the file that `NOTIFIER_X_FILE` names as the value of `NOTIFIER_X`."""

    def get_field_value(self, _field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(f"{variable(field_name)}_FILE")
        try:
            value = Path(path).read_text().rstrip("\n") if path else None
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise SettingsError(
                [f"{variable(field_name)}_FILE: cannot read {path}: {reason}"]
            ) from None
        return value, field_name, False

    def __call__(self) -> dict[str, Any]:
        names = self.settings_cls.model_fields
        values = {name: self.get_field_value(field, name)[0] for name, field in names.items()}
        return {name: value for name, value in values.items() if value is not None}


def _addresses(text: str) -> list[str]:
    """Return the addresses of a list; those of Sentinels as if there were one address each."""
    scheme, separator, rest = text.partition("://")
    if not scheme.endswith("+sentinel"):
        return re.split(r",\s*", text)
    credentials, at, hosts = rest.rpartition("@")
    hosts, slash, path = hosts.partition("/")
    return [f"{scheme}{separator}{credentials}{at}{host}{slash}{path}" for host in hosts.split(",")]


def _lines_of(value: SecretStr) -> tuple[str, ...]:
    lines = (line.rstrip("\r") for line in value.get_secret_value().split("\n"))
    return tuple(filter(None, lines))


def _is_address(url: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text may quote a part of the password
        return False
    return parts.scheme in schemes and port != 0


def variable(name: str) -> str:
    """Return the environment variable of a field."""
    return PREFIX + name.upper()


def _example(name: str) -> str:
    return f"for example {variable(name)}={(Settings.model_fields[name].examples or [''])[0]}"


def _line(item: Mapping[str, Any]) -> str:
    name = str(item["loc"][0])
    return f"{variable(name)}: {_reason(item)}; {_example(name)}"


def _reason(item: Mapping[str, Any]) -> str:
    """Say in our words why a value cannot be: pydantic's errors are named by their type."""
    kind, bounds = str(item["type"]), item.get("ctx", {})
    if kind == "value_error":
        return str(item["msg"]).removeprefix("Value error, ")
    if kind == "literal_error":
        return f"must be {bounds['expected']}"
    if kind in _COMPARED:
        words, bound = _COMPARED[kind]
        return f"must be {words} {bounds[bound]}".removesuffix(".0")
    return _WANTED.get(kind.partition("_")[0], "has a form that is not taken here")


def _environment() -> dict[str, str | None]:
    return {**dotenv_values(".env"), **os.environ}


def _unknown(environ: Mapping[str, str | None]) -> Iterator[str]:
    """Find misspelt variables: a setting that nobody reads is a setting that does not hold."""
    known = {variable(name) for name in Settings.model_fields}
    known |= {f"{name}_FILE" for name in known} | CLIENT_VARIABLES.keys()
    for name in sorted(environ):
        rest = name.removeprefix(PREFIX)
        if not name.startswith(PREFIX) or name in known:
            continue
        if _SERVICE_LINK.fullmatch(rest) or (environ[name] or "").startswith(("tcp://", "udp://")):
            continue
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]}?" if close else "`notifier settings` lists what there is"
        yield f"{name}: is not a setting; {hint}"


def _missing(settings: Settings, role: Role) -> Iterator[str]:
    if role == "api" and not settings.api_keys:
        yield f"NOTIFIER_API_KEYS: is required, or nobody could post events; {_example('api_keys')}"
    if role != "gateway":
        return
    if len(settings.given_keys()) != 1:
        yield (
            "NOTIFIER_JWT_SECRET: exactly one is required of NOTIFIER_JWT_SECRET, "
            "NOTIFIER_JWT_PUBLIC_KEY, NOTIFIER_JWKS_URL and NOTIFIER_JWT_DISCOVERY_URL; "
            f"{_example('jwt_secret')}"
        )
    for name in ("jwt_issuer", "jwt_audience"):
        is_known = name == "jwt_issuer" and settings.jwt_discovery_url
        if not getattr(settings, name) and not is_known:
            yield (
                f"{variable(name)}: is required, or tokens issued for others would be accepted; "
                f"{_example(name)}"
            )
