"""The import rules of the project, checked in the source by folder.

`bridge/` does what must happen within 20 ms; `calls/` keeps what outlives the call. `calls` may import the
top level of `bridge`, and `bridge` imports nothing of `calls`. Within the bridge, `call`, `wire` and `audio`
are pure, and no module can wait for a database, Django's cache, the channel layer or another thread.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bridge", "calls", "sandbox", "voiceai")

PURE_FOLDERS = ("bridge/call", "bridge/wire", "bridge/audio")
IMPURE_MODULES = {
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

# Names of calls to a thread or a channel layer, and modules that wait for a database or a channel layer.
THREAD_AND_LAYER_CALLS = {
    "async_to_sync",
    "channel_layer",
    "database_sync_to_async",
    "get_channel_layer",
    "run_in_executor",
    "sync_to_async",
    "to_thread",
}
DATABASE_AND_LAYER_MODULES = {"asgiref", "channels.db", "channels.layers", "django"}

MAX_MODULES = 20  # in one package
MAX_LINES = 450  # in one module
MAX_MODULES_AT_TOP = {"calls": 22, "bridge": 14}  # in the package itself, without its subpackages


@cache
def modules() -> dict[str, Path]:
    """The product's modules by dotted name, without tests, which may import anything."""
    return {
        module_name(path): path
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if "tests" not in path.relative_to(ROOT).parts
    }


def modules_below(*folders: str) -> list[Path]:
    """The product's modules in these folders."""
    return [path for path in modules().values() if any((ROOT / folder) in path.parents for folder in folders)]


@cache
def imports(path: Path) -> frozenset[str]:
    """The full names of a module's imports: `from bridge.wire import vapi` gives `bridge.wire.vapi`.

    Imports within functions count; imports for type checkers alone do not.
    """
    package = path.relative_to(ROOT).parent.parts
    names: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text(), str(path))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        # An expression contains no import.
        nodes += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr)]
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return frozenset(names)


def modules_imported(path: Path) -> set[str]:
    """The product's modules that a module imports."""
    dependencies = set()
    for name in imports(path):
        module = name if name in modules() else name.rpartition(".")[0]
        if module in modules():
            dependencies.add(module)
    return dependencies


def is_within(name: str, modules: Iterable[str]) -> bool:
    """Whether a name such as `bridge.journal.Entry` is in one of these modules or packages."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def identifiers(path: Path) -> set[str]:
    """All names and attributes in a module's source."""
    tree = ast.parse(path.read_text(), str(path))
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
    }


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def relative_path(path: Path) -> str:
    return str(path.relative_to(ROOT))


def with_dependencies(paths: Iterable[Path]) -> list[Path]:
    """These modules and the product's modules that they import, directly or indirectly."""
    collected: dict[str, Path] = {}
    pending = [module_name(path) for path in paths]
    while pending:
        name = pending.pop()
        if name not in collected:
            collected[name] = modules()[name]
            pending += modules_imported(collected[name])
    return sorted(collected.values())


def test_every_part_of_the_product_is_checked() -> None:
    for folder in (*PURE_FOLDERS, "bridge/io", "calls/management/commands", "sandbox/twilio", "sandbox/vapi"):
        assert len(modules_below(folder)) > 2, folder
    assert {"bridge.call.session", "bridge.io.vapi_socket", "calls.models"} <= modules().keys()


def test_pure_modules_and_their_dependencies_import_no_impure_module() -> None:
    checked = with_dependencies(modules_below(*PURE_FOLDERS))
    violations = {
        f"{relative_path(path)} imports {name}"
        for path in checked
        for name in imports(path)
        if is_within(name, IMPURE_MODULES)
    }
    assert violations == set()
    assert set(checked) <= set(modules_below("bridge"))


def test_the_bridge_imports_no_package_above_it() -> None:
    violations = {
        f"{relative_path(path)} imports {name}"
        for path in (ROOT / "bridge").rglob("*.py")
        for name in imports(path)
        if is_within(name, {"calls"})
        or (is_within(name, {"voiceai", "bench", "sandbox"}) and "tests" not in path.relative_to(ROOT).parts)
    }
    assert violations == set()


def test_only_the_consumer_imports_channels() -> None:
    """The rest of the bridge does not depend on Channels."""
    importers = {
        relative_path(path)
        for path in modules_below("bridge")
        for name in imports(path)
        if is_within(name, {"channels"})
    }
    assert importers == {"bridge/io/consumer.py"}


def test_the_bridge_uses_no_database_no_channel_layer_and_no_thread() -> None:
    violations = {
        f"{relative_path(path)} uses {name}"
        for path in modules_below("bridge")
        for name in {name for name in imports(path) if is_within(name, DATABASE_AND_LAYER_MODULES)}
        | (identifiers(path) & THREAD_AND_LAYER_CALLS)
    }
    assert violations == set()


def test_calls_imports_only_the_top_level_of_the_bridge() -> None:
    violations = {
        f"{relative_path(path)} imports {name}"
        for path in modules_below("calls")
        for name in modules_imported(path)
        if is_within(name, {"bridge"}) and name.count(".") > 1
    }
    assert violations == set()


def test_only_commands_and_the_demo_import_the_sandbox() -> None:
    violations = {
        f"{relative_path(path)} imports {name}"
        for path in modules_below("bridge", "calls", "voiceai")
        for name in imports(path)
        if is_within(name, {"sandbox"}) and not {"management", "demo"} & set(path.parts)
    }
    assert violations == set()


def test_the_sandbox_imports_nothing_of_the_product() -> None:
    """A simulator that shared code with the bridge would not reveal the bridge's mistakes."""
    violations = {
        f"{relative_path(path)} imports {name}"
        for path in modules_below("sandbox")
        for name in imports(path)
        if is_within(name, {"bridge", "calls", "voiceai"})
    }
    assert violations == set()


def test_there_is_no_import_cycle() -> None:
    graph = {name: modules_imported(path) - {name} for name, path in modules().items()}
    cycle: list[str] = []
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = error.args[1]
    assert cycle == []


def test_a_module_has_at_most_the_allowed_number_of_lines() -> None:
    too_long = {
        relative_path(path): lines
        for path in modules().values()
        if (lines := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert too_long == {}


def test_a_package_has_at_most_the_allowed_number_of_modules() -> None:
    sizes: Counter[Path] = Counter(path.parent.relative_to(ROOT) for path in modules().values())
    too_large = {
        str(package): size
        for package, size in sizes.items()
        if size > MAX_MODULES_AT_TOP.get(str(package), MAX_MODULES)
    }
    assert too_large == {}
