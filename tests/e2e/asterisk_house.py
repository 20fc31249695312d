"""A shop with an agent: a real Asterisk 22 as shipped, a real bridge beside it, and SIP phones of ours on both sides.

`line.far` is the world outside, who calls the shop's numbers by the carrier; `line.third` is the shop's phone 1001,
which is a member of the queue `office` as shipped. The agents:

- `salon` talks with the embedded engines from end to end.
- `clerk` has the embedded ears and voice, and says and does what the test puts into `model`.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "legs"))

import numpy as np
import yaml
from asterisk_shop import AsteriskShop
from contract import Listener, say, tone
from free_ports import free_ports
from hearing import share_of_words, transcribe
from openai_server import ChatStandin
from sip_line import Line, line
from standin_llm import Asked, Call, Says
from test_e2e_call import RunningBridge, running_bridge

from bridge.audio.tones import tone_level
from bridge.config import RtpSettings
from bridge.events import Cause, DtmfReceived, LegEnded
from bridge.legs.base import LegState
from bridge.legs.sip import SipLeg
from bridge.phone import read_speech
from bridge.providers.local.engines import LocalEngines
from bridge.providers.local.settings import EngineSettings

AUDIO = Path(__file__).parents[1] / "data" / "audio"
WAIT_S = 40.0
LOUD = 500
"""Peak of a frame that is no silence, not even G.711's."""
FRAME_S = 0.02
CALLER = "+4930111"

GREETING = "Hair salon, how can I help you?"
HELLO = "Hello there."
OPEN = "On Sundays we close at six. On all other days we are open from nine in the morning until eight in the night."
PRICE = "It costs thirty dollars."
GOODBYE = "Have a nice day."
HAND_OVER = "One moment, please."


@dataclass(frozen=True)
class Way:
    """How a call gets to the salon: what is dialled, how its audio comes, and what stands on record."""

    number: str
    media: str
    codec: str
    trunk: str = "pbx"
    leg_kind: str = "asterisk"

    def __str__(self) -> str:
        return f"{self.leg_kind}, {self.media}"


WAYS = (
    Way("100", "rtp", "ulaw"),
    Way("101", "websocket", "slin16"),
    Way("102", "audiosocket", "slin"),
    Way("103", "audiosocket", "slin", "plain", "audiosocket"),
)
"""The last one without ARI, by AudioSocket() of the dialplan."""
CLERK = "110"
KNOWN = "111"
"""The clerk, with what the dialplan passes on; it says afterwards what it learned."""
KEEPER = "112"
"""The clerk, with a tool that takes its time, and music meanwhile."""

DIALPLAN = f"""\
[from-carrier](+)
exten => {WAYS[-1].number},1,Goto(offhook-audiosocket,${{EXTEN}},1)
exten => {KNOWN},1,Set(OFFHOOK_ARGS=campaign=spring,offer=perm)
 same => n,Set(OFFHOOK_AGENT=guide)
 same => n,Set(CUSTOMER=Sarah Thompson)
 same => n,Gosub(offhook-talk,s,1(${{EXTEN}}))
 same => n,Verbose(0,after: status ${{OFFHOOK_STATUS}}, cause ${{OFFHOOK_CAUSE}}, call ${{OFFHOOK_CALL_ID}})
 same => n,Verbose(0,after: reason ${{REASON}}, summary ${{OFFHOOK_SUMMARY}})
 same => n,Goto(world,2000,1)

; A place of the shop's own dialplan that agents send callers to.
[salon-desk]
exten => perm,1,Verbose(0,perm desk: status ${{OFFHOOK_STATUS}}, summary ${{OFFHOOK_SUMMARY}})
 same => n,Goto(world,2000,1)
"""

PHONES = """\
[1001](+type=endpoint)
transport=near
[1001](+type=aor)
contact=sip:1001@{host}:{port}
"""
"""The phone of the front desk, with an address in place of a registration."""

