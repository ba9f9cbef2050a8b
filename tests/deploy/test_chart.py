"""The rules for everything that the chart renders, with any values."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml

from notifier.probes import create_app
from notifier.telemetry.metrics import Metrics
from tests.support.chart import (
    CHART,
    NAMESPACE,
    RELEASE,
    ROLES,
    Object,
    config,
    container,
    deployment,
    everything,
    minimal,
    named,
    of_kind,
    pod,
    pods,
    read_values,
    render,
    role_of,
    templates,
    values_files,
)

VERSIONS = ("1.30", "1.34", "1.37")
CRDS = Path(__file__).parent / "crds"
EACH = pytest.mark.parametrize("path", values_files(), ids=lambda path: path.stem)


@EACH
def test_helm_finds_nothing_to_complain_about(path: Path) -> None:
    report = helm_python.chart.lint(CHART, read_values(path), strict=True, kube_version="v1.30.0")

    assert [each for each in report["messages"] if each["severity"] > 1] == []


@pytest.mark.parametrize("version", VERSIONS)
@EACH
def test_kubernetes_takes_every_object(path: Path, version: str) -> None:
    for item in render(read_values(path)):
        if "." in item["apiVersion"] and not item["apiVersion"].startswith(_KUBERNETES):
            continue  # not of Kubernetes itself: see the next test
        kubernetes_validate.validate(item, version, strict=True)


_KUBERNETES = ("networking.k8s.io/",)


@EACH
def test_the_operators_take_every_object_of_theirs(path: Path) -> None:
    for item in render(read_values(path)):
        version = item["apiVersion"].rpartition("/")[2]
        if "." in item["apiVersion"] and not item["apiVersion"].startswith(_KUBERNETES):
            schema = json.loads((CRDS / f"{item['kind']}.{version}.json").read_text())
            jsonschema.validate(item, schema)


def test_with_everything_on_every_template_makes_an_object() -> None:
    assert {path for path, text in templates(everything()).items() if not text.strip()} == set()


def test_templates_are_the_same_for_every_version_of_kubernetes() -> None:
    texts = (path.read_text() for path in CHART.rglob("templates/**/*") if path.is_file())

    assert not any(".Capabilities" in text for text in texts)


@EACH
def test_no_two_objects_have_one_name(path: Path) -> None:
    names = [(item["kind"], item["metadata"]["name"]) for item in render(read_values(path))]

    assert sorted(set(names)) == sorted(names)


LONG = "payments-notifier-of-the-european-region-in-"


@pytest.mark.parametrize("values", [{}, {"nameOverride": LONG + "name"}], ids=["", "named"])
def test_two_releases_with_long_names_share_no_object(values: dict[str, object]) -> None:
    one, two = (
        {
            (item["kind"], item["metadata"]["name"])
            for item in render(everything(**values), release=LONG + end)
        }
        for end in ("one", "two")
    )

    assert not one & two
    assert max(len(name) for _, name in one | two) <= 63


def test_two_long_names_of_the_users_own_stay_two() -> None:
    names = [
        deployment(render(minimal(fullnameOverride=LONG + end)), "api")["metadata"]["name"]
        for end in ("one", "two")
    ]

    assert names[0] != names[1]


@pytest.mark.parametrize("names", [["registry"], [{"name": "registry"}]])
def test_a_parent_s_registry_and_its_credentials_hold_for_every_pod(names: list[object]) -> None:
    values = everything(
        **{"global": {"imageRegistry": "mirror.example/", "imagePullSecrets": names}},
        image={"repository": "team/notifier", "digest": "", "tag": "1"},
        imagePullSecrets=[{"name": "own"}],
    )
    for each in pods(render(values)):
        [own] = [part for part in each["spec"]["containers"] if part["name"] in OWN]
        assert own["image"] == "mirror.example/team/notifier:1"
        assert each["spec"]["imagePullSecrets"] == [{"name": "registry"}, {"name": "own"}]


@EACH
def test_every_object_is_in_the_namespace_and_says_whose_it_is(path: Path) -> None:
    for item in render(read_values(path)):
        assert item["metadata"]["namespace"] == NAMESPACE
        assert item["metadata"]["labels"].keys() >= {
            "app.kubernetes.io/name",
            "app.kubernetes.io/instance",
            "app.kubernetes.io/managed-by",
            "helm.sh/chart",
        }


def selectors(objects: list[Object]) -> Iterator[tuple[Object, dict[str, str]]]:
    for item in objects:
        spec = item.get("spec", {})
        match item["kind"]:
            case "Deployment" | "PodDisruptionBudget":
                yield item, spec["selector"]["matchLabels"]
            case "Service":
                yield item, spec["selector"]
            case "NetworkPolicy":
                yield item, spec["podSelector"]["matchLabels"]
            case _:
                pass


@EACH
def test_selectors_match_the_pods_of_their_role_and_no_others(path: Path) -> None:
    objects = render(read_values(path))
    for item, selector in selectors(objects):
        matched = {
            role_of(each)
            for each in pods(objects)
            if selector.items() <= each["metadata"]["labels"].items()
        }

        assert matched == {role_of(item)}


@EACH
def test_spread_constraints_count_the_pods_of_their_role(path: Path) -> None:
    objects = render(read_values(path))
    for role in ROLES:
        selector = deployment(objects, role)["spec"]["selector"]
        for constraint in pod(objects, role)["topologySpreadConstraints"]:
            assert constraint["labelSelector"] == selector


@EACH
def test_ports_that_are_named_exist(path: Path) -> None:
    objects = render(read_values(path))
    for service in of_kind(objects, "Service"):
        ports = {port["name"] for port in container(objects, role_of(service) or "")["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for role in ROLES:
        ports = {port["name"] for port in container(objects, role)["ports"]}
        probes = [container(objects, role)[f"{each}Probe"] for each in PROBES]
        assert {probe["httpGet"]["port"] for probe in probes} <= ports


PROBES = ("startup", "liveness", "readiness")


@EACH
def test_ports_are_those_that_the_settings_say(path: Path) -> None:
    objects = render(read_values(path))
    for role, public in (("gateway", "GATEWAY"), ("api", "API"), ("router", None)):
        settings = config(objects, role)
        ports = {p["name"]: str(p["containerPort"]) for p in container(objects, role)["ports"]}
        wanted = {"private": settings["NOTIFIER_PRIVATE_PORT"]}
        assert ports == wanted | ({"http": settings[f"NOTIFIER_{public}_PORT"]} if public else {})


@EACH
def test_probes_ask_routes_that_there_are(path: Path) -> None:
    routes = {getattr(each, "path", "") for each in create_app(Metrics(), dict).routes}
    objects = render(read_values(path))
    for role in ROLES:
        probes = [container(objects, role)[f"{each}Probe"]["httpGet"] for each in PROBES]
        assert [each["path"] for each in probes] == ["/livez", "/livez", "/readyz"]
        assert {each["path"] for each in probes} <= routes


@EACH
def test_nothing_leads_to_the_private_port_from_outside(path: Path) -> None:
    objects = render(read_values(path))
    private = config(objects, "gateway")["NOTIFIER_PRIVATE_PORT"]
    for service in of_kind(objects, "Service"):
        assert private not in {str(each["targetPort"]) for each in service["spec"]["ports"]}
        assert "private" not in {each["targetPort"] for each in service["spec"]["ports"]}
    for entrance in (*of_kind(objects, "Ingress"), *of_kind(objects, "HTTPRoute")):
        assert role_of(entrance) == "gateway"
        assert "-api" not in json.dumps(entrance["spec"])


@EACH
def test_the_api_is_reached_from_inside_the_cluster_only(path: Path) -> None:
    [service] = [
        each for each in of_kind(render(read_values(path)), "Service") if role_of(each) == "api"
    ]

    assert service["spec"]["type"] == "ClusterIP"


@EACH
def test_the_router_has_no_service(path: Path) -> None:
    services = of_kind(render(read_values(path)), "Service")

    assert sorted(str(role_of(each)) for each in services) == ["api", "gateway"]


@EACH
def test_every_pod_is_restricted(path: Path) -> None:
    for each in pods(render(read_values(path))):
        spec = each["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        for part in (*spec["containers"], *spec.get("initContainers", ())):
            assert part["securityContext"]["allowPrivilegeEscalation"] is False
            assert part["securityContext"]["capabilities"]["drop"] == ["ALL"]
            assert not part["securityContext"].get("privileged")
            assert "hostPort" not in json.dumps(part.get("ports", []))


@EACH
def test_notifier_cannot_write_to_its_file_system(path: Path) -> None:
    for each in pods(render(read_values(path))):
        [own] = [part for part in each["spec"]["containers"] if part["name"] in OWN]
        assert own["securityContext"]["readOnlyRootFilesystem"] is True


OWN = ("notifier", "delivery")


@EACH
def test_links_to_services_are_off(path: Path) -> None:
    assert all(
        each["spec"]["enableServiceLinks"] is False for each in pods(render(read_values(path)))
    )


@EACH
def test_no_variable_is_given_twice(path: Path) -> None:
    for each in pods(render(read_values(path))):
        for part in each["spec"]["containers"]:
            names = [variable["name"] for variable in part.get("env", ())]
            assert sorted(set(names)) == sorted(names)


@EACH
def test_each_mounted_volume_is_there(path: Path) -> None:
    for each in pods(render(read_values(path))):
        volumes = {volume["name"] for volume in each["spec"].get("volumes", ())}
        for part in each["spec"]["containers"]:
            mounts = {mount["name"] for mount in part.get("volumeMounts", ())}
            assert mounts <= volumes
            own = [v["value"] for v in part.get("env", ()) if v["name"].endswith("_FILE")]
            files = {f"/run/secrets/notifier/{item}" for item in secret_files(each)}
            assert {file for file in own if "secrets" in file} <= files


def secret_files(each: Object) -> Iterator[str]:
    for volume in each["spec"].get("volumes", ()):
        for source in volume.get("projected", {}).get("sources", ()):
            yield from (item["path"] for item in source["secret"]["items"])


@EACH
def test_objects_that_are_named_are_made_by_the_chart_or_by_the_user(path: Path) -> None:
    objects = render(read_values(path))
    made = {(item["kind"], item["metadata"]["name"]) for item in objects}
    given = json.dumps(read_values(path))
    for each in pods(objects):
        for kind, name in references(each["spec"]):
            assert (kind, name) in made or f'"{name}"' in given


def references(spec: Object) -> Iterator[tuple[str, str]]:
    for volume in spec.get("volumes", ()):
        for source in volume.get("projected", {}).get("sources", ()):
            yield "Secret", source["secret"]["name"]
    for part in spec["containers"]:
        for source in part.get("envFrom", ()):
            yield "ConfigMap", source["configMapRef"]["name"]
        for variable in part.get("env", ()):
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                yield "Secret", reference["name"]


# Updates and the end of a pod.


@EACH
def test_no_pod_is_missing_during_an_update(path: Path) -> None:
    for each in of_kind(render(read_values(path)), "Deployment"):
        spec = each["spec"]
        assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        assert spec["progressDeadlineSeconds"] > spec["minReadySeconds"]


# Seconds that each role takes to end, beyond preStop and drain: see wiring/ and serving.py.
SECONDS_TO_END = {"gateway": 5 + 5, "router": 10, "api": 12}


@EACH
def test_a_pod_has_time_for_pre_stop_drain_and_its_end(path: Path) -> None:
    objects = render(read_values(path))
    drain = float(config(objects, "gateway")["NOTIFIER_DRAIN_SECONDS"])
    for role in ROLES:
        hook = container(objects, role).get("lifecycle", {}).get("preStop", {})
        pre_stop = hook.get("sleep", {}).get("seconds", 0)
        needed = pre_stop + SECONDS_TO_END[role] + (drain if role == "gateway" else 0)
        assert pod(objects, role)["terminationGracePeriodSeconds"] > needed


def test_the_arithmetic_counts_with_the_time_that_roles_take_to_shut_down() -> None:
    from notifier import wiring  # noqa: PLC0415
    from notifier.gateway import outgoing  # noqa: PLC0415
    from notifier.wiring import parts  # noqa: PLC0415

    assert (parts._ROUTER_GRACE, wiring._API_GRACE) == (10, 12)  # noqa: SLF001
    assert outgoing._CLOSE_TIMEOUT == 5  # noqa: SLF001


def test_the_grace_period_follows_the_drain() -> None:
    grace = [
        pod(render(minimal(config={"NOTIFIER_DRAIN_SECONDS": seconds})), "gateway")[
            "terminationGracePeriodSeconds"
        ]
        for seconds in (60, 0, 600, 90.5)
    ]

    assert grace == [85, 25, 625, 116]


# Checksums: a change of what a pod reads at start replaces the pod.


def checksums(role: str, **values: object) -> dict[str, str]:
    template = deployment(render(minimal(**values)), role)["spec"]["template"]
    found = template["metadata"]["annotations"]
    return {name: value for name, value in found.items() if name.startswith("checksum/")}


@pytest.mark.parametrize("role", ROLES)
def test_another_setting_replaces_the_pods(role: str) -> None:
    before = checksums(role)

    assert before == checksums(role)
    assert before != checksums(role, config={"NOTIFIER_LOG_LEVEL": "DEBUG"})


@pytest.mark.parametrize(
    ("setting", "roles"),
    [
        ({"NOTIFIER_API_PORT": 8011}, ["api"]),
        ({"NOTIFIER_PARTITIONS": 2}, ["router", "api"]),
        ({"NOTIFIER_TRUSTED_PROXIES": "10.0.0.0/8"}, ["gateway", "api"]),
        ({"NOTIFIER_ALLOWED_ORIGINS": "https://app.example"}, ["gateway"]),
    ],
)
def test_a_setting_of_one_role_does_not_replace_the_pods_of_another(
    setting: dict[str, object], roles: list[str]
) -> None:
    changed = [role for role in ROLES if checksums(role) != checksums(role, config=setting)]

    assert changed == roles


def test_another_secret_replaces_the_pods_that_read_it_and_no_others() -> None:
    secret = {"NOTIFIER_API_KEYS": {"value": "billing:" + "0" * 64}}

    changed = [role for role in ROLES if checksums(role) != checksums(role, secrets=secret)]

    assert changed == ["api"]


# Scaling.


@EACH
def test_only_one_sets_the_number_of_pods(path: Path) -> None:
    objects = render(read_values(path))
    for role in ROLES:
        scalers = [
            item
            for item in (
                *of_kind(objects, "HorizontalPodAutoscaler"),
                *of_kind(objects, "ScaledObject"),
            )
            if role_of(item) == role
        ]
        fixed = "replicas" in deployment(objects, role)["spec"]
        assert len(scalers) + fixed == 1
        for scaler in scalers:
            target = scaler["spec"]["scaleTargetRef"]["name"]
            assert target == deployment(objects, role)["metadata"]["name"]


def test_a_gateway_scales_by_a_metric_that_there_is() -> None:
    [scaler] = [
        item
        for item in of_kind(render(everything()), "HorizontalPodAutoscaler")
        if role_of(item) == "gateway"
    ]
    metric = scaler["spec"]["metrics"][0]["pods"]

    assert metric["metric"]["name"] in {each.name for each in Metrics().registry.collect()}
    assert metric["target"]["averageValue"] == "10000"


def test_a_gateway_scales_down_one_pod_at_a_time_and_not_faster_than_it_drains() -> None:
    objects = render(everything())
    [scaler] = [
        item for item in of_kind(objects, "HorizontalPodAutoscaler") if role_of(item) == "gateway"
    ]
    [policy] = scaler["spec"]["behavior"]["scaleDown"]["policies"]

    assert (policy["type"], policy["value"]) == ("Pods", 1)
    assert policy["periodSeconds"] > pod(objects, "gateway")["terminationGracePeriodSeconds"]


def test_keda_looks_at_each_partition() -> None:
    [scaled] = of_kind(render(everything()), "ScaledObject")

    queues = [trigger["metadata"]["queueName"] for trigger in scaled["spec"]["triggers"]]

    assert queues == [f"notifier.events.{number}" for number in range(8)]


def test_keda_gets_the_address_of_rabbitmq_from_the_secret_that_the_router_reads() -> None:
    [authentication] = of_kind(render(everything()), "TriggerAuthentication")

    assert authentication["spec"]["secretTargetRef"] == [
        {"parameter": "host", "name": "rabbitmq-default-user", "key": "connection_string"}
    ]


def test_keda_takes_an_authentication_of_the_users_own() -> None:
    objects = render(everything(router={"keda": {"authenticationRef": "mine"}}))

    [scaled] = of_kind(objects, "ScaledObject")

    assert of_kind(objects, "TriggerAuthentication") == []
    assert scaled["spec"]["triggers"][0]["authenticationRef"] == {"name": "mine"}


# Networks.


def ports_let_in(objects: list[Object], role: str) -> dict[str, set[int]]:
    [policy] = [item for item in of_kind(objects, "NetworkPolicy") if role_of(item) == role]
    found: dict[str, set[int]] = {}
    for rule in policy["spec"]["ingress"]:
        for peer in rule["from"]:
            ports = {port["port"] for port in rule["ports"]}
            found[json.dumps(peer, sort_keys=True)] = ports
    return found


def peer(name: str) -> str:
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
    return json.dumps(selector)


def test_policies_let_in_only_the_traffic_that_belongs() -> None:
    objects = render(everything())
    gateway, router, api = (ports_let_in(objects, role) for role in ROLES)

    assert (gateway[peer("gateways")], gateway[peer("monitoring")]) == ({8000}, {9000})
    assert (api[peer("shop")], api[peer("monitoring")]) == ({8001}, {9000})
    assert router == {peer("monitoring"): {9000}}
    assert [len(each) for each in (gateway, api)] == [3, 3]  # the third is the test


def ports_let_out(objects: list[Object], role: str) -> set[int]:
    [policy] = [item for item in of_kind(objects, "NetworkPolicy") if role_of(item) == role]
    return {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}


def test_policies_let_each_role_out_to_the_backends_it_needs() -> None:
    objects = render(everything())

    assert ports_let_out(objects, "gateway") == {53, 6379, 443, 4317}
    assert ports_let_out(objects, "router") == {53, 6379, 5671, 15672, 4317}
    assert ports_let_out(objects, "api") == {53, 5671, 15672, 4317}
    assert ports_let_out(objects, "test") == {53, 8000, 8001}


def test_dns_is_asked_on_the_ports_of_its_pods() -> None:
    objects = render(everything(networkPolicy={"dns": {"ports": [53, 5353]}}))

    assert all({53, 5353} <= ports_let_out(objects, role) for role in (*ROLES, "test"))


def test_an_issuer_in_a_variable_of_the_users_is_let_out_to_as_well() -> None:
    extra = [{"name": "NOTIFIER_JWKS_URL", "value": "https://issuer.example/keys"}]
    values = everything(gateway={"pod": {"extraEnv": extra}})
    del values["config"]["NOTIFIER_JWKS_URL"]

    assert 443 in ports_let_out(render(values), "gateway")


def test_an_api_that_is_given_redis_is_let_out_to_it() -> None:
    extra = [{"name": "NOTIFIER_REDIS_URL", "value": "redis://redis:6379/0"}]
    values = everything(api={"pod": {"extraEnv": extra}})

    assert 6379 in ports_let_out(render(values), "api")


def test_a_route_sets_no_time_limit_that_a_gateway_could_refuse() -> None:
    [route] = of_kind(render(everything()), "HTTPRoute")

    assert all("timeouts" not in rule for rule in route["spec"]["rules"])


def test_without_scrapers_nobody_reaches_the_private_port() -> None:
    objects = render(read_values(CHART / "ci/own-secret-values.yaml"))

    assert [sorted(ports_let_in(objects, role).values()) for role in ROLES] == [
        [{8443}, {8443}],
        [],
        [{8001}, {8001}],
    ]


# Monitoring.


SAMPLE_RULES = """# A comment, as people write
groups:
  - name: sample
    rules:
      - alert: Sample
        expr: up == 0
        annotations:
          summary: "{{ $labels.pod }} is away"
          runbook_url: docs/runbooks/Sample.md
