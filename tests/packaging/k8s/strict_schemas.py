"""Validators that refuse unknown fields: Kubernetes' own kinds and KEDA's. Everything offline."""

import copy
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from referencing import Registry, Resource

from tests.packaging.k8s.manifests import Manifest, title

VERSIONS = ("1.30", "1.33", "1.35")
"""The oldest that KEDA takes, and the ends of what it is tested with."""
SCHEMAS = Path(__file__).parent / "schemas"
KEDA = SCHEMAS / "keda"
_CORE = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"


class NoSchemaError(LookupError):
    """A kind that nobody here can judge; never taken for a valid one."""


def faults(manifest: Manifest, version: str) -> list[str]:
    """What is wrong with it for this version of Kubernetes. Raises NoSchemaError."""
    return list(_faults(json.dumps(manifest), version))


@cache  # most of what is in one overlay is in the others as well
def _faults(text: str, version: str) -> tuple[str, ...]:
    manifest = json.loads(text)
    api_version, kind = manifest["apiVersion"], manifest["kind"]
    if api_version.startswith("keda.sh/"):
        validator = _of_keda(api_version, kind)
    elif kind in _of_others():
        validator = _of_others()[kind]
    else:
        validator = _core(api_version, kind, version)
    return tuple(
        f"{title(manifest)} {'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in validator.iter_errors(manifest)
    )


@cache
def _core(api_version: str, kind: str, version: str) -> jsonschema.Draft202012Validator:
    folder = _CORE / f"v{version}.0-local-strict"
    group, _, rest = api_version.rpartition("/")
    prefix = f"{group.partition('.')[0]}-" if group else ""
    file = folder / f"{kind.lower()}-{prefix}{rest}.json"
    if not file.exists():
        raise NoSchemaError(f"Kubernetes {version} has no {kind} of {api_version}")
    schema = json.loads(file.read_text("utf-8"))
    registry = Resource.from_contents(schema) @ _definitions(folder)
    return jsonschema.Draft202012Validator(schema, registry=registry)


@cache
def _definitions(folder: Path) -> Registry[Any]:
    held = json.loads((folder / "_definitions.json").read_text("utf-8"))
    return Resource.from_contents(held) @ Registry()


@cache
def _of_others() -> dict[str, jsonschema.Draft202012Validator]:
    held = yaml.load((SCHEMAS / "of-others.yaml").read_text("utf-8"), yaml.CSafeLoader)
    return {kind: jsonschema.Draft202012Validator(_whole(kind, **it)) for kind, it in held.items()}


def _whole(kind: str, *, apiVersion: str, spec: Manifest) -> Manifest:  # noqa: N803  as spelled there
    fields = {
        "apiVersion": {"const": apiVersion},
        "kind": {"const": kind},
        "metadata": {"type": "object"},
        "spec": spec,
    }
    return {"properties": fields, "required": list(fields), "additionalProperties": False}


@cache
def _of_keda(api_version: str, kind: str) -> jsonschema.Draft202012Validator:
    group, _, version = api_version.partition("/")
    for file in sorted(KEDA.glob("*.yaml")):
        if not file.stem.startswith(f"{group}_{kind.lower()}"):
            continue
        definition = yaml.load(file.read_text("utf-8"), yaml.CSafeLoader)
        for each in definition["spec"]["versions"]:
            if each["name"] == version and definition["spec"]["names"]["kind"] == kind:
                return jsonschema.Draft202012Validator(closed(each["schema"]["openAPIV3Schema"]))
    raise NoSchemaError(f"there is no schema for {kind} of {api_version}")


def closed(schema: Manifest) -> Manifest:
    """The same schema with unknown fields refused wherever it names the known ones.

    `metadata` of a custom resource is Kubernetes' own, and its definition leaves it open.
    """
    found = copy.deepcopy(schema)
    for each in _schemas(found):
        if each.pop("x-kubernetes-int-or-string", False):
            each.pop("type", None)
            each["type"] = ["integer", "string"]
        open_on_purpose = each.get("x-kubernetes-preserve-unknown-fields", False)
        if "properties" in each and not open_on_purpose:
            each.setdefault("additionalProperties", False)
    return found


def _schemas(schema: Manifest) -> Iterator[Manifest]:
    yield schema
    for each in schema.get("properties", {}).values():
        yield from _schemas(each)
    for key in ("items", "additionalProperties", "not"):
        if isinstance(schema.get(key), dict):
            yield from _schemas(schema[key])
    for key in ("allOf", "anyOf", "oneOf"):
        for each in schema.get(key, []):
            yield from _schemas(each)
