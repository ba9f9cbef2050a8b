"""Every variable that the chart sets is a setting of notifier, and every setting can be set."""

import asyncio
import functools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from deploy.helm import generate
from notifier import wiring
from notifier.settings import CLIENT_VARIABLES, Role, Settings, SettingsError, variable
from notifier.telemetry.metrics import Metrics
from notifier.telemetry.traces import Traces
from tests.support.chart import (
    ROLES,
    Object,
    config,
    container,
    minimal,
    pod,
    read_values,
    refusal,
    render,
    values_files,
)

GIVEN: dict[str, Any] = {
    "NOTIFIER_AMQP_URL": "amqp://notifier:secret@rabbitmq:5672/",
    "NOTIFIER_REDIS_URL": "redis://:secret@redis:6379/0",
    "NOTIFIER_API_KEYS": "billing:" + "0" * 64,
    "NOTIFIER_JWT_SECRET": "a secret of more than thirty-two bytes",
}
PLAIN = [
    name for name, field in Settings.model_fields.items() if not generate.is_secret(name, field)
]
KEYS = {"jwt_public_key", "jwks_url", "jwt_discovery_url"}  # a chart takes one of them
SECRET = [name for name, field in Settings.model_fields.items() if generate.is_secret(name, field)]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("NOTIFIER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def files_of(objects: list[Object], role: str) -> list[str]:
    """The secret settings that a role reads from files."""
    names = [each["name"] for each in container(objects, role).get("env", ())]
    return [name.removesuffix("_FILE") for name in names if name.endswith("_FILE")]


def load(objects: list[Object], role: Role, home: Path) -> Settings:
    """The settings as the role's container would load them, from variables and mounted files."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in config(objects, role).items():
            patch.setenv(name, value)
        for name in files_of(objects, role):
            (home / name).write_text(GIVEN.get(name, ""))
            patch.setenv(f"{name}_FILE", str(home / name))
        return Settings.load(role)


@pytest.mark.parametrize("path", values_files(), ids=lambda path: path.stem)
def test_every_variable_is_a_setting(path: Path) -> None:
    objects = render(read_values(path))
    settings = {variable(name) for name in Settings.model_fields} | CLIENT_VARIABLES.keys()
    for role in ROLES:
        names = {each["name"] for each in container(objects, role).get("env", ())}
        given = names | config(objects, role).keys()
        own = {name for name in given if name.startswith("NOTIFIER_")}
        assert {name.removesuffix("_FILE") for name in own} <= settings


@pytest.mark.parametrize("role", ROLES)
def test_a_role_starts_with_the_settings_of_a_newcomer(role: Role, tmp_path: Path) -> None:
    settings = load(render(minimal()), role, tmp_path)

    assert settings.log_format == "json"


@pytest.mark.parametrize("role", ROLES)
def test_a_role_gets_the_secrets_that_it_needs_and_no_others(role: Role) -> None:
    needed = {
        "gateway": ["NOTIFIER_JWT_SECRET", "NOTIFIER_REDIS_URL"],
        "router": ["NOTIFIER_AMQP_URL", "NOTIFIER_REDIS_URL"],
        "api": ["NOTIFIER_AMQP_URL", "NOTIFIER_API_KEYS"],
    }

    assert files_of(render(minimal()), role) == needed[role]


@pytest.mark.parametrize("name", ["NOTIFIER_JWKS_URL", "NOTIFIER_JWT_PUBLIC_KEY"])
def test_with_another_key_the_gateway_reads_no_secret_for_tokens(name: str) -> None:
    objects = render(minimal(config={name: "https://issuer.example/keys"}))

    assert files_of(objects, "gateway") == ["NOTIFIER_REDIS_URL"]


def example(name: str) -> tuple[Settings, list[Object]]:
    """Settings with an example of one and of others, and the objects of a chart that sets them."""
    return _examples(name if name in KEYS else "")


@functools.cache
def _examples(key: str) -> tuple[Settings, list[Object]]:
    names = [name for name in PLAIN if name not in KEYS or name == key]
    texts = {name: (Settings.model_fields[name].examples or [])[0] for name in names}
    wanted = Settings.model_validate(texts | {"host": "::"})
    given = wanted.model_dump(mode="json", include=set(names))
    return wanted, render(minimal(config={variable(name): given[name] for name in names}))


def readers(name: str) -> list[Role]:
    """The roles that the chart gives a setting."""
    _, objects = example(name)
    return [role for role in ROLES if variable(name) in config(objects, role)]


@pytest.mark.parametrize("name", PLAIN)
def test_every_plain_setting_can_be_set_and_arrives_as_it_was(name: str, tmp_path: Path) -> None:
    wanted, objects = example(name)

    assert readers(name)
    for role in readers(name):
        settings = load(objects, role, tmp_path)
        assert getattr(settings, name) == getattr(wanted, name)


class _Watched:
    """Settings that remember which of them were read."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # a setting is of any type
        if name in PLAIN:
            self.read.add(name)
        return getattr(self._settings, name)


OF_THE_COMMAND = {"log_format", "log_level", "traces"}  # read before the role runs


@pytest.mark.usefixtures("own_sighup")
@pytest.mark.parametrize("role", ROLES)
async def test_a_role_is_given_the_settings_that_it_reads_and_no_others(
    role: Role, tmp_path: Path
) -> None:
    free = {"host": "127.0.0.1", "gateway_port": 0, "api_port": 0, "private_port": 0}
    redis = {"redis_url": SecretStr("redis://127.0.0.1:1/0")}  # an api may do without
    watched = _Watched(load(render(minimal()), role, tmp_path).model_copy(update=free | redis))
    run = {"gateway": wiring._run_gateway, "router": wiring._run_router, "api": wiring._run_api}  # noqa: SLF001
    stopping = asyncio.Event()
    stopping.set()
    await run[role](watched, Metrics(), Traces(), stopping)  # type: ignore[arg-type]

    given = {name for name in PLAIN if role in readers(name)}

    assert given - OF_THE_COMMAND == watched.read, "say who reads a setting in _settings.tpl"


@pytest.mark.parametrize("name", SECRET)
def test_every_secret_setting_can_be_set_from_a_secret_of_the_users(name: str) -> None:
    place = {"existingSecret": "mine", "key": "its-key"}
    objects = render(minimal(secrets={variable(name): place}))

    roles = [role for role in ROLES if variable(name) in files_of(objects, role)]

    assert roles
    for role in roles:
        [volume] = [each for each in pod(objects, role)["volumes"] if each["name"] == "secrets"]
        sources = [each["secret"] for each in volume["projected"]["sources"]]
        item = {"key": "its-key", "path": variable(name)}
        assert {"name": "mine", "items": [item]} in sources


@pytest.mark.parametrize("name", SECRET)
def test_a_secret_by_value_is_in_a_secret_and_nowhere_else(name: str) -> None:
    objects = render(minimal(secrets={variable(name): {"value": "the-secret-itself"}}))

    holders = [item["kind"] for item in objects if "the-secret-itself" in json.dumps(item)]

    assert holders == ["Secret"]


def test_numbers_arrive_as_digits() -> None:
    wanted = {"NOTIFIER_SEND_BUFFER_BYTES": 67108864, "NOTIFIER_HISTORY_SECONDS": 2592000}

    found = config(render(minimal(config=wanted)), "gateway")

    assert {name: found[name] for name in wanted} == {k: str(v) for k, v in wanted.items()}


def test_lists_arrive_separated_by_commas() -> None:
    origins = ["https://a.example", "https://b.example"]

    found = config(render(minimal(config={"NOTIFIER_ALLOWED_ORIGINS": origins})), "gateway")

    assert found["NOTIFIER_ALLOWED_ORIGINS"] == "https://a.example,https://b.example"


@pytest.mark.parametrize(
    ("origins", "are_good"),
    [
        ("", True),
        ("*", True),
        ("https://a.example, http://localhost:3000\ncapacitor://localhost,", True),
        ("https://[::1]:8443", True),
        ("app.example", False),
        ("https://", False),
        ("://", False),
        ("null", False),
        ("https://app.example/", False),
        ("https://app.example?a=b", False),
        ("https://user@app.example", False),
        ("https://*.example", True),
        ("https://*.app.example:*, http://localhost:*, http://[::1]:*", True),
        ("https://pr-*.app.example HTTPS://App.Example:443", True),
        ("https://*", False),
        ("https://app.*", False),
        ("https://app.example:8*", False),
        ("*.app.example", False),
        ("https://app.example:", False),
        ("https://app.example https://app.example/path", False),
    ],
)
def test_the_chart_takes_the_origins_that_the_settings_take(
    monkeypatch: pytest.MonkeyPatch, origins: str, tmp_path: Path, *, are_good: bool
) -> None:
    values = minimal(config={"NOTIFIER_ALLOWED_ORIGINS": origins})

    if are_good:
        load(render(values), "gateway", tmp_path)
    else:
        assert "NOTIFIER_ALLOWED_ORIGINS has " in refusal(values)
        monkeypatch.setenv("NOTIFIER_ALLOWED_ORIGINS", origins)
        with pytest.raises(SettingsError, match="must be origins"):
            Settings.load()


def test_figures_that_the_chart_computes_with_are_the_defaults_of_the_settings() -> None:
    objects = render(minimal())
    found = {n: value for role in ROLES for n, value in config(objects, role).items()}
    defaults = {variable(name): field.default for name, field in Settings.model_fields.items()}

    computed = {name: float(value) for name, value in found.items() if value.isdigit()}

    assert computed == {name: defaults[name] for name in computed}
    assert len(computed) == 8


@pytest.mark.parametrize("form", ["NOTIFIER_REDIS_URL", "NOTIFIER_REDIS_URL_FILE"])
def test_a_variable_of_the_users_takes_the_place_of_the_chart_s(form: str) -> None:
    extra = [{"name": form, "value": "redis://elsewhere"}]
    objects = render(minimal(gateway={"pod": {"extraEnv": extra}}))

    [found] = [
        each
        for each in container(objects, "gateway")["env"]
        if each["name"].startswith("NOTIFIER_REDIS_URL")
    ]

    assert found == {"name": form, "value": "redis://elsewhere"}
    assert "NOTIFIER_REDIS_URL" in files_of(objects, "router")


@pytest.mark.parametrize("kind", ["existingSecret", "existingConfigMap"])
def test_certificates_are_mounted_and_trusted(kind: str) -> None:
    objects = render(minimal(ca={kind: "company-ca", "key": "bundle.pem"}))
    for role in ROLES:
        env = {each["name"]: each.get("value") for each in container(objects, role)["env"]}
        [volume] = [each for each in pod(objects, role)["volumes"] if each["name"] == "ca"]
        assert env["SSL_CERT_FILE"] == "/etc/notifier/ca/ca.crt"
        assert '"company-ca"' in json.dumps(volume)
        assert '{"key": "bundle.pem", "path": "ca.crt"}' in json.dumps(volume)


TLS = {
    "NOTIFIER_TLS_CERTIFICATE": {"existingSecret": "push-tls", "key": "tls.crt"},
    "NOTIFIER_TLS_KEY": {"existingSecret": "push-tls", "key": "tls.key"},
}
TLS_BY_FILE = [{"name": f"{name}_FILE", "value": f"/tls/{name}"} for name in TLS]


@pytest.mark.parametrize(
    ("more", "scheme", "protocol"),
    [
        ({}, "ws", None),
        ({"secrets": TLS}, "wss", "https"),
        ({"gateway": {"pod": {"extraEnv": TLS_BY_FILE}}}, "wss", "https"),
        ({"api": {"pod": {"extraEnv": TLS_BY_FILE}}}, "ws", None),
    ],
    ids=["none", "a secret", "a file", "the api's"],
)
def test_services_and_the_test_know_whether_the_gateway_ends_tls(
    more: dict[str, Any], scheme: str, protocol: str | None
) -> None:
    objects = render(minimal(test={"existingSecret": "t"}, ca={"existingSecret": "ca"}, **more))
    services = {
        item["metadata"]["labels"]["app.kubernetes.io/component"]: item["spec"]["ports"][0]
        for item in objects
        if item["kind"] == "Service"
    }
    [test] = [item["spec"] for item in objects if item["kind"] == "Pod"]
    env = {each["name"]: each.get("value", "") for each in test["containers"][0]["env"]}

    assert services["gateway"].get("appProtocol") == protocol
    assert "appProtocol" not in services["api"]
    assert env["GATEWAY_URL"].partition("://")[0] == scheme
    assert env["SSL_CERT_FILE"] == "/etc/notifier/ca/ca.crt"
    assert {each["name"] for each in test["volumes"]} == {"secrets", "ca"}
