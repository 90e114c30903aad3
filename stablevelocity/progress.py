"""Progress that a person can read, on a terminal and in a log: one line now and then."""

import logging
import time
from typing import SupportsFloat

log = logging.getLogger("stablevelocity")


class Progress:
    """Counts units of work and says every `interval` seconds how far it is, how fast, and how long it will take.

    >>> progress = Progress("train cfm-s0", 1500, "steps")
    >>> progress.update(10, loss=0.61)   # "train cfm-s0: 10/1500 steps (1 %), 22.1/s, ETA 1:07, loss 0.61"
    """

    def __init__(self, what: str, total: int, unit: str, *, start: int = 0, interval: float = 10.0):
        self.what, self.total, self.unit, self.interval = what, total, unit, interval
        self.done = self.start = start
        self.began = self.said = time.monotonic()

    @property
    def rate(self) -> float:
        """Units per second since the start of this process."""
        return (self.done - self.start) / max(time.monotonic() - self.began, 1e-9)

    def update(self, count: int = 1, **values: SupportsFloat) -> None:
        """Note `count` units as done; `values` are shown at the end of the line, and become numbers only then."""
        self.done += count
        now = time.monotonic()
        if self.done < self.total and now - self.said < self.interval:
            return
        self.said = now
        left = int((self.total - self.done) / max(self.rate, 1e-9))
        shown = "".join(f", {name} {float(value):.4g}" for name, value in values.items())
        log.info(
            f"{self.what}: {self.done}/{self.total} {self.unit} ({100 * self.done // self.total} %), "
            f"{self.rate:.3g}/s, ETA {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}{shown}"
        )
