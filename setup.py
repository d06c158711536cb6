"""Drives CMake, which describes what is built (CMakeLists.txt); everything else is in pyproject.toml.

Environment: CMAKE_ARGS adds arguments to the configure step; CMAKE_BUILD_PARALLEL_LEVEL caps the jobs.
"""

import os
import shlex
import subprocess
import sys
import sysconfig
import zlib
from importlib import metadata
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
OLDEST_TORCH = (2, 11)

NEEDS_PACKAGES = """
spp_ext compiles its operators against the torch you already have, and found {found}. Install what is missing
into this environment, then build in it, without isolation (an isolated build would download a second torch):

    pip install torch
    pip install "setuptools>=77" "cmake>=3.25" ninja pybind11
    pip install --no-build-isolation .
"""
NEEDS_HEADERS = """
spp_ext needs the headers of this Python, and {path} does not exist: install them
(Debian, Ubuntu: apt install python3-dev), then try again.
"""


def installed(package):
    """Return the version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_environment():
    """End with one paragraph that says what to install, where something is missing."""
    torch, pybind11 = installed("torch"), installed("pybind11")
    if torch is None:
        sys.exit(NEEDS_PACKAGES.format(found="no torch"))
    if tuple(int(part) for part in torch.split(".")[:2]) < OLDEST_TORCH:
        sys.exit(NEEDS_PACKAGES.format(found=f"torch {torch}, older than {'.'.join(map(str, OLDEST_TORCH))}"))
    if pybind11 is None:
        sys.exit(NEEDS_PACKAGES.format(found="no pybind11"))
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        sys.exit(NEEDS_HEADERS.format(path=header))


def build_tools():
    """Return the paths of cmake and ninja: those of the build environment, else whatever PATH has."""
    try:
        from cmake import CMAKE_BIN_DIR

        cmake = Path(CMAKE_BIN_DIR, "cmake")
    except ImportError:
        cmake = "cmake"
    try:
        from ninja import BIN_DIR

        ninja = Path(BIN_DIR, "ninja")
    except ImportError:
        ninja = "ninja"
    return str(cmake), str(ninja)


def run(*command):
    """Run a build step; its own messages explain a failure better than a traceback."""
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        sys.exit(f"spp_ext: {command[0]} was not found: pip install cmake ninja, then try again.")
    except subprocess.CalledProcessError:
        sys.exit(f"spp_ext: '{' '.join(command[:2])}' failed; its messages are above.")


class CMakeBuild(build_ext):
    """Builds in build/<tag>, kept between runs, and installs the libraries into the package."""

    def run(self):
        """Configure, build, install; for an editable install the package is the source folder itself."""
        check_environment()
        extra = os.environ.get("CMAKE_ARGS", "")
        tag = sys.implementation.cache_tag + (f"-{zlib.crc32(extra.encode()):08x}" if extra else "")
        build = str(ROOT / "build" / tag)
        package = (ROOT if self.inplace else Path(self.build_lib).resolve()) / "spp_ext"
        cmake, ninja = build_tools()
        run(
            *(cmake, "-S", str(ROOT), "-B", build, "-G", "Ninja"),
            f"-DCMAKE_MAKE_PROGRAM={ninja}",
            f"-DPython_EXECUTABLE={sys.executable}",
            "-DSPP_EXT_BUILD_PYTHON=ON",
            *shlex.split(extra),
        )
        run(cmake, "--build", build)
        run(cmake, "--install", build, "--component", "python", "--prefix", str(package))


# The extension has no sources for setuptools: it makes the wheel carry the platform's tag.
setup(ext_modules=[Extension("spp_ext._core", sources=[])], cmdclass={"build_ext": CMakeBuild})
