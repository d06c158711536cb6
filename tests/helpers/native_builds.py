"""Builds CMake projects under build/, where nothing is done that is up to date, and runs what they make.

Processes that run tests side by side wait for one another.
"""

import os
import subprocess
import sys
from pathlib import Path

from tools.cuda_report import alone_in

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent  # the environment's cmake and ninja, or else the system's


def run(*command, **environment):
    """What a command prints; it must succeed."""
    given = {name: value for name, value in os.environ.items() if name != "SPP_EXT_CUDA"}
    path = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        list(map(os.fspath, command)),
        env={**given, "PATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source, folder, *options):
    """Builds the project in ``source``."""
    with alone_in(folder):
        run("cmake", "-G", "Ninja", "-S", source, "-B", folder, *options)
        run("cmake", "--build", folder)


def cpp_package(prefix, name="cpp", *options):
    """Builds what C++ users get in ``build/<name>``, warnings as errors, and installs it in ``prefix``, its result."""
    folder = ROOT / "build" / name
    build(ROOT, folder, "-DSPP_EXT_WERROR=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_Python=ON", "-USPP_EXT_CUDA", *options)
    run("cmake", "--install", folder, "--prefix", prefix)
    return prefix
