import os
from collections.abc import Callable
from pathlib import Path

import pytest

from notifier.api.keys import new_key
from notifier.settings import Role, Settings, SettingsError, variable

SECRET = "a secret of more than thirty-two bytes"
SHORT = "s3cret"
KEY = new_key("billing").entry
ENOUGH = {
    "NOTIFIER_JWT_SECRET": SECRET,
    "NOTIFIER_JWT_ISSUER": "https://issuer.example/",
    "NOTIFIER_JWT_AUDIENCE": "notifier",
    "NOTIFIER_API_KEYS": KEY,
}

Load = Callable[..., Settings]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("NOTIFIER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    def with_environment(role: Role | None = None, **environment: str) -> Settings:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return Settings.load(role)

    return with_environment


def lines(load: Load, role: Role | None = None, /, **environment: str) -> list[str]:
    with pytest.raises(SettingsError) as error:
        load(role, **environment)
    return error.value.lines


# Taken.


def test_without_any_setting_the_defaults_hold(load: Load) -> None:
    settings = load()

    assert (settings.gateway_port, settings.api_port, settings.private_port) == (8000, 8001, 9000)
    assert settings.api_keys == ()


def test_each_setting_has_a_meaning_and_an_example() -> None:
    fields = Settings.model_fields.values()

    assert [field for field in fields if not field.description or not field.examples] == []


def test_lists_are_separated_by_commas_or_white_space(load: Load) -> None:
    settings = load(NOTIFIER_ALLOWED_ORIGINS="https://a.example, https://b.example\nhttp://c:81,")

    assert settings.allowed_origins == ("https://a.example", "https://b.example", "http://c:81")


@pytest.mark.parametrize("name", ["NOTIFIER_API_KEYS", "NOTIFIER_ALLOWED_ORIGINS"])
def test_an_empty_list_is_the_same_as_none(load: Load, name: str) -> None:
    settings = load(**{name: ""})

    assert (settings.api_keys, settings.allowed_origins) == ((), ())


def test_several_keys_of_one_producer_are_taken(load: Load) -> None:
    other = new_key("billing").entry

    assert load(NOTIFIER_API_KEYS=f"{KEY},{other}").api_keys == (KEY, other)


def test_a_log_level_is_read_without_case(load: Load) -> None:
    assert load(NOTIFIER_LOG_LEVEL="debug\r").log_level == "DEBUG"


def test_several_addresses_of_rabbitmq_are_taken(load: Load) -> None:
    addresses = "amqp://a:5672/,amqps://b:5671/"

    assert load(NOTIFIER_AMQP_URL=addresses).amqp_url.get_secret_value() == addresses


def test_a_file_of_settings_is_read(load: Load, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("NOTIFIER_PARTITIONS=4\n")

    assert load().partitions == 4


def test_the_environment_comes_before_the_file_of_settings(load: Load, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("NOTIFIER_PARTITIONS=4\n")

    assert load(NOTIFIER_PARTITIONS="8").partitions == 8


def test_settings_do_not_change(load: Load) -> None:
    settings = load()

    with pytest.raises(ValueError, match="frozen"):
        settings.partitions = 2


def test_a_given_value_can_be_told_from_one_left_out(load: Load) -> None:
    settings = load(NOTIFIER_REDIS_URL="redis://localhost:6379/0")

    assert (settings.is_given("redis_url"), settings.is_given("amqp_url")) == (True, False)


# Secrets.


def test_a_secret_may_stand_in_a_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")

    settings = load(NOTIFIER_JWT_SECRET_FILE=str(tmp_path / "secret"))

    assert settings.jwt_secret is not None
    assert settings.jwt_secret.get_secret_value() == SECRET


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("PARTITIONS", "4\n", 4),
        ("API_KEYS", f"{KEY}\n", (KEY,)),
        ("JWT_PUBLIC_KEY", "-----BEGIN\nEND-----\n", "-----BEGIN\nEND-----"),
    ],
    ids=["number", "keys", "lines"],
)
def test_any_setting_may_stand_in_a_file(
    load: Load, tmp_path: Path, name: str, value: str, found: object
) -> None:
    (tmp_path / "value").write_text(value)

    settings = load(**{f"NOTIFIER_{name}_FILE": str(tmp_path / "value")})

    assert getattr(settings, name.lower()) == found


@pytest.mark.parametrize("name", ["value", ".env"])
def test_a_byte_order_mark_is_no_part_of_a_setting(load: Load, tmp_path: Path, name: str) -> None:
    (tmp_path / "value").write_text(SECRET)
    (tmp_path / ".env").write_text(f"NOTIFIER_JWT_SECRET_FILE={tmp_path / 'value'}\n")
    (tmp_path / name).write_text("\ufeff" + (tmp_path / name).read_text(), "utf-8")

    settings = load()

    assert settings.jwt_secret is not None
    assert settings.jwt_secret.get_secret_value() == SECRET


def test_the_environment_comes_before_a_named_file_which_comes_before_env(
    load: Load, tmp_path: Path
) -> None:
    (tmp_path / "four").write_text("4")
    (tmp_path / ".env").write_text("NOTIFIER_PARTITIONS=2\n")

    by_file = load(NOTIFIER_PARTITIONS_FILE=str(tmp_path / "four"))
    by_environment = load(NOTIFIER_PARTITIONS="8")

    assert (by_file.partitions, by_environment.partitions) == (4, 8)


def test_env_may_name_the_file_of_a_setting(load: Load, tmp_path: Path) -> None:
    (tmp_path / "four").write_text("4")
    (tmp_path / ".env").write_text(f"NOTIFIER_PARTITIONS_FILE={tmp_path / 'four'}\n")

    assert load().partitions == 4


def test_an_env_that_is_not_text_is_named(load: Load, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff")

    assert lines(load) == [".env: cannot read it: not text"]


def test_a_file_that_is_missing_is_named_with_its_variable(load: Load) -> None:
    found = lines(load, NOTIFIER_JWT_SECRET_FILE="/nowhere/secret")

    assert found == [
        "NOTIFIER_JWT_SECRET_FILE: cannot read /nowhere/secret: No such file or directory"
    ]


def test_a_file_that_is_not_text_is_named_with_its_variable(load: Load, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xff")

    [line] = lines(load, NOTIFIER_JWT_SECRET_FILE=str(tmp_path / "secret"))

    assert line.endswith("not text")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NOTIFIER_JWT_SECRET", SHORT),
        ("NOTIFIER_AMQP_URL", f"http://user:{SHORT}@host"),
        ("NOTIFIER_REDIS_URL", f"http://user:{SHORT}@host"),
        ("NOTIFIER_REDIS_URL", f"redis://user:{SHORT}@[::1"),
        ("NOTIFIER_RABBITMQ_MANAGEMENT_URL", f"amqp://user:{SHORT}@host"),
        ("NOTIFIER_REDIS_URL", f"redis://user:{SHORT}@host with space"),
        ("NOTIFIER_API_KEYS", f"billing:{SHORT}"),
    ],
)
def test_an_error_never_shows_a_secret(load: Load, name: str, value: str) -> None:
    [line] = lines(load, **{name: value})

    assert line.startswith(name)
    assert SHORT not in line.replace("notifier:secret", "")


def test_settings_do_not_show_secrets(load: Load) -> None:
    settings = load(**ENOUGH | {"NOTIFIER_AMQP_URL": f"amqp://user:{SHORT}@host"})

    assert SHORT not in repr(settings)
    assert SECRET not in repr(settings)


# Refused: with the variable and a good value.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_PORT", "http"),
        ("GATEWAY_PORT", "65536"),
        ("GATEWAY_PORT", "-1"),
        ("PARTITIONS", "0"),
        ("PARTITIONS", "65"),
        ("AMQP_URL", "localhost:5672"),
        ("AMQP_URL", "amqp://a,http://b"),
        ("REDIS_URL", "amqp://a"),
        ("REDIS_URL", "redis+sentinel://:pw@a:26379,b:port/mymaster"),
        ("JWKS_URL", "ftp://a"),
        ("JWT_DISCOVERY_URL", "issuer.example"),
        ("JWT_USER_CLAIM", ""),
        ("JWT_LEEWAY_SECONDS", "-1"),
        ("JWT_SECRET", "x" * 31),
        ("API_KEYS", "billing"),
        ("API_KEYS", "billing:abc"),
        ("API_KEYS", f"billing:{'a' * 64}:reed"),
        ("API_KEYS", f"billing:{'a' * 64}:post:{{billing}}"),
        ("API_KEYS", f"a:{'a' * 64},a:{'a' * 64}:control"),
        ("ALLOWED_ORIGINS", "app.example"),
        ("ALLOWED_ORIGINS", "https://app.example/"),
        ("ALLOWED_ORIGINS", "https://bücher.example"),
        ("ALLOWED_ORIGINS", "https://app.example/path"),
        ("HISTORY_SIZE", "0"),
        ("HISTORY_SIZE", "10001"),
        ("HEARTBEAT_SECONDS", "0"),
        ("SEND_BUFFER_BYTES", "1000"),
        ("DRAIN_RATE", "0"),
        ("DRAIN_SECONDS", "-1"),
        ("DEDUPLICATION_SECONDS", "0"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "LOUD"),
    ],
)
def test_a_bad_value_is_refused_with_a_good_one(load: Load, name: str, value: str) -> None:
    [line] = lines(load, **{f"NOTIFIER_{name}": value})

    assert line.startswith(f"NOTIFIER_{name}: must ")
    assert f"for example NOTIFIER_{name}=" in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", "redis://host with space:6379"),
        ("REDIS_URL", "redis://:pass word@host:6379"),
        ("REDIS_URL", "redis://host\n:6379"),
        ("REDIS_URL", "redis://host\u00a0:6379"),
        ("REDIS_URL", "redis+sentinel://a:26379, b:26379/mymaster"),
        ("AMQP_URL", "amqp://a/, amqp://b c/"),
        ("AMQP_URL", "amqp://guest:pass\tword@host/"),
        ("JWKS_URL", "https://issuer.example/key set"),
        ("RABBITMQ_MANAGEMENT_URL", "http://rabbit\u200bmq:15672"),
    ],
)
def test_an_address_with_a_space_or_a_control_character_is_refused(
    load: Load, name: str, value: str
) -> None:
    [line] = lines(load, **{f"NOTIFIER_{name}": value})

    assert line.startswith(
        f"NOTIFIER_{name}: must have no spaces or control characters but as %20, %0A …"
    )


