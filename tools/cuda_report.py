"""Prints the registers, shared memory and stack of every CUDA kernel on every architecture that is built.

    python tools/cuda_report.py [ARCHITECTURE ...]      # for example 90; default: those of the default build

Compiles the kernels with the commands of the real build, so it needs nvcc, but no GPU and no torch. Ends with status 1,
and names the kernels, if one spills registers or has a stack frame.
"""

import fcntl
import functools
import json
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "cuda-report"

ENTRY = re.compile(r"Compiling entry function '(\S+)' for 'sm_(\w+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores")
USED = re.compile(r"Used (\d+) registers(?:.*?, (\d+) bytes smem)?")


@contextmanager
def alone_in(folder):
    """Makes a folder, in which no other process works meanwhile: tests run side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@functools.cache
def compile_commands():
    """The commands that compile the .cu files, as CMake would run them."""
    cmake = Path(sys.executable).with_name("cmake")
    configure = [str(cmake) if cmake.exists() else "cmake", "-S", str(ROOT), "-B", str(BUILD)]
    configure += ["-DSPP_EXT_CUDA=1", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"]
    with alone_in(BUILD):
        subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
        entries = json.loads((BUILD / "compile_commands.json").read_text())
    return [shlex.split(entry["command"]) for entry in entries if entry["file"].endswith(".cu")]


def for_architecture(command, architecture):
    """`command` for one architecture, printing the assembler's report instead of failing on what it finds."""
    kept = []
    for word in command:
        if word.startswith(("--generate-code", "-Xptxas")) or word == "--warning-as-error":
            continue
        kept.append(word)
    kept[kept.index("-o") + 1] = "/dev/null"
    return [*kept, f"--generate-code=arch=compute_{architecture},code=[sm_{architecture}]", "-Xptxas=-v"]


def run_all(commands):
    """What each command prints; two run at a time, in the build. Raises RuntimeError with it where one fails."""

    def run(command):
        done = subprocess.run(command, capture_output=True, text=True, cwd=BUILD)
        if done.returncode != 0:
            raise RuntimeError(done.stdout + done.stderr)
        return done.stdout + done.stderr

    BUILD.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(run, commands))


def read_report(text):
    """Rows of (kernel, architecture, registers, stack bytes, spilled bytes, shared bytes)."""
    rows = []
    kernel = architecture = None
    stack = spilled = 0
    for line in text.splitlines():
        if found := ENTRY.search(line):
            kernel, architecture = found.groups()
        elif found := STACK.search(line):
            stack, spilled = map(int, found.groups())
        elif found := USED.search(line):
            rows.append((kernel, architecture, int(found[1]), stack, spilled, int(found[2] or 0)))
    return rows


def readable(mangled):
    """`pool_regions<float, true, false>` from a kernel's symbol."""
    names = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True).stdout
    short = []
    for name in names.splitlines():
        name = (
            re.sub(r"\((?:bool|int)\)", "", name.removeprefix("void ")).replace("spp_ext::", "").replace("cuda::", "")
        )
        short.append(name[: name.index("(")])
    return dict(zip(mangled, short, strict=True))


def main():
    """Compiles, prints the table, and returns the exit status."""
    commands = compile_commands()
    built = re.findall(r"sm_(\w+)", " ".join(word for word in commands[0] if word.startswith("--generate-code")))
    architectures = sys.argv[1:] or sorted(set(built), key=int)
    jobs = [for_architecture(command, architecture) for command in commands for architecture in architectures]
    try:
        rows = [row for text in run_all(jobs) for row in read_report(text)]
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    names = readable(sorted({row[0] for row in rows}))
    table = defaultdict(dict)
    for kernel, architecture, registers, stack, spilled, shared in rows:
        table[names[kernel]][architecture] = (registers, stack, spilled, shared)

    print("registers a thread; shared memory is dynamic, sized at launch, unless a number of bytes follows a +\n")
    print(f"{'kernel':<42}" + "".join(f"{'sm_' + architecture:>9}" for architecture in architectures))
    bad = []
    for name in sorted(table):
        cells = []
        for architecture in architectures:
            registers, stack, spilled, shared = table[name][architecture]
            cells.append(f"{registers}{f'+{shared}' if shared else ''}{'!' if stack or spilled else ''}")
            if stack or spilled:
                bad.append(f"{name} on sm_{architecture}: {stack} bytes of stack, {spilled} bytes spilled")
        print(f"{name:<42}" + "".join(f"{cell:>9}" for cell in cells))
    print(f"\n{len(table)} kernels, {len(bad)} with a stack frame or spills")
    for line in bad:
        print(f"  {line}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
