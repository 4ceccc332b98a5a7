"""Compares docs/openapi.json with the document of the last release: what breaks its clients has to be said in CHANGELOG.md.

A break is no longer silent where its line, as printed, stands in the section "Unreleased". A release copies the one document to
the other: ``python tools/check_openapi.py --release``.
"""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CURRENT = ROOT / "docs" / "openapi.json"
RELEASED = ROOT / "docs" / "openapi-released.json"
METHODS = ("get", "put", "post", "delete", "patch")
HIGHEST = ("maxLength", "maxItems", "maximum", "exclusiveMaximum", "x-max-bytes")
LOWEST = ("minLength", "minItems", "minimum", "exclusiveMinimum")

Json = Mapping[str, Any]


def breaks(old: Json, new: Json) -> list[str]:
    """What a client of ``old`` may meet with ``new`` that it was not written for, each once."""
    return list(dict.fromkeys(_of_routes(old, new)))


def _of_routes(old: Json, new: Json) -> Iterator[str]:
    for path, item in old["paths"].items():
        for method in (method for method in METHODS if method in item):
            name = f"{method.upper()} {path}"
            there = new["paths"].get(path, {}).get(method)
            if there is None:
                yield f"{name}: the route is gone"
            else:
                for found in _Comparison(old, new).routes(item[method], there):
                    yield f"{name}: {found}"


class _Comparison:
    def __init__(self, old: Json, new: Json) -> None:
        self._old = old
        self._new = new
        self._seen: set[tuple[str, str, bool]] = set()
        """Pairs of references that are being compared, or were."""

    def routes(self, old: Json, new: Json) -> Iterator[str]:
        yield from self._parameters(old, new)
        yield from self._bodies(old.get("requestBody"), new.get("requestBody"))
        yield from self._answers(old["responses"], new["responses"])

    def _parameters(self, old: Json, new: Json) -> Iterator[str]:
        before, after = ({(p["in"], p["name"]): p for p in one.get("parameters", ())} for one in (old, new))
        for key in before.keys() - after.keys():
            yield f"{key[0]} {key[1]} is gone"
        for key, parameter in after.items():
            place = f"{key[0]} {key[1]}"
            was = before.get(key)
            if parameter.get("required") and not (was and was.get("required")):
                yield f"{place} is required now"
            if was is not None:
                yield from self.schemas(was.get("schema", {}), parameter.get("schema", {}), place, sent=True)

    def _bodies(self, old: Json | None, new: Json | None) -> Iterator[str]:
        if new is not None and new.get("required") and not (old and old.get("required")):
            yield "a body is required now"
        if old is None:
            return
        if new is None:
            yield "the body is gone"
            return
        yield from _tightened(old, new, "body")
        yield from self._contents(old.get("content", {}), new.get("content", {}), "body", sent=True)

    def _answers(self, old: Json, new: Json) -> Iterator[str]:
        for status in (status for status in old if status.startswith(("1", "2"))):
            if status not in new:
                yield f"the answer {status} is gone"
                continue
            yield from self._contents(
                old[status].get("content", {}), new[status].get("content", {}), "answer", sent=False
            )

    def _contents(self, old: Json, new: Json, place: str, *, sent: bool) -> Iterator[str]:
        for kind, content in old.items():
            if kind not in new:
                yield f"{place} as {kind} is gone"
            else:
                yield from self.schemas(content.get("schema", {}), new[kind].get("schema", {}), place, sent=sent)

    def schemas(self, old: Json, new: Json, place: str, *, sent: bool) -> Iterator[str]:
        """``sent``: by clients; else to them."""
        if "$ref" in old or "$ref" in new:
            pair = (json.dumps(old, sort_keys=True), json.dumps(new, sort_keys=True), sent)
            if pair in self._seen:
                return
            self._seen.add(pair)
        old, new = _resolved(self._old, old), _resolved(self._new, new)
        if _variants(old) or _variants(new):
            yield from self._unions(old, new, place, sent=sent)
            return
        yield from _types(old, new, place, sent=sent)
        yield from _of_values(_values(old), _values(new), place, sent=sent)
        if sent:
            yield from _tightened(old, new, place)
        yield from self._properties(old, new, place, sent=sent)
        for name, mark in (("items", "[]"), ("additionalProperties", "{}")):
            if isinstance(old.get(name), dict) and isinstance(new.get(name), dict):
                yield from self.schemas(old[name], new[name], place + mark, sent=sent)
        if sent and old.get("additionalProperties", True) is not False and new.get("additionalProperties") is False:
            yield f"{place}: unknown fields are refused now"

    def _unions(self, old: Json, new: Json, place: str, *, sent: bool) -> Iterator[str]:
        before, after = self._by_key(self._old, old), self._by_key(self._new, new)
        for key in before.keys() - after.keys():
            yield f"{place}: {key} is gone"
        if not sent and "null" in after and "null" not in before:
            yield f"{place}: may be null now"
        for key in before.keys() & after.keys():
            yield from self.schemas(before[key], after[key], place, sent=sent)

    @staticmethod
    def _by_key(document: Json, schema: Json) -> dict[str, Json]:
        """The variants by what tells them apart: the value of their tag, else the name of the message, else the type."""
        found: dict[str, Json] = {}
        for variant in _variants(schema) or [schema]:
            inner = _resolved(document, variant)
            tags = [p["const"] for p in inner.get("properties", {}).values() if "const" in p]
            name = str(variant.get("title") or variant.get("$ref", "").rpartition("/")[2] or inner.get("title", ""))
            key = str(tags[0]) if tags else name if inner.get("type") == "object" else _type_name(inner)
            found[key] = variant
        return found

    def _properties(self, old: Json, new: Json, place: str, *, sent: bool) -> Iterator[str]:
        before, after = old.get("properties", {}), new.get("properties", {})
        needed, needs = set(old.get("required", ())), set(new.get("required", ()))
        for name, schema in before.items():
            if name not in after:
                yield f"{place}.{name} is gone"
            else:
                yield from self.schemas(schema, after[name], f"{place}.{name}", sent=sent)
        for name in sorted(needs - needed if sent else (needed - needs) & after.keys()):
            yield f"{place}.{name} {'is required now' if sent else 'may be missing now'}"


