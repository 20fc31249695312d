"""Logging: JSON lines or console, each with its call's id, numbers masked and secrets taken out.

structlog and the standard library's loggers (uvicorn, SQLAlchemy, Alembic) go through one chain. A thread of its own
writes the lines from a bounded queue: a reader that stalls (a full pipe, a stopped terminal) never stalls a call.
"""

import asyncio
import atexit
import logging
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

QUEUE_LINES = 10_000
"""Lines that wait for a slow reader; beyond, new ones are dropped and counted."""

LOUD = ("sqlalchemy", "alembic", "aiosqlite", "httpx", "httpcore", "openai", "uvicorn", "asyncio")
"""Libraries whose debug and info lines are not the operator's business."""

NUMBER_KEYS = frozenset(
    ("from", "from_", "to", "number", "caller", "callee", "user", "uri", "contact", "target", "text", "display_name")
)
"""Fields that hold a number or what was said: any run of digits in them is masked, spaced or not."""

PLAIN_KEYS = frozenset(
    ("call", "call_id", "leg", "leg_id", "id", "peer", "listen", "timestamp", "level", "logger", "sha256", "revision")
)
"""Fields whose digits are no phone number: ids, addresses, times."""

SECRET_KEYS = re.compile(r"(?i)(^|[_-])(authorization|api[_-]?key|password|passwd|secret|token|cookie)$")
HIDDEN = "[hidden]"

_BEARER = re.compile(r"(?i)\b(bearer|basic|digest)\s+[\w~+/=.-]{8,}")
_ASSIGNED = re.compile(r"(?i)\b(api[_-]?key|password|secret|token)(\"?'?\s*[=:]\s*\"?'?)[^\s\"'&,;]{4,}")
_USER_INFO = re.compile(r"(?<=://)([^\s/:@]+):([^\s/@]+)@")
_SIP_USER = re.compile(r"(?i)\b(sips?:|tel:)([^@\s;>]+)")
# In free text: a run of six digits or more that is no part of a word, an address, a decimal or an id, and anything
# written as an international number.
_RUN = re.compile(r"(?<![\w.:/@-])\+?\d{6,}(?![\w:]|[.-]\w)")
_INTERNATIONAL = re.compile(r"(?<![\w.])\+\d[\d ()/-]{4,}\d")
_LOOSE = re.compile(r"(?<!\w)\+?\(?\d(?:[\s().\-/]{0,2}\d){5,}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


# -- masking ------------------------------------------------------------------------------------------------


def mask_number(number: str) -> str:
    """`+4930123456` as `+49…3456`: enough to tell calls apart, too little to call back."""
    plus = "+" if number.lstrip("(").startswith("+") else ""
    digits = re.sub(r"\D", "", number)
    if len(digits) >= 10:
        return f"{plus}{digits[:2]}…{digits[-4:]}"
    return f"{plus}…{digits[-2:]}"


def mask_text(text: str, *, loose: bool = False) -> str:
    """`text` with the phone numbers in it masked. `loose` takes any six digits for one, spaced or not."""
    if not any(character.isdigit() for character in text):
        return text
    text = _SIP_USER.sub(lambda found: found[1] + re.sub(r"\+?\d{6,}", _masked, found[2]), text)
    text = _INTERNATIONAL.sub(_masked, text)
    return (_LOOSE if loose else _RUN).sub(_masked, text)


def _masked(found: re.Match[str]) -> str:
    return mask_number(found[0])


def _mask_value(key: str, value: Any, depth: int = 4) -> Any:
    if key in PLAIN_KEYS:
        return value
    if isinstance(value, str):
        return mask_text(value, loose=key in NUMBER_KEYS)
    if depth and isinstance(value, dict):
        return {name: _mask_value(str(name), item, depth - 1) for name, item in value.items()}
    if depth and isinstance(value, list | tuple):
        return [_mask_value(key, item, depth - 1) for item in value]
    return value


def mask_numbers(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Processor: mask phone numbers in every text of the line."""
    for key, value in event.items():
        if not key.startswith("_"):
            event[key] = _mask_value(key, value)
    return event


class SecretFilter:
    """Processor: take secrets out of every text of the line, by their field, their form, or their value."""

    def __init__(self) -> None:
        self._values: set[str] = set()

    def hide(self, secret: str) -> None:
        """Hide this very text wherever it turns up."""
        if len(secret) >= 8:
            self._values.add(secret)

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        for key, value in event.items():
            if not key.startswith("_"):
                event[key] = self._clean(key, value)
        return event

    def _clean(self, key: str, value: Any, depth: int = 4) -> Any:
        if SECRET_KEYS.search(key):
            return HIDDEN
        if isinstance(value, str):
            for secret in self._values:
                value = value.replace(secret, HIDDEN)
            value = _BEARER.sub(rf"\1 {HIDDEN}", value)
            value = _USER_INFO.sub(rf"\1:{HIDDEN}@", value)
            return _ASSIGNED.sub(rf"\1\2{HIDDEN}", value)
        if depth and isinstance(value, dict):
            return {name: self._clean(str(name), item, depth - 1) for name, item in value.items()}
        if depth and isinstance(value, list | tuple):
            return [self._clean("", item, depth - 1) for item in value]
        return value


def escape_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Processor: what a caller sends can neither forge a line nor drive the terminal."""
    for key, value in event.items():
        if isinstance(value, str):
            line = value if key == "exception" else value.replace("\n", "\\n")
            event[key] = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", line)
    return event


# -- set-up -------------------------------------------------------------------------------------------------


class _QueueHandler(logging.Handler):
    """Finishes a line's fields where it was logged, and leaves formatting and writing to the writer thread."""

    def __init__(self, prepare: list[Processor], formatter: logging.Formatter, stream: TextIO) -> None:
        super().__init__()
        self._prepare = prepare
        self._line_formatter = formatter
        self._stream = stream
        self._queue: queue.Queue[logging.LogRecord | None] = queue.Queue(QUEUE_LINES)
        self.dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="log writer", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        if not isinstance(record.msg, dict):
            # A library's line: its call's id is known only here, on the thread and task that logged it.
            fields: MutableMapping[str, Any] = {"event": record.getMessage(), "_record": record}
            if record.exc_info:
                fields["exc_info"] = record.exc_info
            for processor in self._prepare:
                fields = processor(None, record.levelname.lower(), fields)  # type: ignore[assignment] # chain of dicts
            fields.pop("_record", None)
            record.msg, record.args, record.exc_info = fields, (), None
            record._from_structlog = True
            record._logger, record._name = None, record.levelname.lower()
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def stop(self, timeout_s: float = 2.0) -> None:
        """Write what is queued, for at most `timeout_s`."""
        if self._thread.is_alive():
            try:
                self._queue.put(None, timeout=timeout_s)
            except queue.Full:
                return
            self._thread.join(timeout_s)

    def _write_all(self) -> None:
        told = 0
        while (record := self._queue.get()) is not None:
            try:
                self._stream.write(self._line_formatter.format(record) + "\n")
                if self.dropped > told:
                    self._stream.write(f"log lines dropped, as nobody read them in time: {self.dropped - told}\n")
                    told = self.dropped
                if self._queue.empty():
                    self._stream.flush()
            except (OSError, ValueError):
                # Nobody reads (a closed pipe): there is nowhere to say so.
                continue
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return


class Logs:
    """The logging of this process, as `configure` set it up."""

    def __init__(self, handler: _QueueHandler, secrets: SecretFilter) -> None:
        self._handler = handler
        self._secrets = secrets

    def hide(self, secret: str) -> None:
        """Never show this text (the API key, a provider's key)."""
        self._secrets.hide(secret)

    @property
    def dropped(self) -> int:
        """Lines that were lost because the reader stalled."""
        return self._handler.dropped

    def close(self) -> None:
        """Write what is queued; later lines go nowhere."""
        logging.getLogger().removeHandler(self._handler)
        self._handler.stop()
        atexit.unregister(self._handler.stop)


def configure(
    *,
    level: Literal["debug", "info", "warning", "error"] = "info",
    format: Literal["console", "json"] = "console",
    mask: bool = True,
    stream: TextIO | None = None,
) -> Logs:
    """Set up logging for this process, to `stream` (standard error). Names as in the `log` section of the
    configuration. To be called once, at start; a second call replaces the first."""
    stream = stream or sys.stderr
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, _QueueHandler)]:
        root.removeHandler(old)
        old.stop()
    secrets = SecretFilter()
    prepare: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        secrets,
    ]
    if mask:
        prepare.append(mask_numbers)
    render: list[Processor]
    if format == "json":
        render = [structlog.processors.JSONRenderer(ensure_ascii=False, default=str)]
    else:
        colors = stream.isatty()
        render = [escape_controls, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_plain)]
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render]
    )
    handler = _QueueHandler(prepare, formatter, stream)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in LOUD:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *prepare,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # Loggers are made at import, before this runs; a cached one would keep the old set-up.
        cache_logger_on_first_use=False,
    )
    atexit.register(handler.stop)
    return Logs(handler, secrets)


