"""Who may import whom, read from the source itself, folder by folder.

`bridge/` is what must happen within 20 ms, `calls/` is what outlives the call. Imports point one way: calls
to the top level of the bridge, and nothing back. Inside the bridge `call`, `wire` and `audio` are pure, and
nothing anywhere in it can wait for a database, a cache of Django's, the channel layer or another thread.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bridge", "calls", "sandbox", "voiceai")

PURE_FOLDERS = ("bridge/call", "bridge/wire", "bridge/audio")
NOT_PURE = {
    "aiohttp",
    "asgiref",
    "asyncio",
    "channels",
    "daphne",
    "django",
    "random",
    "secrets",
    "socket",
    "threading",
    "time",
    "twilio",
    "websockets",
}

# Ways to wait for a thread, and what waits for a database or a channel layer.
HOPS = {
    "async_to_sync",
    "channel_layer",
    "database_sync_to_async",
    "get_channel_layer",
    "run_in_executor",
    "sync_to_async",
    "to_thread",
}
WAITS_FOR_ROWS = {"asgiref", "channels.db", "channels.layers", "django"}

MAX_MODULES = 20  # in one package
MAX_LINES = 450  # in one module
MAX_MODULES_AT_TOP = {"calls": 22, "bridge": 14}  # of the package itself, without its subpackages


@cache
def modules() -> dict[str, Path]:
    """The product's modules by their dotted names. Tests wire the real parts together and are free to."""
    return {
        module_name(path): path
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if "tests" not in path.parts
    }


def below(*folders: str) -> list[Path]:
    """The product's modules in these folders."""
    return [path for path in modules().values() if any((ROOT / each) in path.parents for each in folders)]


@cache
def imports(path: Path) -> frozenset[str]:
    """Everything that a module imports, in full: `from bridge.wire import vapi` is `bridge.wire.vapi`.

    Imports within functions count; imports for type checkers alone do not.
    """
    package = path.relative_to(ROOT).parent.parts
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text(), str(path))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return frozenset(found)


def modules_imported(path: Path) -> set[str]:
    """Those of our own modules that a module imports."""
    found = set()
    for name in imports(path):
        module = name if name in modules() else name.rpartition(".")[0]
        if module in modules():
            found.add(module)
    return found


def within(name: str, those: Iterable[str]) -> bool:
    """Whether `bridge.journal.Entry` lies in one of these modules."""
    return any(name == module or name.startswith(f"{module}.") for module in those)


def identifiers(path: Path) -> set[str]:
    """Every name and attribute that a module speaks of."""
    tree = ast.parse(path.read_text(), str(path))
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
    }


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def everything_under(paths: Iterable[Path]) -> list[Path]:
    """These modules, and all of ours that they import, however far down."""
    found: dict[str, Path] = {}
    waiting = [module_name(path) for path in paths]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = modules()[name]
            waiting += modules_imported(found[name])
    return sorted(found.values())


def test_it_looks_at_the_whole_product() -> None:
    for folder in (*PURE_FOLDERS, "bridge/io", "calls/management/commands", "sandbox/twilio", "sandbox/vapi"):
        assert len(below(folder)) > 2, folder
    assert {"bridge.call.session", "bridge.io.vapi_socket", "calls.models"} <= modules().keys()


@pytest.mark.parametrize("path", everything_under(below(*PURE_FOLDERS)), ids=named)
def test_a_pure_module_and_all_it_imports_know_no_socket_no_clock_and_no_chance(path: Path) -> None:
    assert {name for name in imports(path) if within(name, NOT_PURE)} == set()
    assert path in below("bridge")


def test_the_bridge_knows_nothing_above_it() -> None:
    above = {
        f"{named(path)} imports {name}"
        for path in (ROOT / "bridge").rglob("*.py")
        for name in imports(path)
        if within(name, {"calls"})
        or (within(name, {"voiceai", "bench", "sandbox"}) and "tests" not in path.parts)
    }
    assert above == set()


def test_only_the_consumer_knows_channels() -> None:
    """The rest of the bridge runs in any event loop."""
    found = {named(path) for path in below("bridge") for name in imports(path) if within(name, {"channels"})}
    assert found == {"bridge/io/consumer.py"}


@pytest.mark.parametrize("path", below("bridge"), ids=named)
def test_the_media_path_touches_no_database_no_layer_and_no_thread(path: Path) -> None:
    assert {name for name in imports(path) if within(name, WAITS_FOR_ROWS)} == set()
    assert identifiers(path) & HOPS == set()


def test_calls_knows_only_the_top_level_of_the_bridge() -> None:
    found = {
        f"{named(path)} imports {name}"
        for path in below("calls")
        for name in modules_imported(path)
        if within(name, {"bridge"}) and name.count(".") > 1
    }
    assert found == set()


def test_the_sandbox_is_for_what_places_simulated_calls() -> None:
    found = {
        f"{named(path)} imports {name}"
        for path in below("bridge", "calls", "voiceai")
        for name in imports(path)
        if within(name, {"sandbox"}) and not {"management", "demo"} & set(path.parts)
    }
    assert found == set()


def test_the_sandbox_shares_no_code_with_the_product() -> None:
    """A simulator that shared the bridge's code would agree with its mistakes."""
    found = {
        f"{named(path)} imports {name}"
        for path in below("sandbox")
        for name in imports(path)
        if within(name, {"bridge", "calls", "voiceai"})
    }
    assert found == set()


def test_there_is_no_import_cycle() -> None:
    graph = {name: modules_imported(path) - {name} for name, path in modules().items()}
    cycle: list[str] = []
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = error.args[1]
    assert cycle == []


@pytest.mark.parametrize("path", list(modules().values()), ids=named)
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_a_package_can_be_seen_at_a_glance() -> None:
    sizes: Counter[Path] = Counter(path.parent.relative_to(ROOT) for path in modules().values())
    too_large = {
        str(package): size
        for package, size in sizes.items()
        if size > MAX_MODULES_AT_TOP.get(str(package), MAX_MODULES)
    }
    assert too_large == {}
