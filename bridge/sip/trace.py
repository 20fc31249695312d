"""The SIP messages of the last while, kept in memory: a call's ladder and capture are made of them.

While nobody asks, a message costs one append: it is neither parsed nor copied.
"""

import re
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from bridge.sip.flow import Flow

DEFAULT_BYTES = 16 * 1024 * 1024
"""A call with its OPTIONS, 180 and BYE is about 6 kB: this is the last 2,500 calls."""

REMOVED = "[removed]"

_CALL_ID = re.compile(rb"(?:^|\n)(?:call-id|i)[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)

_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    # What proves a password: whoever has it and the nonce can try passwords at leisure.
    (re.compile(r'(?im)^((?:proxy-)?authorization\s*:.*)$'), ""),
    # SDES keys (RFC 4568) and the `k=` line (RFC 4566 5.12): the call's audio in clear.
    (re.compile(r"(?im)(inline:)[^\s|;]+"), rf"\1{REMOVED}"),
    (re.compile(r"(?im)^(k=(?:clear|base64|uri):).*?(\r?)$"), rf"\1{REMOVED}\2"),
    # Carriers' shared secrets in headers, e.g. X-Telnyx-Token.
    (re.compile(r"(?im)^(x-[\w-]*(?:token|secret|password|auth|key)[\w-]*\s*:\s*).*?(\r?)$"), rf"\1{REMOVED}\2"),
)  # fmt: skip
_RESPONSE = re.compile(r'(?i)\b((?:response|cnonce|opaque)\s*=\s*)("[^"]*"|[^\s,]+)')
_SCHEME = re.compile(r"(?i)^((?:proxy-)?authorization\s*:\s*(\S+))(.*?)(\r?)$")


@dataclass(frozen=True, slots=True)
class TracedMessage:
    at: float
    """Unix time (s)."""
    received: bool
    flow: Flow
    data: bytes

    @property
    def call_id(self) -> str:
        """The Call-ID as written; "" where there is none."""
        found = _CALL_ID.search(self.data)
        return found[1].strip().decode("utf-8", "replace") if found else ""

    @property
    def text(self) -> str:
        """The message for people's eyes: secrets removed, whatever is no UTF-8 replaced."""
        return without_secrets(self.data.decode("utf-8", "replace"))


Follower = Callable[[TracedMessage], None]


class SipTrace:
    """A ring of messages, bounded by their bytes. `tap` is what the transports call."""

    def __init__(self, *, ahead_s: float, max_bytes: int = DEFAULT_BYTES) -> None:
        """`ahead_s` is what Unix time is ahead of the transports' clock; `max_bytes` 0 keeps nothing."""
        self._ahead_s = ahead_s
        self._max_bytes = max_bytes
        self._bytes = 0
        self._ring: deque[tuple[float, bool, bytes, Flow]] = deque()
        self._followers: list[Follower] = []

    def __len__(self) -> int:
        return len(self._ring)

    @property
    def kept_bytes(self) -> int:
        return self._bytes

    def tap(self, received: bool, data: bytes, flow: Flow, now: float) -> None:
        """Keep one message that came or went at `now`, on the transports' clock."""
        self._ring.append((now, received, data, flow))
        self._bytes += len(data)
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._ring.popleft()[2])
        if self._followers:
            message = TracedMessage(now + self._ahead_s, received, flow, data)
            for follower in self._followers:
                follower(message)

    def of_calls(self, call_ids: Collection[str]) -> list[TracedMessage]:
        """The messages kept of these Call-IDs, oldest first."""
        return list(self._find(frozenset(call_ids)))

    def follow(self, follower: Follower) -> Callable[[], None]:
        """Show `follower` every message from now on, of whatever call; the result ends that."""
        self._followers = [*self._followers, follower]

        def unfollow() -> None:
            self._followers = [f for f in self._followers if f is not follower]

        return unfollow

    def _find(self, call_ids: frozenset[str]) -> Iterator[TracedMessage]:
        wanted = [call_id.encode() for call_id in call_ids if call_id]
        for now, received, data, flow in self._ring:
            # The search for bytes is a hundred times faster than the look at the header, and rarely wrong.
            if any(call_id in data for call_id in wanted):
                message = TracedMessage(now + self._ahead_s, received, flow, data)
                if message.call_id in call_ids:
                    yield message


def without_secrets(text: str) -> str:
    """A message's text without digest responses, bearer tokens, SRTP keys and secret X- headers."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement or _without_proof, text)
    return text


def _without_proof(found: re.Match[str]) -> str:
    line = found[0]
    parts = _SCHEME.match(line)
    if parts is None:
        return line
    head, scheme, rest, end = parts[1], parts[2], parts[3], parts[4]
    if scheme.lower() != "digest":
        return f"{head} {REMOVED}{end}"
    return head + _RESPONSE.sub(rf'\1"{REMOVED}"', rest) + end
