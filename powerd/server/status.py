"""powerd's errors as gRPC status: code, sentence, and google.rpc.BadRequest details where a field is to blame."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc.aio import ServicerContext

from powerd.control.events import Done, NotFound, Outcome, Refused
from powerd.errors import BadRequest, Overloaded, UnknownName

DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata key under which gRPC carries a serialised google.rpc.Status."""


class Unavailable(Exception):
    """The daemon cannot answer now; a retry is harmless."""


class Superseded(Exception):
    """A newer stream of the same controller has taken over, or one is open where a single call came."""


def bad_request_details(bad: BadRequest) -> bytes:
    """The serialised google.rpc.Status that names the field and what was expected of it."""
    violation = error_details_pb2.BadRequest.FieldViolation(field=bad.field, description=f"expected {bad.expected}")
    status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message=_sentence(bad))
    status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    serialised: bytes = status.SerializeToString()
    return serialised


def done_or_raise(outcome: Outcome) -> Done:
    """The good outcome.

    Raises:
        BadRequest: a value did not fit what is going on.
        UnknownName: it named something that is not there.
    """
    match outcome:
        case Done():
            return outcome
        case NotFound(what=what):
            raise UnknownName(f"there is no {what}")
        case Refused(field=field, expected=expected):
            raise BadRequest(field, expected)


@asynccontextmanager
async def as_status(context: ServicerContext[Any, Any]) -> AsyncIterator[None]:
    """Ends the call with the status that belongs to the error raised inside."""
    try:
        yield
    except BadRequest as bad:
        details = ((DETAILS_KEY, bad_request_details(bad)),)
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, _sentence(bad), details)
    except UnknownName as unknown:
        await context.abort(grpc.StatusCode.NOT_FOUND, str(unknown))
    except Overloaded:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the inbox is full: nothing was taken, try again")
    except Unavailable as late:
        await context.abort(grpc.StatusCode.UNAVAILABLE, str(late))
    except Superseded as other:
        await context.abort(grpc.StatusCode.ABORTED, str(other))


def _sentence(bad: BadRequest) -> str:
    return f"{bad.field}: expected {bad.expected}"
