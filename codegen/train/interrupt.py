"""Ctrl-C and the system's request to end (SIGTERM) as requests: the step in progress is finished and saved."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """While entered, the first SIGINT or SIGTERM only sets `requested`; the second does what it usually does.

    With `patient` it never does: a team's processes hear of one Ctrl-C from the terminal and from who started them.
    """

    def __init__(self, patient: bool = False) -> None:
        self.requested = False
        self.code = 128 + signal.SIGINT  # what a shell calls the exit code of a process that a signal ended
        self._patient = patient
        self._previous = {number: signal.getsignal(number) for number in SIGNALS}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self.code = 128 + number
        if not self._patient:
            self._restore()
