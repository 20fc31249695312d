"""The providers of an AI call, for measurements: stand-ins with fixed, realistic times, in a process of their own.

    python -m bench.ai_standins     # says their URLs in one line of JSON, and stays until it is ended

Hearing is Deepgram's (the text 150 ms after it is asked for), the model OpenAI's (first token after 200 ms, then 50 a
second), the voice ElevenLabs' (first audio after 120 ms, the rest ten times as fast as it is spoken).
"""

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path += [str(ROOT / "tests/protocol" / folder) for folder in ("", "deepgram", "openai", "elevenlabs")]

import deepgram_server  # noqa: E402 - the stand-ins live with the tests
import elevenlabs_server  # noqa: E402
import standin_voice  # noqa: E402
from deepgram_nova import NovaStream  # noqa: E402
from openai_server import ChatStandin  # noqa: E402
from standin import Exchange, Gone, Socket, Standin  # noqa: E402
from standin_llm import Says  # noqa: E402

STT_FINAL_MS = 150
LLM_FIRST_MS = 200
LLM_TOKEN_MS = 20
TTS_FIRST_MS = 120
TTS_PACE = 0.1
"""Of its length, that audio after the first takes to be made."""

HEARD = "I would like to know when you are open on Sunday, please."
"""Whatever the caller says."""

UTTERANCES = 2000
"""Of one call; those after them would have no text."""

REPLY = "We are open from noon to ten at night on Sunday. Can I help you with anything else today?"

FORGET_S = 5.0
"""Stand-ins keep what they were told, for tests. Here it is forgotten this often: a long run needs the memory."""

KEYS = {
    "DEEPGRAM_API_KEY": deepgram_server.KEY,
    "OPENAI_API_KEY": "sk-stand-in",
    "ELEVENLABS_API_KEY": elevenlabs_server.KEY,
}
VOICE = elevenlabs_server.VOICE


class Ears(deepgram_server.DeepgramServer):
    async def _nova(self, exchange: Exchange, socket: Socket) -> None:
        stream = _LateStream(
            exchange, socket, self.ear(exchange), language="", answers_finalize=True, idle_s=deepgram_server.IDLE_S
        )
        await stream.run()


class _LateStream(NovaStream):
    """Takes its time for a text that it is asked for, and hears on meanwhile."""

    async def _command(self, text: str) -> None:
        if self._is("Finalize", text):
            self._answer = asyncio.create_task(self._finalize(text))
        else:
            await super()._command(text)

    async def _finalize(self, text: str) -> None:
        await asyncio.sleep(STT_FINAL_MS / 1000)
        with contextlib.suppress(Gone):
            await super()._command(text)


class Voices(elevenlabs_server.ElevenLabs):
    async def _speak(
        self,
        socket: Socket,
        name: str,
        text: str,
        wire: "re.Match[str]",
        last: elevenlabs_server.Context | None,
        contexts: dict[str, elevenlabs_server.Context],
        before: list["asyncio.Task[None]"],
    ) -> None:
        if before:
            await asyncio.wait(before)
        wait_s = TTS_FIRST_MS / 1000
        for content in self._chunks(text, wire):
            await asyncio.sleep(wait_s)
            await socket.json({**content, "contextId": name, "isFinal": None})
            wait_s = TTS_PACE * standin_voice.spoken_ms("".join(content["alignment"]["chars"])) / 1000
        if last is not None:
            contexts.pop(name, None)
            await socket.json({"isFinal": True, "audio": None, "contextId": name})


@dataclass(frozen=True, slots=True)
class Providers:
    """Where the stand-ins are."""

    pid: int
    deepgram: str
    openai: str
    elevenlabs: str
    """http://, the model's with its /v1."""


@contextlib.contextmanager
def providers() -> Iterator[Providers]:
    """Run them until the context is left."""
    process = subprocess.Popen([sys.executable, "-m", "bench.ai_standins"], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield Providers(process.pid, **json.loads(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait()


async def _serve() -> None:
    ears, model, voices = Ears([HEARD] * UTTERANCES), ChatStandin(), Voices()
    model.default = Says(REPLY)
    model.pace(first_s=LLM_FIRST_MS / 1000, per_token_s=LLM_TOKEN_MS / 1000)
    async with ears, model, voices:
        told = {"deepgram": ears.http_url, "openai": model.base_url, "elevenlabs": voices.http_url}
        print(json.dumps(told), flush=True)
        while True:
            await asyncio.sleep(FORGET_S)
            for server in (ears, model, voices):
                _forget(server)
            model.asked.clear()
            voices.contexts.clear()


def _forget(server: Standin) -> None:
    server.exchanges.clear()
    for exchange in server.live:
        exchange.received.clear()


if __name__ == "__main__":
    asyncio.run(_serve())
