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

READ_BYTES = 1 << 16
STDERR_LINES = 10

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # A model's buffers come and go with each job: keep them instead of mapping them anew, which costs a fifth of
    # the voice's time; onnxruntime's own arena would keep 120 MB more (docs/decisions.md).
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}


class WorkerDiedError(Exception):
    """The process is gone, or does not speak our protocol; the message has its last words."""


class WorkerUnusableError(Exception):
    """It can't load its models; starting it again will not help."""


class WorkerProcess:
    """One running worker. Made by `start`; `aclose` must be called in the end."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._decoder = Decoder()
        self._messages: deque[Message] = deque()
        self._last_words: deque[str] = deque(maxlen=STDERR_LINES)
        self._stderr_task = asyncio.create_task(self._read_stderr(process.stderr))
        self._exit_task = asyncio.create_task(process.wait())

    @classmethod
    async def start(cls, settings: EngineSettings, roles: Collection[Role]) -> "WorkerProcess":
        """Start the process and tell it what to load. Raises OSError if there is no memory or no process left."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bridge.providers.local.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **ENVIRONMENT},
        )
        worker = cls(process)
        worker.send(Message("start", {"settings": settings.model_dump(mode="json"), "roles": list(roles)}))
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exited(self) -> bool:
        return self._exit_task.done()

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the process is gone."""
        self._exit_task.add_done_callback(lambda _: callback())

    def send(self, message: Message) -> None:
        """Returns at once. A dead worker is noticed by `receive`."""
        self._stdin.write(encode(message))

    async def receive(self) -> Message:
        """The worker's next message. Raises WorkerDiedError."""
        while not self._messages:
            data = await self._stdout.read(READ_BYTES)
            if not data:
                raise WorkerDiedError(await self._epitaph())
            try:
                self._messages += self._decoder.feed(data)
            except WireError as error:
                raise WorkerDiedError(f"worker {self.pid} sent garbage: {error}") from error
        return self._messages.popleft()

    async def aclose(self, grace_s: float) -> None:
        """Close its stdin, which ends it; kill it after `grace_s` seconds."""
        self._stdin.close()
        if grace_s > 0:
            await asyncio.wait([self._exit_task], timeout=grace_s)
        if not self._exit_task.done():
            self._process.kill()
        await asyncio.wait([self._exit_task, self._stderr_task])
        # Read to the end, so that the pipe's transport closes now and not when it is collected.
        while await self._stdout.read(READ_BYTES):
            pass

    async def _epitaph(self) -> str:
        await asyncio.wait([self._exit_task, self._stderr_task], timeout=1)
        code = self._process.returncode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
        words = f": {' | '.join(self._last_words)}" if self._last_words else ""
        return f"worker {self.pid} {how}{words}"

    async def _read_stderr(self, stderr: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stderr.readline()
            except ValueError:
                continue  # longer than the reader's limit
            if not line:
                return
            text = line.decode(errors="replace").strip()
            self._last_words.append(text)
            log.debug("engine worker's stderr", pid=self.pid, text=text)
