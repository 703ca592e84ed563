"""Which drawing a journal was written for: more than the names of its posts."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from powerd.codec import encode
from powerd.network.electrical import Electrical


def fingerprint_of(electrical: Electrical) -> str:
    """Digest of the columns of a drawing; where its files lie does not matter."""
    return hashlib.sha256(encode(replace(electrical, term_files=()))).hexdigest()


def elements_of(electrical: Electrical) -> tuple[str, ...]:
    """Branches, supplies and buses in the order of their columns, each with its kind: what the state of a row is of."""
    kinds = {"branch": electrical.branches.ids, "supply": electrical.supplies.ids, "bus": electrical.buses.ids}
    return tuple(f"{kind} {name}" for kind, ids in kinds.items() for name in ids)
