"""Names of the site to indices and back, made once at start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from powerd.errors import UnknownName
from powerd.limits import Ints, Posts
from powerd.network.electrical import Electrical


@dataclass(frozen=True, kw_only=True, eq=False)
class Directory:
    """What the doors look up."""

    posts: Posts
    """The EVSEs as columns."""
    evse: dict[str, int]
    """EVSE id -> column."""
    controller: dict[str, int]
    """Controller id -> index."""
    controller_ids: tuple[str, ...]
    """Index -> controller id."""
    owned: tuple[Ints, ...]
    """Controller index -> its EVSE columns, ascending."""

    @staticmethod
    def of(site: Electrical) -> Directory:
        """The names of ``site``."""
        ids = site.controllers.ids
        return Directory(
            posts=site.posts,
            evse={name: i for i, name in enumerate(site.posts.ids)},
            controller={name: i for i, name in enumerate(ids)},
            controller_ids=ids,
            owned=tuple(np.flatnonzero(site.posts.controller == c) for c in range(len(ids))),
        )

    def find_evse(self, evse_id: str) -> int:
        """Column of an EVSE.

        Raises:
            UnknownName: there is none of that name.
        """
        try:
            return self.evse[evse_id]
        except KeyError:
            raise UnknownName(f"no EVSE {evse_id!r} at this site; GetSite lists them") from None

    def owner(self, evse: int) -> str:
        """Id of the controller that owns an EVSE."""
        return self.controller_ids[int(self.posts.controller[evse])]

    def unit(self, evse: int) -> str:
        """Unit of its ceilings: "A" or "kW"."""
        return "kW" if self.posts.is_dc[evse] else "A"
