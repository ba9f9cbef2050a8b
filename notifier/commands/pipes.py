"""Output that cannot be written: a command ends quietly when nobody reads it any more."""

import asyncio
import errno
import os
import stat
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from notifier.commands.process import fail

T = TypeVar("T")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_UNREAD = 141  # as a shell says of a program that SIGPIPE ended


@contextmanager
def ending_unread() -> Iterator[None]:
    """End with the status that a shell gives for SIGPIPE, once the pipe is closed.

    A full disk is told.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _print_nowhere()
        sys.exit(_UNREAD)
    except OSError as error:
        if error.errno not in _FULL or error.filename:  # of another file
            raise
        _print_nowhere()
        fail(f"the output cannot be written: {error.strerror}")


def _print_nowhere() -> None:
    """Let Python flush the output when it ends: to nowhere, as it would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_client(work: Coroutine[Any, Any, T]) -> T:
    """Run the work of a client until it is done, or nobody reads its output any more."""
    from notifier import client

    try:
        return asyncio.run(_while_read(work))
    except client.ClientError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(0)


async def _while_read(work: Coroutine[Any, Any, T]) -> T:
    """Do `work` until nobody reads the output any more: then raise BrokenPipeError.

    The next line may be long in coming, so the pipe itself is watched.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    is_unread = False

    def end() -> None:
        nonlocal is_unread
        is_unread = True
        loop.remove_reader(sys.stdout.fileno())
        if task is not None:
            task.cancel()

    if _prints_into_a_pipe():
        loop.add_reader(sys.stdout.fileno(), end)
    try:
        return await work
    except asyncio.CancelledError:
        if is_unread:
            raise BrokenPipeError from None
        raise


def _prints_into_a_pipe() -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)
    except (AttributeError, OSError):  # there is no standard output, or something in its place
        return False
