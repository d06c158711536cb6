"""Measures what weights.json has: how many machine instructions each PTX form becomes, and in which part each runs.

    python -m tools.gpu_model weights --nvdisasm PATH      # measures every form again and writes weights.json

Each form is compiled alone, by ptxas for each architecture: a kernel that has it N times, on operands that come from
memory and with results that go there, and one that has it 2 N times. The difference, less the loads and stores around
it, is what the form costs; a routine that divides integers is added. nvdisasm comes with the CUDA toolkit and in the
wheel of triton (``triton/backends/nvidia/bin``).

What stands alone cannot be merged with its neighbours, so the weights overcount real code: an addition for an address
goes into a load, a comparison takes the ``and`` of two predicates along, a widening is part of a multiplication. They
undercount where the compiler adds what PTX does not have: the instructions that let diverged lanes meet again. A
division of floats counts with its short path, that of normal numbers.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .registers import NVCC
from .weights import PATH, STATEMENT, Weight, canonical, forms_in

ARCHITECTURES = ("75", "80", "89", "90")
REPEATS = 8

# Where machine instructions run, by how their names begin; the first that fits. All else is simple arithmetic, "alu".
PARTS = {
    "memory": r"LD|ST|ATOM|RED(\.|G|S|$)|SHFL|CCTL",
    "control": r"BRA|EXIT|BSSY|BSYNC|WARPSYNC|CALL|RET|BAR|DEPBAR|YIELD|BRX|BMOV|BREAK|JMP|MEMBAR|ERRBAR|FENCE",
    "xu": r"MUFU|I2F(\.|$)|F2I|F2F(\.|$)|FRND|POPC|FLO|BREV|S2R|MATCH|REDUX|R2UR|CS2R",
    "fp64": r"D(ADD|MUL|FMA|SETP|MNMX)",
    "fma": r"F(ADD|MUL|FMA|SWZADD)|IMAD|IMUL|H(ADD|MUL|FMA)2",
    "uniform": r"U[A-Z]|R2U",
}
PARTS_COMPILED = {part: re.compile(pattern) for part, pattern in PARTS.items()}

# ---- a kernel for a form -----------------------------------------------------------------------------------------

BITS = {"pred": 1, "f16": 16, "bf16": 16, "f16x2": 32, "bf16x2": 32}
TYPE = re.compile(r"(?:[busf](?:8|16|32|64)|bf16x2|bf16|f16x2|f16|pred)")

# How many operands an opcode reads; a letter says what: r a register, i an immediate number.
READS = {
    **dict.fromkeys(("add", "sub", "mul", "min", "max", "div", "rem", "and", "or", "xor", "copysign", "set"), "rr"),
    **dict.fromkeys(("not", "neg", "abs", "popc", "clz", "brev", "bfind", "cnot", "sqrt", "rcp", "ex2", "mov"), "r"),
    **dict.fromkeys(("mad", "fma", "prmt", "sad", "dp4a", "slct"), "rrr"),
    **dict.fromkeys(("shl", "shr"), "ri"),
    "shf": "rri",
    "bfe": "rii",
    "bfi": "rrii",
    "lop3": "rrri",
}
# Those whose operands have a shape of their own: `{d}` the result, `{a}` and so on what is read, `{p}` a predicate,
# `{g}` and `{s}` a global and a shared address.
SHAPES = {
    "shfl.sync.idx.b32": "{d}, {a}, {b}, 31, -1",
    "shfl.sync.bfly.b32": "{d}, {a}, 4, 31, -1",
    "shfl.sync.up.b32": "{d}, {a}, 4, 0, -1",
    "shfl.sync.down.b32": "{d}, {a}, 4, 31, -1",
    "vote.sync.ballot.b32": "{d}, {p}, -1",
    "vote.sync.any.pred": "{q}, {p}, -1",
    "vote.sync.all.pred": "{q}, {p}, -1",
    "match.any.sync.b32": "{d}, {a}, -1",
    "match.any.sync.b64": "{d}, {A}, -1",
    **{f"redux.sync.{op}.{t}": "{d}, {a}, -1" for op in ("max", "min", "add") for t in ("s32", "u32")},
    **{f"redux.sync.{op}.b32": "{d}, {a}, -1" for op in ("and", "or", "xor")},
    "atom.global.add.u32": "{d}, [{g}], {a}",
    "atom.global.add.s32": "{d}, [{g}], {a}",
    "atom.shared.add.u32": "{d}, [{s}], {a}",
    "atom.shared.add.s32": "{d}, [{s}], {a}",
    "atom.add.u32": "{d}, [{g}], {a}",
    "atom.global.add.f32": "{d}, [{g}], {a}",
    "atom.add.f32": "{d}, [{g}], {a}",
    "atom.add.noftz.f16x2": "{d}, [{g}], {a}",
    "atom.add.noftz.bf16x2": "{d}, [{g}], {a}",
    "atom.add.noftz.f16": "{h}, [{g}], {i}",
    "atom.add.noftz.bf16": "{h}, [{g}], {i}",
    "atom.global.add.noftz.f16x2": "{d}, [{g}], {a}",
    "atom.global.add.noftz.bf16x2": "{d}, [{g}], {a}",
    "red.global.add.u32": "[{g}], {a}",
    "red.global.add.s32": "[{g}], {a}",
    "red.global.add.f32": "[{g}], {a}",
    "red.global.add.f64": "[{g}], {A}",
    "red.global.add.noftz.f16x2": "[{g}], {a}",
    "red.global.add.noftz.bf16x2": "[{g}], {a}",
    "red.shared.add.u32": "[{s}], {a}",
    "red.shared.add.s32": "[{s}], {a}",
    "red.shared.add.f32": "[{s}], {a}",
    "atom.global.cas.b32": "{d}, [{g}], {a}, {b}",
    "atom.global.cas.b16": "{h}, [{g}], {i}, {i}",
    "bar.sync": "0",
    "barrier.sync": "0",
    "membar.gl": "",
    "membar.cta": "",
    "fence.acq_rel.cta": "",
    "fence.acq_rel.gpu": "",
    "cp.async.cg.shared.global": "[{s}], [{g}], 16",
    "cp.async.ca.shared.global": "[{s}], [{g}], 4",
    "cp.async.commit_group": "",
    "cp.async.wait_group": "0",
    "cp.async.wait_all": "",
}
# What cannot be compiled in a row of independent copies, or is no instruction alone.
FIXED: dict[str, Weight] = {
    "bra": {"control": 1},
    "brx.idx": {"control": 1, "memory": 1, "alu": 1},
    "ret": {"control": 1},
    "exit": {"control": 1},
    "activemask.b32": {"alu": 1},
    "bar.warp.sync": {"control": 1},
    "trap": {"control": 1},
    "cvta.param.u64": {},
    "cvta.to.global.u64": {},
    "cvta.to.shared.u64": {},
    "cvta.to.const.u64": {},
    "cvta.global.u64": {},
    "cvta.shared.u64": {"alu": 2},
    "griddepcontrol.wait": {"control": 1},
    "griddepcontrol.launch_dependents": {"control": 1},
}


class _Writer:
    """Writes the kernels; hands out registers."""

    def __init__(self) -> None:
        self.count = 0  # of registers
        self.uses = 0
        self.offset = 0
        self.lines: list[str] = []
        self.around = 0

    def fresh(self, bits: int) -> str:
        self.count += 1
        return f"%{ {1: 'p', 8: 'h', 16: 'h', 32: 'r', 64: 'd'}[bits] }{self.count}"

    def read(self, bits: int) -> str:
        """A register of numbers that the compiler cannot know."""
        if bits == 1:
            number, predicate = self.read(32), self.fresh(1)
            self.lines.append(f"setp.ne.s32 {predicate}, {number}, 0;")
            self.around += 1
            return predicate
        register = self.fresh(bits)
        self.lines.append(f"ld.volatile.global.b{max(bits, 16)} {register}, [%base+{self.offset}];")
        self.offset += 8
        self.around += 1
        return register

    def write(self, register: str, bits: int) -> None:
        """Makes the compiler keep what is in a register."""
        if bits == 1:
            number = self.fresh(32)
            self.lines.append(f"selp.b32 {number}, 1, 0, {register};")
            self.around += 1
            self.write(number, 32)
            return
        self.lines.append(f"st.volatile.global.b{max(bits, 16)} [%base+{self.offset}], {register};")
        self.offset += 8
        self.around += 1


def bits_of(name: str) -> int:
    """The bits of a PTX type."""
    return BITS[name] if name in BITS else int(re.sub(r"\D", "", name))


def types_of(form: str) -> list[str]:
    """The types in a form's name, in order."""
    return [word for word in form.split(".") if TYPE.fullmatch(word)]


