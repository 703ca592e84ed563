"""Build hook: every wheel and every editable install gets freshly generated ``powerd/v1``."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ProtobufHook(BuildHookInterface[Any]):
    """Calls ``protos/generate.py`` before hatchling collects the files of a wheel.

    A source distribution carries the .proto files and generates when it is built in turn.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generates ``powerd/v1`` in the tree that is being built.

        Raises:
            SystemExit: protoc refused a .proto file.
        """
        if self.target_name == "wheel":
            runpy.run_path(str(Path(self.root) / "protos" / "generate.py"))["generate"](Path(self.root))
