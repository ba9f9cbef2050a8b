"""Every setting of notifier, validated at start and known to nobody but the composition root.

A setting comes from the environment (`NOTIFIER_…`), a file that `NOTIFIER_…_FILE` names, or `.env`.
"""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from notifier.settings import values
from notifier.settings.files import NamedFiles, environment, named_files
from notifier.settings.needs import KEYS_OF_TOKENS, missing
from notifier.settings.sentences import (
    CLIENT_VARIABLES,
    PREFIX,
    SettingsError,
    line,
    unknown,
    variable,
)

__all__ = ["CLIENT_VARIABLES", "Role", "Settings", "SettingsError", "variable"]

Role = Literal["gateway", "router", "api", "dev"]


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

    amqp_url: values.AmqpUrl = Field(
        SecretStr("amqp://guest:guest@localhost:5672/"),
        description="RabbitMQ; several addresses separated by commas are tried in turn.",
        examples=["amqps://notifier:secret@rabbitmq:5671/"],
    )
    redis_url: values.RedisUrl = Field(
        SecretStr("redis://localhost:6379/0"),
        description="Redis or Valkey; rediss:// for TLS, redis+sentinel://host,host/master behind "
        "Sentinel.",
        examples=["rediss://notifier:secret@redis:6379/0"],
    )
    host: str = Field(
        "0.0.0.0",  # noqa: S104 - a deployment decides who reaches a container's port; dev takes loopback
        description="Address to listen on; `notifier dev` listens on 127.0.0.1 unless this is set.",
        examples=["127.0.0.1"],
    )
    gateway_port: values.Port = Field(
        8000, description="Public port of the gateway.", examples=[8000]
    )
    gateway_port_shared: bool = Field(
        False,  # noqa: FBT003 - the default
        description="Whether several gateways on one machine share NOTIFIER_GATEWAY_PORT "
        "(SO_REUSEPORT), each with a NOTIFIER_PRIVATE_PORT of its own.",
        examples=[True],
    )
    api_port: values.Port = Field(8001, description="Port of the producer API.", examples=[8001])
    private_port: values.Port = Field(
        9000, description="Port of /livez, /readyz and /metrics, each role's own.", examples=[9000]
    )
    tls_certificate: SecretStr | None = Field(
        None,
        description="Certificate in PEM, for TLS at the gateway's public port: its own first, then "
        "those that signed it; line breaks may be written \\n. Unset: a proxy ends TLS.",
        examples=["-----BEGIN CERTIFICATE-----…"],
    )
    tls_key: SecretStr | None = Field(
        None,
        description="Private key of NOTIFIER_TLS_CERTIFICATE in PEM, without a password.",
        examples=["-----BEGIN PRIVATE KEY-----…"],
    )
    partitions: int = Field(
        1,
        ge=1,
        le=64,
        description="Partitions of the event queue, the same for all routers and apis; more than "
        "one needs RabbitMQ 4.3, or its plugin rabbitmq_sharding.",
        examples=[4],
    )
    jwt_secret: values.JwtSecret | None = Field(
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
    jwks_url: values.WebAddress | None = Field(
        None,
        description="Address of the issuer's key set (JWKS).",
        examples=["https://issuer.example/.well-known/jwks.json"],
    )
    jwt_discovery_url: values.WebAddresses = Field(
        (),
        description="Address of the issuer, or of its metadata (OpenID Connect Discovery, RFC "
        "8414), which names the key set; several issuers separated by commas.",
        examples=["https://issuer.example/.well-known/openid-configuration"],
    )
    jwt_issuer: values.BareWords = Field(
        (),
        description="The iss that a token must have, one of several separated by commas; * for "
        "any. With NOTIFIER_JWT_DISCOVERY_URL: one for each, or unset for those of the addresses.",
        examples=["https://issuer.example/"],
    )
    jwt_audience: values.BareWords = Field(
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
    api_keys: values.KeyEntries = Field(
        (),
        description="API keys, name:sha256 separated by commas (`notifier key` makes one); two "
        "with one name while a key is being rotated. Behind the hash may stand :scopes (post, "
        "read, control, joined by +; post unless given), and behind those :patterns, the topics "
        "that the key is bound to, joined by a semicolon.",
        examples=["billing:(64 hexadecimal digits)"],
    )
    docs: bool = Field(
        True,  # noqa: FBT003 - the default
        description="Whether api and gateway describe themselves to anybody, at /openapi.json and "
        "on the page /docs.",
        examples=[False],
    )
    allowed_origins: values.Origins = Field(
        (),
        description="Origins of the pages that may connect beside those of the gateway's own host, "
        "separated by commas; https://*.app.example for subdomains, http://localhost:* for ports, "
        "* for any.",
        examples=["https://app.example"],
    )
    trusted_proxies: values.Networks = Field(
        (),
        description="Networks of the proxies that are believed when they tell a client's address "
        "for the log (Forwarded, X-Forwarded-For), separated by commas. Unset: none, and the log "
        "has the proxy's.",
        examples=["10.0.0.0/8,fd00::/8"],
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
        description="Publications a topic keeps for clients that come back; a personal topic has "
        "NOTIFIER_INBOX_SIZE.",
        examples=[100],
    )
    history_seconds: int = Field(
        86400, ge=1, le=30 * 86400, description="How long it keeps them.", examples=[86400]
    )
    inbox_size: int = Field(
        200,
        ge=1,
        le=10_000,
        description="Publications a user's personal topic keeps: the list that a page loads.",
        examples=[200],
    )
    inbox_seconds: int = Field(
        30 * 86400,
        ge=1,
        le=365 * 86400,
        description="How long it keeps them after its newest.",
        examples=[2592000],
    )
    revocation_seconds: int = Field(
        30 * 86400,
        ge=60,
        le=400 * 86400,
        description="How long a revocation of a user's tokens holds, in apis and gateways: longer "
        "than the lifetime of the longest token.",
        examples=[86400],
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
        description="Clients that one gateway lets in a second, each request over plain HTTP among "
        "them, and five times as many at once; more are refused with 503.",
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
    rabbitmq_management_url: values.SecretWebAddress | None = Field(
        None,
        description="Management API that `notifier check` asks for policies; made of the AMQP "
        "address where it is not given.",
        examples=["http://notifier:secret@rabbitmq:15672"],
    )
    traces: bool = Field(
        default=False,
        description="Send traces by OpenTelemetry, to where its own variables (OTEL_…) say; needs "
        "the extra notifier-push[otel].",
        examples=["true"],
    )
    log_format: Literal["console", "json"] | None = Field(
        None, description="console or json; console in a terminal by itself.", examples=["json"]
    )
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(values.upper)
    ] = Field("INFO", description="Least severe log lines that are written.", examples=["INFO"])

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
        return init_settings, env_settings, NamedFiles(settings_cls), dotenv_settings

    @classmethod
    def load(cls, role: Role | None = None) -> Self:
        """Read and validate the settings, those that `role` needs too; raises SettingsError."""
        variables = environment()
        try:
            settings = cls()  # type: ignore[call-arg] # all have defaults
        except ValidationError as error:
            lines = [line(item, cls.model_fields) for item in error.errors()]
            raise SettingsError([*lines, *unknown(variables, cls.model_fields)]) from None
        lines = [
            *unknown(variables, cls.model_fields),
            *(missing(settings, role) if role else ()),
        ]
        if lines:
            raise SettingsError(lines)
        return settings

    @classmethod
    def files(cls) -> tuple[str, ...]:
        """Return the paths of the files that settings come from; raises SettingsError."""
        return (".env", *named_files(cls.model_fields).values())

    def given_keys(self) -> list[str]:
        """Return the names of the settings that give keys of tokens: a gateway needs one."""
        return [name for name in KEYS_OF_TOKENS if getattr(self, name) not in (None, ())]

    @property
    def jwt_secrets(self) -> tuple[str, ...]:
        """The secrets of tokens; the first one signs."""
        return () if self.jwt_secret is None else values.lines_of(self.jwt_secret)

    def is_given(self, name: str) -> bool:
        """Whether a setting was given, rather than left at its default."""
        return name in self.model_fields_set
