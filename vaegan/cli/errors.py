"""Error reporting of the command line: one message and an exit status instead of a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vaegan.cli.error_text import SHOW_TRACEBACK, error_exit
from vaegan.cli.hydra_errors import explain
from vaegan.runtime.signals import Interrupted

OPTUNA_NO_TRIAL = ("Record does not exist.", "No trials are completed yet.")
is_active = False  # True inside `readable_errors`


@contextmanager
def readable_errors() -> Iterator[None]:
    """Replace the traceback of an error that the user can fix with a message and an exit status.

    HYDRA_FULL_ERROR=1 turns this off.

    Raises:
        SystemExit: With the message (status 1), or with status 128 plus the number of the signal
            that stopped the run.
    """
    global is_active
    if os.environ.get(SHOW_TRACEBACK) == "1" and not is_active:
        yield
        return
    was_active = is_active
    is_active = True
    os.environ[SHOW_TRACEBACK] = "1"
    try:
        yield
        return
    except KeyboardInterrupt as error:
        raise SystemExit(130) from error
    except Interrupted as interruption:
        print(interruption, file=sys.stderr)
        raise SystemExit(interruption.status) from interruption
    except Exception as error:
        message = describe(error, sys.argv[1:])
        if message is None:
            raise
    finally:
        is_active = was_active
        if not is_active:
            del os.environ[SHOW_TRACEBACK]
    raise error_exit(message)


@contextmanager
def exit_on_errors() -> Iterator[None]:
    """Like `readable_errors`, but for Hydra callbacks, whose exceptions Hydra turns into warnings.

    Raises:
        SystemExit: For every error.
    """
    try:
        with readable_errors():
            yield
    except Exception as error:
        traceback.print_exc()
        raise SystemExit(1) from error


def describe(error: Exception, words: Sequence[str]) -> str | None:
    """Return the message for an error that the user can fix, or None for any other error."""
    if (message := explain(error, words)) is not None:
        return message
    if isinstance(error, ChildProcessError):
        return str(error)
    if isinstance(error, OSError):
        return (
            f"{error}\nIf this path is the run folder, set hydra.run.dir (in a sweep: "
            "hydra.sweep.dir) to another folder"
        )
    if isinstance(error, ValueError):
        if str(error) in OPTUNA_NO_TRIAL:
            return "every trial of the study failed; see the log above and the outcome.json files"
        return str(error)
    return None