def _memory(form: str, writer: _Writer) -> None:
    words = form.split(".")
    bits = bits_of(words[-1])
    lanes = next((int(word[1:]) for word in words if re.fullmatch(r"v[248]", word)), 1)
    space = words[1] if words[1] in ("global", "shared", "param", "const", "local") else ""
    address = f"parameters+{32 * writer.uses}" if space == "param" else writer.read(32 if space == "shared" else 64)
    registers = [writer.read(bits) if words[0] == "st" else writer.fresh(bits) for _ in range(lanes)]
    operand = registers[0] if lanes == 1 else "{" + ", ".join(registers) + "}"
    writer.lines.append(f"{form} [{address}], {operand};" if words[0] == "st" else f"{form} {operand}, [{address}];")
    if words[0] == "ld":
        for register in registers:
            writer.write(register, bits)


def add_use(form: str, writer: _Writer) -> None:
    """Appends one use of a form.

    Raises:
        ValueError: nobody said what operands the form has.
    """
    opcode = form.split(".")[0]
    types = types_of(form)
    writer.uses += 1
    if form in SHAPES:
        names = {"a": 32, "b": 32, "A": 64, "p": 1, "g": 64, "s": 32, "i": 16}
        results = {"d": 32, "q": 1, "h": 16}
        shape = SHAPES[form]
        used = set(re.findall(r"\{(\w)\}", shape))
        values = {name: writer.read(bits) for name, bits in names.items() if name in used}
        outputs = {name: writer.fresh(bits) for name, bits in results.items() if name in used}
        writer.lines.append(f"{form} {shape.format(**values, **outputs)};")
        for name, register in outputs.items():
            writer.write(register, results[name])
        return
    if opcode in ("ld", "st"):
        _memory(form, writer)
        return
    if opcode == "cvt":
        if len(types) == 2:
            target, source = bits_of(types[0]), bits_of(types[1])
            operands = [writer.read(source)]
            if types[0] in ("f16x2", "bf16x2") and types[1] == "f32":
                operands.append(writer.read(source))
            result = writer.fresh(target)
            writer.lines.append(f"{form} {result}, {', '.join(operands)};")
            writer.write(result, target)
            return
        raise ValueError(f"{form}: expected two types")
    if opcode == "setp":
        bits = bits_of(types[-1])
        operands = [writer.read(bits), "3" if types[-1] in ("s16", "u16") else writer.read(bits)]
        if ".and." in form or ".or." in form or ".xor." in form:
            operands.append(writer.read(1))
        result = writer.fresh(1)
        writer.lines.append(f"{form} {result}, {', '.join(operands)};")
        writer.write(result, 1)
        return
    if opcode == "selp":
        bits = bits_of(types[-1])
        operands = [writer.read(bits), writer.read(bits), writer.read(1)]
        result = writer.fresh(bits)
        writer.lines.append(f"{form} {result}, {', '.join(operands)};")
        writer.write(result, bits)
        return
    if opcode not in READS or not types:
        raise ValueError(f"tools/gpu_model/measure_weights.py does not know the operands of {form}")
    bits = bits_of(types[-1])
    immediates = iter(("3", "5"))
    operands = []
    for place, kind in enumerate(READS[opcode]):
        wide = ".wide." in form and place == 2
        if form == "lop3.b32" and kind == "i":
            operands.append("0x1e")
        elif opcode in ("prmt", "bfe", "bfi", "shf") and kind == "i":
            operands.append(next(immediates))
        elif opcode == "slct" and place == 2:
            operands.append(writer.read(32))
        else:
            operands.append(next(immediates) if kind == "i" else writer.read(bits * (2 if wide else 1)))
    target = bits * (2 if ".wide." in form else 1)
    if opcode in ("popc", "clz", "bfind"):
        target = 32
    result = writer.fresh(target)
    writer.lines.append(f"{form} {result}, {', '.join(operands)};")
    writer.write(result, target)