BRIEF: dict[str, Any] = {
    "persona": "You are the receptionist of a hair salon.",
    "goodbye": GOODBYE,
    "not_understood": "Pardon?",
    "handover": {"target": "desk", "say": HAND_OVER},
    "facts": [
        {
            "id": "hours",
            "ask": ["what time do you close on Sundays", "when are you open", "are you open on Sunday"],
            "say": OPEN,
        },
        {"id": "price", "ask": ["how much does a haircut cost", "what is the price of a haircut"], "say": PRICE},
    ],
}
PATIENCE: dict[str, Any] = {"turns": {"stt_wait_ms": 10_000}, "limits": {"tts_chunk_ms": 15_000}}
"""As `PATIENT` is for the engines."""
TARGETS: dict[str, Any] = {
    "desk": {"to": "1001"},
    "office": {"to": "queue:office"},
    "perm": {"to": "dialplan:perm@salon-desk"},
    "direct": {"to": "PJSIP/1001"},
    "told": {"to": "PJSIP/1001", "announce": {"opening": "Here is a caller."}},
    "nowhere": {"to": "1999999"},
}
SALON: dict[str, Any] = {**PATIENCE, "greeting": GREETING, "brief": BRIEF, "transfer": {"targets": TARGETS}}
CLERKS: dict[str, Any] = {**SALON, "greeting": HELLO, "llm": "model", "variables": {"REASON": "why they call"}}
LOOK_UP = "look_up"


def configuration(shop: AsteriskShop, model: str, ledger: str) -> dict[str, Any]:
    """Of the bridge, as offhook.yaml has it; `model` is the address of the clerk's, `ledger` of the keeper's tool.
    The limit of lateness is out of the way: machines that test may be busy."""
    tool = {"name": LOOK_UP, "description": "Look the caller up.", "url": ledger, "timeout_s": 60}
    return {
        "limits": {"clock_lateness_ms": 1000},
        "engines": {"workers": 2},
        "providers": {"model": {"kind": "openai", "base_url": model, "api_key_env": "MODEL_KEY"}},
        "agents": {
            "salon": SALON,
            "clerk": CLERKS,
            "guide": {
                **CLERKS,
                "greeting": "Good day {call.customer}, this is the hair salon.",
                "context": {"campaign": "the offer that this call is about", "customer": "who calls"},
            },
            "keeper": {**CLERKS, "limits": {**PATIENCE["limits"], "tool_music_ms": 1000}, "tools": [tool]},
        },
        "asterisk": [
            {
                "name": "pbx",
                "url": shop.ari_url,
                "username": shop.username,
                "password_env": "ARI_PASSWORD",
                "variables": ["CUSTOMER"],
                "ami": {
                    "host": "127.0.0.1",
                    "port": shop.ami_port,
                    "username": "offhook",
                    "password_env": "AMI_PASSWORD",
                },
            }
        ],
        "audiosocket": {"listen": "127.0.0.1", "port": shop.audiosocket_port, "trunk": "plain"},
        "routes": [
            *({"trunk": "pbx", "to": way.number, "agent": "salon", "media": way.media} for way in WAYS[:-1]),
            {"trunk": "plain", "agent": "salon"},
            {"trunk": "pbx", "to": CLERK, "agent": "clerk"},
            {"trunk": "pbx", "to": KEEPER, "agent": "keeper"},
        ],
    }


class Phone(Listener):
    """A leg of ours on the world's side or the shop's: it hears, speaks recordings, hums and presses keys."""

    leg: SipLeg

    async def until(self, condition: Callable[[], bool], what: str = "it") -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                while not condition():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"no {what} within {WAIT_S} s; told: {self.events}") from None

    def say(self, recording: str) -> None:
        """Begin to speak one of `tests/data/audio`, without its silent edges."""
        say(self.leg, read_speech(AUDIO / f"{recording}.wav", self.leg.sample_rate))

    async def asks(self, recording: str) -> int:
        """Speak it to its end; how many frames were heard by then."""
        self.say(recording)
        await self.until(lambda: not self.leg.playout.speaking, "end of what is said")
        return len(self.frames)

    def hum(self, hz: float) -> None:
        say(self.leg, tone(self.leg, hz, 120_000))

    async def is_spoken_to(self, since: int = 0) -> int:
        """The index of the first loud frame from index `since` on."""

        def first() -> int | None:
            return next((at for at in range(since, len(self.frames)) if loud(self.frames[at])), None)

        await self.until(lambda: first() is not None, "speech")
        found = first()
        assert found is not None
        return found

    async def hears_an_end(self, quiet_s: float = 0.6) -> int:
        """Waits until nothing was heard for so long; the number of frames so far."""
        count = round(quiet_s / FRAME_S)
        await self.until(
            lambda: len(self.frames) >= count and not any(map(loud, self.frames[-count:])), "end of speech"
        )
        return len(self.frames)

    async def listens_to(self, hz: float) -> None:
        """Until this tone is there."""
        await self.until(lambda: self.level(hz) > 2000, f"tone of {hz} Hz")

    def level(self, hz: float) -> float:
        """Of a tone in the last 200 ms."""
        return tone_level(b"".join(self.frames[-10:]), hz, self.leg.sample_rate)

    def heard(self, first: int = 0, last: int | None = None) -> bytes:
        return b"".join(self.frames[max(0, first - 5) : last])

    async def ends(self) -> LegEnded:
        await self.until(lambda: self.leg.state is LegState.ENDED, "end of the call")
        return next(event for event in self.events if isinstance(event, LegEnded))

    async def hang_up(self) -> None:
        await self.leg.hangup(Cause.AGENT_HUNG_UP)

    def keys(self) -> str:
        return "".join(event.digit for event in self.events if isinstance(event, DtmfReceived))


