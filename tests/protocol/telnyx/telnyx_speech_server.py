"""A stand-in for Telnyx's speech sockets, transcription and voices (`protocols/telnyx.md` 5, the SDK's types).

Transcription hears by a script, the n-th utterance being its n-th text; voices speak a tone for each sentence
(`standin_voice`)."""

import asyncio
import base64
import json
import re
from typing import Any

import standin_voice
from standin import Exchange, Reply, Socket, Standin, until_gone
from standin_ear import ScriptedEar

ENGINES = ("Deepgram", "Telnyx", "Google", "Azure", "xAI", "Speechmatics", "Soniox")
FORMATS = {"linear16": ENGINES, "mulaw": ("Deepgram", "Google")}
CHUNK_CHARS = 4
"""Characters whose audio is sent at a time."""

_SENTENCE = re.compile(r"[^.!?]*[.!?]+\s*|[^.!?]+$")


class TelnyxSpeech(Standin):
    """`key`: the only one it takes; empty: any."""

    def __init__(self, script: list[str] | None = None, *, key: str = "") -> None:
        super().__init__()
        self.script = script if script is not None else []
        self.key = key
        self.answers_finalize = True
        """A Finalize with nothing new behind it is answered by an empty final transcript."""
        self.swallow_finalize = 0
        """So many are not answered at all."""
        self.final_per_sentence = False
        """Each sentence of a text ends with a final frame; else the text does."""
        self.tells_text = True
        """Frames say which text they are of."""
        self.slow_s = 0.0
        """Between pieces of speech."""
        self.mp3 = False
        """The voice gives nothing else, whatever it is asked for."""
        self.spoken: list[str] = []
        """Texts that were asked for."""
        self.socket("/v2/speech-to-text/transcription", self._hear)
        self.socket("/v2/text-to-speech/speech", self._speak)
        self.route("GET", "/v2/speech-to-text/transcription", self._refuse)
        self.route("GET", "/v2/text-to-speech/speech", self._refuse)
        self.route("GET", "/v2/text-to-speech/voices", self._voices)

    @property
    def base_url(self) -> str:
        return f"{self.http_url}/v2"

    def refuse_other_keys(self, key: str) -> None:
        """From now on take `key` alone, and answer others with 401 at the handshake."""
        detail = "The API key looks malformed. Check that you copied it correctly."
        body = {"errors": [{"code": "10009", "title": "Authentication failed", "detail": detail}]}
        self.key = key
        self.misbehave(status=401, body=body)

    async def _refuse(self, exchange: Exchange, reply: Reply) -> None:
        await reply.json({"errors": [{"code": "10015", "title": "Bad Request", "detail": "Upgrade required"}]}, 400)

    async def _voices(self, exchange: Exchange, reply: Reply) -> None:
        # The SDK's TextToSpeechListVoicesResponse.
        astra = {"voice_id": "Telnyx.NaturalHD.astra", "name": "astra", "provider": "telnyx", "language": "en-US"}
        polly = {"voice_id": "AWS.Polly.Anna", "name": "Anna", "provider": "aws", "gender": "Female"}
        await reply.json({"voices": [astra, polly, {"name": "nameless"}]})

    # -- transcription --------------------------------------------------------------------------------------

    async def _hear(self, exchange: Exchange, socket: Socket) -> None:
        wrong = _wrong(exchange)
        if wrong:
            code, title, detail, parameter = wrong
            error = {"code": code, "title": title, "detail": detail, "source": {"parameter": parameter}}
            await socket.json({"errors": [error]})
            return
        await _Hearing(self, exchange, socket).run()

    # -- voices ---------------------------------------------------------------------------------------------

    async def _speak(self, exchange: Exchange, socket: Socket) -> None:
        encoding, rate = exchange.asked("audio_format"), int(exchange.asked("sample_rate") or 24_000)
        assert encoding in ("linear16", "pcm", "mulaw")
        greeted = False
        speaking: asyncio.Task[None] | None = None
        texts: asyncio.Queue[str] = asyncio.Queue()

        @until_gone
        async def work() -> None:
            while True:
                await self._say(socket, await texts.get(), encoding, rate)

        try:
            speaking = asyncio.create_task(work())
            async for message in socket:
                assert isinstance(message, str)
                frame = json.loads(message)
                if frame.get("force"):
                    speaking.cancel()
                    speaking = asyncio.create_task(work())
                    continue
                text = frame["text"]
                if text == "":
                    return
                if not greeted:
                    assert text == " ", "no audio without a handshake"
                    greeted = True
                    continue
                assert frame.get("flush") or text.rstrip()[-1:] in ".!?", "this would wait for more text"
                self.spoken.append(text)
                texts.put_nowait(text)
        finally:
            if speaking is not None:
                speaking.cancel()
                await asyncio.wait([speaking])

    async def _say(self, socket: Socket, text: str, encoding: str, rate: int) -> None:
        final = {"audio": None, "text": "", "isFinal": True}
        for sentence in _SENTENCE.findall(text):
            first = True
            audio = standin_voice.on_wire(sentence, encoding, rate)
            if self.mp3:
                audio = b"\xff\xf3\x44\xc4" + audio
            step = len(standin_voice.on_wire("x" * CHUNK_CHARS, encoding, rate))
            for at in range(0, len(audio), step):
                data = base64.b64encode(audio[at : at + step]).decode()
                frame: dict[str, Any] = {"audio": data, "text": None, "isFinal": False, "cached": False}
                if first:
                    frame["timeToFirstAudioFrameMs"] = 120
                    first = False
                await socket.json(frame)
                if self.slow_s:
                    await asyncio.sleep(self.slow_s)
            if self.tells_text:
                await socket.json({"audio": None, "text": sentence, "isFinal": False, "cached": False})
            if self.final_per_sentence:
                await socket.json(final)
        if not self.final_per_sentence:
            await socket.json(final)


