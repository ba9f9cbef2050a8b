"""Values that cannot work are refused, with a sentence that names the value and the way out."""

from typing import Any

import helm_python
import pytest

from tests.support.chart import everything, minimal, refusal, templates

Values = dict[str, Any]
IMAGE: Values = {"image": {"repository": "registry.example/notifier"}}
ISSUER: Values = {"NOTIFIER_JWT_ISSUER": "https://i/", "NOTIFIER_JWT_AUDIENCE": "n"}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"gatway": {}}, "gatway"),
        ({"gateway": {"replica": 3}}, "replica"),
        ({"gateway": {"replicas": "three"}}, "got string, want integer"),
        ({"config": {"NOTIFIER_HISTORY": 1}}, "NOTIFIER_HISTORY"),
        ({"config": {"NOTIFIER_HISTORY_SIZE": 0}}, "minimum"),
        ({"config": {"NOTIFIER_GATEWAY_PORT": 70000}}, "maximum"),
        ({"config": {"NOTIFIER_LOG_LEVEL": "LOUD"}}, "NOTIFIER_LOG_LEVEL"),
        ({"config": {"NOTIFIER_DRAIN_SECONDS": None}}, "NOTIFIER_DRAIN_SECONDS"),
        ({"secrets": {"NOTIFIER_REDIS": {"value": "x"}}}, "NOTIFIER_REDIS"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"pod": {"livenessProbe": {"httpGet": {}}}}, "httpGet"),
    ],
)
def test_a_value_that_the_schema_does_not_know_is_named(values: Values, sentence: str) -> None:
    assert sentence in refusal(minimal(**values))


@pytest.mark.parametrize("release", ["1shop", "shop.notifier", "Shop", "shop-notifier_1"])
def test_a_name_that_no_service_may_have_is_refused(release: str) -> None:
    with pytest.raises(helm_python.HelmError, match="cannot be the name of a Service"):
        templates(minimal(), release=release)


def test_all_secrets_that_nobody_gives_are_named_at_once() -> None:
    assert refusal({**IMAGE, "config": ISSUER}).endswith(
        "NOTIFIER_AMQP_URL, NOTIFIER_API_KEYS, NOTIFIER_JWT_SECRET, NOTIFIER_REDIS_URL required: "
        "name a Secret that has these keys in existingSecret, or say in secrets where each is "
        "(or set config.NOTIFIER_JWKS_URL in place of NOTIFIER_JWT_SECRET)"
    )


