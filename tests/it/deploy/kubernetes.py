"""Validates Kubernetes objects strictly, against each version that is supported, and prints them as JSON.

The objects are a stream of YAML on standard input. Those of the Prometheus Operator are of no version
of Kubernetes; what is used of them is described in monitoring.json beside this.
"""

import json
import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml

VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
MONITORING = json.loads(pathlib.Path(__file__).with_name("monitoring.json").read_text(encoding="utf-8"))


def problems(of):
    """What is wrong with an object, a line for each problem."""
    where = f"{of.get('kind')} {of.get('metadata', {}).get('name')}"
    if of["apiVersion"] == "monitoring.coreos.com/v1":
        validator = jsonschema.Draft202012Validator(MONITORING)
        for error in validator.iter_errors(of):
            yield f"{where}: {error.json_path}: {error.message}"
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(of, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{where} in {version}: {error}"


objects = [of for of in yaml.safe_load_all(sys.stdin) if of is not None]
found = [problem for of in objects for problem in problems(of)]
if not objects or found:
    sys.exit("\n".join(found) or "there are no objects")
json.dump(objects, sys.stdout)
