"""When to try again: full jitter, what the server asks for, and a budget, so that a struggling server is not stormed.

Without jitter a fleet that lost its server together comes back together, again and again (M. Brooker, "Timeouts,
retries, and backoff with jitter", Amazon Builders' Library).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from sync.errors import SyncError

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 300.0  # five minutes after the network is back, everybody is
BUDGET = 10.0  # retries in a row
EARNED = 0.1  # of a retry by each success: in the long run at most one call in ten is a retry

T = TypeVar("T")


@dataclass(slots=True)
class Retries:
    """The retry policy of one device. chance: uniform in [0, 1). sleep: seconds."""

    chance: Callable[[], float] = random.random
    sleep: Callable[[float], None] = time.sleep
    budget: float = field(default=BUDGET)

    def call(self, attempt: Callable[[], T], tries: int = 3) -> T:
        """What `attempt` gives, trying up to `tries` times. Raises its last error, at once if a retry is pointless."""
        for failures in range(1, tries + 1):
            try:
                value = attempt()
            except SyncError as error:
                if not error.retryable or failures == tries or self.budget < 1:
                    raise
                self.budget -= 1
                self.sleep(self.delay(failures, error))
            else:
                self.budget = min(BUDGET, self.budget + EARNED)
                return value
        raise ValueError("tries must be at least 1")

    def delay(self, failures: int, error: SyncError | None = None) -> float:
        """Seconds to wait after so many failures in a row; at least what the server asked for."""
        jitter = self.chance() * min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(failures, 16))
        asked = getattr(error, "retry_after_s", 0)
        # The server spreads the devices by what it asks for; a second of jitter keeps equal answers apart.
        return asked + self.chance() * FIRST_DELAY_S if asked > jitter else jitter
