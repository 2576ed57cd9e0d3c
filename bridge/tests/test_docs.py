"""Paths, functions, commands, make targets and settings that the documents mention must exist.

A document names a function of a module as `` `name` in `path/to/module.py` ``, or several of them as
`` `one`, `Two.three` in `path/to/module.py` ``. Each name must be defined in that module; a dotted name is an
attribute of a class.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE_DOCUMENTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md")
MANAGEMENT_COMMANDS = "*/management/commands"

_NAME = r"`[A-Za-z_][\w.]*`"
_PAIR = re.compile(rf"({_NAME}(?:(?:,| and|, and)\s+{_NAME})*)\s+in\s+`([\w./]+\.py)`")
_PATH = re.compile(r"`((?:[\w.-]+/)+(?:[\w-]+\.[a-z]+)?)`")
_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)

# Folders that exist only after the project has run.
GENERATED = ("var/",)


def text_of(document: str) -> str:
    """A document without its code blocks."""
    return _FENCE.sub("", (ROOT / document).read_text())


def pairs_in(document: str) -> list[tuple[str, str]]:
    """Every pair of a name and the module path that the document gives for it."""
    return [
        (name.strip("`"), path)
        for names, path in _PAIR.findall(text_of(document))
        for name in re.findall(_NAME, names)
    ]


@cache
def defined_in(path: Path) -> frozenset[str]:
    """The names that a module defines at its top level, and `Class.attribute` for its classes."""
    names: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            match node:
                case ast.ClassDef():
                    names.add(prefix + node.name)
                    collect(node.body, f"{prefix}{node.name}.")
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    names.add(prefix + node.name)
                case ast.Assign():
                    targets = [leaf for target in node.targets for leaf in ast.walk(target)]
                    names.update(prefix + leaf.id for leaf in targets if isinstance(leaf, ast.Name))
                case ast.AnnAssign(target=ast.Name(id=name)):
                    names.add(prefix + name)
                case ast.If():
                    collect([*node.body, *node.orelse], prefix)

    collect(ast.parse(path.read_text(), str(path)).body, "")
    return frozenset(names)


def test_names_and_their_path_are_found_in_a_sentence() -> None:
    sentence = "Then `write` and\n`Spool.append` in `calls/ingest/spool.py`, and `other`."
    (names, path) = _PAIR.findall(sentence)[0]
    assert re.findall(_NAME, names) == ["`write`", "`Spool.append`"]
    assert path == "calls/ingest/spool.py"


@pytest.mark.parametrize("document", CODE_DOCUMENTS)
def test_every_path_in_a_document_exists(document: str) -> None:
    paths = _PATH.findall(text_of(document))
    assert paths
    missing = [path for path in paths if not path.startswith(GENERATED) and not (ROOT / path).exists()]
    assert missing == []


def test_every_name_in_a_document_is_defined_in_its_module() -> None:
    pairs = [(document, *pair) for document in CODE_DOCUMENTS for pair in pairs_in(document)]
    assert len(pairs) > 60
    wrong = [
        f"{document}: `{name}` in `{path}`"
        for document, name, path in pairs
        if not (ROOT / path).is_file() or name not in defined_in(ROOT / path)
    ]
    assert wrong == []


@pytest.mark.parametrize("document", [*CODE_DOCUMENTS, "CHANGELOG.md", ".env.example"])
def test_every_command_and_make_target_in_a_document_exists(document: str) -> None:
    text = (ROOT / document).read_text()
    makefile = (ROOT / "Makefile").read_text()
    commands = {path.stem for path in ROOT.glob(f"{MANAGEMENT_COMMANDS}/*.py")}
    commands |= {"check", "createsuperuser", "makemigrations", "migrate", "runserver"}
    assert set(re.findall(r"manage\.py\s+([a-z_]+)", text)) <= commands
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named_targets = {target for line in re.findall(r"`make ([a-z -]+)", text) for target in line.split()}
    assert named_targets <= targets
    modules = re.findall(r"python -m (bench[\w.]*)", text)
    assert [name for name in modules if not (ROOT / f"{name.replace('.', '/')}.py").exists()] == []


def test_the_readme_explains_every_setting_of_env_example() -> None:
    names = re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    explained = set(re.findall(r"`([A-Z_]+)`", (ROOT / "README.md").read_text()))
    assert names
    assert set(names) <= explained


def test_pre_commit_runs_the_commands_of_make_check() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe is not None
    expected = [
        re.sub(r"^(?=DJANGO_DEBUG)", "env ", line.strip())
        .replace("$(BIN)", ".venv/bin")
        .replace("$(MANAGE)", ".venv/bin/python manage.py")
        for line in recipe[1].splitlines()
    ]
    entries = re.findall(r"entry: (.*)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert entries == expected