def kernel(form: str, name: str, repeats: int) -> tuple[str, int]:
    """The PTX of a kernel with ``repeats`` independent uses, and the instructions around one of them."""
    writer = _Writer()
    for _ in range(repeats):
        add_use(form, writer)
    body = "\n  ".join(writer.lines)
    text = f"""
.visible .entry {name}(.param .u64 base, .param .align 16 .b8 parameters[1024]) {{
  .reg .pred %p<{writer.count + 1}>;
  .reg .b16 %h<{writer.count + 1}>;
  .reg .b32 %r<{writer.count + 1}>;
  .reg .b64 %d<{writer.count + 1}>;
  .reg .b64 %base;
  .reg .b32 %thread;
  ld.param.u64 %base, [base];
  mov.u32 %thread, %tid.x;
  mad.wide.u32 %base, %thread, 4096, %base;
  {body}
  ret;
}}
"""
    return text, writer.around // repeats


# ---- compiling, counting -----------------------------------------------------------------------------------------

MACHINE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", re.MULTILINE)
SECTION = re.compile(r"^\.text\.(\S+?):", re.MULTILINE)


def part_of(instruction: str) -> str:
    """The part of a multiprocessor that runs a machine instruction."""
    for part, pattern in PARTS_COMPILED.items():
        if pattern.match(instruction):
            return part
    return "alu"


