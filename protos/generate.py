"""Generates ``powerd/v1`` from ``protos/powerd/v1/*.proto``; the build hook and ``make setup`` call it.

Writes ``*_pb2.py`` and ``*_pb2.pyi`` (messages), ``*_pb2_grpc.py`` and ``*_pb2_grpc.pyi`` (services) and an
``__init__.py``. Imports of ``google/rpc`` resolve to the .proto files inside ``googleapis-common-protos``, those of
``google/protobuf`` to the ones inside ``grpcio-tools``: nothing is fetched and nothing is copied into the project.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

PACKAGE = "powerd/v1"
INIT = '"""Generated from protos/powerd/v1 by protos/generate.py; do not edit. Only the doors may import it."""\n'


def generate(root: Path) -> list[Path]:
    """Writes the generated package into ``root/powerd/v1`` and returns its files, sorted.

    The package is made aside and moved in file by file, so that a process that imports it meanwhile never meets half a
    file; files left from a .proto that is gone are removed last.

    Raises:
        SystemExit: protoc refused a file; it has printed place and reason on stderr.
    """
    target = root / PACKAGE
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".protos-") as scratch:
        made = Path(scratch) / PACKAGE
        made.mkdir(parents=True)
        (made / "__init__.py").write_text(INIT, encoding="utf-8")
        _protoc(root, Path(scratch))
        written = sorted(path.replace(target / path.name) for path in made.iterdir())
    for stale in {path for path in target.iterdir() if path.is_file()} - set(written):
        stale.unlink()
    return written


def _protoc(root: Path, out: Path) -> None:
    """Runs protoc over all .proto files of ``root`` with the Python, gRPC and type-stub outputs into ``out``."""
    protos = sorted((root / "protos" / PACKAGE).glob("*.proto"))
    if not protos:
        return
    includes = [root / "protos", Path(str(files("grpc_tools") / "_proto")), _common_protos()]
    arguments = ["protoc", *(f"--proto_path={path}" for path in includes)]
    arguments += [f"--python_out={out}", f"--grpc_python_out={out}"]
    for kind in ("mypy", "mypy_grpc"):
        arguments += [f"--plugin=protoc-gen-{kind}={_plugin(kind)}", f"--{kind}_out=quiet:{out}"]
    if protoc.main([*arguments, *(str(path) for path in protos)]) != 0:
        sys.exit("powerd/v1 was not generated: mend the .proto named above")


def _common_protos() -> Path:
    """The folder that holds ``google/rpc/*.proto`` (package googleapis-common-protos)."""
    return Path(str(files("google.rpc").joinpath("status.proto"))).parents[2]


def _plugin(kind: str) -> str:
    """The protoc plug-in of mypy-protobuf: beside this interpreter, or on the PATH of an isolated build.

    Raises:
        SystemExit: mypy-protobuf is not installed.
    """
    name = f"protoc-gen-{kind}"
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    return beside or shutil.which(name) or sys.exit(f"{name} is missing: install mypy-protobuf (make setup does)")


if __name__ == "__main__":
    for path in generate(Path(__file__).resolve().parent.parent):
        sys.stdout.write(f"{path}\n")
