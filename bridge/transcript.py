"""The live transcript of a call, read from the bridge's HTTP API as the bridge understood it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bridge.api.key import KeyFileError, read_key

FIND_S = 3.0
"""How long a call may take to appear on the record."""


@dataclass(frozen=True, slots=True)
class Transcript:
    api_url: str
    data_dir: Path
    leg_id: str
    """The SIP Call-ID."""


async def follow_transcript(wanted: Transcript, say: Callable[[str], None]) -> None:
    """Tell `say` each turn as it ends, until the call does. Where the bridge's API can't be read (it is on another
    machine, or another user's) one line says so."""
    try:
        key = read_key(wanted.data_dir)
    except KeyFileError as error:
        say(f"(no transcript: {error})")
        return
    headers = {"Authorization": f"Bearer {key}"}
    try:
        async with httpx.AsyncClient(base_url=wanted.api_url, headers=headers, timeout=10) as client:
            call_id = await _find(client, wanted.leg_id)
            if call_id is None:
                say("(no transcript: the bridge at this address does not know the call)")
                return
            async for name, event in _events(client, call_id):
                line = describe(name, event)
                if line:
                    say(line)
    except httpx.HTTPError as error:
        say(f"(no transcript: {wanted.api_url}: {error or type(error).__name__})")


async def _find(client: httpx.AsyncClient, leg_id: str) -> str | None:
    loop = asyncio.get_running_loop()
    until = loop.time() + FIND_S
    while True:
        answer = await client.get("/api/calls", params={"leg_id": leg_id, "limit": 1})
        answer.raise_for_status()
        calls = answer.json()["calls"]
        if calls:
            return str(calls[0]["id"])
        if loop.time() > until:
            return None
        await asyncio.sleep(0.1)


async def _events(client: httpx.AsyncClient, call_id: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The call's server-sent events, from its start to its end."""
    async with client.stream("GET", f"/api/calls/{call_id}/events", timeout=None) as answer:
        answer.raise_for_status()
        name = ""
        async for line in answer.aiter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)


def describe(name: str, event: dict[str, Any]) -> str:
    """One event of the stream as a line for people; empty for those that say nothing to them."""
    data = event.get("data", {})
    match name:
        case "turn_ended" if data["speaker"] == "agent":
            cut = "  [cut off by the caller]" if data["interrupted"] else ""
            return f"agent:  {data['heard_text'] or '(nothing was heard of it)'}{cut}{_delays(data['delays'])}"
        case "turn_ended":
            return f"caller: {data['text']}"
        case "barge_in":
            what = "the caller takes the floor" if data["confirmed"] else "a false alarm, the agent goes on"
            return f"        ({what}: {data['reason']}, decided after {data['pause_ms']:.0f} ms)"
        case "tool_called":
            return f"        (tool {data['name']}: {'done' if data['ok'] else 'failed'})"
        case "form_completed":
            fields = ", ".join(f"{key} {value}" for key, value in data["fields"].items())
            return f"        (form {data['form']}: {fields})"
        case "provider_failed":
            return f"        ({data['role']} {data['provider']} failed: {data['error']})"
        case _:
            return ""


def _delays(delays: dict[str, Any]) -> str:
    names = ("reply", "endpoint", "stt", "llm", "tools", "clause", "tts", "playout")
    parts = [f"{name} {value:.0f}" for name in names if (value := delays.get(f"{name}_ms")) is not None]
    return f"  ({', '.join(parts)} ms)" if parts else ""