def machine_instructions(cubin: Path, nvdisasm: str) -> dict[str, list[str]]:
    """Kernel -> the names of its machine instructions, in order, without padding."""
    text = subprocess.run([nvdisasm, "-c", str(cubin)], capture_output=True, text=True, check=True).stdout
    pieces = SECTION.split(text)[1:]
    return {
        name: [word for word in MACHINE.findall(body) if not word.startswith("NOP")]
        for name, body in zip(pieces[::2], pieces[1::2], strict=True)
    }


def assemble(ptx: str, architecture: str, folder: Path, ptxas: str = "ptxas") -> Path | str:
    """The cubin of a PTX module, or what ptxas said against it."""
    source, cubin = folder / "module.ptx", folder / f"module.{architecture}.cubin"
    header = f".version 8.0\n.target sm_{architecture}\n.address_size 64\n.extern .shared .align 16 .b8 memory[];\n"
    source.write_text(header + ptx)
    done = subprocess.run(
        [ptxas, f"-arch=sm_{architecture}", str(source), "-o", str(cubin)], capture_output=True, text=True
    )
    return cubin if done.returncode == 0 else done.stdout + done.stderr


def _measure(
    forms: Sequence[str], architecture: str, nvdisasm: str, folder: Path
) -> tuple[dict[str, Weight], dict[str, str]]:
    """Form -> weight, and form -> why it has none on this architecture."""
    kernels = {}
    texts = []
    for number, form in enumerate(forms):
        for times in (1, 2):
            text, around = kernel(form, f"k{number}_{times}", REPEATS * times)
            kernels[f"k{number}_{times}"] = (form, around)
            texts.append(text)
    found = assemble("".join(texts), architecture, folder)
    if isinstance(found, str):
        if len(forms) == 1:
            return {}, {forms[0]: found.strip().splitlines()[0]}
        middle = len(forms) // 2
        first, second = (_measure(part, architecture, nvdisasm, folder) for part in (forms[:middle], forms[middle:]))
        return first[0] | second[0], first[1] | second[1]
    machine = machine_instructions(found, nvdisasm)
    weights = {}
    for number, form in enumerate(forms):
        once, twice = (Counter(map(part_of, machine[f"k{number}_{times}"])) for times in (1, 2))
        parts = {part: (twice[part] - once[part]) / REPEATS for part in once.keys() | twice.keys()}
        if types_of(form) and types_of(form)[-1][0] in "su":
            for part, count in _routine(machine[f"k{number}_1"]).items():
                parts[part] = parts.get(part, 0) + count
        around = _around(form)
        weights[form] = {part: round(n, 2) for part in sorted(parts) if (n := parts[part] - around.get(part, 0)) > 0.01}
    return weights, {}


def _routine(machine: Sequence[str]) -> Counter[str]:
    """The parts of what a kernel calls: what lies behind its end, and ends with a return."""
    if not any(word.startswith("CALL") for word in machine):
        return Counter()
    behind = machine[machine.index("EXIT") + 1 :]
    return Counter(part_of(word) for word in behind if word != "BRA")


def _around(form: str) -> Weight:
    """The parts of the loads, stores, and turns from and to predicates around one use."""
    writer = _Writer()
    add_use(form, writer)
    own = next(line for line in writer.lines if line.startswith(form + " "))
    others = Counter(line.split()[0].split(".")[0] for line in writer.lines if line is not own)
    return {"memory": others["ld"] + others["st"], "alu": others["setp"] + others["selp"]}


# ---- what is measured, and written ------------------------------------------------------------------------------


def kernels_in(ptx: str) -> dict[str, Counter[str]]:
    """Kernel -> its canonical forms, each as often as it stands there."""
    return {
        body.split("(")[0].strip(): Counter(map(canonical, STATEMENT.findall(body)))
        for body in ptx.split(".entry ")[1:]
    }


