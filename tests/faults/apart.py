"""Controllers in a process of their own, as in the field; a pipe tells what their actuators took, and when."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path

from powerd.server.loop import ServingLoop
from tests.faults.hall import Fleet, Hall
from tests.faults.truth import Truth


class _Told(Truth):
    """Each write as a line: EVSE, ceiling, end of its validity, instant."""

    def write(self, evse: int, ceiling: float, valid_until_s: float, now_s: float) -> None:
        """Tells it instead of keeping it."""
        print(evse, repr(ceiling), repr(valid_until_s), repr(now_s), flush=True)


@contextlib.asynccontextmanager
async def apart(
    hall: Hall, target: str, truth: Truth, members: Sequence[int], *, lean: bool = False
) -> AsyncIterator[Process]:
    """Those controllers of the hall against ``target``, a car at each of their posts; killed at the end."""
    told = [target, json.dumps(asdict(hall)), json.dumps(list(members)), *(["--lean"] if lean else [])]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.apart", *told, stdout=PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    listening = asyncio.create_task(_listen(process.stdout, truth))
    try:
        yield process
    finally:
        process.kill()
        await process.wait()
        listening.cancel()


async def _listen(lines: asyncio.StreamReader, truth: Truth) -> None:
    async for line in lines:
        evse, *numbers = line.split()
        ceiling, until_s, now_s = map(float, numbers)
        truth.write(int(evse), ceiling, until_s, now_s)


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("hall", type=lambda text: Hall(**json.loads(text)))
    parser.add_argument("members", type=json.loads)
    parser.add_argument("--lean", action="store_true")
    told = parser.parse_args()
    hall: Hall = told.hall
    truth = _Told(count=hall.posts, limit=hall.limit_a, reaction_s=0.0)
    async with Fleet(hall, told.target, truth, members=tuple(told.members), lean=told.lean) as fleet:
        for controller in told.members:
            for evse in hall.of(controller):
                fleet.plug(evse, plugged=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=ServingLoop) as runner:  # hundreds of connections in one process, too
        runner.run(_main())
