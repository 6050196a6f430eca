"""What was answered lately, so that a repeated query costs nothing: bounded by number and age."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Memory(Generic[Value]):
    """The values last used, at most `most`, none older than `kept_s`. For one event loop."""

    def __init__(
        self, *, most: int, kept_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._kept_s, self._clock = most, kept_s, clock
        self._held: OrderedDict[Hashable, tuple[float, Value]] = OrderedDict()

    def get(self, key: Hashable) -> Value | None:
        """What was put there, if it is still held."""
        put, value = self._held.get(key, (float("-inf"), None))
        if self._clock() - put >= self._kept_s:
            self._held.pop(key, None)
            return None
        self._held.move_to_end(key)
        return value

    def put(self, key: Hashable, value: Value) -> None:
        """Hold a value; the one that was not used for longest goes."""
        self._held[key] = self._clock(), value
        self._held.move_to_end(key)
        while len(self._held) > self._most:
            self._held.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()