@pytest.mark.parametrize("name", ["AMQP_URL", "REDIS_URL", "JWKS_URL"])
def test_white_space_around_an_address_is_no_part_of_it(load: Load, name: str) -> None:
    [example] = Settings.model_fields[name.lower()].examples or []

    settings = load(**{f"NOTIFIER_{name}": f" {example}\r\n"})

    assert getattr(settings, name.lower()) == getattr(
        Settings.model_validate({name.lower(): example}), name.lower()
    )


def test_a_good_value_is_taken(load: Load) -> None:
    for name, field in Settings.model_fields.items():
        example = str((field.examples or [""])[0])
        if "(" not in example:
            load(**{variable(name): example})


def test_several_sentinels_are_one_address(load: Load) -> None:
    url = "redis+sentinel://:a%2Cb@a:26379,[::1]:26379,c/mymaster/0"

    assert load(NOTIFIER_REDIS_URL=url).redis_url.get_secret_value() == url


def test_several_bad_values_are_told_at_once(load: Load) -> None:
    found = lines(load, NOTIFIER_PARTITIONS="0", NOTIFIER_LOG_LEVEL="LOUD")

    assert [line.partition(":")[0] for line in found] == [
        "NOTIFIER_PARTITIONS",
        "NOTIFIER_LOG_LEVEL",
    ]


