"""Being told to stop: SIGTERM ends a run with status 75 ("try again"), one line, and the newest
state safe.

In a step the loop itself sees `asked` and saves. While the main thread is inside XLA (compiling,
restoring, evaluating) no Python signal handler runs, so a thread watches instead: the signal's
number arrives on a pipe that the C handler writes.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

STATUS = 75  # EX_TEMPFAIL of sysexits.h


class Preempted(Exception):
    """The run was told to stop and has stopped; the message is for the user, the same command goes
    on.
    """


@contextlib.contextmanager
def raised():
    """SIGTERM raises Preempted in the main thread: for a process that does not itself train."""

    def stop(*_):
        raise Preempted("told to stop; the same command goes on with the runs that are missing")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Watcher:
    """``with Watcher(leave) as w``: `w.phase = name` says what the main thread does; `w.asked` is
    true after SIGTERM.

    leave() -> str: called in the watching thread when SIGTERM arrives in a phase that cannot look
    itself; it makes the newest state safe and returns the line for stderr. The process then ends
    with STATUS.
    """

    LOOKS = ("step", "save")  # phases in which the main thread looks at `asked`

    def __init__(self, leave: Callable[[str], str]):
        self._leave, self.phase, self._asked = leave, "compile", threading.Event()

    @property
    def asked(self) -> bool:
        return self._asked.is_set()

    def __enter__(self):
        self._active = threading.current_thread() is threading.main_thread()
        if self._active:
            self._read, self._write = os.pipe()
            os.set_blocking(self._write, False)
            self._before = signal.signal(signal.SIGTERM, lambda *_: None)
            self._fd_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_):
        if self._active:
            signal.set_wakeup_fd(self._fd_before)
            signal.signal(signal.SIGTERM, self._before)
            os.write(self._write, b"\0")  # ends the thread
            self._thread.join()
            os.close(self._read)
            os.close(self._write)

    def _watch(self):
        while True:
            number = os.read(self._read, 1)
            if number == b"\0":
                return
            if number == bytes([signal.SIGTERM]):
                self._asked.set()
                break
        while self.phase in self.LOOKS:
            time.sleep(0.01)
        if self.phase != "end":
            with contextlib.suppress(Exception):
                print(self._leave(self.phase), file=sys.stderr, flush=True)
            os._exit(STATUS)
        while os.read(self._read, 1) != b"\0":
            pass