@pytest.mark.parametrize("missing", list(ISSUER))
def test_tokens_issued_for_others_are_not_taken(missing: str) -> None:
    values = {
        **IMAGE,
        "existingSecret": "n",
        "config": {k: v for k, v in ISSUER.items() if k != missing},
    }

    assert f"config.{missing} is required" in refusal(values)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"config": {"NOTIFIER_AMQP_URL": "amqp://user:secret@host"}},
            "config.NOTIFIER_AMQP_URL is a secret: put it into a Secret",
        ),
        (
            {"secrets": {"NOTIFIER_AMQP_URL": {"value": "x", "existingSecret": "y"}}},
            "secrets.NOTIFIER_AMQP_URL has a value and an existingSecret: leave one out",
        ),
        (
            {
                "config": {
                    "NOTIFIER_JWKS_URL": "https://i/keys",
                    "NOTIFIER_JWT_PUBLIC_KEY": "-----BEGIN",
                }
            },
            "NOTIFIER_JWKS_URL and NOTIFIER_JWT_PUBLIC_KEY: the gateway takes tokens by one",
        ),
        (
            {
                "config": {"NOTIFIER_JWKS_URL": "https://i/keys"},
                "secrets": {"NOTIFIER_JWT_SECRET": {"value": "x"}},
            },
            "NOTIFIER_JWKS_URL and NOTIFIER_JWT_SECRET: the gateway takes tokens by one",
        ),
        ({"config": {"NOTIFIER_HOST": "127.0.0.1"}}, "config.NOTIFIER_HOST is 127.0.0.1"),
        (
            {"config": {"NOTIFIER_ALLOWED_ORIGINS": ["https://a.example", "app.example"]}},
            "config.NOTIFIER_ALLOWED_ORIGINS has app.example: an origin is scheme, host and port",
        ),
        ({"config": {"NOTIFIER_PRIVATE_PORT": 8000}}, "/metrics would be public"),
        ({"ca": {"existingSecret": "a", "existingConfigMap": "b"}}, "leave one out"),
        (
            {"pod": {"extraEnv": [{"name": "NOTIFIER_DRAIN_SECONDS", "value": "5"}]}},
            "set config.NOTIFIER_DRAIN_SECONDS, which the chart computes with",
        ),
        (
            {
                "pod": {"extraEnv": [{"name": "TZ", "value": "UTC"}]},
                "api": {"pod": {"extraEnv": [{"name": "TZ", "value": "CET"}]}},
            },
            "extraEnv has TZ twice for the api",
        ),
        (
            {
                "router": {
                    "autoscaling": {"enabled": True, "maxReplicas": 2},
                    "keda": {"enabled": True, "maxReplicas": 2},
                }
            },
            "router.autoscaling and router.keda exclude each other",
        ),
        (
            {"router": {"keda": {"enabled": True}}},
            "router.keda.maxReplicas is 4, config.NOTIFIER_PARTITIONS 1: a partition has one",
        ),
        (
            {"api": {"autoscaling": {"enabled": True, "minReplicas": 20}}},
            "api.autoscaling.minReplicas is 20, more than maxReplicas, 10",
        ),
        (
            {"gateway": {"autoscaling": {"enabled": True, "cpu": 0}}},
            "gateway.autoscaling is enabled and scales by nothing: set connections or cpu",
        ),
        (
            {"config": {"NOTIFIER_DRAIN_RATE": 200}},
            "config.NOTIFIER_MAX_CONNECTIONS is 50000, but a stopping gateway moves only 12000",
        ),
        *(
            (
                {"gateway": {"resources": {"limits": {"memory": memory}}}},
                f"gateway.resources.limits.memory is {memory}, but a gateway may need 516Mi",
            )
            for memory in ("515Mi", "540M", "0.5Gi", 100_000_000)
        ),
        (
            {"config": {"NOTIFIER_SEND_BUFFER_TOTAL_BYTES": 2_000_000_000}},
            "gateway.resources.limits.memory is 1Gi, but a gateway may need 4075Mi",
        ),
        ({"image": {"repository": ""}}, "image.repository is required, there is no public image"),
        ({"global": {"imageRegistri": "r"}}, "global.imageRegistri is not a value of this chart"),
        ({"global": {"imageRegistry": 1}}, "got number, want string"),
        (
            {
                "gateway": {"autoscaling": {"enabled": True, "connections": 9000}},
                "config": {"NOTIFIER_MAX_CONNECTIONS": 8000},
            },
            "gateway.autoscaling.connections is 9000, but a gateway refuses more than 8000",
        ),
        ({"ingress": {"enabled": True}}, "ingress.hosts is empty"),
        ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs is empty"),
        ({"networkPolicy": {"enabled": True}}, "networkPolicy.clients is empty: nobody could"),
    ],
)
def test_a_combination_that_cannot_work_is_explained(values: Values, sentence: str) -> None:
    assert sentence in refusal(minimal(**values))


def test_a_monitor_that_no_policy_lets_in_is_explained() -> None:
    values = everything(networkPolicy={"scrapers": []})

    assert "networkPolicy.scrapers is empty: Prometheus could not read" in refusal(values)


def test_keda_without_a_secret_for_rabbitmq_is_explained() -> None:
    extra = [{"name": "NOTIFIER_AMQP_URL", "value": "amqp://r"}]
    values = everything(pod={"extraEnv": extra}, existingSecret="")
    values["secrets"] = {
        name: {"value": "x"} for name in ("NOTIFIER_REDIS_URL", "NOTIFIER_API_KEYS")
    }

    assert "router.keda needs NOTIFIER_AMQP_URL in a Secret" in refusal(values)