"""
SAMPLE_DASHBOARD = '{"uid": "sample", "title": "{{ pod }}", "text": "a\\nb"}'


def test_rules_and_dashboards_are_shipped_as_they_are(tmp_path: Path) -> None:
    chart = shutil.copytree(CHART, tmp_path / "notifier")
    (chart / "rules").mkdir(exist_ok=True)
    (chart / "rules/sample.yaml").write_text(SAMPLE_RULES)
    (chart / "dashboards").mkdir(exist_ok=True)
    (chart / "dashboards/sample.json").write_text(SAMPLE_DASHBOARD)
    files = sorted(chart.glob("rules/*.yaml")), sorted(chart.glob("dashboards/*.json"))

    objects = render(everything(), chart)

    rules = [item["spec"] for item in of_kind(objects, "PrometheusRule")]
    shown = [
        json.loads(text)
        for item in of_kind(objects, "ConfigMap")
        if _is_dashboard(item)
        for text in item["data"].values()
    ]
    plain = [json.loads(each.read_text()) for each in files[1]]
    of_each = ("uid", "title")
    assert rules == [yaml.safe_load(each.read_text()) for each in files[0]]
    assert [_without(each, *of_each) for each in shown] == [_without(e, *of_each) for e in plain]


def _without(item: Object, *names: str) -> Object:
    return {name: value for name, value in item.items() if name not in names}


def test_the_dashboards_of_two_releases_are_there_side_by_side() -> None:
    found: dict[str, list[str]] = {"file": [], "uid": [], "title": []}
    for release in ("one", "two"):
        for item in of_kind(render(everything(), release=release), "ConfigMap"):
            for file, text in item["data"].items() if _is_dashboard(item) else ():
                found["file"].append(file)
                found["uid"].append(json.loads(text)["uid"])
                found["title"].append(json.loads(text)["title"])

    assert [len({*each}) for each in found.values()] == [8, 8, 8]
    assert max(map(len, found["uid"])) <= 40  # Grafana takes no more


def test_runbooks_get_an_address(tmp_path: Path) -> None:
    chart = shutil.copytree(CHART, tmp_path / "notifier")
    (chart / "rules").mkdir(exist_ok=True)
    (chart / "rules/sample.yaml").write_text(SAMPLE_RULES)
    prefix = "https://git.example/notifier/blob/main/"

    objects = render(everything(prometheusRule={"runbookPrefix": prefix}), chart)

    sample = named(objects, "PrometheusRule", "push-notifier-sample")
    [rule] = sample["spec"]["groups"][0]["rules"]
    assert rule["annotations"]["runbook_url"] == f"{prefix}docs/runbooks/Sample.md"


def _is_dashboard(item: Object) -> bool:
    return bool(item["metadata"]["labels"].get("grafana_dashboard"))


def test_objects_stay_below_the_bound_of_kubernetes() -> None:
    assert max(len(json.dumps(item)) for item in render(everything())) < 1_000_000


def test_the_monitor_reads_all_roles_on_the_private_port() -> None:
    [monitor] = of_kind(render(everything()), "PodMonitor")
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]

    assert (endpoint["port"], endpoint["path"]) == ("private", "/metrics")
    assert monitor["spec"]["selector"]["matchExpressions"] == [
        {"key": "app.kubernetes.io/component", "operator": "In", "values": list(ROLES)}
    ]


def test_the_monitor_labels_each_process_with_its_release_as_the_alerts_expect() -> None:
    objects = render(everything())
    [monitor] = of_kind(objects, "PodMonitor")
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    [relabeling] = endpoint["relabelings"]
    source = "__meta_kubernetes_pod_label_app_kubernetes_io_instance"

    assert relabeling == {"sourceLabels": [source], "targetLabel": "release"}
    for role in ROLES:
        labels = deployment(objects, role)["spec"]["template"]["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == RELEASE


# Additions of people.


def test_additions_to_all_pods_and_to_one_role_are_put_together() -> None:
    objects = render(everything())
    gateway, router = (deployment(objects, role)["spec"]["template"] for role in ROLES[:2])
    names = [[each["name"] for each in container(objects, role)["env"]] for role in ROLES[:2]]

    assert gateway["metadata"]["labels"].items() >= {"tier": "realtime", "edge": "true"}.items()
    assert "edge" not in router["metadata"]["labels"]
    assert [part["name"] for part in gateway["spec"]["containers"]] == ["notifier", "beside"]
    assert {"TZ", "PYTHONFAULTHANDLER"} <= set(names[0])
    assert "PYTHONFAULTHANDLER" not in names[1]


def test_common_labels_do_not_change_selectors() -> None:
    def plain(objects: list[Object]) -> list[dict[str, str]]:
        return [selector for _, selector in selectors(objects)]

    assert plain(render(minimal())) == plain(render(minimal(commonLabels={"team": "push"})))


def test_notes_tell_the_first_commands_with_the_names_of_this_release() -> None:
    notes = templates(minimal())["notifier/templates/NOTES.txt"]

    commands = re.findall(r"^ +kubectl -n prod (\w[\w-]*)", notes, flags=re.MULTILINE)

    assert commands == ["wait", "exec", "port-forward"]
    for name in re.findall(r"(?:deployment|service)/([\w-]+)", notes):
        kind = "Deployment" if f"deployment/{name}" in notes else "Service"
        named(render(minimal()), kind, name)
