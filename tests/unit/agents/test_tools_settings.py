"""Tools in the configuration: what is taken, and every mistake with its place."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bridge.agents.settings import ConversationSettings
from bridge.agents.tool_settings import HttpTool, McpServerSettings
from bridge.configfile import ConfigError, parse

WHOLE = """
agents:
  desk:
    kind: conversation
    transfer:
      targets:
        sales: {to: "sip:200@pbx.example.com", description: orders}
        queue: {to: "600"}
    builtin_tools:
      send_dtmf: true
      collect_digits: {first_s: 8, terminator: "*", clear: "#"}
    tools:
      - name: find_customer
        description: Find a customer by number
        parameters:
          type: object
          properties:
            customer_id: {type: string, pattern: "^[0-9]+$"}
          required: [customer_id]
        url: "https://crm.example.com/api/customers/{customer_id}?caller={call.from}"
        headers: {Authorization: "Bearer ${env:CRM_TOKEN}"}
        say: I am looking that up.
        result: /customer
        fields: [name]
    mcp:
      - {name: notes, command: notes-server, args: [--quiet], env: {TOKEN: "${file:/run/secrets/notes}"}}
      - {name: wiki, url: "https://wiki.example.com/mcp", headers: {X-Key: "${env:WIKI_KEY}"}, tools: [search]}
"""


def test_tools_are_read_from_the_file() -> None:
    desk = parse(WHOLE, "x.yaml", Path()).agents["desk"]
    assert isinstance(desk, ConversationSettings)
    assert desk.tools[0].method == "GET" and desk.tools[0].stops_for_caller
    assert desk.transfer.targets["queue"].to == "600"
    assert desk.builtin_tools.send_dtmf and desk.builtin_tools.collect_digits.first_s == 8
    assert desk.mcp[1].tools == ("search",)


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("/{customer_id}", "/{customer}", 13, "url names {customer}; there are: customer_id, call.id, call.from"),
        ("https://crm", "ftp://crm", 13, "it must begin with http:// or https://"),
        ("https://crm.example.com", "https://{customer_id}.example.com", 13, "in the path and the query only"),
        ("https://crm.example.com", "https://joe:pass@crm.example.com", 13, "belong into a header"),
        ("example.com/api", "example.com:99999/api", 13, "url: Port out of range"),
        ("Bearer ${env", "Bearer ${vault", 21, "after ${ comes env:NAME} or file:PATH}"),
        ("${env:CRM_TOKEN}", "{customer_id}", 21, "names {customer_id}; there are: call.id"),
        ("{Authorization:", "{Host:", 21, "is set by the bridge itself"),
        ("type: object", "type: objekt", 15, "not a JSON schema"),
        ("name: find_customer", "name: hang_up", 13, "'hang_up' is a built-in tool"),
        ("name: wiki", "name: notes", 25, "mcp: 'notes' stands there twice"),
        ('to: "600"', 'to: "600@@ <x>"', 8, "neither a SIP address"),
        ("queue:", "Queue 1:", 6, "no name of a target"),
        ("name: notes, command: notes-server", "name: notes", 26, "give either command or url"),
        ('clear: "#"', 'clear: "*"', 11, "are the same key"),
        ("say: I", "sai: I", 22, "there is no such setting"),
    ],
)  # fmt: skip
def test_mistake_is_told_with_its_place(old: str, new: str, line: int, said: str) -> None:
    assert WHOLE.count(old) == 1
    with pytest.raises(ConfigError) as caught:
        parse(WHOLE.replace(old, new), "x.yaml", Path())
    (problem,) = caught.value.problems
    assert said in problem
    assert problem.startswith(f"x.yaml:{line}: agents.desk"), problem


FORM = {
    "description": "d",
    "ask": ["x"],
    "slots": [{"id": "a", "type": "text", "ask": "a?"}],
    "confirm": "?",
    "done": "!",
}


def test_form_and_tool_of_one_name_are_refused() -> None:
    def settings(form: str) -> ConversationSettings:
        tool = {"name": "look", "description": "d", "url": "https://h/"}
        return ConversationSettings(tools=[tool], brief={"forms": [{**FORM, "id": form}]})

    settings("take_message")
    with pytest.raises(ValidationError, match="'look' is the name of a form"):
        settings("look")
    with pytest.raises(ValidationError, match="'collect_digits' is the name of a built-in tool"):
        settings("collect_digits")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "https://h/{a"}, "is no name in braces"),
        ({"url": "https://h/${env:1A}"}, "no name of a variable"),
        ({"url": "/relative"}, "must begin with http"),
        ({"url": "https:///x"}, "names no host"),
        ({"url": "https://h/#x"}, "fragment"),
        ({"method": "TRACE"}, "Input should be"),
        ({"body": {"a": "{b}"}, "method": "POST"}, "body names {b}"),
        ({"body": {"a": "1"}}, "a GET has no body"),
        ({"body": {"a": [1]}, "method": "POST", "body_format": "form"}, "one level"),
        ({"query": {"a": "{b}"}}, "query.a names {b}"),
        ({"parameters": {"type": "string"}}, "type must be `object`"),
        ({"parameters": {"type": "object", "properties": {"call.id": {}}}}, "a fact of the call"),
        ({"headers": {"X-A": "a\r\nb"}}, "control character"),
        ({"headers": {"X A": "a"}}, "is no name of a header"),
        ({"name": "two words"}, "no name of a tool"),
    ],
)
def test_request_that_makes_no_sense_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said.replace("{", r"\{").replace("`", "`")):
        HttpTool(**{"name": "look", "description": "d", "url": "https://h/", **settings})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "ws://h/mcp"}, "is not an http"),
        ({"url": "https://h/mcp", "env": {"A": "b"}}, "belong to command"),
        ({"command": "x", "headers": {"A": "b"}}, "headers belong to url"),
        ({"command": "x", "url": "https://h/mcp"}, "either command or url"),
        ({"command": "x", "env": {"A": "${nope}"}}, "comes env:NAME"),
    ],
)
def test_mcp_server_that_makes_no_sense_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        McpServerSettings(name="notes", **settings)
