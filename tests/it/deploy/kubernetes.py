"""Validates Kubernetes objects strictly, against each version that is supported, and prints them as JSON. With --parse,
they are not validated.

The objects are a stream of YAML on standard input. Custom resources are of no version of Kubernetes; what is used of
them is described in custom.json beside this.
"""

import functools
import json
import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml

# Otherwise it reads its schemas, of some 100 KB each, again for each object.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)
kubernetes_validate.utils.all_versions = functools.cache(kubernetes_validate.utils.all_versions)

NEWEST = int(kubernetes_validate.latest_version().split(".")[1])
VERSIONS = [f"1.{minor}" for minor in range(29, NEWEST + 1)]
CUSTOM = json.loads(pathlib.Path(__file__).with_name("custom.json").read_text(encoding="utf-8"))
GROUPS = {"monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1", "cert-manager.io/v1"}


def problems(of):
    """What is wrong with an object, a line for each problem."""
    where = f"{of.get('kind')} {of.get('metadata', {}).get('name')}"
    if of["apiVersion"] in GROUPS:
        validator = jsonschema.Draft202012Validator(CUSTOM)
        for error in validator.iter_errors(of):
            yield f"{where}: {error.json_path}: {error.message}"
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(of, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{where} in {version}: {error}"


objects = [of for of in yaml.load_all(sys.stdin, Loader=yaml.CSafeLoader) if of is not None]
# Streams of many renderings have most objects many times.
distinct = {json.dumps(of): of for of in objects}
found = [problem for of in distinct.values() for problem in problems(of)] if sys.argv[1:] != ["--parse"] else []
if not objects or found:
    sys.exit("\n".join(found) or "there are no objects")
json.dump(objects, sys.stdout)
