"""What the tests share: data that is hard to pool, layouts that are hard to read, and strict comparison."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import spp_ext
from spp_ext import Bins
from spp_ext.testing import random_boxes as random_rois  # noqa: F401 - the tests' name for it
from spp_ext.testing import tie_free_map

NAN, INF = math.nan, math.inf

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
CONVENTIONS = ["roi_pool", "spp_net", "outer"]
ROI_POOL, SPP_NET, OUTER = range(3)  # those, as the registered ops take them
INSTRUCTION_SETS = ["baseline", "avx2", "avx512"]  # the best last; beyond x86-64 there is only the first

# fmt: off
TABLE = torch.tensor([[1, 9, 2, 0],     # cells  0  1  2  3, a map whose bins a person can check
                      [3, 4, 8, 5],     #        4  5  6  7
                      [7, 0, 6, 1],     #        8  9 10 11
                      [2, 3, 1, 4.]])   #       12 13 14 15
# fmt: on
TABLE_BINS = Bins([(0, 0, 1, 4), (1, 1, 3, 3), (0, 2, 4, 4), (0, 0, 4, 4), (3, 3, 4, 4)], 4)


def generator(seed):
    return torch.Generator().manual_seed(seed)


# ---- comparison ----


def assert_same(got, expected):
    """The same shape, dtype and elements, where NaN is NaN. Takes tensors, or sequences of them."""
    if not isinstance(expected, torch.Tensor):
        assert len(got) == len(expected)
        for part, expected_part in zip(got, expected, strict=True):
            assert_same(part, expected_part)
        return
    assert isinstance(got, torch.Tensor), f"a tensor was expected, got {type(got)}"
    assert got.dtype == expected.dtype, f"dtype {expected.dtype} was expected, got {got.dtype}"
    assert got.shape == expected.shape, f"shape {list(expected.shape)} was expected, got {list(got.shape)}"
    same = (got == expected) | ((got != got) & (expected != expected))
    if not same.all():
        wrong = (~same).nonzero()
        at = tuple(wrong[0].tolist())
        pytest.fail(f"{len(wrong)} of {same.numel()} differ, first {list(at)}: {got[at]} for {expected[at]}")


def assert_same_bits(got, expected):
    """As `assert_same`, and zeros have the same sign."""
    assert_same(got, expected)
    negative, expected_negative = got.signbit() & (got == 0), expected.signbit() & (expected == 0)
    assert_same(negative, expected_negative)


def assert_refuses(error, message, call):
    """`call` raises exactly `error` with exactly `message`, which is written as errors of this package are."""
    with pytest.raises(error) as caught:
        call()
    text = str(caught.value)
    assert type(caught.value) is error, f"{error.__name__} was expected, got {type(caught.value).__name__}"
    assert text == message
    assert_well_written(text)


def assert_well_written(text):
    """The op, one sentence on one line, no path of a file."""
    assert re.match(r"spp_ext\.(ops\.)?\w+: [a-z]", text), f"should name its op: {text}"
    assert "\n" not in text and "\0" not in text, f"should be one line: {text!r}"
    assert ". " not in text and not text.endswith("."), f"should be one sentence: {text}"
    assert not re.search(r"\.(h|cpp|py|so)\b|line \d|\w/\w+/", text), f"should name no file: {text}"


# ---- the composition that the pyramid replaces ----


def torch_pyramid(x, levels=(1, 2, 3, 6)):
    """Values and argmax [N, C * B] of torch's own adaptive pooling, level by level."""
    pooled = [F.adaptive_max_pool2d(x, level, return_indices=True) for level in levels]
    return tuple(torch.cat([part[i].flatten(1) for part in pooled], 1) for i in (0, 1))


# ---- data ----