def test_a_misspelt_variable_is_refused_with_a_suggestion(load: Load) -> None:
    found = lines(load, NOTIFIER_JWT_SECRETS="x")

    assert found == ["NOTIFIER_JWT_SECRETS: is not a setting; did you mean NOTIFIER_JWT_SECRET?"]


def test_an_unknown_variable_is_refused_with_a_way_on(load: Load) -> None:
    [line] = lines(load, NOTIFIER_QWERTZUIOPASDFGHJKLYXCVBNM="x")

    assert line.endswith(": is not a setting; `notifier settings` lists all")


def test_variables_of_others_are_left_alone(load: Load) -> None:
    load(NOTIFY_SOCKET="/run/x", XNOTIFIER_PARTITIONS="x")


# The needs of a role.


def test_the_settings_that_roles_need_are_enough(load: Load) -> None:
    roles: list[Role] = ["gateway", "router", "api", "dev"]

    assert [load(role, **ENOUGH).api_keys for role in roles] == [(KEY,)] * 4


def test_the_router_and_dev_need_nothing(load: Load) -> None:
    assert load("router").partitions == load("dev").partitions == 1


def test_an_api_without_keys_does_not_start(load: Load) -> None:
    [line] = lines(load, "api")

    assert line.startswith("NOTIFIER_API_KEYS: is required")
    assert "for example NOTIFIER_API_KEYS=" in line


def test_an_api_needs_redis_once_a_key_may_do_more_than_post(load: Load) -> None:
    keys = {"NOTIFIER_API_KEYS": f"support:{'a' * 64}:read+control"}

    [line] = lines(load, "api", **keys)

    assert line.startswith("NOTIFIER_REDIS_URL: is required, as the key support has the scope read")
    assert load("api", **keys, NOTIFIER_REDIS_URL="redis://redis:6379/0").api_keys


def test_a_gateway_needs_a_key_an_issuer_and_an_audience(load: Load) -> None:
    found = lines(load, "gateway")

    assert [line.partition(":")[0] for line in found] == [
        "NOTIFIER_JWT_SECRET",
        "NOTIFIER_JWT_ISSUER",
        "NOTIFIER_JWT_AUDIENCE",
    ]


