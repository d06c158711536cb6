"""Tensors without data are refused as those with data are: the same calls, the same exceptions, the same sentences.

The kernels check their arguments in C++ and the fakes in Python, so what each says is compared here.
"""

from contextlib import nullcontext

import pytest
import torch
from error_cases import ROIS, X
from support import OUTER, assert_well_written
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

from spp_ext._torch.op_table import LINEAR, POOLINGS, overload

pytestmark = pytest.mark.cpu_only  # calls the CPU's ops themselves

FIRST = torch.zeros(1, dtype=torch.int64)
ARGMAX, ARGMAX_OF_ROIS = torch.zeros(2, 3, dtype=torch.int32), torch.zeros(1, 3, dtype=torch.int32)
SIZE = [2, 3, 4, 5]
REST = (1.0, OUTER, False)


def huge(*shape, dtype=torch.float32):
    """A tensor of this shape in the memory of one element."""
    return torch.zeros(1, dtype=dtype).as_strided(shape, [0] * len(shape))


# ---- what is refused, by the kind of argument ----

DTYPES = (torch.int32, torch.complex64, torch.bool, torch.uint8, torch.int64, torch.float8_e4m3fn, torch.uint16)

BAD_MAPS = [
    *(X.to(dtype) for dtype in DTYPES),
    *(torch.zeros(shape) for shape in ([], [3], [3, 4, 5], [1, 2, 3, 4, 5], [2, 3, 0, 5], [2, 3, 4, 0], [0, 0, 0, 0])),
    *(huge(1, 1, *size) for size in ([2**16, 2**15], [2**31, 1], [1, 2**31], [2**31 - 1, 2])),
]
BAD_BOXES = [
    *(ROIS.to(dtype) for dtype in DTYPES),
    *(torch.zeros(shape) for shape in ([], [5], [1, 4], [0, 4], [1, 5, 1])),
    huge(2**31, 5),
]
BAD_MAP_INDICES = [FIRST.int(), FIRST.float(), FIRST[:0], FIRST[None], FIRST.new_zeros([]), FIRST.expand(2)]
BAD_LEVELS = [
    [],
    [0],
    [1],
    [-1],
    [-1, 0],
    [1, 1, 2],
    [0, 1],
    [1, 2**20 + 1],
    [2**63 - 1, 1],
    [1, 1, -1, 1, 1],
    [-1, 1, 1, 0, 0, 1],
    [-2, 1, 1, 1, 0, 1, 1],
    [-1, 2**20, 2**20, 0, 0, 2**20 + 1, 1],
    [-1, 1, 1, 0, 0, 1, 0],
    [-1, 1, 0, 0, 0, 1, 1],
    [-(2**31), 1, 1],
    [-(2**31) + 1, 1, 1, 0, 0, 1, 1],
    [2**20, 2**11],
    [2**20, 2**10, 2**20, 2**10],
]
BAD_SCALES = [0.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e39, 2.0**128 - 2.0**103]
BAD_CONVENTIONS = [-1, 4, 2**62]
BAD_KERNEL_SIZES = [[0], [-1], [4], [5, 3], [2**20 + 1], [3, 3, 2]]
BAD_ARGMAX = [
    *(ARGMAX.to(dtype) for dtype in (torch.int64, torch.float32, torch.int16)),
    *(
        ARGMAX.new_zeros(shape)
        for shape in ([], [3], [1, 3], [2, 2], [1, 2, 3], [2, 3, 1, 2], [2, 3, 0, 0], [0, 3, 1, 1])
    ),
    huge(1, 1, 2**31, 2**30, dtype=torch.int32),
]
BAD_LEVEL_BINS = [[0], [2, -1], [-(2**63)], [2**31 - 1, 1], [2**63 - 1] * 2, [1, 1], [], [2**31 - 1]]
BAD_GRADIENTS = [
    *(torch.zeros(2, 3, dtype=dtype) for dtype in DTYPES),
    *(torch.zeros(shape) for shape in ([], [3], [1, 3], [2, 2], [2, 3, 1], [2, 3, 1, 1])),
]
BAD_SIZES = [
    [],
    [2, 3, 4],
    [*SIZE, 1],
    [-2, 3, 4, 5],
    [2, -3, 4, 5],
    [2, 3, 0, 5],
    [2, 3, 4, 0],
    [2, 3, -4, -5],
    [2, 3, 2**16, 2**15],
    [2**30, 2**30, 2**15, 2**15],
    [1, 3, 4, 5],
    [2, 4, 4, 5],
]

# ---- calls: of each op its arguments, and for some of them, by position, what is refused in their place ----


def _in_list(bad):
    """Two maps, one of which is bad."""
    return [pair for one in bad for pair in ([one, X], [X, one])]


def _unlike(good, bad):
    return [one for one in bad if one.dtype != good.dtype or one.shape != good.shape]


UNEQUAL = [[], [X, X[:1]], [X, X[:, :2]], [X, X.double()], [X, X.half()]]