def gaussian(shape, dtype, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def integers(shape, dtype, seed=0, low=-3, high=3):
    """Whole numbers of few kinds: nearly every maximum is a tie, and sums of them are exact."""
    return torch.randint(low, high + 1, shape, generator=generator(seed)).to(dtype)


def sprinkled(x, value, share, seed=0):
    """`x` with a share of its elements replaced."""
    return torch.where(torch.rand(x.shape, generator=generator(seed + 99)) < share, value, x).to(x.dtype)


def extremes(shape, dtype, seed=0):
    """The ends of the number line: the greatest, the least normal, the subnormal."""
    info = torch.finfo(dtype)
    values = [info.max, info.min, info.tiny, -info.tiny, info.smallest_normal / 4, -info.smallest_normal / 4]
    chosen = torch.randint(len(values), shape, generator=generator(seed))
    return torch.tensor(values, dtype=torch.float64)[chosen].to(dtype)


MAPS = {
    "gaussian": gaussian,
    "ties": integers,
    "nan": lambda shape, dtype, seed=0: sprinkled(integers(shape, dtype, seed), NAN, 0.2, seed),
    "one nan": lambda shape, dtype, seed=0: sprinkled(gaussian(shape, dtype, seed), NAN, 0.02, seed),
    "all nan": lambda shape, dtype, seed=0: torch.full(shape, NAN, dtype=dtype),
    "minus inf": lambda shape, dtype, seed=0: sprinkled(integers(shape, dtype, seed), -INF, 0.8, seed),
    "all minus inf": lambda shape, dtype, seed=0: torch.full(shape, -INF, dtype=dtype),
    "inf and nan": lambda shape, dtype, seed=0: sprinkled(
        sprinkled(integers(shape, dtype, seed), INF, 0.3, seed), NAN, 0.05, seed + 1
    ),
    "zeros": lambda shape, dtype, seed=0: sprinkled(
        sprinkled(torch.full(shape, -1.0, dtype=dtype), 0.0, 0.3, seed), -0.0, 0.3, seed + 1
    ),
    "extremes": extremes,
}
KINDS = list(MAPS)


def make_map(kind, shape, dtype=torch.float32, seed=0):
    return MAPS[kind](shape, dtype, seed)


# ---- layouts: the same values in other places, among neighbours that would show ----


def _inside(x, shape, place):
    """`x` copied into the part `place` of a tensor whose other elements are NaN and infinity."""
    room = torch.full(shape, NAN, dtype=x.dtype)
    room.flatten()[::2] = INF
    view = place(room)
    view.copy_(x)
    return view


def _flat(x):
    """`x` in the middle of a longer piece of memory, not aligned to a vector register."""
    return _inside(x, [x.numel() + 40], lambda room: room[3 : 3 + x.numel()].view(x.shape))


def _channels_last_part(x):
    n, c, h, w = x.shape
    wider = _inside(x.permute(0, 2, 3, 1), [n, h, w, c + 3], lambda room: room[..., 1 : 1 + c])
    return wider.permute(0, 3, 1, 2)


_LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "offset": lambda x: _flat(x),
    "channels_last_offset": lambda x: _flat(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    "every_second_cell": lambda x: _inside(
        x, [*x.shape[:2], 2 * x.shape[2] + 1, 2 * x.shape[3]], lambda room: room[:, :, 1::2, ::2]
    ),
    "some_channels": lambda x: _inside(x, [x.shape[0], x.shape[1] + 2, *x.shape[2:]], lambda room: room[:, 1:-1]),
    "some_channels_last": _channels_last_part,
    "some_columns": lambda x: _inside(x, [*x.shape[:3], x.shape[3] + 5], lambda room: room[..., 2:-3]),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "reversed_axes": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "batch_inside": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    # These repeat values along an axis of stride 0.
    "expanded_batch": lambda x: x[:1].expand(x.shape),
    "expanded_channels": lambda x: x[:, :1].expand(x.shape),
    "expanded_rows": lambda x: x[:, :, :1].expand(x.shape),
}
LAYOUTS = list(_LAYOUTS)


def lay_out(x, layout):
    """`x` in another layout; `expanded_*` repeat its first slice, so compare with what comes back, not with `x`."""
    return _LAYOUTS[layout](x)


# ---- regions ----


def images_of(rois):
    """The image of each row, as the reference's gather and scatter take it."""
    return rois[:, 0].double().trunc().long().tolist()


# ---- derivatives ----

BINS = Bins([(0, 0, 1, 4), (1, 1, 3, 3), (0, 2, 4, 4), (0, 0, 4, 4)], 4)
PYRAMIDS = [(1, 2, 3, 6), (4, (1, 3)), (BINS,), (BINS, 4, 2)]
ROIS = torch.tensor(
    [
        [1, 0, 0, 5, 4],
        [0, 1, 1, 3, 3],  # inside the next
        [0, 0, 0, 4, 4],
        [1, -3, -2, 2, 9],  # partly outside
        [0, 4, 3, 2, 1],  # inverted
        [1, 20, 20, 30, 30],  # outside
    ],
    dtype=torch.float64,
)


def distinct(*shape):
    """A leaf without ties, for numerical derivatives."""
    return tie_free_map(*shape).requires_grad_()


def gradient(function, x, grad_output):
    """The gradient of `function` at a leaf that is laid out in memory as `x`."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x), x, grad_output)[0]


POOLS = {
    "spatial_pyramid_pool": lambda x: spp_ext.spatial_pyramid_pool(x),
    "roi_spatial_pyramid_pool": lambda x: spp_ext.roi_spatial_pyramid_pool(x, torch.zeros(2, 5)),
}


# The same in torch: both regions of the second are the one cell (0, 0).
COMPOSITIONS = {
    "spatial_pyramid_pool": lambda x: torch_pyramid(x)[0],
    "roi_spatial_pyramid_pool": lambda x: torch_pyramid(x[:, :, :1, :1])[0].repeat(2, 1),
}


# ---- other processes ----


def python_path():
    """PYTHONPATH for another process that is to find the same package, and these helpers."""
    path = [str(Path(spp_ext.__file__).parent.parent), str(Path(__file__).parent), os.environ.get("PYTHONPATH")]
    return os.pathsep.join(filter(None, path))


def run_python(*arguments, **environment):
    """Runs Python, which finds the same package; keywords set environment variables, None unsets one."""
    variables = {**os.environ, "PYTHONPATH": python_path(), **environment}
    variables = {name: value for name, value in variables.items() if value is not None}
    return subprocess.run(
        [sys.executable, *arguments], env=variables, capture_output=True, text=True, timeout=300, cwd="/"
    )
