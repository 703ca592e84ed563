"""The event loop of a daemon with a thousand streams: gRPC's wake-ups are taken all at once, not one a turn.

gRPC's thread hands each of its events to the loop through a queue and writes one byte to a socket pair; its reader on
the loop takes one byte a turn, and all events that are in the queue (grpcio 1.85.1, ``PollerCompletionQueue``). The
bytes that a burst leaves over fill the socket's buffer, 278 of them on Linux; from then on the thread waits in its
write, and the loop is given one event a turn, however many there are: with 1 000 streams a new one had to wait for
half a minute, and controllers gave up before they were heard.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVarTuple

WAKER = "PollerCompletionQueue"
"""Type in gRPC whose method reads the wake-ups."""
BYTES_MAX = 4096
"""More than a socket pair ever holds of single bytes."""


Arguments = TypeVarTuple("Arguments")


class HasFileno(Protocol):
    """Something to wait for, by its number."""

    def fileno(self) -> int:
        """The number."""


class ServingLoop(asyncio.SelectorEventLoop):
    """A selector loop that empties gRPC's wake-up socket before gRPC looks at its queue."""

    def add_reader(self, fd: int | HasFileno, callback: Callable[[*Arguments], Any], *args: *Arguments) -> None:
        """As the base class does; gRPC's reader gets the socket with one byte left, which it takes itself."""
        if isinstance(fd, socket.socket) and _is_waker(callback):
            super().add_reader(fd, _emptied, fd, partial(callback, *args))
        else:
            super().add_reader(fd, callback, *args)


def _is_waker(callback: Callable[..., Any]) -> bool:
    """Is this gRPC's reader? It comes bound, and as a partial."""
    method = callback.func if isinstance(callback, partial) else callback
    return type(getattr(method, "__self__", None)).__name__ == WAKER


def _emptied(wake_ups: socket.socket, callback: Callable[[], Any]) -> None:
    """Takes all bytes but one, then calls: an event is in the queue before its byte is written, so none is missed."""
    waiting = len(wake_ups.recv(BYTES_MAX, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    if waiting > 1:
        wake_ups.recv(waiting - 1)
    callback()