POOLING_CALLS = {
    "spatial_pyramid_pool": ((X, [1, 1]), {0: BAD_MAPS, 1: BAD_LEVELS}),
    "roi_spatial_pyramid_pool": (
        (X, ROIS, [1, 1], *REST),
        {0: BAD_MAPS, 1: BAD_BOXES, 2: BAD_LEVELS, 3: BAD_SCALES, 4: BAD_CONVENTIONS},
    ),
    "roi_spatial_pyramid_pool_of_maps": (
        ([X, X], ROIS, FIRST, [1, 1], [1.0, 1.0], *REST[1:]),
        {
            0: _in_list(BAD_MAPS) + UNEQUAL + [[X], [X] * 3],
            1: BAD_BOXES,
            2: BAD_MAP_INDICES,
            3: BAD_LEVELS,
            4: [[1.0, scale] for scale in BAD_SCALES] + [[], [1.0], [1.0] * 3],
            5: BAD_CONVENTIONS,
        },
    ),
    "multi_kernel_max_pool2d": ((X, [3, 5], False), {0: BAD_MAPS, 1: BAD_KERNEL_SIZES}),
}
LINEAR_CALLS = {
    "gather": ((X, ARGMAX, None, [1]), {0: BAD_MAPS, 1: BAD_ARGMAX, 2: BAD_BOXES, 3: BAD_LEVEL_BINS}),
    "gather_of_maps": (
        ([X, X], ARGMAX_OF_ROIS, ROIS, FIRST, [1]),
        {
            0: _in_list(BAD_MAPS) + UNEQUAL,
            1: _unlike(ARGMAX_OF_ROIS, BAD_ARGMAX),
            2: BAD_BOXES,
            3: BAD_MAP_INDICES,
            4: BAD_LEVEL_BINS,
        },
    ),
    "scatter": (
        (torch.zeros(2, 3), ARGMAX, None, [1], SIZE, False),
        {0: BAD_GRADIENTS, 1: BAD_ARGMAX, 2: BAD_BOXES, 3: BAD_LEVEL_BINS, 4: BAD_SIZES},
    ),
    "scatter_of_maps": (
        (torch.zeros(1, 3), ARGMAX_OF_ROIS, ROIS, FIRST, [1], SIZE * 2, [False, True]),
        {
            0: _unlike(torch.zeros(1, 3), BAD_GRADIENTS),
            1: _unlike(ARGMAX_OF_ROIS, BAD_ARGMAX),
            2: BAD_BOXES,
            3: BAD_MAP_INDICES,
            4: BAD_LEVEL_BINS,
            5: [[*SIZE, *size] for size in BAD_SIZES] + [[*size, *SIZE] for size in BAD_SIZES],
            6: [[], [False], [False] * 3],
        },
    ),
}
CALLS = {
    **POOLING_CALLS,
    **{f"{name}_with_argmax": call for name, call in POOLING_CALLS.items()},
    **LINEAR_CALLS,
}


def bad_calls(name):
    arguments, bad = CALLS[name]
    for position, values in bad.items():
        for value in values:
            yield (*arguments[:position], value, *arguments[position + 1 :])


# ---- the comparison ----


def outcome(call):
    try:
        return "returned", call()
    except Exception as error:
        return type(error), str(error)


def on_meta(tensor):
    """As to("meta"), which forgets strides of 0."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def leaf(tensor):
    return tensor.detach().requires_grad_(tensor.is_floating_point() or tensor.is_complex())


def assert_refused_alike(op, arguments, **out):
    """With data, with a gradient to come, and without data: by meta tensors and by fake ones."""
    call = (arguments, out)
    refused = outcome(lambda: op(*arguments, **out))
    assert refused[0] in (ValueError, IndexError), (arguments, refused)
    assert_well_written(refused[1])
    mode = FakeTensorMode()
    for without_data, context in ((on_meta, nullcontext()), (mode.from_tensor, mode)):
        given, given_out = tree_map_only(torch.Tensor, without_data, call)
        with context:
            assert outcome(lambda given=given, kwargs=given_out: op(*given, **kwargs)) == refused
    if not out:
        leaves = tree_map_only(torch.Tensor, leaf, arguments)
        assert outcome(lambda: op(*leaves)) == refused


def test_every_op_is_called():
    assert set(CALLS) == {name for op in POOLINGS for name in (op.name, op.with_argmax)} | {op.name for op in LINEAR}


@pytest.mark.parametrize("name", CALLS)
def test_arguments_are_refused_alike(name):
    op = overload(torch.ops.spp_ext, name)
    for arguments in bad_calls(name):
        assert_refused_alike(op, arguments)


@pytest.mark.parametrize("name", POOLING_CALLS)
def test_outs_are_refused_alike(name):
    arguments, _ = CALLS[name]
    op, values = overload(torch.ops.spp_ext, f"{name}.out"), overload(torch.ops.spp_ext, name)(*arguments)
    for bad in (
        values.double(),
        values.int(),
        values[:1].repeat(3, *[1] * (values.dim() - 1)),
        values[..., None],
        values.new_zeros(1).expand(values.shape),
        *(values.new_zeros(shape) for shape in ([], [0, 0, 0, 0], [2, 3, 1, 2], [2, 3, 2, 1], [1, 3, 1, 2])),
    ):
        assert_refused_alike(op, arguments, out=bad)


@pytest.mark.parametrize("scale", [1e-300, 1.0, float(torch.finfo(torch.float32).max), 2.0**128 - 2.0**103 - 2.0**75])
def test_scales_up_to_the_last_that_float32_holds_are_taken_alike(scale):
    for x, rois in ((X, ROIS), (X.to("meta"), ROIS.to("meta"))):
        assert torch.ops.spp_ext.roi_spatial_pyramid_pool(x, rois, [1, 1], scale, OUTER, False).shape == (1, 3)
