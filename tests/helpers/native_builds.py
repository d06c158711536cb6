"""Builds CMake projects under build/, where nothing is done that is up to date, and runs what they make."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent  # the environment's cmake and ninja, or else the system's


def run(*command, **environment):
    """What a command prints; it must succeed."""
    path = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        list(map(os.fspath, command)),
        env={**os.environ, "PATH": path, "SPP_EXT_CUDA": "0", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source, folder, *options):
    """Builds the project in ``source``."""
    run("cmake", "-G", "Ninja", "-S", source, "-B", folder, *options)
    run("cmake", "--build", folder)


def cpp_package(name="cpp", *options):
    """Builds what C++ users get in ``build/<name>``, warnings as errors, and returns where it is installed."""
    folder = ROOT / "build" / name
    installed = folder / "installed"
    build(ROOT, folder, "-DSPP_EXT_WERROR=ON", "-DCMAKE_DISABLE_FIND_PACKAGE_Python=ON", *options)
    shutil.rmtree(installed, ignore_errors=True)  # a header that is no more must not stay
    run("cmake", "--install", folder, "--prefix", installed)
    return installed