def loud(frame: bytes) -> bool:
    return int(np.abs(np.frombuffer(frame, np.int16).astype(np.int32)).max()) > LOUD


class Mind(ChatStandin):
    """What the clerk thinks."""

    def __init__(self) -> None:
        super().__init__()
        self._then = Says()

    def wants(self, text: str, *calls: Call, then: str = "All right.") -> None:
        """Whatever it is told, say `text` and do `calls`; and `then` when it has heard what came of them."""
        self.asked.clear()
        self.default, self._then = Says(text, calls=calls), Says(then)

    def _pick(self, asked: Asked) -> Says:
        return self._then if asked.messages[-1][0] == "tool" else self.default


class Ledger:
    """What the keeper's tool asks, by HTTP: it takes its time, until it is to answer."""

    def __init__(self) -> None:
        self.url = ""
        self.answers = asyncio.Event()

    async def __aenter__(self) -> "Ledger":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/callers"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.answers.set()
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await self.answers.wait()
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 16\r\n\r\n"
        writer.write(f'{head}{{"name":"Sarah"}}'.encode())
        await writer.drain()
        writer.close()


@dataclass
class House:
    shop: AsteriskShop
    bridge: RunningBridge
    line: Line
    model: Mind
    ledger: Ledger
    engines: LocalEngines
    """The test's own ears."""

    @property
    def api_url(self) -> str:
        return str(self.bridge.http.base_url)

    async def call(self, number: str) -> Phone:
        """The world calls the shop, and is answered."""
        leg = await self.line.far.dial(self.shop.address(number), from_user=CALLER, timeout_s=WAIT_S)
        phone = Phone(leg)
        await phone.until(lambda: leg.state is LegState.UP, "answer")
        return phone

    async def rings(self) -> Phone:
        """The shop's phone, which is called; not yet picked up."""
        try:
            return Phone(await asyncio.wait_for(self.line.at_third.get(), WAIT_S))
        except TimeoutError:
            raise AssertionError(f"the phone did not ring; Asterisk said:\n{self._console()}") from None

    async def one(self, call_id: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.bridge.http.get(f"/api/calls/{call_id}")).json()
        return found

    async def live(self, to: str) -> str:
        """The id of the call to this number that is up."""

        async def look() -> str | None:
            calls = (await self.bridge.http.get("/api/calls", params={"live": "true"})).json()["calls"]
            return next((call["id"] for call in calls if call["to"] == to and call["state"] == "up"), None)

        found: str = await self.wait_for(look, f"live call to {to}")
        return found

    async def dial(self, to: str, **more: Any) -> str:
        """The id of a call that the bridge makes by Asterisk."""
        answer = await self.bridge.http.post("/api/calls", json={"trunk": "pbx", "to": to, "agent": "salon", **more})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def ended(self, call_id: str) -> dict[str, Any]:
        return await self.wait_for(lambda: self._ended(call_id), "an ended call")

    async def _ended(self, call_id: str) -> dict[str, Any] | None:
        call = await self.one(call_id)
        return call if call["state"] == "ended" else None

    async def wait_for(self, probe: Callable[[], Awaitable[Any]], what: str) -> Any:
        """What `probe` gives as soon as it is true."""
        try:
            async with asyncio.timeout(WAIT_S):
                while not (found := await probe()):
                    await asyncio.sleep(0.05)
                return found
        except TimeoutError:
            raise AssertionError(f"no {what}; Asterisk said:\n{self._console()}") from None

    async def dialplan_says(self, beginning: str) -> str:
        """What the dialplan said last behind this beginning."""

        async def look() -> str:
            lines = [line for line in list(self.shop.program.said) if beginning in line]
            return lines[-1].partition(beginning)[2].strip() if lines else ""

        found: str = await self.wait_for(look, f"line with {beginning!r}")
        return found

    def _console(self) -> str:
        return "\n".join([text for text in list(self.shop.program.said) if "Remote UNIX" not in text][-60:])

    async def understand(self, pcm: bytes) -> str:
        return await transcribe(self.engines, pcm)

    async def assert_said(self, pcm: bytes, text: str, share: float = 0.6) -> None:
        """So much of the words is understood in this audio."""
        wanted = "".join(char for char in text.lower() if char.isalpha() or char == " ")
        understood = await self.understand(pcm)
        assert share_of_words(understood, wanted) >= share, (understood, wanted)

    async def clear(self) -> None:
        """All phones hang up; then nothing may be left of any call, on Asterisk and on the bridge."""
        for leg in self.line.far.legs + self.line.third.legs:
            await leg.hangup(Cause.AGENT_HUNG_UP)
        while not self.line.at_third.empty():
            self.line.at_third.get_nowait()
        await asyncio.to_thread(self.shop.assert_empty)
        wanted = {"offhook_calls_live 0.0", "offhook_rtp_streams 0.0", "offhook_rtp_ports_in_use 0.0"}

        async def idle() -> bool:
            return wanted <= set((await self.bridge.http.get("/metrics")).text.splitlines())

        await self.wait_for(idle, "idle bridge")


