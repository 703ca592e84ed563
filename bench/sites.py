"""Made-up sites of any size for the benches: a 20 kV bus, transformers of 200 posts, panels of 20."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from powerd.network.electrical import Electrical
from powerd.network.load import load_site

PANEL, HALL, CONTROLLER = 20, 200, 100
"""Posts of a panel, of a transformer, of a controller."""


def site(count: int, group: str) -> Electrical:
    """A compiled drawing with ``count`` posts of 32 A, 40 % of them three-phase, the others on one phase in turn.

    Behind transformers of vector group YNyn0 the limits are a tree; behind Dyn5 one-phase posts make them cones.
    """
    return _load(_drawing(count, group))


def _load(drawing: dict[str, object]) -> Electrical:
    """A site file's content (JSON is YAML) as columns."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "site.yaml"
        path.write_text(json.dumps(drawing), encoding="utf-8")
        return load_site(path).must()


def _drawing(count: int, group: str) -> dict[str, object]:
    """The site file's content."""
    halls = range(-(-count // HALL))
    panels = range(-(-count // PANEL))
    of_hall = HALL // PANEL
    return {
        "site": f"bench-{count}",
        "supplies": [{"id": "grid", "bus": "ring", "voltage_percent": 102}],
        "buses": [
            {"id": "ring", "voltage_v": 20_000},
            *({"id": f"h{k}", "voltage_v": 400} for k in halls),
            *({"id": f"p{k}", "voltage_v": 400} for k in panels),
        ],
        "transformers": [
            {
                "id": f"T{k}",
                "high_bus": "ring",
                "low_bus": f"h{k}",
                "rated_power_kva": 1250,
                "iron_loss_kw": 1.5,
                "vector_group": group,
            }
            for k in halls
        ],
        "feeders": [_feeder(k, f"h{k // of_hall}") for k in panels],
        "controller_classes": [{"id": "c", "ttl_s": 30, "reaction_s": 5, "watchdog_s": 30}],
        "controllers": [{"id": f"c{k}", "class": "c"} for k in range(-(-count // CONTROLLER))],
        "evse_types": [
            {"id": "one", "phases": 1, "max_current_a": 32, "fallback_a": 0},
            {"id": "three", "phases": 3, "max_current_a": 32, "fallback_a": 0},
        ],
        "station_groups": [group for k in panels for group in _groups(k, min(PANEL, count - k * PANEL))],
    }


def _feeder(k: int, hall: str) -> dict[str, object]:
    """40 m of cable to panel ``k``."""
    return {"id": f"F{k}", "from_bus": hall, "to_bus": f"p{k}", "length_m": 40, "cable": "NAYY 4x150 SE", "parallel": 2,
            "breaker_a": 250}  # fmt: skip


def _groups(panel: int, posts: int) -> list[dict[str, object]]:
    """The posts of a panel."""
    three = posts * 2 // 5
    common = {"bus": f"p{panel}", "controller": f"c{panel * PANEL // CONTROLLER}"}
    groups = [
        {"id": f"A{panel}-{{n}}", "count": three, "type": "three", **common},
        {"id": f"B{panel}-{{n}}", "count": posts - three, "type": "one", "connections": ["l1", "l2", "l3"], **common},
    ]
    return [group for group in groups if group["count"]]


def tree(buses: int) -> Electrical:
    """A 20 kV network as a random tree of 100 m cables, 8 MW of load spread over a quarter of its ``buses``."""
    rng = np.random.default_rng(buses)
    parent = [int(rng.integers(0, k)) for k in range(1, buses)]
    loaded = range(3, buses, 4)
    drawing: dict[str, object] = {
        "site": f"tree-{buses}",
        "supplies": [{"id": "grid", "bus": "b0"}],
        "buses": [{"id": f"b{k}", "voltage_v": 20_000} for k in range(buses)],
        "feeders": [
            {"id": f"f{k}", "from_bus": f"b{above}", "to_bus": f"b{k}", "length_m": 100,
             "cable": "NA2XS2Y 1x150 RM/25 12/20 kV"}
            for k, above in enumerate(parent, start=1)
        ],
        "loads": [
            {"id": f"d{k}", "bus": f"b{k}", "typical_kw": 8000 / len(loaded), "worst_kw": 8000 / len(loaded),
             "power_factor": 0.95}
            for k in loaded
        ],
        "controller_classes": [{"id": "c"}],
        "controllers": [{"id": "c", "class": "c"}],
        "evse_types": [{"id": "three", "phases": 3, "max_current_a": 32}],
        "station_groups": [{"id": "E-{n}", "count": 1, "type": "three", "bus": "b1", "controller": "c"}],
    }  # fmt: skip
    return _load(drawing)
