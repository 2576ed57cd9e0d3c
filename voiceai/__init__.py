"""The Django project: settings, URLs, the ASGI application."""

from __future__ import annotations

from pathlib import Path

__version__ = "0.1.0"


def find_release(folder: Path) -> str:
    """The version, with the commit of a Git checkout, such as `0.1.0+1ff3f60`. Starts no process."""
    try:
        head = (folder / ".git" / "HEAD").read_text().strip()
        commit = head if not head.startswith("ref: ") else _read_ref(folder / ".git", head[5:])
    except (OSError, UnicodeDecodeError):
        return __version__
    return f"{__version__}+{commit[:7]}" if commit else __version__


def _read_ref(git: Path, ref: str) -> str:
    if (git / ref).is_file():
        return (git / ref).read_text().strip()
    lines = (git / "packed-refs").read_text().splitlines()
    return next((line.partition(" ")[0] for line in lines if line.endswith(f" {ref}")), "")
