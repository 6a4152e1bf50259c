"""The repository's own files, for tests of documents and of house rules."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]

_MADE_LATER = {".venv", ".dagster", ".demo", "data", "build", "dist", "node_modules", ".git"}
_MADE_SUFFIXES = ("_cache", "__pycache__", ".egg-info", ".hypothesis", ".node")


def files(pattern: str = "*", *, under: str = ".") -> list[Path]:
    """Files of the repository: what git tracks or would; without git, what no tool makes. Absolute, sorted."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", under],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode == 0:
        paths = {ROOT / name for name in listed.stdout.split("\0") if name}
    else:
        paths = {path for path in (ROOT / under).rglob("*") if not _is_made(path.relative_to(ROOT))}
    return sorted(path for path in paths if path.is_file() and path.match(pattern))


def _is_made(path: Path) -> bool:
    return any(part in _MADE_LATER or part.endswith(_MADE_SUFFIXES) for part in path.parts)


def named(path: Path) -> str:
    """A path as it is said in messages: from the root on."""
    return str(path.relative_to(ROOT))