# What kernels may use besides what those of the day do.
def _common() -> set[str]:
    forms = set(SHAPES) | set(FIXED)
    for space in (".global", ".shared", ""):
        for bits in (8, 16, 32, 64):
            for lanes in ("", ".v2", ".v4"):
                if bits * int(lanes[2:] or 1) <= 128 and not (bits == 8 and lanes == ""):
                    forms |= {f"ld{space}{lanes}.b{bits}", f"st{space}{lanes}.b{bits}"}
        forms |= {f"ld{space}.b8", f"st{space}.b8"}
    forms |= {f"ld.param{lanes}.b{bits}" for bits in (8, 16, 32, 64) for lanes in ("", ".v2", ".v4")} - {
        "ld.param.v4.b64"
    }
    forms |= {"ld.const.b32", "ld.const.b64"}
    integers = ("s16", "u16", "s32", "u32", "s64", "u64")
    for op in ("min", "max", "div", "rem", "mul.lo", "mul.hi", "mad.lo"):
        forms |= {f"{op}.{t}" for t in integers}
    forms |= {f"{op}.{t}" for op in ("add", "sub") for t in ("s16", "u16", "s32", "u32", "s64", "u64")}
    forms |= {f"{op}.wide.{t}" for op in ("mul", "mad") for t in ("s16", "u16", "s32", "u32")}
    forms |= {f"{op}.b{bits}" for op in ("and", "or", "xor", "not") for bits in (16, 32, 64)}
    forms |= {f"{op}.pred" for op in ("and", "or", "xor", "not", "mov")}
    forms |= {f"shl.b{bits}" for bits in (16, 32, 64)} | {f"shr.{t}" for t in (*integers, "b16", "b32", "b64")}
    forms |= {f"{op}.s{bits}" for op in ("neg", "abs") for bits in (16, 32, 64)}
    forms |= {f"{op}.{t}" for op in ("neg", "abs") for t in ("f32", "f64", "f16", "bf16", "f16x2", "bf16x2")}
    forms |= {f"{op}{nan}.{t}" for op in ("min", "max") for nan in ("", ".NaN") for t in ("f32",)}
    forms |= {f"{op}.f64" for op in ("min", "max")}
    forms |= {f"{op}{nan}.{t}" for op in ("min", "max") for nan in ("", ".NaN") for t in PACKED}
    forms |= {f"{op}{rn}.{t}" for op in ("add", "sub", "mul") for rn in ("", ".rn", ".rz") for t in ("f32", "f64")}
    forms |= {f"{op}.{t}" for op in ("add", "sub", "mul") for t in ("f16", "f16x2")}
    forms |= {"fma.rn.f32", "fma.rn.f64", "fma.rn.f16", "fma.rn.f16x2", "fma.rn.bf16", "fma.rn.bf16x2"}
    forms |= {f"div.rn.{t}" for t in ("f32", "f64")} | {"div.full.f32", "rcp.rn.f32", "sqrt.rn.f32"}
    forms |= {f"copysign.{t}" for t in ("f32", "f64")}
    ordered = ("eq", "ne", "lt", "le", "gt", "ge")
    unordered = ("equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan")
    for also in ("", ".and", ".or"):
        forms |= {f"setp.{c}{also}.{t}" for c in ordered for t in ("s32", "u32", "s64", "u64", "f32", "f64")}
        forms |= {f"setp.{c}{also}.{t}" for c in unordered for t in ("f32", "f64")}
    forms |= {f"setp.{c}.{t}" for c in ordered for t in ("s16", "u16")}
    forms |= {f"setp.{c}.{t}" for c in ("eq", "ne") for t in ("b16", "b32", "b64")}
    forms |= {f"setp.{c}.{t}" for c in (*ordered, *unordered) for t in ("f16", "bf16")}
    forms |= {f"setp.{c}.{t}" for c in ("lo", "ls", "hi", "hs") for t in ("u16", "u32", "u64")}
    forms |= {f"selp.b{bits}" for bits in (16, 32, 64)} | {f"mov.b{bits}" for bits in (16, 32, 64)}
    forms |= {"slct.b32.s32", "slct.s32.s32", "slct.f32.s32"}
    forms |= {"prmt.b32", "lop3.b32", "bfe.u32", "bfe.s32", "bfi.b32", "popc.b32", "popc.b64", "clz.b32", "clz.b64"}
    forms |= {"brev.b32", "bfind.u32", "bfind.s32", "bfind.shiftamt.u32"}
    forms |= {f"shf.{side}.{mode}.b32" for side in "lr" for mode in ("wrap", "clamp")}
    narrow = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")
    forms |= {f"cvt.{a}.{b}" for a in narrow for b in narrow if a != b and (a[1:], b[1:]) != ("8", "8")}
    forms |= {f"cvt.rn.{f}.{i}" for f in ("f32", "f64", "f16") for i in narrow[2:]}
    forms |= {f"cvt.{r}.{i}.{f}" for r in ("rzi", "rni", "rmi", "rpi") for i in narrow[4:] for f in ("f32", "f64")}
    forms |= {f"cvt.{r}.{f}.{f}" for r in ("rzi", "rni", "rmi", "rpi") for f in ("f32", "f64")}
    forms |= {"cvt.f64.f32", "cvt.rn.f32.f64", "cvt.f32.f16", "cvt.f32.bf16", "cvt.rn.f16.f32", "cvt.rn.bf16.f32"}
    forms |= {"cvt.rn.f16x2.f32", "cvt.rn.bf16x2.f32", "cvt.f64.f16", "cvt.rn.f16.f64", "cvt.sat.f32.f32"}
    return forms


