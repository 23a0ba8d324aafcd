"""What the verbs write to: a pipe that its reader closes, a terminal without UTF-8, none at all."""

import codecs
import contextlib
import errno
import os
import sys
from collections.abc import Callable

CLOSED = 141  # what a shell says of a program that wrote to a closed pipe: 128 + SIGPIPE
# the signs of ours that ASCII lacks
PLAIN = str.maketrans(
    {"●": "*", "◐": "~", "○": "o", "✗": "x", "━": "=", "─": "-", "│": "|", "×": "x", "±": "+-"}
    | {"·": ".", "–": "-", "—": "-", "…": "...", "≈": "~", "≤": "<=", "≥": ">=", "²": "^2"}
)


def _plainly(e: UnicodeError) -> tuple[str, int]:
    """Signs that the terminal's encoding lacks, in ASCII; `?` for what has no such form."""
    if not isinstance(e, UnicodeEncodeError):
        raise e
    said = e.object[e.start : e.end].translate(PLAIN)
    return said.encode("ascii", "replace").decode(), e.end


codecs.register_error("isoflop", _plainly)


def ready() -> None:
    """Opens what is closed of stdin, stdout and stderr; nothing is then too strange to print."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:  # the next file would get its number
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="isoflop")


def quiet() -> None:
    """Lets go of what cannot be written any more, or Python would complain as it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, stream.fileno())
                os.close(nothing)


def printable(text, longest: int = 2000) -> str:
    """One line that no terminal takes for a command: whatever names and records hold."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))
    return line if len(line) <= longest else line[: longest - 3] + "..."


def plain(text: str) -> str:
    """`text`, lines and blanks kept, without what a terminal takes for a command."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def careful(name: str, body: Callable[[], int]) -> int:
    """The status of `body()`; CLOSED, without a word, where nobody reads any longer; 2 and one line
    where a disk is full.
    """
    ready()
    try:
        status = body()
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        return CLOSED
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        what = (
            f"no space left on the disk ({printable(e)}): make room, and the same command goes on"
        )
        print(f"{name}: {what}", file=sys.stderr)
        return 2
    finally:
        quiet()


def console(**settings):
    """rich's Console. A closed pipe ends the verb as it does without rich."""
    from rich.console import Console

    class Ours(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Ours(**settings)
