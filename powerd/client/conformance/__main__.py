"""The command: plays the scenes against a candidate and tells the verdicts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from powerd.client.conformance.scenes import SCENES, Scene
from powerd.client.conformance.stage import Breach, NotStarted, Stage


def main(arguments: Sequence[str]) -> int:
    """0 = every scene is kept, 1 = one is not, 2 = wrong usage, or the candidate does not start."""
    ours, command = _parted(arguments)
    parser = argparse.ArgumentParser(
        prog="python -m powerd.client.conformance",
        usage="%(prog)s [options] -- COMMAND ARGS...",
        description="Holds a controller of any language to docs/protocol.md.",
    )
    names = [scene.__name__ for scene in SCENES]
    parser.add_argument("--only", action="append", choices=names, metavar="SCENE", help=f"one of {', '.join(names)}")
    parser.add_argument("--slack", type=float, default=1.0, metavar="S", help="how late an expiry may be seen [s]")
    options = parser.parse_args(ours)
    if not command:
        parser.error("no COMMAND after --")
    chosen = [scene for scene in SCENES if options.only is None or scene.__name__ in options.only]
    try:
        broken = sum(not _kept(scene, command, options.slack) for scene in chosen)
    except NotStarted as error:
        parser.error(f"the candidate does not start: {error}")
    _say(f"{len(chosen) - broken} of {len(chosen)} scenes kept")
    return 1 if broken else 0


def _parted(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Our own options, and the candidate's command."""
    at = list(arguments).index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def _kept(scene: Scene, command: Sequence[str], slack_s: float) -> bool:
    """Plays one scene and tells its verdict."""
    try:
        with Stage(command, slack_s) as stage:
            scene(stage)
    except Breach as breach:
        _say(f"BROKEN {scene.__name__}: {breach}\n       {scene.__doc__}")
        return False
    _say(f"kept   {scene.__name__}")
    return True


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
