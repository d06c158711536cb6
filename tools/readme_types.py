"""Checks the types of the Python in README.md with mypy, as strictly as pyproject.toml asks for.

    python tools/readme_types.py

The blocks are read as one program, for a later one goes on with the names of an earlier one. A name may take a value of
another type on the way, as in a notebook. Lines keep their numbers, so an error is where mypy says it is.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def python_of(markdown):
    """The lines of the Python blocks where they are, the others empty."""
    lines, inside = [], False
    for line in markdown.splitlines():
        fence = line.startswith("```")
        lines.append(line if inside and not fence else "")
        inside = line == "```python" if fence else inside
    return "\n".join(lines) + "\n"


def main():
    """Prints what mypy finds, and returns its exit status."""
    readme = ROOT / "README.md"
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "readme.py")
        program.write_text(python_of(readme.read_text()))
        # A cache of its own, because what is cached under other options does not count.
        options = ["--allow-redefinition", "--follow-imports=silent", "--cache-dir", ".mypy_cache/readme"]
        command = [sys.executable, "-m", "mypy", *options, program]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(done.stdout.replace(str(program), readme.name) + done.stderr, end="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
