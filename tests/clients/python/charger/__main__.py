"""A charger controller that knows powerd by its README and its .proto files alone; powerd is not installed here.

    python -m charger --protos ../../../protos --address 127.0.0.1:7433 --evse CA-319 --controller cc-pod
    python -m charger --protos ../../../protos --rules ../rules.json      the verdict on each of these messages

Prints one JSON line for everything it gets. Exit 0 = both ways worked, 1 = not.
"""

from __future__ import annotations

import argparse
import importlib
import json
import secrets
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format

from .api import Api, generate
from .lease import refusal
from .stream import Controller
from .unary import Charger

_printing = threading.Lock()


def tell(**what: object) -> None:
    """One line for people and tests."""
    with _printing:
        print(json.dumps(what), flush=True)


def incarnation() -> int:
    """A random number for this process, never 0."""
    return secrets.randbelow(2**63 - 1) + 1


def talk(api: Api, evse_id: str, controller_id: str) -> bool:
    """Both ways at once; whether both worked."""
    faults: list[str] = []

    def guarded(work: Charger | Controller) -> None:
        try:
            work.run()
        except (grpc.RpcError, RuntimeError) as fault:
            faults.append(str(fault))

    works = [Charger(api, evse_id, incarnation(), tell), Controller(api, controller_id, incarnation(), tell)]
    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for fault in faults:
        print(fault, file=sys.stderr)
    return not faults


def verdicts(rules: Path) -> None:
    """Prints what this controller says to each scene."""
    common_pb2 = importlib.import_module("powerd.v1.common_pb2")  # ours, generated a moment ago
    for scene in json.loads(rules.read_text()):
        grant: Any = common_pb2.Grant()
        parts = {name: part for name, part in scene["message"].items() if name != "ttl" and part is not None}
        json_format.ParseDict(parts, grant)
        grant.ttl.seconds, grant.ttl.nanos = int(scene["message"]["ttl"]["seconds"]), scene["message"]["ttl"]["nanos"]
        known = {
            "incarnation": int(scene["incarnation"]),
            "last": (int(scene["last"]["epoch"]), int(scene["last"]["seq"])),
            "now": scene["now"],
            "plug": scene.get("plug", 0.0),
        }
        print(json.dumps(refusal(grant, **known)))


def main() -> int:
    """Reads the command line, makes the stubs, talks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protos", type=Path, required=True)
    parser.add_argument("--address")
    parser.add_argument("--evse")
    parser.add_argument("--controller")
    parser.add_argument("--rules", type=Path)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        generate(told.protos, Path(folder))
        if told.rules:
            verdicts(told.rules)
            return 0
        api = Api(told.address)
        try:
            return 0 if talk(api, told.evse, told.controller) else 1
        finally:
            api.close()


if __name__ == "__main__":
    sys.exit(main())
