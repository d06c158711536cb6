"""Runs the PTX of a kernel on the CPU, on the memory it was launched with, and counts what it executes.

Every register is an array with one element for each thread of all blocks that are run, and an instruction is a NumPy
expression; the expressions of a basic block are compiled to one Python function. The block that comes first in the
program, of those where a thread is, is run next, by the threads that are there: so branches that part a warp meet
again. A barrier, and what the lanes of a warp do together, waits for all threads that have not returned. Blocks do not
see one another's shared memory, and run side by side; it begins full of 0xff.

It says nothing about memory order or races, and of time what a scoreboard says that follows it. A form that it does not
know is an error that names it, and so is an address outside of the process's memory, outside of a block's shared
memory, or not a multiple of the access.
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .counts import Counts, Traffic
from .ptx import Instruction, Kernel, size_of
from .scoreboard import EXCHANGES, Board, Stretches, Timing

Array = NDArray[Any]

POISON = 0xFF
SHARED, PARAM = 1 << 61, 1 << 60  # where generic addresses of these spaces begin
NOWHERE = 1 << 40  # the place of a thread that has returned, or waits

RAW = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
WIDER = {"u16": np.uint32, "s16": np.int32, "u32": np.uint64, "s32": np.int64}


def dtype_of(type_: str) -> Any:
    """The NumPy type in which a PTX type is computed; bfloat16 and pairs are raw bits."""
    size = size_of(type_)
    if type_[0] == "f" and type_ != "f16x2":
        return {2: np.float16, 4: np.float32, 8: np.float64}[size]
    return {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}[size] if type_[0] == "s" else RAW[size]


# ---- what expressions call ---------------------------------------------------------------------------------------


def _divide(a: Array, b: Array, remainder: bool) -> Array:
    b = np.where(b == 0, b.dtype.type(1), b)
    if a.dtype.kind == "u":
        return a % b if remainder else a // b
    quotient = np.abs(a) // np.abs(b)
    quotient = np.where((a < 0) != (b < 0), -quotient, quotient).astype(a.dtype)
    return a - quotient * b if remainder else quotient


def _shift(a: Array, n: Array, left: bool) -> Array:
    a, n = np.asarray(a), np.asarray(n)
    bits = 8 * a.dtype.itemsize
    within = np.minimum(n, bits - 1).astype(a.dtype)
    if a.dtype.kind == "i" and not left:
        return a >> within
    return np.where(n < bits, a << within if left else a >> within, a.dtype.type(0))


def _high(a: Array, b: Array) -> Array:
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype.itemsize == 8:
        return np.array([(int(x) * int(y)) >> 64 for x, y in np.broadcast(a, b)]).astype(a.dtype)
    wide = np.int64 if a.dtype.kind == "i" else np.uint64
    return ((a.astype(wide) * b.astype(wide)) >> wide(8 * a.dtype.itemsize)).astype(a.dtype)


def _add_toward_zero(a: Array, b: Array) -> Array:
    exact = np.asarray(a, np.longdouble) + np.asarray(b, np.longdouble)
    rounded = exact.astype(a.dtype)
    larger = np.abs(rounded.astype(np.longdouble)) > np.abs(exact)
    return np.where(larger, np.nextafter(rounded, np.zeros_like(rounded)), rounded)


def _fused(a: Array, b: Array, c: Array) -> Array:
    return (np.asarray(a, np.longdouble) * b + c).astype(a.dtype)


def _from_bfloat(bits: Array) -> Array:
    return (np.asarray(bits).astype(np.uint32) << np.uint32(16)).view(np.float32)


def _to_bfloat(numbers: Array) -> Array:
    numbers = np.asarray(numbers, np.float32)
    bits = numbers.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(numbers), np.uint32(0x7FFF), rounded).astype(np.uint16)


def _halves(bits: Array) -> tuple[Array, Array]:
    bits = np.asarray(bits)
    return (bits & np.uint32(0xFFFF)).astype(np.uint16), (bits >> np.uint32(16)).astype(np.uint16)


def _extreme(a: Array, b: Array, type_: str, largest: bool, nan: bool) -> Array:
    """The opcodes min and max of floats, with NaN winning or losing. Pairs are taken apart."""
    if type_.endswith("x2"):
        low, high = (_extreme(x, y, type_[:-2], largest, nan) for x, y in zip(_halves(a), _halves(b), strict=True))
        return low.astype(np.uint32) | high.astype(np.uint32) << np.uint32(16)
    x, y = (_from_bfloat(a), _from_bfloat(b)) if type_ == "bf16" else (a, b)
    if type_ == "f16":
        x, y = np.asarray(a).view(np.float16), np.asarray(b).view(np.float16)
    function = (np.maximum if largest else np.minimum) if nan else (np.fmax if largest else np.fmin)
    result = function(x, y)
    if type_ == "bf16":
        return (result.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    return result.view(np.uint16) if type_ == "f16" else result


COMPARE = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
COMPARE |= {"lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal}


def _compare(how: str, a: Array, b: Array, type_: str) -> Array:
    if type_ not in ("f16", "bf16", "f32", "f64"):
        return COMPARE[how](a, b)
    if type_ == "bf16":
        a, b = _from_bfloat(a), _from_bfloat(b)
    nan = np.isnan(a) | np.isnan(b)
    if how in ("num", "nan"):
        return nan if how == "nan" else ~nan
    if how.endswith("u"):
        return COMPARE[how[:-1]](a, b) | nan
    return COMPARE[how](a, b) & ~nan


ROUND = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def _convert(value: Array, target: str, source: str, mode: str | None) -> Array:
    value = _from_bfloat(value) if source == "bf16" else np.asarray(value)
    if target == "bf16":
        return _to_bfloat(value)
    to = np.dtype(dtype_of(target))
    if value.dtype.kind == "f":
        if mode in ROUND:
            value = ROUND[mode](value)
        if to.kind != "f":  # out of range: the nearest; NaN: 0
            limits = np.iinfo(to)
            value = np.where(np.isnan(value), 0, value).astype(np.longdouble)
            value = np.clip(value, np.longdouble(limits.min), np.longdouble(limits.max))
    return value.astype(to)


def _pair(high: Array, low: Array, type_: str) -> Array:
    """Two float32 as a pair of 16 bits."""
    narrow = _to_bfloat if type_ == "bf16x2" else lambda x: np.asarray(x).astype(np.float16).view(np.uint16)
    return narrow(low).astype(np.uint32) | narrow(high).astype(np.uint32) << np.uint32(16)


def _bits_set(a: Array) -> Array:
    raw = np.ascontiguousarray(a)
    return np.unpackbits(raw.view(np.uint8).reshape(raw.size, -1), axis=1).sum(1).astype(np.uint32)


def _reversed(a: Array) -> Array:
    result = np.zeros_like(a)
    for bit in range(32):
        result |= ((a >> np.uint32(bit)) & np.uint32(1)) << np.uint32(31 - bit)
    return result


def _highest(a: Array, signed: bool) -> Array:
    """The place of the highest bit that is set (for negative numbers, not set), or -1."""
    a = np.asarray(a)
    if signed:
        a = np.where(a < 0, ~a, a)
    place = np.full(a.shape, -1, np.int64)
    for bit in range(8 * a.dtype.itemsize):
        place = np.where((a >> a.dtype.type(bit)) & a.dtype.type(1), bit, place)
    return place


def _lop3(a: Array, b: Array, c: Array, table: int) -> Array:
    result = np.zeros(np.broadcast(a, b, c).shape, np.uint32)
    for row in range(8):
        if table >> row & 1:
            result |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
    return result


def _prmt(a: Array, b: Array, choice: Array) -> Array:
    both = np.asarray(a).astype(np.uint64) | np.asarray(b).astype(np.uint64) << np.uint64(32)
    choice = np.asarray(choice).astype(np.uint64)
    result = np.zeros(np.broadcast(both, choice).shape, np.uint64)
    for place in range(4):
        nibble = (choice >> np.uint64(4 * place)) & np.uint64(15)
        byte = (both >> ((nibble & np.uint64(7)) * np.uint64(8))) & np.uint64(255)
        sign = np.where(byte & np.uint64(128), np.uint64(255), np.uint64(0))
        result |= np.where(nibble & np.uint64(8), sign, byte) << np.uint64(8 * place)
    return result.astype(np.uint32)


def _funnel(low: Array, high: Array, n: Array, side: str, clamp: bool) -> Array:
    both = np.asarray(low).astype(np.uint64) | np.asarray(high).astype(np.uint64) << np.uint64(32)
    n = np.minimum(n, 32) if clamp else np.asarray(n) & np.uint32(31)
    n = np.asarray(n).astype(np.uint64)
    return (both >> n if side == "r" else (both << n) >> np.uint64(32)).astype(np.uint32)


def _extract(a: Array, start: Array, length: Array) -> Array:
    a = np.asarray(a)
    start, length = np.minimum(start, 255).astype(np.int64), np.minimum(length, 255).astype(np.int64)
    bits = 8 * a.dtype.itemsize
    length = np.minimum(length, np.maximum(bits - start, 0))
    raw = np.where(start < bits, a.astype(np.int64).view(np.uint64) >> np.minimum(start, 63).astype(np.uint64), 0)
    field = raw & ((np.uint64(1) << length.astype(np.uint64)) - np.uint64(1))
    if a.dtype.kind == "i":
        top = np.where(length > 0, (field >> np.maximum(length - 1, 0).astype(np.uint64)) & np.uint64(1), 0)
        field = np.where(top == 1, field | ~((np.uint64(1) << length.astype(np.uint64)) - np.uint64(1)), field)
    return field.astype(RAW[a.dtype.itemsize])


def _insert(a: Array, b: Array, start: Array, length: Array) -> Array:
    start, length = np.asarray(start).astype(np.uint64), np.asarray(length).astype(np.uint64)
    mask = ((np.uint64(1) << length) - np.uint64(1)) << start
    inserted = (np.asarray(a).astype(np.uint64) << start) & mask
    return (np.asarray(b).astype(np.uint64) & ~mask | inserted).astype(np.uint32)


HELPERS = {name: value for name, value in globals().items() if name.startswith("_") and callable(value)}

# ---- expressions -------------------------------------------------------------------------------------------------

# Opcode -> expression of the operands a, b, c, d in the type at the end of the form. Text in capitals is replaced.
EXPRESSIONS = {
    "add": "a + b",
    "sub": "a - b",
    "mul": "a * b",
    "mul.lo": "a * b",
    "mul.hi": "_high(a, b)",
    "mad.lo": "a * b + c",
    "fma": "_fused(a, b, c)",
    "and": "a & b",
    "or": "a | b",
    "xor": "a ^ b",
    "not": "~a",
    "neg": "-a",
    "abs": "np.abs(a)",
    "copysign": "np.copysign(b, a)",
    "popc": "_bits_set(a)",
    "brev": "_reversed(a)",
    "prmt": "_prmt(a, b, c)",
}


# Words of forms whose meaning is taken into account, or changes no value. Any other is a form that is not known.
WORDS = set("rn rz rni rzi rmi rpi lo hi wide NaN and or xor to l r wrap clamp shiftamt uni aligned".split())
WORDS |= set("global shared param const local nc volatile relaxed weak cta gpu sys ca cg cs lu cv wb wt v2 v4".split())
WORDS |= set("add min max exch sync cta gl acq_rel sc wait launch_dependents".split())
WORDS |= set("eq ne lt le gt ge lo ls hi hs equ neu ltu leu gtu geu num nan".split())
TYPE = re.compile(r"[busf](8|16|32|64)|b?f16(x2)?|pred")


class Translator:
    """Turns instructions into lines of Python, for all threads or for those of an index array ``ix``."""

    def __init__(self, kernel: Kernel, masked: bool, numbers: dict[str, int]) -> None:
        self.kernel = kernel
        self.masked = masked
        self.numbers = numbers  # register -> its place in R
        self.constants: list[Any] = []

    def number(self, register: str) -> int:
        """The place of a register."""
        return self.numbers.setdefault(register, len(self.numbers))

    def type_of(self, register: str) -> str:
        """The declared type of a register."""
        found = re.match(r"%[a-z]+", register)
        assert found is not None
        return self.kernel.registers[found[0]]

    def constant(self, value: Any) -> str:
        """An expression for a number."""
        self.constants.append(value)
        return f"K[{len(self.constants) - 1}]"

    def read(self, operand: str, type_: str) -> str:
        """An expression for an operand."""
        at = "[ix]" if self.masked else ""
        if operand.startswith("!"):
            return f"~{self.read(operand[1:], type_)}"
        if operand.startswith("%"):
            if operand in SPECIAL:
                return f"S.{SPECIAL[operand]}{at}"
            own = self.type_of(operand)
            text = f"R[{self.number(operand)}]{at}"
            if type_ == "pred":
                return text
            wanted, has = np.dtype(dtype_of(type_)), np.dtype(RAW[size_of(own)])
            if wanted.itemsize != has.itemsize:
                text = f"{text}.astype(np.{np.dtype(RAW[wanted.itemsize]).name})"
            return text if wanted.kind == "u" else f"{text}.view(np.{wanted.name})"
        if operand.startswith("0f"):
            return self.constant(np.uint32(int(operand[2:], 16)).view(np.float32))
        if operand.startswith("0d"):
            return self.constant(np.uint64(int(operand[2:], 16)).view(np.float64))
        if re.fullmatch(r"-?(\d+|0x[0-9A-Fa-f]+)", operand):
            value = int(operand, 0)
            if type_ == "pred":
                return self.constant(np.bool_(value))
            dtype = np.dtype(dtype_of(type_))
            raw = RAW[dtype.itemsize](value & (2 ** (8 * dtype.itemsize) - 1))
            return self.constant(raw if dtype.kind == "u" else raw.view(dtype))
        if operand in self.kernel.parameters:
            return self.constant(np.uint64(self.kernel.parameters[operand]))
        if re.fullmatch(r"\w+", operand):  # the one array in shared memory
            return self.constant(RAW[size_of(type_)](0))
        raise ValueError(f"an operand that nobody knows: {operand}")

    def write(self, register: str, expression: str, type_: str) -> str:
        """A statement that gives a register a value of a type."""
        place, own = self.number(register), self.type_of(register)
        if own == "pred":
            value = expression
        else:
            value = f"np.asarray({expression})"
            wanted, has = np.dtype(RAW[size_of(own)]), np.dtype(dtype_of(type_))
            if wanted.itemsize != has.itemsize:  # a narrow result in a wide register keeps its sign
                value = f"{value}.astype(np.{'int' if has.kind == 'i' else 'uint'}{8 * wanted.itemsize})"
            value = f"{value}.view(np.{wanted.name})"
        if self.masked:
            kind = "bool" if own == "pred" else np.dtype(RAW[size_of(own)]).name
            return f"own(R, {place}, S.lanes, np.{'bool_' if kind == 'bool' else kind})[ix] = {value}"
        return f"R[{place}] = whole({value}, S.lanes)"

    def line(self, one: Instruction) -> list[str]:
        """The statements of an instruction.

        Raises:
            ValueError: the form is not known.
        """
        words = one.form.split(".")
        op, type_ = words[0], words[-1]
        o = one.operands
        for word in words[1:]:
            if word not in WORDS and not TYPE.fullmatch(word) and not word.startswith(("L1::", "L2::")):
                raise ValueError(f"a form that the interpreter does not know: {one.form}")

        rounds = "rz" in words and (op == "div" or op == "cvt" and "f" in words[-2])  # toward zero, which NumPy cannot
        if rounds or op == "setp" and ("|" in o[0] or type_.endswith("x2")):
            raise ValueError(f"a form that the interpreter does not know: {one.text}")

        def result(expression: str, as_type: str = type_, inputs: Sequence[str] = ()) -> list[str]:
            values = dict(zip("abcd", inputs or [self.read(operand, type_) for operand in o[1:]], strict=False))
            text = re.sub(r"\b[abcd]\b", lambda found: values[found[0]], expression)
            return [self.write(o[0].split("|")[0], text, as_type)]

        if op in ("ld", "st", "atom", "red"):
            return self.memory(one, words)
        if op == "mov":
            return self.move(one, type_)
        if op == "cvta":
            to, space = ("to" in words, words[2] if "to" in words else words[1])
            base = {"shared": SHARED, "param": PARAM}.get(space, 0)
            sign = "-" if to else "+"
            return [self.write(o[0], f"{self.read(o[1], 'u64')} {sign} {self.constant(np.uint64(base))}", "u64")]
        if op in ("membar", "fence", "griddepcontrol", "nop"):
            return ["pass"]
        if op == "activemask":
            return [self.write(o[0], "S.mask_of(ix)" if self.masked else "S.mask_of(None)", "u32")]
        if op in ("add", "sub") and "rz" in words:
            sign = "" if op == "add" else "-"
            return result(f"_add_toward_zero(a, {sign}b)")
        if op == "mul" and "wide" in words or op == "mad" and "wide" in words:
            wide = np.dtype(WIDER[type_])
            name = f"{'s' if wide.kind == 'i' else 'u'}{8 * wide.itemsize}"
            product = f"np.asarray(a).astype(np.{wide.name}) * np.asarray(b).astype(np.{wide.name})"
            if op == "mul":
                return result(product, name)
            inputs = [self.read(o[1], type_), self.read(o[2], type_), self.read(o[3], name)]
            return result(f"{product} + c", name, inputs)
        if op in ("div", "rem"):
            if type_[0] == "f":
                return result("a / b")
            return result(f"_divide(np.asarray(a), np.asarray(b), {op == 'rem'})")
        if op in ("min", "max"):
            if type_[0] in "su":
                return result(f"np.{op}imum(a, b)")
            raw = type_ if type_ in ("f32", "f64") else f"b{8 * size_of(type_)}"
            inputs = [self.read(operand, raw) for operand in o[1:]]
            return result(f"_extreme(a, b, {type_!r}, {op == 'max'}, {'NaN' in words})", raw, inputs)
        if op in ("shl", "shr"):
            inputs = [self.read(o[1], type_), self.read(o[2], "u32")]
            return result(f"_shift(a, b, {op == 'shl'})", type_, inputs)
        if op == "selp":
            inputs = [self.read(o[1], type_), self.read(o[2], type_), self.read(o[3], "pred")]
            return result("np.where(c, a, b)", type_, inputs)
        if op == "slct":
            inputs = [self.read(o[1], words[1]), self.read(o[2], words[1]), self.read(o[3], type_)]
            return result("np.where(c >= 0, a, b)", words[1], inputs)
        if op == "setp":
            how, also = words[1], words[2] if words[2] in ("and", "or", "xor") else None
            inputs = [self.read(o[1], type_), self.read(o[2], type_)]
            text = f"_compare({how!r}, a, b, {type_!r})"
            if also:
                inputs.append(self.read(o[3], "pred"))
                text += {"and": " & c", "or": " | c", "xor": " ^ c"}[also]
            return result(text, "pred", inputs)
        if op == "cvt":
            target, source = words[-2], words[-1]
            mode = next((word for word in words if word in ROUND), None)
            if target.endswith("x2"):
                return [
                    self.write(o[0], f"_pair({self.read(o[1], source)}, {self.read(o[2], source)}, {target!r})", "b32")
                ]
            value = f"_convert({self.read(o[1], source)}, {target!r}, {source!r}, {mode!r})"
            return [self.write(o[0], value, target)]
        if op == "clz":
            return result(f"{8 * size_of(type_) - 1} - _highest(a, False)", "s64")
        if op == "bfind":
            place = f"_highest(a, {type_[0] == 's'})"
            if "shiftamt" in words:
                place = f"(lambda p: np.where(p < 0, p, {8 * size_of(type_) - 1} - p))({place})"
            return result(place, "s64")
        if op == "popc":
            return result("_bits_set(a)", "u32")
        if op == "lop3":
            inputs = [self.read(operand, "b32") for operand in o[1:4]]
            return result(f"_lop3(a, b, c, {int(o[4], 0)})", "b32", inputs)
        if op == "shf":
            return result(f"_funnel(a, b, c, {words[1]!r}, {words[2] == 'clamp'})")
        if op == "bfe":
            inputs = [self.read(o[1], type_), self.read(o[2], "u32"), self.read(o[3], "u32")]
            return result("_extract(a, b, c)", f"b{8 * size_of(type_)}", inputs)
        if op == "bfi":
            return result("_insert(a, b, c, d)")
        key = ".".join(words[:2]) if ".".join(words[:2]) in EXPRESSIONS else op
        known = all(word in ("rn", "lo", "hi", "ftz", op, type_) for word in words)
        if key not in EXPRESSIONS or not known or type_ in ("f16x2", "bf16x2", "bf16"):
            raise ValueError(f"a form that the interpreter does not know: {one.form}")
        return result(EXPRESSIONS[key])

    def move(self, one: Instruction, type_: str) -> list[str]:
        """mov, which also joins and parts registers."""
        target, source = one.operands
        if target.startswith("{"):
            parts = [part.strip() for part in target.strip("{}").split(",")]
            bits = 8 * size_of(type_) // len(parts)
            value = self.read(source, f"b{8 * size_of(type_)}")
            shifts = [self.constant(RAW[size_of(type_)](bits * i)) for i in range(len(parts))]
            return [
                self.write(part, f"({value} >> {shift}).astype(np.uint{bits})", f"b{bits}")
                for part, shift in zip(parts, shifts, strict=True)
                if part != "_"
            ]
        if source.startswith("{"):
            parts = [part.strip() for part in source.strip("{}").split(",")]
            size = size_of(type_)
            bits = 8 * size // len(parts)
            wide = [f"np.asarray({self.read(part, f'b{bits}')}).astype(np.uint{8 * size})" for part in parts]
            joined = " | ".join(f"({text} << {self.constant(RAW[size](bits * i))})" for i, text in enumerate(wide))
            return [self.write(target, joined, f"b{8 * size}")]
        if type_ == "pred":
            return [self.write(target, f"np.array({self.read(source, type_)})", type_)]
        return [self.write(target, f"np.array({self.read(source, type_)})", type_)]

    def memory(self, one: Instruction, words: Sequence[str]) -> list[str]:
        """Loads, stores and atomic operations."""
        op, type_ = words[0], words[-1]
        lanes = next((int(word[1:]) for word in words if re.fullmatch(r"v[248]", word)), 1)
        space = next((word for word in words if word in ("global", "shared", "param", "const", "local")), "generic")
        if space == "local":
            raise ValueError(f"local memory: {one.text}")
        place = next(i for i, operand in enumerate(one.operands) if operand.startswith("["))
        base, _, offset = one.operands[place][1:-1].replace(" ", "").partition("+")
        narrow = base.startswith("%") and size_of(self.type_of(base)) == 4
        address = self.read(base, "u32" if narrow else "u64")
        shift = self.constant(np.int64(int(offset or "0", 0)))
        ix = "ix" if self.masked else "None"
        address = f"np.asarray({address}).astype(np.int64) + {shift}"
        if narrow:  # 32-bit addresses wrap around
            address = f"({address} & 0xFFFFFFFF)"
        head = f"{space!r}, {address}, {size_of(type_)}, {lanes}, {ix}, {one.text!r}"
        if op == "ld":
            registers = [register.strip() for register in one.operands[0].strip("{}").split(",")]
            lines = [f"V = S.load({head})"]
            raw = np.dtype(dtype_of(type_))
            for i, register in enumerate(registers):
                if register != "_":
                    lines.append(self.write(register, f"V[{i}].view(np.{raw.name})", type_))
            return lines
        if op == "st":
            registers = [register.strip() for register in one.operands[1].strip("{}").split(",")]
            values = ", ".join(self.read(register, type_) for register in registers)
            return [f"S.store([{values}], {head})"]
        what = next((word for word in words if word in ("add", "max", "min", "and", "or", "exch")), None)
        if what is None or type_.endswith("16") or type_.endswith("x2"):
            raise ValueError(f"a form that the interpreter does not know: {one.form}")
        text = f"S.atomic({what!r}, {self.read(one.operands[place + 1], type_)}, {head})"
        if op == "red":
            return [text]
        return [self.write(one.operands[0], text, type_)]


SPECIAL = {
    "%tid.x": "thread",
    "%ntid.x": "threads",
    "%ctaid.x": "block",
    "%nctaid.x": "grid",
    "%laneid": "lane",
    **{f"%{name}.{axis}": "zero" for name in ("tid", "ctaid") for axis in "yz"},
    **{f"%{name}.{axis}": "one" for name in ("ntid", "nctaid") for axis in "yz"},
}


_code = functools.cache(lambda expression: compile(expression, "<operand>", "eval"))


def _whole(value: Any, lanes: int) -> Array:
    return value if value.shape else np.full(lanes, value)


def _own(registers: list[Array | None], place: int, lanes: int, dtype: Any) -> Array:
    """The array of a register to write parts of; fresh ones hold zeros."""
    found = registers[place]
    if found is None or not found.flags.writeable:
        found = np.zeros(lanes, dtype) if found is None else found.copy()
        registers[place] = found
    return found


# ---- programs ----------------------------------------------------------------------------------------------------

TOGETHER = ("bar", "barrier", *EXCHANGES)  # what waits for other threads
TOGETHER_FORM = re.compile(
    r"(bar|barrier)\.sync(\.aligned)?|bar\.warp\.sync|shfl\.sync\.(up|down|bfly|idx)\.b32"
    r"|vote\.sync\.(all|any)\.pred|vote\.sync\.ballot\.b32|match\.any\.sync\.b(32|64)"
    r"|redux\.sync\.(add|min|max|and|or|xor)\.[bus]32"
)


class Block:
    """A basic block, translated when it is first run."""

    def __init__(self, kernel: Kernel, begin: int, end: int, numbers: dict[str, int]) -> None:
        self.kernel, self.begin, self.end, self.numbers = kernel, begin, end, numbers
        self.instructions = kernel.instructions[begin:end]
        last = self.instructions[-1]
        self.op = last.form.split(".")[0]
        self.last = last
        self.ends = self.op in ("bra", "ret", "exit")
        self.together = self.op in TOGETHER
        self.body = self.instructions[:-1] if self.ends or self.together else self.instructions
        self.target = kernel.labels[last.operands[0]] if self.op == "bra" else None
        self.compiled: dict[bool, Callable[[Any, Any, Any], None]] = {}

    def run(self, state: Any, registers: list[Any], ix: Array | None) -> None:
        """Executes all but the branch at the end."""
        masked = ix is not None
        if masked not in self.compiled:
            self.compiled[masked] = self._compile(masked)
        self.compiled[masked](state, registers, ix)

    def _compile(self, masked: bool) -> Callable[[Any, Any, Any], None]:
        if self.together:
            # A barrier of some of a block's threads has a second operand.
            some = self.last.form.startswith(("bar.sync", "barrier")) and len(self.last.operands) > 1
            if some or self.last.guard or not TOGETHER_FORM.fullmatch(self.last.form):
                raise ValueError(f"a form that the interpreter does not know: {self.last.text}")
        plain = Translator(self.kernel, masked, self.numbers)
        lines = []
        for one in self.body:
            if one.guard is None:
                lines += plain.line(one)
                continue
            # Only where its predicate holds: as if those threads alone were here.
            guarded = Translator(self.kernel, True, self.numbers)
            guarded.constants = plain.constants
            held = f"{'~' if one.negated else ''}R[{plain.number(one.guard)}]"
            lines += [f"outer, ix = ix, S.where({held}, ix)", "if len(ix):"]
            lines += [f"    {line}" for line in guarded.line(one)] + ["ix = outer"]
        text = "def block(S, R, ix):\n" + "".join(f"    {line}\n" for line in lines or ["pass"])
        names = {"np": np, "K": plain.constants, "whole": _whole, "own": _own, **HELPERS}
        exec(compile(text, f"<{self.kernel.name}:{self.begin}>", "exec"), names)
        return names["block"]


class Program:
    """A kernel that can be run."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.numbers: dict[str, int] = {}
        leaders = {0, *kernel.labels.values()}
        for place, one in enumerate(kernel.instructions):
            op = one.form.split(".")[0]
            if op in ("bra", "ret", "exit") or op in TOGETHER:
                leaders.add(place + 1)
        begins = sorted(place for place in leaders if place < len(kernel.instructions))
        ends = [*begins[1:], len(kernel.instructions)]
        self.blocks = {b: Block(kernel, b, e, self.numbers) for b, e in zip(begins, ends, strict=True)}
        for one in kernel.instructions:
            for register in re.findall(r"%[a-z]+\d*", one.text):
                self.numbers.setdefault(register, len(self.numbers))
        self._stretches: dict[tuple[Timing, ...], Stretches] = {}

    def stretches(self, timings: tuple[Timing, ...]) -> Stretches:
        """For a scoreboard: the blocks, those taken together that only an exchange between lanes parts."""
        if timings not in self._stretches:
            parts: dict[int, list[Instruction]] = {}
            labels, before = set(self.kernel.labels.values()), None
            for begin, block in self.blocks.items():
                if before is None or before.op not in EXCHANGES or begin in labels:
                    part = parts.setdefault(begin, [])
                part += block.instructions
                before = block
            self._stretches[timings] = Stretches(parts, self.kernel.registers, timings)
        return self._stretches[timings]