def _resolved(document: Json, schema: Json) -> Json:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _variants(schema: Json) -> list[Json]:
    return schema.get("anyOf") or schema.get("oneOf") or []


def _values(schema: Json) -> list[Any] | None:
    """``None``: any."""
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _type_name(schema: Json) -> str:
    return str(schema.get("type", "anything"))


def _types(old: Json, new: Json, place: str, *, sent: bool) -> Iterator[str]:
    was, is_ = _type_name(old), _type_name(new)
    wider = {("integer", "number"), (was, "anything")} if sent else {("number", "integer"), ("anything", is_)}
    if was != is_ and (was, is_) not in wider:
        yield f"{place}: {was} became {is_}"


def _of_values(old: list[Any] | None, new: list[Any] | None, place: str, *, sent: bool) -> Iterator[str]:
    if new is None:
        if old is not None and not sent:
            yield f"{place}: may be any value now"
    elif old is None:
        if sent:
            yield f"{place}: only certain values are taken now"
    else:
        for value in old:
            if value not in new:
                yield f"{place}: the value {json.dumps(value)} is gone"


def _tightened(old: Json, new: Json, place: str) -> Iterator[str]:
    for name in HIGHEST:
        if name in new and (name not in old or new[name] < old[name]):
            yield f"{place}: {name} is {new[name]} now"
    for name in LOWEST:
        if name in new and (name not in old or new[name] > old[name]):
            yield f"{place}: {name} is {new[name]} now"
    if "pattern" in new and new["pattern"] != old.get("pattern"):
        yield f"{place}: has another pattern now"


def unreleased(changelog: str) -> str:
    return changelog.partition("## [Unreleased]")[2].partition("\n## [")[0]


def main() -> int:
    if "--release" in sys.argv:
        shutil.copyfile(CURRENT, RELEASED)
        return 0
    found = breaks(json.loads(RELEASED.read_bytes()), json.loads(CURRENT.read_bytes()))
    told = unreleased((ROOT / "CHANGELOG.md").read_text())
    silent = [one for one in found if one not in told]
    for one in silent:
        print(f"Breaks clients of the last release: {one}", file=sys.stderr)
    if silent:
        print("Where it must be, put these lines as they are into CHANGELOG.md, below Unreleased.", file=sys.stderr)
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main())
