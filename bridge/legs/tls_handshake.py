"""The server's side of a TLS handshake on the event loop: who connects and says nothing costs a socket, no thread.

It takes half a millisecond there with a key of 2048 bits (RSA), which is once a call."""

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
        self.on_failed: Callable[[], None] = _nothing
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
        except OSError:
            self.close()
            self.on_failed()
        else:
            self._leave()
            self.on_done()

    def _leave(self) -> None:
        self._open = False
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)


def _nothing() -> None:
    pass
