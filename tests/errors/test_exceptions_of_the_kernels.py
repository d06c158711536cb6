"""Which exception a kernel's becomes, whatever type torch hands it over in; and that nobody else's is touched."""

import subprocess
from pathlib import Path

import pytest
import torch
from support import INF, assert_well_written
from torch.utils._python_dispatch import TorchDispatchMode

import spp_ext
import spp_ext.ops
from spp_ext._torch.errors import as_documented, raise_for_memory, spoken_by

SENTENCE = "spp_ext.gather: expected argmax of dtype torch.int32, got torch.int64"
MEMORY = "spp_ext.scatter: could not allocate the memory of its result"


class Raises(TorchDispatchMode):
    """Lets every op of the package raise an error that is torch's, or of some other tool."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if op.namespace == "spp_ext":
            raise self.error from ZeroDivisionError("the cause")
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("text", "kind", "documented"),
    [
        (SENTENCE, ValueError, SENTENCE),
        (f"{SENTENCE}\nException raised from here", ValueError, SENTENCE),  # as some versions of torch write it
        (MEMORY, torch.OutOfMemoryError, MEMORY),
    ],
)
def test_a_sentence_of_the_kernels_becomes_the_documented_exception(text, kind, documented):
    error = as_documented(RuntimeError(text))
    assert (type(error), str(error)) == (kind, documented)


# Memory that torch does not give, for whatever reason it last named; the main program takes the place of torch.
REASONS = """
#include <cassert>
#include "torch/errors.h"
static const char* words;
extern "C" const char* torch_exception_get_what_without_backtrace() { return words; }
std::string failure(const char* reason) {
  words = reason;
  try {
    spp_ext::binding::fail_as_torch_did("gather", "the memory of a copy");
  } catch (const std::runtime_error& error) {
    return error.what();
  }
}
int main() {
  const std::string memory = "spp_ext.gather: could not allocate the memory of a copy";
  assert(failure("CUDA out of memory. Tried to allocate 20.00 MiB.\\nSee the documentation") == memory);
  assert(failure("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to") == memory);
  assert(failure("std::bad_alloc") == memory && failure("") == memory && failure(nullptr) == memory);
  assert(failure("Storage size calculation overflowed with sizes=[1, 2]") == memory);
  assert(failure("CUDA error: an illegal memory access was encountered\\nCUDA kernel errors might be") ==
         "spp_ext.gather: torch did not give the memory of a copy: "
         "CUDA error: an illegal memory access was encountered");
}
"""


@pytest.mark.cpu_only
def test_only_what_torch_calls_a_lack_of_memory_is_one(tmp_path):
    source, program = tmp_path / "reasons.cpp", tmp_path / "reasons"
    source.write_text(REASONS)
    csrc = Path(__file__).parents[2] / "csrc"
    subprocess.run(["g++", "-std=c++17", f"-I{csrc}", source, "-o", program, "-rdynamic", "-ldl"], check=True)
    subprocess.run([program], check=True)


@pytest.mark.parametrize(
    ("text", "is_memory"),
    [
        ("CUDA out of memory. Tried to allocate 20.00 MiB.\nSee the documentation", True),
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to", True),
        ("std::bad_alloc", True),
        ("Storage size calculation overflowed with sizes=[1, 2]", True),
        ("CUDA error: an illegal memory access was encountered\nout of memory", False),
    ],
)
def test_what_torch_calls_a_lack_of_memory_is_one_in_python_too(text, is_memory):
    error = RuntimeError(text)
    with pytest.raises(RuntimeError) as caught:
        try:
            raise error
        except RuntimeError:
            raise_for_memory("spp_ext.gather", "a copy", error)
    if is_memory:
        assert type(caught.value) is torch.OutOfMemoryError
        assert str(caught.value) == "spp_ext.gather: could not allocate the memory of a copy"
    else:
        assert caught.value is error


def test_a_broken_gpu_is_not_taken_for_a_full_one(monkeypatch):
    """For a torch that does not tell the kernels why it gave no memory."""
    fault = RuntimeError("CUDA error: an illegal memory access was encountered")

    def broken():
        raise fault

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", broken)
    assert as_documented(RuntimeError(MEMORY)) is fault
    assert type(as_documented(RuntimeError(SENTENCE))) is ValueError
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, 0))
    assert type(as_documented(RuntimeError(MEMORY))) is torch.OutOfMemoryError


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("spp_ext.scatter: torch did not give the memory of a copy: CUDA error: launch failure"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError(f"the probe failed: {SENTENCE}"),
        RuntimeError("spp_ext: a kernel launch failed: invalid argument"),
        NotImplementedError(SENTENCE),
    ],
    ids=str,
)
def test_errors_of_others_are_left_alone(error):
    assert as_documented(error) is error
    assert spoken_by(error, "spatial_pyramid_pool", "spp_ext.ops.adaptive_max_pool2d") is error


@pytest.mark.parametrize("pool", [spp_ext.spatial_pyramid_pool, lambda x: spp_ext.ops.adaptive_max_pool2d(x, 2)])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_errors_of_others_keep_their_cause(pool, requires_grad):
    x, error = torch.zeros(1, 1, 2, 2, requires_grad=requires_grad), RuntimeError("of another tool")
    with Raises(error), pytest.raises(RuntimeError) as caught:
        pool(x)
    assert caught.value is error
    assert isinstance(error.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_a_runtime_error_of_torch_is_translated_wherever_it_comes_from(requires_grad):
    """As torch 2.15 hands over every exception of a kernel but IndexError."""
    x = torch.zeros(1, 1, 2, 2, requires_grad=requires_grad)
    text = "spp_ext.spatial_pyramid_pool: expected something else, got this"
    with Raises(RuntimeError(text)), pytest.raises(ValueError, match=f"^{text}$"):
        spp_ext.spatial_pyramid_pool(x)
    with Raises(RuntimeError(text)), pytest.raises(ValueError, match="^spp_ext.ops.adaptive_max_pool2d: expected some"):
        spp_ext.ops.adaptive_max_pool2d(x, 2)
    with Raises(RuntimeError(text)), pytest.raises(ValueError, match=f"^{text}$"):
        torch.ops.spp_ext.spatial_pyramid_pool(x, [1, 1])


@pytest.mark.parametrize("scale", [10**400, -(10**400), 10**5000], ids=["huge", "negative", "unprintable"])
def test_a_scale_that_no_float_holds_is_refused_by_every_op_that_has_one(scale):
    x, rois = torch.zeros(1, 1, 4, 4), torch.zeros(1, 5)
    for name, call in {
        "roi_spatial_pyramid_pool": lambda: spp_ext.roi_spatial_pyramid_pool(x, rois, (1,), scale),
        "ops.roi_pool": lambda: spp_ext.ops.roi_pool(x, rois, 1, scale),
    }.items():
        with pytest.raises(
            ValueError, match=rf"^spp_ext\.{name}: expected spatial_scale to be a positive finite"
        ) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300
    with pytest.raises(ValueError, match="spp_ext.ops.RoIPool: expected spatial_scale"):
        spp_ext.ops.RoIPool(1, scale)
    with pytest.raises(ValueError, match="spp_ext.ops.roi_pool: expected spatial_scale"):
        spp_ext.ops.roi_pool(x, rois, 1, INF)


TABLE = torch.eye(3)  # whose repr runs over three lines


@pytest.mark.parametrize(
    "call",
    [
        lambda x: spp_ext.ops.adaptive_max_pool2d(x, TABLE),
        lambda x: spp_ext.ops.adaptive_max_pool2d(x, (TABLE, 2)),
        lambda x: spp_ext.ops.roi_pool(x, torch.zeros(1, 5), TABLE),
        lambda x: spp_ext.ops.roi_pool(x, torch.zeros(1, 5), 2, TABLE),
        lambda x: spp_ext.ops.multi_kernel_max_pool2d(x, TABLE),
        lambda x: spp_ext.ops.multi_kernel_max_pool2d(x, (TABLE,)),
        lambda x: spp_ext.ops.SPP((TABLE,)),
        lambda x: spp_ext.ops.SPPF(5, TABLE),
        lambda x: spp_ext.ops.adaptive_max_pool2d(x, 10**5000),
        lambda x: spp_ext.ops.multi_kernel_max_pool2d(x, (10**5000,)),
        lambda x: spp_ext.spatial_pyramid_pool(x, (10**5000,)),
        lambda x: spp_ext.spatial_pyramid_pool(x, [TABLE]),
    ],
)
def test_errors_are_one_line_whatever_was_given(call):
    with pytest.raises((TypeError, ValueError, RuntimeError)) as caught:
        call(torch.zeros(1, 1, 4, 4))
    assert_well_written(str(caught.value))
    assert len(str(caught.value)) < 300


def test_results_without_data_are_refused_as_those_with_data_are():
    x, rois = torch.zeros(1, 2, 4, 4, device="meta"), torch.zeros(1, 5, device="meta")
    ops, grad = torch.ops.spp_ext, torch.zeros(1, 2, device="meta")
    argmax = grad.int()
    for call, message in {
        lambda: ops.roi_spatial_pyramid_pool(x, rois, [1, 1], -1.0, 0, False): "expected spatial_scale to be a pos",
        lambda: ops.roi_spatial_pyramid_pool(x, rois, [1, 1], 1.0, 99, False): "expected convention from 0 to",
        lambda: ops.multi_kernel_max_pool2d(x, [4], False): "expected kernel_sizes to be odd, ascending",
        lambda: ops.multi_kernel_max_pool2d(x, [5, 3], False): "expected kernel_sizes to be odd, ascending",
        lambda: ops.spatial_pyramid_pool(x, [0, 1]): "expected level divisions from 1 to",
        lambda: ops.spatial_pyramid_pool(x.int(), [1, 1]): "expected input of dtype float32",
        lambda: ops.scatter(grad, argmax, None, [1], [1, 2, 4], False): "expected input_size of 4 numbers",
        lambda: ops.scatter(grad.int(), argmax, None, [1], [1, 2, 4, 4], False): "expected grad_output of dtype",
        lambda: ops.gather(x, argmax.long(), None, [1]): "expected argmax of dtype torch.int32",
        lambda: ops.gather_of_maps([], argmax, rois, rois[:, 0].long(), [1]): "expected at least one map in sources",
    }.items():
        with pytest.raises(ValueError, match=rf"^spp_ext\.\w+: {message}"):
            call()
