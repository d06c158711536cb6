"""Makes the PTX of the kernels with the build's own flags, and parses it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tools import cuda_report

from .registers import CACHE, NVCC, digest, sources

BYTES = {"pred": 1, "f16x2": 4, "bf16x2": 4, "bf16": 2}


def size_of(type_: str) -> int:
    """The bytes of a PTX type."""
    return BYTES[type_] if type_ in BYTES else int(re.sub(r"\D", "", type_)) // 8


@dataclass(frozen=True)
class Instruction:
    """One statement."""

    form: str  # the opcode with its types
    operands: tuple[str, ...]
    guard: str | None  # the register of a predicate
    negated: bool
    text: str


@dataclass
class Kernel:
    """One entry of a module."""

    name: str
    parameters: dict[str, int]  # offsets
    parameter_bytes: int
    registers: dict[str, str]  # prefix -> type
    instructions: list[Instruction]
    labels: dict[str, int]  # -> the next instruction


ENTRY = re.compile(r"\.entry (\w+)\s*\((.*?)\)(.*?)\n\{(.*?)\n\}", re.DOTALL)
PARAMETER = re.compile(r"\.param (?:\.align (\d+) )?\.(\w+) (\w+)(?:\[(\d+)\])?")
REGISTERS = re.compile(r"\.reg \.(\w+)\s+(%[a-z]+)(?:<\d+>)?;")  # those of braces have no number
LABEL = re.compile(r"^(\$?\w+):")
GUARDED = re.compile(r"@(!?)(%\w+)\s+(.*)", re.DOTALL)


def split_operands(text: str) -> tuple[str, ...]:
    """Those of a statement; a vector in braces and an address in brackets are one each."""
    return tuple(part.strip() for part in re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,])+", text))


def parse(text: str) -> dict[str, Kernel]:
    """The kernels of a module by their symbols."""
    return {found[1]: _kernel(found[1], found[2], found[4]) for found in ENTRY.finditer(text)}


def _kernel(name: str, head: str, body: str) -> Kernel:
    parameters, offset = {}, 0
    for alignment, type_, parameter, count in PARAMETER.findall(head):
        size = size_of(type_) * int(count or 1)
        unit = int(alignment or size)
        offset = -(-offset // unit) * unit
        parameters[parameter] = offset
        offset += size
    registers: dict[str, str] = {}
    for type_, prefix in REGISTERS.findall(body):
        if registers.setdefault(prefix, type_) != type_:
            raise ValueError(f"{name}: registers {prefix} of two types")
    kernel = Kernel(name, parameters, offset, registers, [], {})
    for line in re.sub(r"//[^\n]*", "", body).splitlines():
        line = line.strip()
        if found := LABEL.match(line):
            kernel.labels[found[1]] = len(kernel.instructions)
            line = line[found.end() :].strip()
        for statement in _statements(line):
            guard, negated, rest = None, False, statement
            if found := GUARDED.match(statement):
                negated, guard, rest = found[1] == "!", found[2], found[3]
            form, _, operands = re.sub(r"\s+", " ", rest).partition(" ")
            kernel.instructions.append(Instruction(form, split_operands(operands), guard, negated, statement))
    return kernel


def _statements(line: str) -> list[str]:
    if line.startswith("{") and ";" in line:  # inline assembly stands in braces of its own
        line = line[1:].rstrip("} ")
    return [
        part.strip() for part in line.split(";") if part.strip() and part.strip() not in "{}" and part.strip()[0] != "."
    ]


def _make(commands: dict[Path, list[str]]) -> list[str]:
    with cuda_report.alone_in(CACHE):  # what several processes need is made once
        missing = {path: path.with_suffix(".partial") for path in commands if not path.exists()}
        cuda_report.run_all([*commands[path], "-o", str(partial)] for path, partial in missing.items())
        for path, partial in missing.items():
            partial.rename(path)
    return [path.read_text() for path in commands]


def modules(architecture: str) -> list[str]:
    """The PTX of every .cu file of csrc/cuda, made by the commands of the build."""
    commands, inputs = {}, digest(sources())
    for command in cuda_report.compile_commands():
        words = cuda_report.for_architecture(command, architecture)
        source = words[words.index("-c") + 1]
        dropped = {"-c", "-Xptxas=-v", "-o", "/dev/null"}
        flags = [word for word in words if word not in dropped and not word.startswith("--generate-code")]
        target = CACHE / f"{Path(source).stem}-{architecture}-{inputs}.ptx"
        commands[target] = [*flags, "--ptx", f"-arch=compute_{architecture}"]
    return _make(commands)


def of_source(path: Path, architecture: str) -> str:
    """The PTX of one file of its own."""
    target = CACHE / f"{path.stem}-{architecture}-{digest([path])}.ptx"
    command = [*NVCC, "--ptx", f"-arch=compute_{architecture}", str(path.resolve())]
    return _make({target: command})[0]
