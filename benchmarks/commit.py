"""Which commit is measured or checked. Imports nothing of the package, which may not have been built yet."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def commit() -> str | None:
    """The commit of this checkout; $SPP_EXT_COMMIT names it where there is no git, or only a copy of the files."""
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    root = Path(__file__).parents[1]
    try:
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("SPP_EXT_COMMIT")


def is_exact(name: str | None) -> bool:
    """Whether a commit says all of the sources, so that two reports that name it are about the same."""
    return name is not None and not name.endswith("-dirty")