PACKED = ("f16", "bf16", "f16x2", "bf16x2")


def measure(forms: Iterable[str], nvdisasm: str) -> dict[str, dict[str, Weight]]:
    """Form -> architecture -> weight, for each architecture that has the form."""
    forms = sorted(set(forms))
    result: dict[str, dict[str, Weight]] = {form: {} for form in forms}
    alone = [form for form in forms if form not in FIXED]
    refused: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for architecture in ARCHITECTURES:
            found, why = _measure(alone, architecture, nvdisasm, Path(folder))
            refused |= why
            for form in forms:
                weight = FIXED.get(form, found.get(form))
                if weight is not None:
                    result[form][architecture] = weight
    for form in (form for form in forms if not result[form]):
        print(f"no architecture has {form}: {refused[form]}")
        del result[form]
    return result


def _grouped(weights: dict[str, Weight]) -> dict[str, Weight]:
    """Architectures of the same weight under one key."""
    groups: dict[str, list[str]] = {}
    for architecture, weight in weights.items():
        groups.setdefault(json.dumps(weight), []).append(architecture)
    return {" ".join(names): json.loads(weight) for weight, names in groups.items()}


STRAIGHT = ("concatenate", "add_gradients", "add_region_gradients")  # kernels of naive.cu


def checks(nvdisasm: str) -> dict[str, Any]:
    """What `Weights.checks` is: the weighted forms of whole kernels can be held against their machine code."""
    source = Path(__file__).with_name("naive.cu")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for architecture in ARCHITECTURES:
            ptx, cubin = Path(folder, "naive.ptx"), Path(folder, "naive.cubin")
            compile_ = [*NVCC, str(source), "-o"]
            subprocess.run([*compile_, str(ptx), "--ptx", f"-arch=compute_{architecture}"], check=True)
            subprocess.run(["ptxas", f"-arch=sm_{architecture}", str(ptx), "-o", str(cubin)], check=True)
            forms, machine = kernels_in(ptx.read_text()), machine_instructions(cubin, nvdisasm)
            for name in (f"{kernel}_{dtype}" for kernel in STRAIGHT for dtype in ("float32", "bfloat16")):
                row = found.setdefault(name, {})
                row[architecture] = {"forms": forms[name], "machine": len(machine[name])}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the forms of the PTX that is given, and the usual ones, and writes weights.json."""
    parser = ArgumentParser(prog="python -m tools.gpu_model weights", description=__doc__.split("\n\n")[0])
    parser.add_argument("--nvdisasm", required=True, help="from the CUDA toolkit, or from triton's wheel")
    parser.add_argument("ptx", nargs="*", type=Path, help="PTX files whose forms are measured too")
    options = parser.parse_args(arguments)
    wanted = _common().union(*(forms_in(path.read_text()) for path in options.ptx))
    weights = measure(wanted, options.nvdisasm)
    about = "Machine instructions of each PTX form on each architecture, by part of a multiprocessor; see weights.py."
    checked = json.dumps(checks(options.nvdisasm))
    lines = ",\n".join(f"  {json.dumps(form)}: {json.dumps(_grouped(weight))}" for form, weight in weights.items())
    PATH.write_text(f'{{\n "about": {json.dumps(about)},\n "weights": {{\n{lines}\n }},\n "checks": {checked}\n}}\n')
    print(f"{PATH}: {len(weights)} forms")
    return 0
