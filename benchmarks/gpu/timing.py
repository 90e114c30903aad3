"""Times on the device: medians of events, and the sections of a loop without a wait between them."""

import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch


def median_seconds(
    function: Callable[[], object], device: torch.device, *, rounds: int = 10, warm_up: int = 3, limit: float = 10.0
) -> float:
    """Median seconds of a call between two events of the device's stream (on a CPU: wall time).

    Fewer than `rounds` calls, but one at least, where they would take more than about `limit` seconds.
    """
    cuda = device.type == "cuda"
    for _ in range(warm_up):
        function()
    if cuda:
        torch.cuda.synchronize()
    times: list[float] = []
    pairs = []
    began = time.perf_counter()
    while len(times) + len(pairs) < rounds and (time.perf_counter() - began < limit or not (times or pairs)):
        if cuda:
            pair = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            pair[0].record()
            function()
            pair[1].record()
            pair[1].synchronize()
            pairs.append(pair)
        else:
            at = time.perf_counter()
            function()
            times.append(time.perf_counter() - at)
    times += [first.elapsed_time(last) / 1000 for first, last in pairs]
    return statistics.median(times)


class Sections:
    """Seconds by section of functions wrapped with `watch`, on the device's clock: an event before and one after each.

    The stream's time between the two counts: the kernels of the section, and the stream's waiting for the host where
    the host is behind. Nothing waits for the device, so the loop runs as it does without this. A section inside
    another is taken out of it.
    """

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"
        self._calls: list[tuple[str, int | None, Any, Any]] = []  # section, index of the outer call, marks
        self._threads = threading.local()
        self._lock = threading.Lock()
        self._wrapped: list[tuple[Any, str, bool, Any]] = []

    def mark(self) -> Any:
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def elapsed(self, first: Any, last: Any) -> float:
        return first.elapsed_time(last) / 1000 if self.cuda else last - first

    def watch(self, owner: Any, name: str, section: str) -> None:
        function: Callable = getattr(owner, name)
        self._wrapped.append((owner, name, name in vars(owner), function))

        def timed(*arguments: Any, **named: Any) -> Any:
            outer: list[int] = self._threads.__dict__.setdefault("open", [])
            with self._lock:
                index = len(self._calls)
                self._calls.append((section, outer[-1] if outer else None, self.mark(), None))
            outer.append(index)
            try:
                return function(*arguments, **named)
            finally:
                outer.pop()
                self._calls[index] = (*self._calls[index][:3], self.mark())

        setattr(owner, name, timed)

    def clear(self) -> None:
        """Forget what was timed so far; call it outside of every section."""
        self._calls.clear()

    def seconds(self) -> dict[str, float]:
        """Seconds by section since `clear`; waits for the device."""
        if self.cuda:
            torch.cuda.synchronize()
        own = [self.elapsed(first, last) for _, _, first, last in self._calls]
        total: dict[str, float] = defaultdict(float)
        for (section, outer, _, _), seconds in zip(self._calls, own, strict=True):
            total[section] += seconds
            if outer is not None:
                total[self._calls[outer][0]] -= seconds
        return dict(total)

    def unwatch(self) -> None:
        """Put every function back."""
        for owner, name, had_own, function in reversed(self._wrapped):
            if had_own:
                setattr(owner, name, function)
            else:
                delattr(owner, name)
        self._wrapped.clear()