@asynccontextmanager
async def open_house(folder: Path) -> AsyncIterator[House]:
    """Leaving it checks that the bridge stops well, and that the phones leave nothing behind."""
    async with AsyncExitStack() as stack:
        ports = free_ports(240)
        phones = await stack.enter_async_context(line(rtp=RtpSettings(port_min=ports, port_max=ports + 239)))
        host, port = phones.third.address
        shop = await asyncio.to_thread(
            AsteriskShop, folder / "asterisk", dialplan=DIALPLAN, pjsip=PHONES.format(host=host, port=port)
        )
        stack.callback(shop.stop)
        model = await stack.enter_async_context(Mind())
        ledger = await stack.enter_async_context(Ledger())
        (folder / "offhook.yaml").write_text(yaml.safe_dump(configuration(shop, model.base_url, ledger.url)))
        rtp = free_ports(240)
        environ = {
            "ARI_PASSWORD": shop.password,
            "AMI_PASSWORD": shop.ami_password,
            "MODEL_KEY": "sk-none",
            "NO_PROXY": "127.0.0.1",
            "OFFHOOK_RTP_PORT_MIN": str(rtp),
            "OFFHOOK_RTP_PORT_MAX": str(rtp + 239),
        }
        bridge = await stack.enter_async_context(running_bridge(folder / "data", folder / "offhook.yaml", environ))
        engines = LocalEngines(EngineSettings(workers=1, stt_deadline_s=30), folder, roles=("stt",))
        await engines.start()
        stack.push_async_callback(engines.aclose)
        house = House(shop, bridge, phones, model, ledger, engines)
        key = (folder / "data/api-key").read_text().strip()
        (shop.etc / "offhook/secrets/api.conf").write_text(f" same => n,Set(OFFHOOK_API_KEY={key})\n")
        await asyncio.to_thread(shop.cli, "dialplan reload")
        await asyncio.to_thread(shop.cli, f"dialplan set global OFFHOOK_API {house.api_url}/api")

        async def up() -> bool:
            (pbx,) = (await bridge.http.get("/api/asterisk")).json()["asterisks"]
            return pbx["state"] == "up"

        await house.wait_for(up, "connection to Asterisk")
        # A queue takes nobody while it does not know of a member's phone: Asterisk asks phones in its own time.
        await asyncio.to_thread(shop.cli, "pjsip qualify 1001")

        async def known() -> bool:
            contacts = await asyncio.to_thread(shop.cli, "pjsip show contacts")
            return any("1001/" in row and "Avail" in row for row in contacts.splitlines())

        await house.wait_for(known, "phone that Asterisk knows of")
        yield house
