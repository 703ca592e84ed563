"""A candidate for ``powerd.client.conformance``: the library with posts that print; an argument breaks one rule."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from unittest.mock import patch

from powerd.client import ControllerCore, EvseConfig
from powerd.client.aio import PowerdController
from powerd.client.lease import EvseLease


def _config(text: str) -> EvseConfig:
    evse_id, fallback, idle = text.split(":")
    return EvseConfig(evse_id=evse_id, fallback=float(fallback), fallback_idle=float(idle))


BROKEN: dict[str, tuple[type, str, object]] = {
    "goes-on": (ControllerCore, "expire", ()),
    "takes-old": (EvseLease, "refusal", None),
    "takes-all": (ControllerCore, "_stream_refusal", None),
    "keeps-leases": (EvseLease, "_end", None),
    "silent": (ControllerCore, "report_due_s", math.inf),
}
"""What to break -> class, method, and what that returns instead of what it should."""


async def main(*, acks_first: bool) -> None:
    """Runs until stdin ends."""
    evses = [_config(text) for text in os.environ["POWERD_EVSES"].split(",")]
    free = {evse.evse_id: asyncio.Event() for evse in evses}
    late: list[asyncio.Task[None]] = []

    async def write(evse_id: str, ceiling: float) -> None:
        await free[evse_id].wait()
        print(evse_id, ceiling, flush=True)

    async def apply(evse_id: str, ceiling: float, valid_for_s: float) -> None:
        if acks_first and valid_for_s < math.inf:
            late.append(asyncio.create_task(write(evse_id, ceiling)))
        else:
            await write(evse_id, ceiling)

    for taking in free.values():
        taking.set()
    address, name = os.environ["POWERD_ADDRESS"], os.environ["POWERD_CONTROLLER"]
    async with PowerdController(address, name, evses, apply) as controller:
        while line := await asyncio.to_thread(sys.stdin.readline):
            match line.split():
                case ["plug" | "unplug" as what, evse_id]:
                    controller.plug(evse_id, what == "plug")
                case ["hold", evse_id]:
                    free[evse_id].clear()
                case ["free", evse_id]:
                    free[evse_id].set()


if __name__ == "__main__":
    broken = "".join(sys.argv[1:])
    if broken in BROKEN:
        owner, method, instead = BROKEN[broken]
        patch.object(owner, method, return_value=instead).start()
    asyncio.run(main(acks_first=broken == "acks-first"))