def _plain(stream: TextIO, exc_info: Any) -> None:
    structlog.dev.plain_traceback(stream, exc_info)


# -- floods -------------------------------------------------------------------------------------------------


class RateLimited:
    """Lets each message through a few times per interval, then counts, and says at its end how many it held back.

    For what strangers can cause at will: garbage on a port, wrong keys."""

    def __init__(
        self,
        logger: Any,
        *,
        limit: int = 5,
        interval_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`logger` is structlog's; each message (its event text) passes `limit` times in `interval_s`."""
        self._logger = logger
        self._limit = limit
        self._interval_s = interval_s
        self._clock = clock
        self._windows: dict[tuple[str, str], _Window] = {}

    def debug(self, event: str, **fields: Any) -> None:
        self._log("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._log("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._log("warning", event, fields)

    def flush(self) -> None:
        """Say now what was held back in intervals that are over. Inside an event loop this happens by itself."""
        now = self._clock()
        for key, window in list(self._windows.items()):
            if now - window.began >= self._interval_s:
                del self._windows[key]
                self._summarise(key, window)

    def _log(self, method: str, event: str, fields: dict[str, Any]) -> None:
        now = self._clock()
        key = (method, event)
        window = self._windows.get(key)
        if window is not None and now - window.began >= self._interval_s:
            self._summarise(key, window)
            window = None
        if window is None:
            window = self._windows[key] = _Window(now)
        window.passed += 1
        if window.passed <= self._limit:
            getattr(self._logger, method)(event, **fields)
            return
        if window.suppressed == 0:
            self._flush_later(window.began + self._interval_s - now)
        window.suppressed += 1

    def _summarise(self, key: tuple[str, str], window: "_Window") -> None:
        if window.suppressed:
            method, event = key
            getattr(self._logger, method)(event, suppressed=window.suppressed, seconds=self._interval_s)

    def _flush_later(self, delay_s: float) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        loop.call_later(delay_s, self.flush)


class _Window:
    __slots__ = ("began", "passed", "suppressed")

    def __init__(self, began: float) -> None:
        self.began = began
        self.passed = 0
        self.suppressed = 0
