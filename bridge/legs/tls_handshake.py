"""The server's side of a TLS handshake on the event loop: who connects and says nothing costs a socket, no thread."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress


class TlsHandshake:
    """One connection that is not encrypted yet. Its owner sets the callbacks, of which one is called at most, and a
    limit on the time."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        """`sock` does not block, and its handshake was not begun."""
        self.socket = sock
        self.on_done: Callable[[], None] = _nothing
        """The socket is the owner's from now on."""
        self.on_failed: Callable[[str], None] = _nobody_asks
        self._loop = asyncio.get_running_loop()
        self._fd = sock.fileno()
        self._open = True

    def begin(self) -> None:
        self._loop.add_reader(self._fd, self._go_on)

    def close(self) -> None:
        """Idempotent; nothing once it was done."""
        if self._open:
            self._leave()
            with suppress(OSError):
                self.socket.close()

    def _go_on(self) -> None:
        try:
            self.socket.do_handshake()
        except ssl.SSLWantReadError:
            self._loop.remove_writer(self._fd)
        except ssl.SSLWantWriteError:
            self._loop.add_writer(self._fd, self._go_on)
        except OSError as error:
            self.on_failed(_why(error))
            self.close()
        else:
            self._leave()
            self.on_done()

    def _leave(self) -> None:
        self._open = False
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)


def _why(error: OSError) -> str:
    """In the far side's terms: it is mostly theirs to mend."""
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    if reason in ("HTTP_REQUEST", "WRONG_VERSION_NUMBER"):
        return "it speaks no TLS"
    if reason is not None and "ALERT" in reason:
        # It has looked at our certificate, most likely.
        return f"it refuses the handshake ({reason.partition('ALERT_')[2].lower().replace('_', ' ')})"
    return "the TLS handshake came to nothing"


def _nothing() -> None:
    pass


def _nobody_asks(reason: str) -> None:
    pass
