"""An event loop whose time passes only when nothing is left to do: minutes of conversation in milliseconds."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")


class _TimeTravel(selectors.DefaultSelector):
    now = 1000.0
    working = 0
    """Calls that are under way in threads."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.working:
            # A thread's result belongs to the moment that it was asked for in.
            return super().select(timeout if timeout == 0 else None)
        events = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("nothing will ever happen: every task waits for something that no timer brings")
            self.now += max(0.0, timeout)
        return events


class FakeTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._travel = _TimeTravel()
        super().__init__(self._travel)

    def time(self) -> float:
        return self._travel.now

    def run_in_executor(self, executor: Executor | None, func: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        self._travel.working += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._worked)
        return future

    def _worked(self, _: "asyncio.Future[Any]") -> None:
        self._travel.working -= 1


def in_fake_time(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `main()` to its end; a task left behind is an error."""
    loop = FakeTimeLoop()
    try:
        result = loop.run_until_complete(main())
        left = asyncio.all_tasks(loop)
        assert not left, f"left behind: {left}"
        loop.run_until_complete(loop.shutdown_asyncgens())
        return result
    finally:
        loop.close()
