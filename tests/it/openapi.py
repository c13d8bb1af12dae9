"""Compares a description in OpenAPI 3.1 with what a server answered.

Usage: openapi.py DESCRIPTION < EXCHANGES. An exchange has the method and the target of a request, perhaps its JSON
(`sent`), and the status, headers and body of the answer. Prints as JSON what is wrong (`faults`), the operations and
codes that are described (`described`) and those that were seen (`seen`).
"""

import json
import re
import sys
from urllib.parse import parse_qsl, urlsplit

import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

METHODS = ("get", "put", "post", "delete", "patch", "trace")
# The identifier of the description, which references in it are relative to.
BASE = "urn:description"


class Description:
    def __init__(self, document):
        self.document = document
        resource = DRAFT202012.create_resource(document)
        self.registry = Registry().with_resource(BASE, resource)
        templates = sorted(document["paths"], key=lambda path: path.count("{"))
        self.patterns = [(path, re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)))) for path in templates]

    def at(self, *pointer):
        """The part at this place with its own place, behind references."""
        part = self.document
        for key in pointer:
            part = part[key]
        while "$ref" in part:
            pointer = [key.replace("~1", "/").replace("~0", "~") for key in part["$ref"].split("/")[1:]]
            part = self.document
            for key in pointer:
                part = part[key]
        return part, tuple(pointer)

    def path_of(self, target):
        return next((path for path, pattern in self.patterns if pattern.fullmatch(target)), None)

    def methods(self, path):
        return [method for method in self.document["paths"][path] if method in METHODS]

    def parameters(self, path, method):
        for place in (("paths", path), ("paths", path, method)):
            item, _ = self.at(*place)
            for i in range(len(item.get("parameters", []))):
                parameter, _ = self.at(*place, "parameters", i)
                yield parameter["name"]

    def errors(self, value, pointer):
        """Why a value does not match the schema at this place."""
        place = "/".join(str(key).replace("~", "~0").replace("/", "~1") for key in pointer)
        schema = {"$ref": f"{BASE}#/{place}"}
        formats = Draft202012Validator.FORMAT_CHECKER
        validator = Draft202012Validator(schema, registry=self.registry, format_checker=formats)
        for error in validator.iter_errors(value):
            deepest = min(error.context, key=lambda inner: -len(inner.absolute_path), default=error)
            yield f"{deepest.json_path}: {deepest.message}"


def form_faults(description):
    """What is wrong with the description itself."""
    for error in OpenAPIV31SpecValidator(description.document).iter_errors():
        yield f"not OpenAPI 3.1: {error.json_path}: {error.message}"
    schemas = description.document["components"]["schemas"]
    for name, schema in schemas.items():
        if "properties" in schema:
            if schema.get("additionalProperties") is not False:
                yield f"{name}: takes fields that it does not name"
            if name != "Registration" and not set(schema["required"]) >= set(schema["properties"]) - {"next", "replica"}:
                yield f"{name}: does not require every field"
    text = json.dumps(description.document)
    for kind, parts in description.document["components"].items():
        for name in parts:
            if kind != "securitySchemes" and f'"#/components/{kind}/{name}"' not in text:
                yield f"{kind}/{name}: is not used"


def request_faults(description, path, method, exchange):
    """What a request has that is not described, though it was answered well."""
    named = set(description.parameters(path, method))
    for name, _ in parse_qsl(urlsplit(exchange["target"]).query, keep_blank_values=True):
        if name not in named:
            yield f"takes the parameter {name}"
    if "sent" in exchange:
        place = ("paths", path, method, "requestBody", "content", "application/json", "schema")
        yield from description.errors(exchange["sent"], place)


def answer_faults(description, place, exchange):
    """How an answer is not as it is described at this place."""
    response, place = description.at(*place)
    headers = exchange["headers"]
    for name in response.get("headers", {}):
        header, header_place = description.at(*place, "headers", name)
        value = headers.get(name.lower())
        if value is not None:
            yield from (f"{name}: {error}" for error in description.errors(value, (*header_place, "schema")))
        elif header.get("required"):
            yield f"has no {name}"
    content = response.get("content", {})
    content_type = headers.get("content-type")
    if (content_type is None) == bool(content) or (content and content_type not in content):
        yield f"has the content type {content_type}"
    elif content and exchange["method"] != "HEAD" and "content-encoding" not in headers:
        body = exchange["body"]
        value = json.loads(body) if content_type == "application/json" else body
        yield from description.errors(value, (*place, "content", content_type, "schema"))
    elif not content and exchange["body"]:
        yield "has a body"


def faults(description, exchange, seen):
    """How one exchange is not as it is described."""
    path = description.path_of(urlsplit(exchange["target"]).path)
    if path is None:
        return ["is no path of the description"]
    method = exchange["method"].lower()
    status = str(exchange["status"])
    if method == "options" and status == "204":
        described = {name.upper() for name in description.methods(path)}
        expected = described | {"OPTIONS"} | ({"HEAD"} if "GET" in described else set())
        allowed = set(exchange["headers"]["allow"].split(", "))
        return [] if allowed == expected else [f"allows {allowed}"]
    method = "get" if method == "head" else method
    operation = description.document["paths"][path].get(method)
    if operation is None:
        return ["is no method of the path"]
    if status not in operation["responses"]:
        return ["is not a code of the operation"]
    seen.add(f"{method.upper()} {path} {status}")
    found = list(answer_faults(description, ("paths", path, method, "responses", status), exchange))
    if status.startswith("2"):
        found += request_faults(description, path, method, exchange)
    return found


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        description = Description(yaml.safe_load(file))
    found = list(form_faults(description))
    seen = set()
    for exchange in json.load(sys.stdin):
        request = f"{exchange['method']} {exchange['target']}: {exchange['status']}"
        for fault in faults(description, exchange, seen):
            found.append(f"{request}: {fault}\n{exchange['body'][:2000]}")
    described = [
        f"{method.upper()} {path} {status}"
        for path in description.document["paths"]
        for method in description.methods(path)
        for status in description.document["paths"][path][method]["responses"]
    ]
    json.dump({"faults": found, "described": described, "seen": sorted(seen)}, sys.stdout)


main()
