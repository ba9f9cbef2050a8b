"""checkov looks at chart and image; each of its checks that is left out has a reason."""

import sys
from pathlib import Path

import pytest
import yaml

from tests.support.chart import CHART, read_values, render
from tests.support.images import run

pytestmark = pytest.mark.image

LEFT_OUT = {
    "CKV_K8S_8": "a pod that ends, as that of `helm test`, has no probes",
    "CKV_K8S_9": "the same",
    "CKV_K8S_11": "a CPU limit makes a gateway late for everyone on it; requests share the CPU out",
    "CKV_K8S_15": "a tag that never moves need not be asked for at every start",
    "CKV_K8S_43": "the digest is the user's: image.digest",
    "CKV_DOCKER_2": "Kubernetes probes; an image's HEALTHCHECK would name one role's port",
    "CKV_DOCKER_7": "the base stands in an ARG, which checkov does not read",
}


OF_A_TRIAL = {
    "CKV_K8S_21": "the namespace is the one that kubectl is told",
    "CKV_K8S_22": "whether RabbitMQ's image starts without writing, no cluster has shown here",
    "CKV_K8S_40": "users of RabbitMQ's and Valkey's images have low numbers",
    "CKV2_K8S_6": "a cluster on one's machine mostly knows no network policies",
}


def scan(framework: str, *what: str | Path, is_trial: bool = False) -> str:
    checkov = Path(sys.prefix) / "scan/bin/checkov"
    options = ("--framework", framework, "--skip-download", "--compact", "--quiet")
    left_out = LEFT_OUT | (OF_A_TRIAL if is_trial else {})
    return run(checkov, *options, "--skip-check", ",".join(left_out), *what)


def test_checkov_has_nothing_to_say_of_the_chart(tmp_path: Path) -> None:
    for path in CHART.glob("ci/*.yaml"):
        (tmp_path / path.name).write_text(yaml.safe_dump_all(render(read_values(path))))

    assert "Failed checks: 0" in scan("kubernetes", "--directory", tmp_path)


def test_checkov_has_nothing_to_say_of_the_trial() -> None:
    trial = CHART.parents[1] / "trial"
    files = [part for name in ("memory", "backends") for part in ("--file", trial / f"{name}.yaml")]

    assert "Failed checks: 0" in scan("kubernetes", *files, is_trial=True)


def test_checkov_has_nothing_to_say_of_the_image() -> None:
    dockerfile = CHART.parents[2] / "Dockerfile"

    assert "Failed checks: 0" in scan("dockerfile", "--file", dockerfile)