class _Hearing:
    """One transcription socket."""

    def __init__(self, server: TelnyxSpeech, exchange: Exchange, socket: Socket) -> None:
        self._server = server
        self._socket = socket
        self._deepgram = exchange.asked("transcription_engine") == "Deepgram"
        self._interims = exchange.asked("interim_results") == "true"
        self._format = exchange.asked("input_format")
        self._rate = int(exchange.asked("sample_rate"))
        endpointing = exchange.asked("endpointing") or "100"
        self._hang_ms = 1_000_000 if endpointing == "false" else max(int(endpointing), 100)
        self._ear: ScriptedEar | None = None
        self._given = 0
        """Words of the present utterance that are in final transcripts."""
        self._number = -1

    async def run(self) -> None:
        async for message in self._socket:
            if isinstance(message, bytes):
                await self._audio(message)
                continue
            command = json.loads(message)["type"]
            if command == "CloseStream":
                return
            if command == "Finalize" and self._deepgram:
                await self._finalise()

    async def _audio(self, audio: bytes) -> None:
        ear = self._ear = self._ear or ScriptedEar(
            self._server.script, encoding=self._format, sample_rate=self._rate, hang_ms=self._hang_ms
        )
        for heard in ear.feed(audio):
            if heard.number != self._number:
                self._number, self._given = heard.number, 0
            if heard.what == "words" and self._interims:
                await self._tell(heard.text, final=False)
            elif heard.what == "ended":
                await self._tell(heard.text, final=True, speech_final=True)
                if self._deepgram:
                    await self._socket.json({"transcript": "", "is_final": True, "utterance_end": True})

    async def _finalise(self) -> None:
        if self._server.swallow_finalize:
            self._server.swallow_finalize -= 1
            return
        text = ""
        if self._ear is not None:
            self._ear.finalise()
            text = self._ear.text
        if self._given < len(text.split()) or self._server.answers_finalize:
            await self._tell(text, final=True, speech_final=True)

    async def _tell(self, text: str, *, final: bool, speech_final: bool = False) -> None:
        words = text.split()
        frame: dict[str, Any] = {
            "type": "transcript",
            "transcript": " ".join(words[self._given :]),
            "is_final": final,
            "confidence": 0.98 if final else 0.0,
        }
        if self._deepgram:
            frame["speech_final"] = speech_final
        if final:
            self._given = len(words)
        await self._socket.json(frame)


def _wrong(exchange: Exchange) -> tuple[str, str, str, str] | None:
    engine, kind = exchange.asked("transcription_engine"), exchange.asked("input_format")
    if engine not in ENGINES:
        return "40007", "Invalid Parameter", f"Unsupported transcription_engine '{engine}'", "transcription_engine"
    if kind not in FORMATS:
        return "40001", "Invalid Parameter", f"Unsupported input_format '{kind}'", "input_format"
    if engine not in FORMATS[kind]:
        return "40002", "Unsupported format", f"Format '{kind}' is not supported by '{engine}'", "input_format"
    if not exchange.asked("sample_rate"):
        return "40003", "Invalid Parameter", "sample_rate is required", "sample_rate"
    return None
