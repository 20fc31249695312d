"""The parent's end of one worker process: start it, pass messages, notice its death, end it."""

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable, Collection

import structlog

from bridge.providers.local.models import Role
from bridge.providers.local.settings import EngineSettings
from bridge.providers.local.wire import Decoder, Message, WireError, encode

log = structlog.get_logger(__name__)

STDERR_LINES = 10
STDERR_LINE_BYTES = 2000

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class WorkerDiedError(Exception):
    """The process is gone, or does not speak our protocol; the message has its last words."""


class WorkerUnusableError(Exception):
    """It can't load its models; starting it again will not help."""


class WorkerProcess(asyncio.SubprocessProtocol):
    """One running worker. Made by `start`; `aclose` must be called in the end."""

    _transport: asyncio.SubprocessTransport
    _stdin: asyncio.WriteTransport

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._decoder = Decoder()
        self._messages: deque[Message] = deque()
        self._news = asyncio.Event()
        self._gone: asyncio.Future[None] = loop.create_future()
        """Done when the process has ended and everything it wrote is read."""
        self._garbage = ""
        self._stderr = b""
        self._last_words: deque[str] = deque(maxlen=STDERR_LINES)

    @classmethod
    async def start(cls, settings: EngineSettings, roles: Collection[Role]) -> "WorkerProcess":
        """Start the process and tell it what to load. Raises OSError if there is no memory or no process left."""
        _, worker = await asyncio.get_running_loop().subprocess_exec(
            cls,
            sys.executable,
            "-P",  # nothing in the working directory is taken for a module
            "-m",
            "bridge.providers.local.worker",
            env={**os.environ, **ENVIRONMENT},
        )
        worker.send(Message("start", {"settings": settings.model_dump(mode="json"), "roles": list(roles)}))
        return worker

    @property
    def pid(self) -> int:
        return self._transport.get_pid()

    @property
    def exited(self) -> bool:
        return self._gone.done()

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the process is gone."""
        self._gone.add_done_callback(lambda _: callback())

    def send(self, message: Message) -> None:
        """Returns at once. A dead worker is noticed by `receive`."""
        self._stdin.write(encode(message))

    async def receive(self) -> Message:
        """The worker's next message. Raises WorkerDiedError."""
        while not self._messages:
            if self._garbage:
                raise WorkerDiedError(f"worker {self.pid} sent garbage: {self._garbage}")
            if self.exited:
                raise WorkerDiedError(self._epitaph())
            self._news.clear()
            await self._news.wait()
        return self._messages.popleft()

    async def aclose(self, grace_s: float) -> None:
        """Close its stdin, which ends it; kill it after `grace_s` seconds."""
        self._stdin.close()
        if grace_s > 0:
            await asyncio.wait([self._gone], timeout=grace_s)
        if not self.exited:
            self._transport.kill()
        await asyncio.wait([self._gone])
        self._transport.close()

    def _epitaph(self) -> str:
        code = self._transport.get_returncode()
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        words = f": {' | '.join(self._last_words)}" if self._last_words else ""
        return f"worker {self.pid} {how}{words}"

    # -- asyncio.SubprocessProtocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        stdin = transport.get_pipe_transport(0)
        assert isinstance(stdin, asyncio.WriteTransport)
        self._transport, self._stdin = transport, stdin

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._take_stderr(data)
            return
        try:
            self._messages += self._decoder.feed(data)
        except WireError as error:
            self._garbage = str(error)
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone.set_result(None)
        self._news.set()

    def _take_stderr(self, data: bytes) -> None:
        *lines, rest = (self._stderr + data).split(b"\n")
        self._stderr = rest[-STDERR_LINE_BYTES:]
        for line in lines:
            text = line.decode(errors="replace").strip()
            self._last_words.append(text)
            log.debug("engine worker's stderr", pid=self.pid, text=text)
