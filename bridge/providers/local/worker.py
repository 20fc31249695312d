"""A worker process: `python -m bridge.providers.local.worker`. Loads engines once, then does one job at a time.

It speaks `wire.py` over stdin and stdout:

    in    start   settings, roles                   once, first
    out   loaded  role, engine, seconds             for each role
    out   ready   rss_mb                            or: unusable error, and the end
    in    job     id, role, the engine's own fields; payload
    out   done    id, cpu_s, the engine's own fields; payload      or: failed id, error, cpu_s

It ends when stdin closes, whatever it is doing, so it never outlives its parent.
"""

import ctypes
import os
import queue
import signal
import sys
import threading
import time
from typing import Any, BinaryIO, Protocol

from bridge.providers.local.models import Model, ModelError, Role, find_model
from bridge.providers.local.settings import EngineSettings
from bridge.providers.local.wire import Decoder, Message, WireError, encode

READ_BYTES = 1 << 16

UNUSABLE = 3
"""Exit code after `unusable`: starting again will not help."""

WARM_UP: dict[Role, tuple[dict[str, Any], bytes]] = {
    "stt": ({"sample_rate": 8000, "language": "en"}, bytes(8000)),
    "tts": ({"sample_rate": 8000, "text": "Hello."}, b""),
    "embed": ({"texts": ["hello"]}, b""),
}


class Engine(Protocol):
    def run(self, fields: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]: ...


def load_engine(model: Model) -> Engine:
    """Check the files and load the engine. Raises ModelError."""
    if problems := model.problems():
        raise ModelError("; ".join(problems))
    # Each engine's libraries are imported only where it is wanted.
    match model.engine:
        case "moonshine":
            from bridge.providers.local.moonshine import MoonshineEngine

            return MoonshineEngine(model)
        case "whisper":
            from bridge.providers.local.whisper import WhisperEngine

            return WhisperEngine(model)
        case "piper":
            from bridge.providers.local.piper import PiperEngine

            return PiperEngine(model)
        case "minilm":
            from bridge.providers.local.minilm import MiniLmEngine

            return MiniLmEngine(model)


class Channel:
    """The pipe to the parent. A thread reads it, so that its end is seen even in the middle of a job."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="parent", daemon=True).start()

    def receive(self) -> Message:
        return self._messages.get()

    def send(self, op: str, fields: dict[str, Any], payload: bytes = b"") -> None:
        self._outgoing.write(encode(Message(op, fields, payload)))
        self._outgoing.flush()

    def _read(self) -> None:
        decoder = Decoder()
        try:
            while data := os.read(self._incoming.fileno(), READ_BYTES):
                for message in decoder.feed(data):
                    self._messages.put(message)
        except (OSError, WireError) as error:
            sys.stderr.write(f"can't read from the parent: {error}\n")
        os._exit(0)


def open_channel() -> Channel:
    """Take stdin and stdout for ourselves: what libraries print goes to stderr."""
    incoming = os.fdopen(os.dup(0), "rb", buffering=0)
    outgoing = os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return Channel(incoming, outgoing)


def load(channel: Channel, settings: EngineSettings, roles: list[Role]) -> dict[Role, Engine]:
    """Load and warm the engines. Raises ModelError."""
    engines: dict[Role, Engine] = {}
    for role in roles:
        began = time.monotonic()
        model = find_model(role, settings)
        engines[role] = load_engine(model)
        engines[role].run(*WARM_UP[role])
        channel.send("loaded", {"role": role, "engine": model.engine, "seconds": time.monotonic() - began})
    return engines


def serve(channel: Channel, engines: dict[Role, Engine]) -> None:
    """Do jobs for ever."""
    while True:
        job = channel.receive()
        began = time.process_time()
        identity = job.fields.get("id")
        try:
            fields, payload = engines[job.fields["role"]].run(job.fields, job.payload)
        except Exception as error:  # noqa: BLE001 - the job's outermost edge: the parent logs it and goes on
            spent = time.process_time() - began
            channel.send("failed", {"id": identity, "error": f"{type(error).__name__}: {error}", "cpu_s": spent})
            continue
        channel.send("done", {**fields, "id": identity, "cpu_s": time.process_time() - began}, payload)


def main() -> None:
    # Ctrl-C and a service's stop reach the whole process group; the parent decides when a worker is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = open_channel()
    start = channel.receive()
    settings = EngineSettings.model_validate(start.fields["settings"])
    os.nice(settings.niceness)
    try:
        engines = load(channel, settings, start.fields["roles"])
    except Exception as error:  # noqa: BLE001 - the process's outermost edge: the parent says it to the operator
        message = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
        channel.send("unusable", {"error": message})
        os._exit(UNUSABLE)
    release_memory()
    channel.send("ready", {"rss_mb": resident_mb()})
    serve(channel, engines)


def release_memory() -> None:
    """Give back what loading needed for a moment (70 MB), where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident_mb() -> float:
    """Memory of this process in MB; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no path of ours
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return 0.0


if __name__ == "__main__":
    main()
