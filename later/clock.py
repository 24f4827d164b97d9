"""The only reader of time in this process.

Due times and leases are decided by the store's clock; what happens here is measured in monotonic seconds.
"""

from __future__ import annotations

import time


class Clock:
    """The clocks of this machine."""

    def monotonic(self) -> float:
        """Seconds that only ever go forward; the event loop's timers count in the same ones."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since the epoch, as this machine believes; may step."""
        return time.time()
