"""The API's description for people: one page made from the OpenAPI schema, with nothing to load from elsewhere."""

import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2733;background:#fff}
h2{margin:2.5rem 0 .2rem;border-top:1px solid #d5dde5;padding-top:1rem;font-size:1.1rem}
code,pre{font:13px/1.45 ui-monospace,monospace;background:#f2f5f8;border-radius:4px;padding:.1em .3em}
pre{padding:.7em;overflow:auto} table{border-collapse:collapse;width:100%;margin:.5rem 0}
td,th{text-align:left;vertical-align:top;padding:.25rem .6rem;border-bottom:1px solid #e4eaf0}
.method{font-weight:700;display:inline-block;min-width:4.5rem}
@media(prefers-color-scheme:dark){body{background:#14191f;color:#dbe3ea}code,pre{background:#222a33}
td,th,h2{border-color:#333d48}}
"""


def page(schema: Mapping[str, Any]) -> str:
    """The HTML page of an OpenAPI 3.1 schema as FastAPI makes it."""
    info = schema["info"]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title>",
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style>",
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>{_prose(info.get('description', ''))}",
        "<p>For programs: <a href='/openapi.json'>/openapi.json</a></p>",
    ]
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            parts.extend(_operation(method.upper(), path, operation))
    parts.append("<h1>Objects</h1>")
    for name, model in schema.get("components", {}).get("schemas", {}).items():
        parts.append(f"<h2 id='{escape(name)}'>{escape(name)}</h2>{_prose(model.get('description', ''))}")
        parts.append(_fields(model))
    return "\n".join(parts)


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2><span class=method>{method}</span><code>{escape(path)}</code> {escape(operation['summary'])}</h2>"
    yield _prose(operation.get("description", ""))
    parameters = operation.get("parameters", [])
    if parameters:
        yield "<table><tr><th>Parameter<th>In<th>Type<th>Meaning"
        for item in parameters:
            yield (
                f"<tr><td><code>{escape(item['name'])}</code><td>{escape(item['in'])}<td>{_type(item['schema'])}"
                f"<td>{escape(item.get('description', ''))}"
            )
        yield "</table>"
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body:
        yield f"<p>Body: {_type(body)}</p>"
    yield "<table><tr><th>Answer<th>Body<th>When"
    for status, answer in operation["responses"].items():
        kinds = ", ".join(
            _type(content["schema"]) if content.get("schema", {}).get("$ref") else escape(kind)
            for kind, content in answer.get("content", {}).items()
        )
        yield f"<tr><td>{escape(str(status))}<td>{kinds}<td>{escape(answer.get('description', ''))}"
    yield "</table>"


def _fields(model: Mapping[str, Any]) -> str:
    if "enum" in model:
        return "<p>One of " + ", ".join(f"<code>{escape(str(value))}</code>" for value in model["enum"]) + "</p>"
    required = model.get("required", [])
    rows = [
        f"<tr><td><code>{escape(name)}</code><td>{_type(field)}<td>{'' if name in required else 'optional'}"
        f"<td>{escape(field.get('description', ''))}"
        for name, field in model.get("properties", {}).items()
    ]
    example = "".join(f"<pre>{escape(json.dumps(item))}</pre>" for item in model.get("examples", []))
    return "<table><tr><th>Field<th>Type<th><th>Meaning" + "".join(rows) + "</table>" + example


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f"<a href='#{name}'>{name}</a>"
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    return escape(str(schema.get("format") or schema.get("type") or "any"))


def _prose(text: str) -> str:
    if not text:
        return ""
    return "<p>" + re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text)).replace("\n\n", "</p><p>") + "</p>"