def _distinct(numbers: Array) -> Array:
    """As np.unique, which hashes, and is ten times as slow on numbers that are nearly in order."""
    numbers = np.sort(numbers)
    return numbers[np.concatenate([[True], numbers[1:] != numbers[:-1]])] if len(numbers) else numbers


class Distinct:
    """A growing set of integers."""

    def __init__(self) -> None:
        self._known: Array = np.empty(0, np.int64)
        self._new: list[Array] = []
        self._waiting = 0

    def add(self, numbers: Array) -> int:
        """Takes some in and returns how many they were."""
        self._new.append(numbers)
        self._waiting += len(numbers)
        if self._waiting > max(1 << 20, len(self._known)):  # so that each is sorted a few times only
            self.all()
        return len(numbers)

    def all(self) -> Array:
        """What is in it."""
        self._known = _distinct(np.concatenate([self._known, *self._new]))
        self._new, self._waiting = [], 0
        return self._known


class State:
    """The threads of some blocks of a launch, their memory, and the counts."""

    def __init__(self, program: Program, launch: Any, blocks: Sequence[int], counts: Counts) -> None:
        self.kernel, self.counts = program.kernel, counts
        warps = -(-launch.threads // 32)
        self.block_lanes = warps * 32
        self.lanes = len(blocks) * self.block_lanes
        place = np.arange(self.lanes)
        self.of_block = place // self.block_lanes
        self.thread = (place % self.block_lanes).astype(np.uint32)
        self.lane = (place % 32).astype(np.uint32)
        self.block = np.asarray(blocks, np.uint32)[self.of_block]
        self.threads, self.grid = (np.full(self.lanes, n, np.uint32) for n in (launch.threads, launch.grid))
        self.zero, self.one = np.zeros(self.lanes, np.uint32), np.ones(self.lanes, np.uint32)
        self.absent = self.thread >= launch.threads
        self.shared_bytes = launch.shared_bytes
        self.stride = -(-launch.shared_bytes // 128) * 128 + 128
        self.shared = np.full(len(blocks) * self.stride, POISON, np.uint8)
        self.shared_base = self.of_block * self.stride
        self.parameters = np.frombuffer(launch.params + bytes(-len(launch.params) % 8 + 8), np.uint8)
        self.begins, self.ends = readable_memory()
        self.touched = {kind: Distinct() for kind in ("load", "store", "atomic")}
        self.board: Board | None = None
        self.registers: list[Any] = [None] * len(program.numbers)
        kinds = program.kernel.registers
        # Zeros that all registers of a type share until they are written to.
        zeros = {
            prefix: np.broadcast_to(np.zeros(1, np.bool_ if type_ == "pred" else RAW[size_of(type_)]), (self.lanes,))
            for prefix, type_ in kinds.items()
        }
        for register, number in program.numbers.items():
            self.registers[number] = zeros.get(register.rstrip("0123456789"))

    # ---- what translated blocks call ----

    def where(self, predicate: Array, ix: Array | None) -> Array:
        """The threads of ``ix`` where a predicate holds."""
        return np.nonzero(predicate)[0] if ix is None else ix[predicate[ix]]

    def mask_of(self, ix: Array | None) -> Array:
        """Of each thread, which lanes of its warp are here."""
        here = np.ones(self.lanes, np.uint64) if ix is None else np.zeros(self.lanes, np.uint64)
        if ix is not None:
            here[ix] = 1
        masks = (here.reshape(-1, 32) << np.arange(32, dtype=np.uint64)).sum(1).astype(np.uint32)
        spread = np.repeat(masks, 32)
        return spread if ix is None else spread[ix]

    def load(self, space: str, address: Array, size: int, lanes: int, ix: Array | None, text: str) -> list[Array]:
        """The values at addresses, one array for each number of a vector."""
        memory, places = self._find("load", space, address, size, lanes, ix, text)
        return [memory.view(RAW[size])[places + i] for i in range(lanes)]

    def store(
        self, values: list[Any], space: str, address: Array, size: int, lanes: int, ix: Array | None, text: str
    ) -> None:
        """Writes; of threads that write to one place the last one wins."""
        memory, places = self._find("store", space, address, size, lanes, ix, text)
        view = memory.view(RAW[size])
        for i, value in enumerate(values):
            view[places + i] = np.asarray(value).view(RAW[size])

    def atomic(
        self, what: str, value: Any, space: str, address: Array, size: int, lanes: int, ix: Array | None, text: str
    ) -> Array:
        """One thread after the other; gives what was there before."""
        memory, places = self._find("atomic", space, address, size, lanes, ix, text)
        values = np.broadcast_to(np.asarray(value), places.shape)
        view = memory.view(values.dtype)
        before = np.empty(places.shape, values.dtype)
        change = {"max": np.maximum, "min": np.minimum, "and": np.bitwise_and, "or": np.bitwise_or, "add": np.add}
        for i, place in enumerate(places):
            before[i] = view[place]
            view[place] = values[i] if what == "exch" else change[what](view[place], values[i])
        return before

    def _find(
        self, kind: str, space: str, address: Array, size: int, lanes: int, ix: Array | None, text: str
    ) -> tuple[Array, Array]:
        """The memory that addresses lie in, and their places in it in numbers of ``size`` bytes. Counts the access."""
        number = self.lanes if ix is None else len(ix)
        if address.shape != (number,):
            address = np.broadcast_to(address, (number,))
        low, high = int(address.min()), int(address.max()) + size * lanes
        if space == "generic":
            base = SHARED if low >= SHARED else PARAM if low >= PARAM else 0
            space = {SHARED: "shared", PARAM: "param", 0: "global"}[base]
            address, low, high = address - base, low - base, high - base
        if (address % (size * lanes)).any():
            bad = int(np.nonzero(address % (size * lanes))[0][0])
            raise self._fault("not a multiple of the access", text, address, bad, ix)
        if space == "param":
            return self.parameters, address // size
        if space == "shared":
            if low < 0 or high > self.shared_bytes:
                bad = int(np.argmax(address) if high > self.shared_bytes else np.argmin(address))
                raise self._fault(f"outside of {self.shared_bytes} bytes of shared memory", text, address, bad, ix)
            self._count_shared(kind, address, size * lanes, ix)
            return self.shared, (address + (self.shared_base if ix is None else self.shared_base[ix])) // size
        self._count_global(kind, address, size * lanes, ix)
        found = int(np.searchsorted(self.begins, low, "right")) - 1
        if found < 0 or high > self.ends[found]:  # not all in one piece of memory
            pieces = np.searchsorted(self.begins, address, "right") - 1
            outside = (pieces < 0) | (address + size * lanes > self.ends[pieces])
            if outside.any():
                raise self._fault("outside of memory", text, address, int(np.argmax(outside)), ix)
        return EVERYTHING, (address - FIRST) // size

    def _fault(self, why: str, text: str, address: Array, bad: int, ix: Array | None) -> RuntimeError:
        lane = bad if ix is None else int(ix[bad])
        return RuntimeError(
            f"{self.kernel.name}: {text}: block {int(self.block[lane])}, thread {int(self.thread[lane])}: address "
            f"{int(address[bad]):#x} is {why}"
        )

    # ---- counting ----

    def _by_warp(self, values: Array, ix: Array | None) -> Array:
        """[warps, 32] of the warps that are here; -1 for lanes that are not."""
        if ix is None:
            return values.reshape(-1, 32)
        warps = ix >> 5
        first = np.concatenate([[True], warps[1:] != warps[:-1]])
        rows = np.cumsum(first) - 1
        table = np.full((int(rows[-1]) + 1, 32), -1, np.int64)
        table[rows, ix & 31] = values
        return table

    def _count_global(self, kind: str, address: Array, size: int, ix: Array | None) -> None:
        names = {"load": "global_loads", "store": "global_stores", "atomic": "atomics"}
        traffic: Traffic = getattr(self.counts, names[kind])
        sectors = address >> 5
        table = np.sort(self._by_warp(sectors, ix), axis=1)
        new = (table[:, 1:] != table[:, :-1]) & (table[:, 1:] >= 0)
        traffic.requests += len(table)
        traffic.bytes += size * len(address)
        first = np.concatenate([table[:, :1] >= 0, new], axis=1)
        warps = np.arange(len(table)) if ix is None else np.unique(ix >> 5)
        block = (warps * 32 // self.block_lanes) << 48
        traffic.sectors += self.touched[kind].add((table | block[:, None])[first])

    def _count_shared(self, kind: str, address: Array, size: int, ix: Array | None) -> None:
        traffic = self.counts.shared_loads if kind == "load" else self.counts.shared_stores
        table = self._by_warp(address >> 2, ix)
        traffic.requests += len(table)
        traffic.bytes += size * len(address)
        words = max(size // 4, 1)
        group = table.reshape(-1, 32 // words)  # wide accesses go in halves and quarters of a warp
        here = group >= 0
        asked = np.where(here[:, :, None], group[:, :, None] + np.arange(words), -1).reshape(len(group), 32)
        asked = np.sort(asked, axis=1)
        first = np.concatenate([np.ones((len(asked), 1), bool), asked[:, 1:] != asked[:, :-1]], axis=1) & (asked >= 0)
        rows = np.nonzero(first)[0]
        banks = np.bincount(rows * 32 + (asked[first] & 31), minlength=32 * len(asked)).reshape(-1, 32)
        traffic.wavefronts += int(banks.max(1).sum())
        traffic.ideal += int(here.any(1).sum())

    def finish(self) -> None:
        """Counts the distinct sectors."""
        for kind, name in (("load", "global_loads"), ("store", "global_stores"), ("atomic", "atomics")):
            keys = self.touched[kind].all()
            traffic = getattr(self.counts, name)
            traffic.block_distinct += len(keys)
            traffic.distinct += len(_distinct(keys & ((1 << 48) - 1)))

    # ---- what warps do together ----

    def together(self, one: Instruction, here: Array) -> None:
        """A shuffle, vote, match or reduction of the warps whose threads are all here."""
        words = one.form.split(".")
        ix = np.nonzero(here)[0]
        read = Translator(self.kernel, False, self._numbers)
        names = {"np": np, "K": read.constants, "S": self, "R": self.registers}

        def value(operand: str, type_: str) -> Array:
            found = eval(_code(read.read(operand, type_)), names)
            return found if found.shape else np.full(self.lanes, found)

        def put(register: str, result: Array) -> None:
            place = self._numbers[register]
            own = self.registers[place]
            own = own if own.flags.writeable else own.copy()
            own[ix] = np.asarray(result).view(own.dtype)[ix] if own.dtype != np.bool_ else result[ix]
            self.registers[place] = own

        target = one.operands[0].split("|")
        if words[0] == "vote":
            votes = (value(one.operands[1], "pred") & here).reshape(-1, 32)
            if words[2] == "ballot":
                result = (votes.astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(1).astype(np.uint32)
            elif words[2] == "any":
                result = votes.any(1)
            else:
                result = (votes | ~here.reshape(-1, 32)).all(1)
            put(target[0], np.repeat(result, 32))
        elif words[0] == "match":
            numbers = value(one.operands[1], words[-1]).reshape(-1, 32)
            equal = (numbers[:, :, None] == numbers[:, None, :]) & here.reshape(-1, 1, 32)
            masks = (equal.astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(2).astype(np.uint32)
            put(target[0], masks.reshape(-1))
        elif words[0] == "redux":
            numbers = value(one.operands[1], words[-1]).reshape(-1, 32)
            function = {"add": np.add, "min": np.minimum, "max": np.maximum}
            function |= {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}
            result = function[words[2]].reduce(numbers, axis=1).astype(numbers.dtype)
            put(target[0], np.repeat(result, 32))
        else:
            numbers = value(one.operands[1], "b32")
            by = value(one.operands[2], "b32").astype(np.int64)
            control = value(one.operands[3], "b32").astype(np.int64)
            lane, segment, clamp = self.lane.astype(np.int64), control >> 8 & 31, control & 31
            last, first = lane & segment | clamp & ~segment & 31, lane & segment
            source, within = {
                "up": (lane - by, lane - by >= last),
                "down": (lane + by, lane + by <= last),
                "bfly": (lane ^ by, lane ^ by <= last),
                "idx": (first | by & ~segment & 31, (first | by & ~segment & 31) <= last),
            }[words[2]]
            source = np.where(within, source, lane) & 31
            put(target[0], numbers[np.arange(self.lanes) // 32 * 32 + source])
            if len(target) > 1 and target[1] != "_":
                put(target[1], within)


# The address space from its second page on, as an array; what is touched of it is checked first.
FIRST = 4096
EVERYTHING = np.ctypeslib.as_array((ctypes.c_uint8 * ((1 << 47) - 2 * FIRST)).from_address(FIRST))


def readable_memory() -> tuple[Array, Array]:
    """Where pieces of the process's memory begin and end. Neighbours are one, because tensors lie across them."""
    spans: list[list[int]] = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, access, *_ = line.split()
        if access[0] != "r" or line.rstrip().endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
            continue
        begin, end = (int(word, 16) for word in span.split("-"))
        if spans and spans[-1][1] == begin:
            spans[-1][1] = end
        else:
            spans.append([begin, end])
    begins, ends = zip(*(span for span in spans if span[1] <= 1 << 47), strict=True)
    return np.array(begins), np.array(ends)


# ---- running -----------------------------------------------------------------------------------------------------


def run(program: Program, launch: Any, blocks: Sequence[int], timings: tuple[Timing, ...] = ()) -> Counts:
    """Runs blocks of a launch side by side; they read and write the memory that its parameters point to."""
    counts = Counts(program.kernel.name, launch.grid, len(blocks), launch.threads, launch.shared_bytes)
    state = State(program, launch, blocks, counts)
    state._numbers = program.numbers
    if timings:
        state.board = Board(program.stretches(timings), len(blocks), state.block_lanes // 32)
    executed: Counter[int] = Counter()  # block -> warps
    longest = np.zeros(state.lanes // 32, np.int64)
    place = np.where(state.absent, NOWHERE, 0)  # of each thread; NOWHERE too while it waits
    gone, waits = state.absent.copy(), np.full(state.lanes, -1)
    with np.errstate(all="ignore"):
        while True:
            begin = int(place.min())
            if begin == NOWHERE:
                if not (waits >= 0).any():
                    break
                raise RuntimeError(f"{program.kernel.name}: threads wait for one another at different places")
            here = place == begin
            ix = None if here.all() else np.nonzero(here)[0]
            block = program.blocks[begin]
            block.run(state, state.registers, ix)
            warps = np.ones(len(longest), bool) if ix is None else here.reshape(-1, 32).any(1)
            executed[begin] += int(warps.sum())
            longest[warps] += len(block.instructions)
            if state.board:
                state.board.execute(begin, warps)
            if block.together:
                _wait(state, block, here, place, gone, waits)
            elif not block.ends:
                place[here] = block.end
            else:
                _leave(state, block, here, place, gone, counts)
                if gone[here].any():
                    _wait(state, None, here, place, gone, waits)
    for begin, warps_ in executed.items():
        for one in program.blocks[begin].instructions:
            counts.forms[("@" if one.guard else "") + one.form] += warps_
    counts.longest = int(longest.max())
    counts.clocks = state.board.result() if state.board else {}
    state.finish()
    return counts


def _leave(state: State, block: Block, here: Array, place: Array, gone: Array, counts: Counts) -> None:
    """A branch or a return at the end of a block."""
    taken = here
    if block.last.guard is not None:
        predicate = state.registers[state._numbers[block.last.guard]]
        taken = here & (~predicate if block.last.negated else predicate)
        both = taken.reshape(-1, 32).any(1) & (here & ~taken).reshape(-1, 32).any(1)
        counts.divergent += int(both.sum())
        place[here] = block.end
    if block.target is not None:
        place[taken] = block.target
    else:
        place[taken] = NOWHERE
        gone |= taken


def _wait(state: State, block: Block | None, here: Array, place: Array, gone: Array, waits: Array) -> None:
    """Threads come to a barrier or the like, or return; those for whom nobody is missing go on."""
    if block is not None:
        place[here], waits[here] = NOWHERE, block.end
    for end in np.unique(waits[waits >= 0]):
        at = waits == end
        one = state.kernel.instructions[int(end) - 1]
        size = state.block_lanes if one.form.startswith(("bar.sync", "barrier")) else 32
        groups = (at | gone).reshape(-1, size).all(1) & at.reshape(-1, size).any(1)
        free = np.repeat(groups, size) & at
        if not free.any():
            continue
        if one.form.startswith(("bar.sync", "barrier")):
            state.counts.barriers += int(groups.sum())
            if state.board:
                state.board.meet(free.reshape(-1, 32).any(1))
        if not one.form.startswith("bar"):
            state.together(one, free)
        place[free], waits[free] = end, -1
