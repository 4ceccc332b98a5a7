"""The description of the API as an OpenAPI 3.1 document, made from the routes. Loaded when somebody asks for it."""

import ast
import inspect
import json
import re
from collections.abc import Collection, Iterable, Mapping
from textwrap import dedent
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema
from pydantic_core import core_schema

from shadow.core.errors import ShadowError, type_by_code
from shadow.core.ids import ID_PATTERN
from shadow.http.routes import About, ApiRoute, ApiRoutes, ApiSocket, Raw
from shadow.version import __version__
from shadow.wire.errors import PROBLEM, ErrorMessage, status_by_class, status_of
from shadow.wire.message import Message

Json = dict[str, Any]
Kind = tuple[Any, JsonSchemaMode]
"""A message, and whether it is taken or given."""

PROTOCOL_ERRORS: Mapping[int, str] = {
    400: "No HTTP that can be understood; the connection is closed.",
    401: "No valid token.",
    405: "Not with this method.",
    408: "The request came too slowly and was not done; the connection is closed.",
    429: "Too many requests a second, requests at once or open streams: not done; repeat after `Retry-After` seconds.",
    431: "Headers too large or too many; the connection is closed.",
}
"""What no error class stands for by itself."""
EPOCH = "Shadow-Epoch"
OPERATION_HEADERS = {
    "Shadow-Operation": {
        "description": "An id of the caller's making: a repeat with it does nothing and is answered with the first result.",
        "schema": {"type": "string", "pattern": f"^{ID_PATTERN.pattern}$"},
    },
    EPOCH: {
        "description": "The caller's fencing epoch: one older than the workspace has seen is refused.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    },
}


class _Schemas(GenerateJsonSchema):
    """Without titles, which only repeat names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> Json:
        described = super().model_schema(schema)
        described.pop("title", None)
        for name, text in _field_docs(schema["cls"]).items():
            field = described.get("properties", {}).get(name)
            if field is not None and "$ref" not in field:
                field["description"] = text
        return described

    def enum_schema(self, schema: core_schema.EnumSchema) -> Json:
        described = super().enum_schema(schema)
        described.pop("title", None)
        return described


def describe(
    routes: ApiRoutes,
    *,
    title: str,
    about: str,
    takes_epoch: bool = True,
    never: Collection[type[ShadowError]] = (),
) -> bytes:
    """``takes_epoch``: whether callers say which fencing epoch an operation is of. ``never``: errors that no route gives."""
    kinds = sorted(
        {kind for route in routes for kind in _kinds(route.about)}, key=lambda kind: (kind[0].__name__, kind[1])
    )
    kinds.append((ErrorMessage, "serialization"))
    refs: Mapping[Kind, Json]
    refs, schemas = models_json_schema(kinds, ref_template="#/components/schemas/{model}", schema_generator=_Schemas)
    definitions: Json = schemas.get("$defs", {})
    paths: Json = {}
    for route in routes:
        described = _operation(route, refs, definitions)
        if not takes_epoch:
            described["parameters"] = [one for one in described["parameters"] if one["name"] != EPOCH]
        paths.setdefault(route.path, {})[route.method.lower()] = described
    queries = {query.__name__ for route in routes if (query := route.about.query)}
    components = {
        "schemas": {name: schema for name, schema in sorted(definitions.items()) if name not in queries},
        "responses": _error_responses(refs[ErrorMessage, "serialization"], never),
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    }
    document: Json = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__, "description": about},
        "security": [{"token": []}],
        "paths": dict(sorted(paths.items())),
        "components": components,
    }
    return json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n"


def _kinds(about: About) -> Iterable[Kind]:
    if about.query is not None:
        yield about.query, "validation"
    if isinstance(about.body, type):
        yield about.body, "validation"
    for answer in _answers(about):
        yield answer, "serialization"


def _answers(about: About) -> tuple[type[Message], ...]:
    if isinstance(about.answer, tuple):
        return about.answer
    return (about.answer,) if isinstance(about.answer, type) else ()


def _operation(route: ApiRoute | ApiSocket, refs: Mapping[Kind, Json], definitions: Json) -> Json:
    about = route.about
    noun = _noun(route.path)
    described: Json = {
        "operationId": f"{noun}.{route.name.lower()}",
        "summary": about.summary,
        "tags": [noun],
        "parameters": list(_parameters(route, definitions)),
        "responses": _responses(about, refs),
    }
    if isinstance(route, ApiSocket):
        described["responses"] = {"101": {"description": "A WebSocket."}, **described["responses"]}
        del described["responses"][str(about.status)]
    if about.body is not None:
        described["requestBody"] = _body(about.body, refs)
    return described


def _noun(path: str) -> str:
    """What a route is about: the first word behind the version, or of the workspace that it belongs to."""
    words = [word for word in path.split("/") if word not in ("", "v1")]
    return words[2] if words[:2] == ["workspaces", "{workspace_id}"] else words[0]


def _parameters(route: ApiRoute | ApiSocket, definitions: Json) -> Iterable[Json]:
    for name in re.findall(r"{(\w+)}", route.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    if route.about.query is not None:
        schema = definitions[route.about.query.__name__]
        for name, field in schema["properties"].items():
            rest = {key: value for key, value in field.items() if key != "description"}
            text = {"description": field["description"]} if "description" in field else {}
            required = name in schema.get("required", ())
            yield {"name": name, "in": "query", "required": required, "schema": _given(rest), **text}
    if route.about.operation:
        for name, header in OPERATION_HEADERS.items():
            yield {"name": name, "in": "header", **header}
    for name, text in route.about.headers.items():
        yield {"name": name, "in": "header", "description": text, "schema": {"type": "string"}}


def _given(schema: Json) -> Json:
    """Of a parameter that may be left out but cannot be null."""
    schema = {key: value for key, value in schema.items() if not (key == "default" and value is None)}
    some = [one for one in schema.get("anyOf", []) if one != {"type": "null"}]
    return {**some[0], **{k: v for k, v in schema.items() if k != "anyOf"}} if len(some) == 1 else schema


def _body(body: type[Message] | Raw, refs: Mapping[Kind, Json]) -> Json:
    if isinstance(body, Raw):
        limit, about = body.max_bytes, f"{body.about} "
        content: Json = {kind: {} for kind in body.media_types}
    else:
        limit, about = body.body_limit_bytes, ""
        content = {"application/json": {"schema": refs[body, "validation"]}}
    bound = {"x-max-bytes": limit} if limit is not None else {}
    told = f"At most {limit} bytes." if limit is not None else "Of any size."
    return {
        "required": not isinstance(body, Raw),  # no bytes are bytes too
        "description": f"{about}{told}",
        "content": content,
        **bound,
    }


def _responses(about: About, refs: Mapping[Kind, Json]) -> Json:
    answers = _answers(about)
    answer: Json = {"description": "Done."}
    if isinstance(about.answer, Raw):
        answer = {"description": about.answer.about, "content": {kind: {} for kind in about.answer.media_types}}
        if about.answer.headers:
            answer["headers"] = {
                name: {"description": text, "schema": {"type": "string"}} for name, text in about.answer.headers.items()
            }
    else:
        schemas = [refs[one, "serialization"] for one in answers] or [{"type": "object"}]
        answer["content"] = {"application/json": {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}}
    errors = {str(status): {"$ref": f"#/components/responses/{status}"} for status in _statuses()}
    return {str(about.status): answer, **errors}


def _statuses() -> list[int]:
    return sorted({*PROTOCOL_ERRORS, *status_by_class.values()})


def _error_responses(schema: Json, never: Collection[type[ShadowError]]) -> Json:
    responses: Json = {}
    for status in _statuses():
        kinds = {code: kind for code, kind in type_by_code.items() if kind not in never}
        codes = sorted(code for code, kind in kinds.items() if _comes_from_here(kind, status))
        text = PROTOCOL_ERRORS.get(status) or f"Codes: {', '.join(codes)}."
        response: Json = {"description": text, "content": {PROBLEM.decode(): {"schema": schema}}}
        if status == 429:
            response["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
        responses[str(status)] = response
    return responses


def _comes_from_here(kind: type[ShadowError], status: int) -> bool:
    """Other parts of Shadow have further codes, which no workspace answers with."""
    return kind.__module__ == ShadowError.__module__ and status_of(kind("")) == status


def _field_docs(kind: type[Message]) -> Mapping[str, str]:
    """What the docstrings below fields say: of the message, or else of the value that it carries."""
    docs: dict[str, str] = {}
    for source in (kind.core, *reversed(kind.__mro__)):
        if source is None or not source.__module__.startswith("shadow.") or source is Message:
            continue
        tree = ast.parse(dedent(inspect.getsource(source))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(told))):
                    docs[name] = re.sub(r"\s+", " ", told.replace("``", "`")).strip()
                case _:
                    pass
    return docs
