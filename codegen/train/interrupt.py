"""Ctrl-C as a request: the step in progress is finished and saved."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class Interrupt:
    """While entered, the first Ctrl-C only sets `requested`; the second raises KeyboardInterrupt as usual.

    With `patient` it never does: a team's processes hear of one Ctrl-C from the terminal and from who started them.
    """

    def __init__(self, patient: bool = False) -> None:
        self.requested = False
        self._patient = patient
        self._previous = signal.getsignal(signal.SIGINT)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._previous)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if not self._patient:
            self._restore()
