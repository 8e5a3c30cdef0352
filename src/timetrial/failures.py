"""What a submission's exception means for its trial, in one line."""

import traceback
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import jax
from absl import logging

from timetrial.errors import UserError
from timetrial.judge import SubmissionFailure
from timetrial.problem import ContractError


@contextmanager
def submission_code(hook: str, folder: Path | None) -> Generator[None]:
    """Turns whatever the submission raises in `hook` into a `SubmissionFailure`, with the cause chained to it.

    Everything is caught, because it is another person's code and its failure is a result of the trial. Only a
    KeyboardInterrupt passes: it comes from outside.
    """
    try:
        yield
    except SubmissionFailure:
        raise
    except (Exception, SystemExit) as error:
        logging.error("the submission failed in %s", hook, exc_info=error)
        if is_out_of_memory(error):
            raise SubmissionFailure("out_of_memory", f"{hook}: {_first_line(error)}") from error
        if isinstance(error, (ContractError, UserError)):
            raise SubmissionFailure("error", f"{hook}: {error}") from error
        where = _where(error, folder)
        raise SubmissionFailure(
            "error", f"{hook} raised {type(error).__name__}{where}: {_first_line(error)}"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had no memory left."""
    return isinstance(error, MemoryError) or (
        isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or "no message"
    line = text.splitlines()[0]
    return line if len(line) <= 300 else line[:297] + "..."


def _where(error: BaseException, folder: Path | None) -> str:
    """The innermost line of the submission's own source in the traceback."""
    if folder is None:
        return ""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(folder)]
    return f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