def test_a_discovery_url_tells_the_issuer_too(load: Load) -> None:
    url = "https://a.example/.well-known/openid-configuration"

    settings = load(
        "gateway",
        NOTIFIER_JWT_DISCOVERY_URL=f"{url}, https://b.example/",
        NOTIFIER_JWT_AUDIENCE="*",
    )

    assert settings.jwt_discovery_url == (url, "https://b.example/")


def test_each_line_of_a_secret_is_one(load: Load) -> None:
    settings = load(NOTIFIER_JWT_SECRET=f"{SECRET}\r\n\n{SECRET} 2\n")

    assert settings.jwt_secrets == (SECRET, f"{SECRET} 2")


def test_each_line_of_a_secret_is_long_enough(load: Load) -> None:
    [line] = lines(load, NOTIFIER_JWT_SECRET=f"{SECRET}\nshort")

    assert "must have at least 32 bytes, each of its lines" in line


def test_only_one_source_of_keys_is_taken(load: Load) -> None:
    [line] = lines(load, "gateway", **ENOUGH | {"NOTIFIER_JWKS_URL": "https://issuer.example/jwks"})

    there = "NOTIFIER_JWT_SECRET"
    assert line == f"NOTIFIER_JWKS_URL: cannot stand beside {there}; leave one of them out"


def test_one_source_of_keys_is_required(load: Load) -> None:
    given = {name: value for name, value in ENOUGH.items() if name != "NOTIFIER_JWT_SECRET"}

    [line] = lines(load, "gateway", **given)

    assert line.startswith("NOTIFIER_JWT_SECRET: exactly one is required of NOTIFIER_JWT_SECRET,")


@pytest.mark.parametrize("given", ["NOTIFIER_TLS_CERTIFICATE", "NOTIFIER_TLS_KEY"])
def test_a_certificate_and_its_key_are_required_beside_one_another(load: Load, given: str) -> None:
    [other] = {"NOTIFIER_TLS_CERTIFICATE", "NOTIFIER_TLS_KEY"} - {given}

    [line] = lines(load, "gateway", **ENOUGH, **{given: "-----BEGIN"})

    assert line.startswith(f"{other}: is required beside {given}; for example {other}=-----BEGIN ")


# Kubernetes puts the addresses of Services into the environment of every container.


def link(service: str) -> dict[str, str]:
    prefix = service.upper().replace("-", "_")
    return {
        f"{prefix}_SERVICE_HOST": "10.0.0.1",
        f"{prefix}_SERVICE_PORT": "80",
        f"{prefix}_SERVICE_PORT_HTTP": "80",
        f"{prefix}_PORT": "tcp://10.0.0.1:80",
        f"{prefix}_PORT_80_TCP": "tcp://10.0.0.1:80",
        f"{prefix}_PORT_80_TCP_PROTO": "tcp",
        f"{prefix}_PORT_80_TCP_PORT": "80",
        f"{prefix}_PORT_80_TCP_ADDR": "10.0.0.1",
    }


@pytest.mark.parametrize(
    "service", ["notifier", "notifier-router", "notifier-redis-master", "notifier-rabbitmq"]
)
def test_the_links_of_a_service_are_no_misspelt_settings(load: Load, service: str) -> None:
    assert load(**link(service)).gateway_port == 8000


@pytest.mark.parametrize("service", ["notifier-gateway", "notifier-api", "notifier-private"])
def test_a_link_in_the_place_of_a_port_is_explained(load: Load, service: str) -> None:
    [line] = lines(load, **link(service))

    assert "enableServiceLinks: false" in line


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("PARTITIONS", "x", "must be a whole number"),
        ("PARTITIONS", "1.5", "must be a whole number"),
        ("PARTITIONS", "9" * 5_000, "must be a whole number"),
        ("PARTITIONS", "0", "must be at least 1"),
        ("HISTORY_SIZE", "", "must be a whole number"),
        ("GATEWAY_PORT", "70000", "must be at most 65535"),
        ("HEARTBEAT_SECONDS", "x", "must be a number"),
        ("DRAIN_SECONDS", "inf", "must be a finite number"),
        ("DRAIN_RATE", "1e999", "must be a finite number"),
        ("DRAIN_RATE", "0", "must be more than 0"),
        ("TRACES", "maybe", "must be true or false"),
        ("LOG_FORMAT", "xml", "must be 'console' or 'json'"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_our_words(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(f"NOTIFIER_{name}", value)

    with pytest.raises(SettingsError) as error:
        Settings.load()

    assert error.value.lines[0].startswith(f"NOTIFIER_{name}: {reason}; for example ")
