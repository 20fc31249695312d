"""A manager interface that answers as a test says, and misbehaves to order; its words are those of Asterisk 22.10."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Self

Message = Sequence[tuple[str, str]]
"""Headers in their order."""
Answer = Callable[[dict[str, str]], Sequence[Message]]

CHALLENGE = "184729365"

QUEUES: Sequence[Message] = (
    (("Response", "Success"), ("EventList", "start"), ("Message", "Queue status will follow")),
    (
        ("Event", "QueueParams"),
        ("Queue", "support"),
        ("Max", "0"),
        ("Strategy", "rrmemory"),
        ("Calls", "2"),
        ("Holdtime", "14"),
        ("TalkTime", "181"),
        ("Completed", "31"),
        ("Abandoned", "4"),
        ("ServiceLevel", "60"),
        ("ServicelevelPerf", "96.8"),
        ("Weight", "0"),
    ),
    (
        ("Event", "QueueMember"),
        ("Queue", "support"),
        ("Name", "Änne Müller"),
        ("Location", "PJSIP/1001"),
        ("StateInterface", "PJSIP/1001"),
        ("Membership", "static"),
        ("Penalty", "0"),
        ("CallsTaken", "17"),
        ("LastCall", "1790000000"),
        ("InCall", "0"),
        ("Status", "1"),
        ("Paused", "0"),
        ("PausedReason", ""),
    ),
    (
        ("Event", "QueueMember"),
        ("Queue", "support"),
        ("Name", "Ben"),
        ("Location", "PJSIP/1002"),
        ("StateInterface", "PJSIP/1002"),
        ("Membership", "dynamic"),
        ("Penalty", "5"),
        ("CallsTaken", "0"),
        ("LastCall", "0"),
        ("InCall", "0"),
        ("Status", "1"),
        ("Paused", "1"),
        ("PausedReason", "lunch"),
    ),
    (
        ("Event", "QueueEntry"),
        ("Queue", "support"),
        ("Position", "2"),
        ("Channel", "PJSIP/trunk-0000001a"),
        ("Uniqueid", "1790000100.7"),
        ("CallerIDNum", "unknown"),
        ("CallerIDName", "unknown"),
        ("Wait", "3"),
    ),
    (
        ("Event", "QueueEntry"),
        ("Queue", "support"),
        ("Position", "1"),
        ("Channel", "PJSIP/trunk-00000019"),
        ("Uniqueid", "1790000090.5"),
        ("CallerIDNum", "+4930123456"),
        ("CallerIDName", "Ms Caller"),
        ("Wait", "41"),
    ),
    (("Event", "QueueStatusComplete"), ("EventList", "Complete"), ("ListItems", "5")),
)


class AmiStandin:
    """`async with AmiStandin() as server`; `answers` by the action's name (lower case)."""

    def __init__(self, *, username: str = "offhook", secret: str = "right") -> None:
        self.username = username
        self.secret = secret
        self.banner = b"Asterisk Call Manager/11.0.0\r\n"
        self.answers: dict[str, Answer] = {
            "ping": lambda _: [(("Response", "Success"), ("Ping", "Pong"))],
            "queuestatus": lambda _: QUEUES,
        }
        self.deaf: set[str] = set()
        """Actions (lower case) that get no answer."""
        self.sliced = False
        """Send byte by byte."""
        self.actions: list[dict[str, str]] = []
        """What came, logins too."""
        self.connections = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    def named(self, action: str) -> list[dict[str, str]]:
        return [fields for fields in self.actions if fields["Action"] == action]

    async def tell(self, *messages: Message) -> None:
        """Events to everybody."""
        for writer in list(self._writers):
            await self._send(writer, messages, "")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        logged_in = False
        try:
            writer.write(self.banner)
            while True:
                text = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields: dict[str, str] = {}
                for line in text.strip().split("\r\n"):
                    name, _, value = line.partition(": ")
                    fields[name] = f"{fields[name]}\n{value}" if name in fields else value
                self.actions.append(fields)
                action = fields["Action"].lower()
                if action in self.deaf:
                    continue
                if action == "challenge":
                    answer: Sequence[Message] = [(("Response", "Success"), ("Challenge", CHALLENGE))]
                elif action == "login":
                    logged_in = self._is_right(fields)
                    said = "Authentication accepted" if logged_in else "Authentication failed"
                    answer = [(("Response", "Success" if logged_in else "Error"), ("Message", said))]
                elif not logged_in:
                    answer = [(("Response", "Error"), ("Message", "Permission denied"))]
                elif action in self.answers:
                    answer = self.answers[action](fields)
                else:
                    answer = [(("Response", "Error"), ("Message", f"Invalid/unknown command: {fields['Action']}."))]
                await self._send(writer, answer, fields.get("ActionID", ""))
                if action == "login" and not logged_in:
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    def _is_right(self, fields: dict[str, str]) -> bool:
        key = hashlib.md5(f"{CHALLENGE}{self.secret}".encode()).hexdigest()
        return fields.get("Username") == self.username and fields.get("Key") == key

    async def _send(self, writer: asyncio.StreamWriter, messages: Sequence[Message], action_id: str) -> None:
        for message in messages:
            headers = [*message, ("ActionID", action_id)] if action_id else message
            data = "".join(f"{name}: {value}\r\n" for name, value in headers).encode() + b"\r\n"
            for piece in [data[i : i + 1] for i in range(len(data))] if self.sliced else [data]:
                writer.write(piece)
                await writer.drain()
                if self.sliced:
                    # Each byte in a segment of its own.
                    await asyncio.sleep(0)
