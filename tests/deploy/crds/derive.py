"""Derives JSON schemas from the definitions of other projects' objects; run it to renew them.

It asks Go's module proxy, so it needs `go`. Descriptions and Kubernetes' own rules are left out,
and what is not defined is refused. The projects are under the Apache License 2.0, see NOTICE.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
SOURCES = {
    "github.com/kedacore/keda/v2@v2.21.0": [
        "config/crd/bases/keda.sh_scaledobjects.yaml",
        "config/crd/bases/keda.sh_triggerauthentications.yaml",
    ],
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": [
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ],
    "sigs.k8s.io/gateway-api@v1.6.3": [
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
    ],
}
LEFT_OUT = {"description", "title", "default", "example"}


def main() -> None:
    for module, paths in SOURCES.items():
        command = ["go", "mod", "download", "-json", module]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        for path in paths:
            definition = yaml.safe_load((Path(found["Dir"]) / path).read_text())
            spec = definition["spec"]
            [version] = [each for each in spec["versions"] if each["storage"]]
            schema = closed(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            schema["$comment"] = f"derived from {path} of {module}"
            text = json.dumps(schema, indent=1, sort_keys=True) + "\n"
            (HERE / f"{spec['names']['kind']}.{version['name']}.json").write_text(text)


def closed(schema: Any) -> Any:  # noqa: ANN401  # JSON
    """The schema without what only people and Kubernetes read, refusing what is not defined."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {k: v for k, v in schema.items() if k not in LEFT_OUT and not k.startswith("x-")}
    made = {key: closed(value) for key, value in kept.items() if key != "properties"}
    if isinstance(made.get("pattern"), str):
        made["pattern"] = made["pattern"].replace("^(?i)", "(?i)^")  # from Go's way to Python's
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if "properties" in kept:
        made["properties"] = {name: closed(each) for name, each in kept["properties"].items()}
        made.setdefault("additionalProperties", False)
    return made


if __name__ == "__main__":
    main()
