"""The house drawing holds against every import, and the inspector that says so catches what is planted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.floors import HOUSE, offences

ROOT = Path(__file__).resolve().parent.parent


def test_the_house_holds() -> None:
    """No import of powerd points up or sideways, no library leaves its rooms, the core reads no clock."""
    assert offences(ROOT) == []


def test_every_room_is_on_one_floor() -> None:
    """The drawing names each room once."""
    rooms = [room for floor in HOUSE for room in floor.rooms]
    assert len(rooms) == len(set(rooms))


CLEAN = {
    "powerd/units.py": "import math\n",
    "powerd/site/schema.py": "from powerd.units import SQRT3\n",
    "powerd/network/load.py": "def load():\n    import pandapower as pp\n    return pp\n",
    "powerd/network/rows.py": "from . import load\nfrom powerd.site import schema\n",
    "powerd/control/step.py": "from datetime import datetime, timedelta\nx = datetime.fromtimestamp\n",
    "powerd/server/convert.py": "import grpc\nfrom powerd.v1 import common_pb2\nfrom powerd.control import step\n",
    "powerd/daemon.py": "import time\nfrom powerd.server import convert\nnow = time.monotonic()\n",
    "powerd/cli.py": "from powerd import daemon\n",
}


def _house(root: Path, planted: dict[str, str]) -> Path:
    for name, text in (CLEAN | planted).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_a_clean_house_has_no_offence(tmp_path: Path) -> None:
    """Arrows down, the confined libraries in their rooms and a clock on the roof are all admitted."""
    assert offences(_house(tmp_path, {})) == []


PLANTED = {
    "up": ("powerd/site/x.py", "import powerd.network.rows", "arrow up"),
    "up to the roof": ("powerd/sim/x.py", "from powerd.daemon import run", "arrow up"),
    "words import nothing above": ("powerd/units.py", "from powerd.site.schema import Site", "arrow up"),
    "sideways between workshops": ("powerd/allocation/x.py", "from powerd.network import rows", "sideways"),
    "sideways between papers": ("powerd/state/x.py", "from powerd import site", "sideways"),
    "sideways between doors": ("powerd/server/x.py", "from powerd.journal.book import Book", "sideways"),
    "daemon imports cli": ("powerd/daemon.py", "import powerd.cli", "sideways"),
    "inside a function": ("powerd/state/x.py", "def f():\n    from powerd.control import step", "arrow up"),
    "for type checkers only": (
        "powerd/state/x.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from powerd.control import step",
        "arrow up",
    ),
    "relative": ("powerd/network/x.py", "from ..server import convert", "arrow up"),
    "relative, without a module": ("powerd/network/x.py", "from .. import server", "arrow up"),
    "relative, in a package": ("powerd/network/__init__.py", "from ..server import convert", "arrow up"),
    "importlib": ("powerd/network/x.py", "import importlib\nimportlib.import_module('powerd.server')", "arrow up"),
    "importlib, renamed": (
        "powerd/network/x.py",
        "from importlib import import_module as im\nim(name='powerd.server')",
        "arrow up",
    ),
    "importlib, relative": (
        "powerd/network/x.py",
        "import importlib as i\ndef f():\n    return i.import_module('..server', package='powerd.network')",
        "arrow up",
    ),
    "dunder import": ("powerd/network/x.py", "__import__('powerd.server')", "arrow up"),
    "computed": ("powerd/control/x.py", "import importlib\nimportlib.import_module('power' + 'd.server')", "computed"),
    "the house as a whole": ("powerd/cli.py", "import powerd", "name the room"),
    "everything of the house": ("powerd/site/x.py", "from powerd import *", "name the room"),
    "the front of the house": ("powerd/__init__.py", "from powerd.daemon import run", "arrow up"),
    "an unknown room": ("powerd/helpers.py", "x = 1", "no room"),
    "import of an unknown room": ("powerd/cli.py", "from powerd.helpers import x", "no room"),
    "pandapower in the rows": ("powerd/network/rows.py", "import pandapower.topology", "pandapower may enter only"),
    "pandapower in the annex": ("powerd/studies/x.py", "def f():\n    import pandapower", "pandapower may enter only"),
    "protobuf in the tick": ("powerd/control/x.py", "from powerd.v1 import common_pb2", "powerd.v1 may enter only"),
    "messages in the plan": ("powerd/schedule/x.py", "import google.protobuf.message", "may enter only"),
    "grpc in a report": ("powerd/reports/x.py", "import grpc.aio", "grpc may enter only"),
    "a clock": ("powerd/control/x.py", "import time\ndef f():\n    return time.monotonic()", "time.monotonic"),
    "a clock, renamed": ("powerd/state/x.py", "from time import perf_counter_ns as p", "time.perf_counter_ns"),
    "the calendar": ("powerd/state/x.py", "from datetime import datetime as d\nx = d.now()", "datetime.datetime.now"),
    "the calendar, long": ("powerd/site/x.py", "import datetime\nx = datetime.datetime.utcnow()", "utcnow"),
    "chance": ("powerd/allocation/x.py", "import random", "random"),
    "numpy's chance": ("powerd/allocation/x.py", "import numpy as np\nx = np.random.default_rng()", "numpy.random"),
    "numpy's chance, imported": ("powerd/schedule/x.py", "from numpy.random import default_rng", "numpy.random"),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_offence_is_caught(case: str, tmp_path: Path) -> None:
    """Each way to break the rules is found, in the file where it was planted, and nothing else is."""
    name, text, expected = PLANTED[case]
    found = offences(_house(tmp_path, {name: f"{text}\n"}))
    assert found
    assert all(line.startswith(f"{name}:") for line in found)
    assert any(expected in line for line in found)
