"""The README's blocks run as a reader would run them, and its drawing is the house that stands."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests import readme
from tests.floors import HOUSE
from tests.readme import Block

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = {block.name: block for block in readme.blocks(README)}

SAMPLE = """
<!-- test: greet -->
```bash
echo hello $((40 + 2)); seq 3; echo end
```

```text
hello 4...
1
...
end
```

<!-- test: count -->
```python
print(sum(range(5)))
```
Prose ends the pair.
```text
not a result
```

<!-- test: call -->

```bash
grpcurl -plaintext 127.0.0.1:5555 list
```

```bash
echo not marked
```
"""


def _free_port() -> int:
    """A port that nobody listens on, below those that the kernel gives to clients."""
    for port in random.sample(range(20000, 32000), 50):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise OSError("no free port found between 20000 and 32000")


def _serving(address: str) -> bool:
    """Whether the daemon says that it grants."""
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@contextmanager
def _daemon(site: str, where: Path) -> Iterator[str]:
    """The address of a daemon that serves a model, as the README starts it."""
    address = f"127.0.0.1:{_free_port()}"
    log = where / "log"
    command = [str(BIN / "powerd"), "serve", str(ROOT / "models" / site), "--address", address, "--first-start"]
    with log.open("w") as sink, subprocess.Popen(command, cwd=where, stdout=sink, stderr=sink) as process:
        try:
            deadline = time.monotonic() + 120
            while not _serving(address):
                assert process.poll() is None, f"the daemon ended:\n{log.read_text()}"
                assert time.monotonic() < deadline, f"the daemon is not serving:\n{log.read_text()}"
                time.sleep(0.2)
            yield address
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """The address of the daemon of a site; each is started when it is first asked for."""
    with ExitStack() as running:

        @cache
        def address_of(site: str) -> str:
            return running.enter_context(_daemon(site, tmp_path_factory.mktemp(site)))

        yield address_of


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder in which a reader would type: models and protos are there, nothing else."""
    for name in ("models", "protos"):
        if (ROOT / name).exists():
            (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def _output(block: Block, where: Path, address: str) -> str:
    """What the block prints; it must succeed."""
    runners = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    command = [*runners[block.language], block.at(address)]
    result = subprocess.run(
        command, cwd=where, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, f"{block.name} failed:\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.mark.parametrize("name", ["suite", *(name for name in BLOCKS if name not in readme.ELSEWHERE)])
def test_a_block_of_the_readme_works(name: str, desk: Path, daemons: Callable[[str], str]) -> None:
    """Typed as it stands, the block succeeds and prints what the README says (the suite's own block: is there)."""
    block = BLOCKS[name]
    if name in readme.ELSEWHERE:
        assert block.language == "bash"
        return
    address = daemons(readme.SERVED.get(name, "caltech_garage")) if block.needs_daemon else ""
    output = _output(block, desk, address)
    assert readme.prints(block, output), f"the README promises\n{block.result}\nbut it prints\n{output}"


def test_every_marker_has_its_block() -> None:
    """No marker of the README stands above something that cannot be run, and no name is used twice."""
    assert readme.marks(README) == len(readme.blocks(README)) == len(BLOCKS)
    assert {block.language for block in BLOCKS.values()} <= {"bash", "python"}


def test_the_readme_has_its_two_commands() -> None:
    """``make run`` and ``make test`` are each one command of the README."""
    assert [BLOCKS[name].code for name in ("run", "suite")] == ["make run\n", "make test\n"]


def test_blocks_are_read_from_a_document() -> None:
    """Marked blocks are found with language, code and the result that follows directly; others are not."""
    found = readme.blocks(SAMPLE)
    assert [(block.name, block.language, block.needs_daemon) for block in found] == [
        ("greet", "bash", False),
        ("count", "python", False),
        ("call", "bash", True),
    ]
    assert [block.result is None for block in found] == [False, True, True]
    assert readme.marks(SAMPLE) == 3
    assert readme.marks(SAMPLE.replace("```bash\ngrpcurl", "grpcurl")) != len(
        readme.blocks(SAMPLE.replace("```bash\ngrpcurl", "grpcurl"))
    )
    assert found[2].at("127.0.0.1:1234") == "grpcurl -plaintext 127.0.0.1:1234 list\n"


def test_blocks_run_and_their_results_are_compared(tmp_path: Path) -> None:
    """What a block prints is held against its result: wildcards match, any other difference does not."""
    greet, count, _ = readme.blocks(SAMPLE)
    output = _output(greet, tmp_path, "")
    assert output == "hello 42\n1\n2\n3\nend\n"
    assert readme.prints(greet, output)
    assert readme.prints(count, _output(count, tmp_path, ""))
    for wrong in ("hello 52\n1\n2\nend\n", "hello 42\n1\n2\n", "hello 42\n2\nend\n", "hello 42\n1\nend\nmore\n", ""):
        assert not readme.prints(greet, wrong)


def test_a_failing_block_fails(tmp_path: Path) -> None:
    """A block whose command fails is an error, even in the middle of a pipe."""
    block = Block(name="x", language="bash", code="false | cat\n", result=None)
    with pytest.raises(AssertionError, match="x failed"):
        _output(block, tmp_path, "")


def _standing() -> set[str]:
    """The rooms that are there: packages and modules right under powerd/, without the generated one."""
    names = {path.stem for path in (ROOT / "powerd").glob("*.py")}
    names |= {path.parent.name for path in (ROOT / "powerd").glob("*/__init__.py")}
    return names - {"__init__", "__main__", "v1"}


def test_the_drawing_is_the_house() -> None:
    """Every room that stands is drawn, on the floor where the inspector of imports has it, and no other."""
    picture = readme.drawing(README)
    assert picture is not None
    drawn = readme.rooms_drawn(picture, [floor.name for floor in HOUSE])
    assert [name for name in drawn if name] == [floor.name for floor in HOUSE]
    assert {room for rooms in drawn.values() for room in rooms} >= _standing()
    strangers = {floor.name: drawn[floor.name] - set(floor.rooms) for floor in HOUSE}
    assert strangers == {floor.name: set() for floor in HOUSE}
