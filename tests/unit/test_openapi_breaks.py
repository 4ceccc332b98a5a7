"""What the check of the API's document takes for a break, and what not."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools.check_openapi import breaks, unreleased

ROOT = Path(__file__).parents[2]
PUBLISHED: dict[str, Any] = json.loads((ROOT / "docs" / "openapi.json").read_bytes())

DOCUMENT: dict[str, Any] = {
    "paths": {
        "/v1/things": {
            "post": {
                "parameters": [
                    {"name": "limit", "in": "query", "required": False, "schema": {"type": "integer", "maximum": 100}}
                ],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/New"}}},
                },
                "responses": {
                    "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}},
                    "404": {"$ref": "#/components/responses/404"},
                },
            }
        }
    },
    "components": {
        "schemas": {
            "New": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "maxLength": 50},
                    "size": {"anyOf": [{"type": "number"}, {"type": "null"}]},
                    "how": {"enum": ["fast", "slow"], "type": "string"},
                },
                "required": ["name"],
            },
            "Thing": {
                "type": "object",
                "properties": {
                    "id": {"type": "string"},
                    "state": {"enum": ["new", "old"], "type": "string"},
                    "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Thing"}},
                    "either": {"oneOf": [{"$ref": "#/components/schemas/A"}, {"$ref": "#/components/schemas/B"}]},
                },
                "required": ["id", "state"],
            },
            "A": {"type": "object", "properties": {"kind": {"const": "a", "type": "string"}, "x": {"type": "integer"}}},
            "B": {"type": "object", "properties": {"kind": {"const": "b", "type": "string"}}},
        }
    },
}


def changed(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> list[str]:
    """``change`` gets the route and the schemas."""
    new = copy.deepcopy(DOCUMENT)
    change(new["paths"]["/v1/things"]["post"], new["components"]["schemas"])
    return [one.removeprefix("POST /v1/things: ") for one in breaks(DOCUMENT, new)]


Change = Callable[[dict[str, Any], dict[str, Any]], object]

BREAKS: dict[str, Change] = {
    "query limit is gone": lambda r, s: r["parameters"].clear(),
    "query limit is required now": lambda r, s: r["parameters"][0].update(required=True),
    "query by is required now": lambda r, s: r["parameters"].append(
        {"name": "by", "in": "query", "required": True, "schema": {"type": "string"}}
    ),
    "query limit: maximum is 10 now": lambda r, s: r["parameters"][0]["schema"].update(maximum=10),
    "the body is gone": lambda r, s: r.pop("requestBody"),
    "body as application/json is gone": lambda r, s: r["requestBody"]["content"].clear(),
    "the answer 200 is gone": lambda r, s: r["responses"].pop("200"),
    "body.name is gone": lambda r, s: s["New"]["properties"].pop("name"),
    "body.how is required now": lambda r, s: s["New"]["required"].append("how"),
    "body.name: string became integer": lambda r, s: s["New"]["properties"].update(name={"type": "integer"}),
    "body.name: maxLength is 49 now": lambda r, s: s["New"]["properties"]["name"].update(maxLength=49),
    "body.name: has another pattern now": lambda r, s: s["New"]["properties"]["name"].update(pattern="a+"),
    "body.name: only certain values are taken now": lambda r, s: s["New"]["properties"]["name"].update(enum=["x"]),
    "body.size: null is gone": lambda r, s: s["New"]["properties"].update(size={"type": "number"}),
    'body.how: the value "slow" is gone': lambda r, s: s["New"]["properties"]["how"]["enum"].remove("slow"),
    "body: unknown fields are refused now": lambda r, s: s["New"].update(additionalProperties=False),
    "answer.id is gone": lambda r, s: s["Thing"]["properties"].pop("id"),
    "answer.id may be missing now": lambda r, s: s["Thing"]["required"].remove("id"),
    "answer.id: may be null now": lambda r, s: s["Thing"]["properties"].update(
        id={"anyOf": [{"type": "string"}, {"type": "null"}]}
    ),
    'answer.state: the value "old" is gone': lambda r, s: s["Thing"]["properties"]["state"]["enum"].remove("old"),
    "answer.state: may be any value now": lambda r, s: s["Thing"]["properties"]["state"].pop("enum"),
    "answer.parts: array became object": lambda r, s: s["Thing"]["properties"].update(parts={"type": "object"}),
    "answer.parts[]: object became string": lambda r, s: s["Thing"]["properties"]["parts"].update(
        items={"type": "string"}
    ),
    "answer.either: b is gone": lambda r, s: s["Thing"]["properties"]["either"]["oneOf"].pop(),
    "answer.either.x: integer became number": lambda r, s: s["A"]["properties"].update(x={"type": "number"}),
}

HARMLESS: dict[str, Change] = {
    "a new parameter": lambda r, s: r["parameters"].append({"name": "by", "in": "query", "schema": {"type": "string"}}),
    "a higher bound": lambda r, s: r["parameters"][0]["schema"].update(maximum=1000),
    "no bound": lambda r, s: s["New"]["properties"]["name"].pop("maxLength"),
    "a new field to send": lambda r, s: s["New"]["properties"].update(more={"type": "string"}),
    "no longer required": lambda r, s: s["New"]["required"].clear(),
    "any number": lambda r, s: s["A"]["properties"].update(x={"type": "integer", "description": "Counts."}),
    "one more value to send": lambda r, s: s["New"]["properties"]["how"]["enum"].append("later"),
    "one more value to get": lambda r, s: s["Thing"]["properties"]["state"]["enum"].append("ancient"),
    "a new field to get": lambda r, s: s["Thing"]["properties"].update(more={"type": "string"}),
    "null is taken too": lambda r, s: s["New"]["properties"].update(
        name={"anyOf": [{"type": "string", "maxLength": 50}, {"type": "null"}]}
    ),
    "an optional body": lambda r, s: r["requestBody"].update(required=False),
    "another error": lambda r, s: r["responses"].update({"418": {}}),
    "another name for a message": lambda r, s: (
        s.update(Item=s.pop("A")),
        s["Thing"]["properties"]["either"]["oneOf"].__setitem__(0, {"$ref": "#/components/schemas/Item"}),
    ),
}


@pytest.mark.parametrize("told", BREAKS)
def test_a_break_is_told(told: str) -> None:
    assert told in changed(BREAKS[told])


@pytest.mark.parametrize("name", HARMLESS)
def test_what_clients_do_not_notice_is_none(name: str) -> None:
    assert changed(HARMLESS[name]) == []


def test_a_route_that_is_gone_is_a_break_and_a_new_one_is_none() -> None:
    without = DOCUMENT | {"paths": {}}
    assert breaks(DOCUMENT, without) == ["POST /v1/things: the route is gone"]
    assert breaks(without, DOCUMENT) == []


def test_each_field_of_the_published_messages_is_watched_over() -> None:
    """Whatever message of an answer loses a required field, somebody is told."""
    assert breaks(PUBLISHED, PUBLISHED) == []
    for name in ("TaskMessage", "CommandMessage", "TaskListMessage", "NewTaskMessage"):
        for field in PUBLISHED["components"]["schemas"][name]["properties"]:
            new = copy.deepcopy(PUBLISHED)
            del new["components"]["schemas"][name]["properties"][field]
            assert any(f".{field} is gone" in one for one in breaks(PUBLISHED, new)), (name, field)


def test_a_line_of_the_changelog_makes_a_break_a_decision() -> None:
    log = "# Changelog\n## [Unreleased]\n- `GET /v1/x: the route is gone`\n## [1.0.0]\n- old\n"
    assert "GET /v1/x: the route is gone" in unreleased(log)
    assert "old" not in unreleased(log)


def test_the_check_as_make_check_runs_it() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "check_openapi.py"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
