"""The house rules about who may import whom, read from the source itself.

`bridge/` is what must happen within 20 ms, `calls/` is what outlives the call. Imports point down only,
the inner modules know neither sockets nor clocks, and nothing in the bridge can wait for a database.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PURE_FILES = (
    "arrivals",
    "barge_in",
    "config",
    "deadlines",
    "endings",
    "events",
    "hold",
    "journal",
    "keypad",
    "live_note",
    "opening_hours",
    "playout",
    "report",
    "session",
    "tool_calls",
    "turns",
    "utterances",
)
PURE_PACKAGES = ("wire", "audio")
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

MEDIA_PATH = ("consumer", "runner", "outbox", "vapi_link")
HOPS = {
    "async_to_sync",
    "channel_layer",
    "database_sync_to_async",
    "get_channel_layer",
    "run_in_executor",
    "sync_to_async",
    "to_thread",
}

# What of the bridge the other app may know: what a call reports and the words it uses for its end, who may
# come in, where Vapi's answers may lead, and how it is set up.
OPEN_TO_CALLS = {
    "bridge.allowed_hosts",
    "bridge.journal",
    "bridge.endings",
    "bridge.admission",
    "bridge.config",
    "bridge.context",
    "bridge.opening_hours",
    "bridge.tool_calls",
}


def sources(folder: str) -> list[Path]:
    """The product's modules: tests wire the real parts together and are free to."""
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "tests" not in path.parts)


def pure_modules() -> list[Path]:
    bridge = ROOT / "bridge"
    return [bridge / f"{name}.py" for name in PURE_FILES] + [
        path for package in PURE_PACKAGES for path in sorted((bridge / package).glob("*.py"))
    ]


def imports(path: Path) -> set[str]:
    """Everything that a module imports, in full: `from bridge.wire import vapi` is `bridge.wire.vapi`."""
    package = path.relative_to(ROOT).parent.parts
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def within(name: str, modules: Iterable[str]) -> bool:
    """Whether `bridge.journal.Entry` lies in one of these modules."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def words(path: Path) -> set[str]:
    """Every name and attribute that a module speaks of."""
    tree = ast.parse(path.read_text(), str(path))
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
    }


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_it_looks_at_the_whole_house() -> None:
    assert [path for path in pure_modules() if not path.is_file()] == []
    assert [name for name in MEDIA_PATH if not (ROOT / "bridge" / f"{name}.py").is_file()] == []
    wire_and_audio = {path.stem for path in pure_modules()}
    assert {"twilio", "vapi", "g711", "resample", "transcode", "energy"} <= wire_and_audio
    assert len(sources("calls")) > 5 and len(sources("sandbox")) > 3


@pytest.mark.parametrize("path", pure_modules(), ids=named)
def test_a_pure_module_knows_no_socket_no_clock_and_no_chance(path: Path) -> None:
    assert {name for name in imports(path) if within(name, NOT_PURE)} == set()


@pytest.mark.parametrize("path", pure_modules(), ids=named)
def test_a_pure_module_stands_on_pure_modules(path: Path) -> None:
    pure = {module_name(each) for each in pure_modules()} - {"bridge"}
    ours = {name for name in imports(path) if within(name, {"bridge", "calls", "voiceai"})}
    assert {name for name in ours if not within(name, pure)} == set()


def test_the_bridge_knows_nothing_above_it() -> None:
    above = {
        f"{named(path)} imports {name}"
        for path in (ROOT / "bridge").rglob("*.py")
        for name in imports(path)
        if within(name, {"calls"}) or (within(name, {"voiceai", "bench"}) and "tests" not in path.parts)
    }
    assert above == set()


def test_the_bridge_meets_its_frameworks_at_the_edge_only() -> None:
    """Django in the commands, Channels in the consumer: the rest runs in any event loop."""
    found = {
        f"{named(path)} imports {name}"
        for path in sources("bridge")
        for name in imports(path)
        if (within(name, {"django"}) and "management" not in path.parts)
        or (within(name, {"channels"}) and path.name != "consumer.py")
    }
    assert found == set()


@pytest.mark.parametrize("name", MEDIA_PATH)
def test_the_media_path_touches_no_database_no_layer_and_no_thread(name: str) -> None:
    path = ROOT / "bridge" / f"{name}.py"
    assert {
        each for each in imports(path) if within(each, {"asgiref", "channels.db", "channels.layers"})
    } == set()
    assert words(path) & HOPS == set()


def test_calls_knows_only_what_the_bridge_shows() -> None:
    found = {
        f"{named(path)} imports {name}"
        for path in sources("calls")
        for name in imports(path)
        if within(name, {"bridge"}) and not within(name, OPEN_TO_CALLS)
    }
    assert found == set()


def test_the_sandbox_is_for_what_places_simulated_calls() -> None:
    found = {
        f"{named(path)} imports {name}"
        for folder in ("bridge", "calls", "voiceai")
        for path in sources(folder)
        for name in imports(path)
        if within(name, {"sandbox"}) and not _places_calls(path)
    }
    assert found == set()


def _places_calls(path: Path) -> bool:
    return "management" in path.parts or "demo" in path.parts


def test_the_sandbox_is_no_mirror() -> None:
    """A far end that shares the bridge's code would agree with its mistakes."""
    found = {
        f"{named(path)} imports {name}"
        for path in sources("sandbox")
        for name in imports(path)
        if within(name, {"bridge", "calls", "voiceai"})
    }
    assert found == set()
