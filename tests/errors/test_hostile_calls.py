"""Hostile calls end in Python exceptions: none ends the process."""

import os
import re
import textwrap

import pytest
from support import run_python

pytestmark = pytest.mark.cpu_only  # other processes, which know of no --backend

PREAMBLE = """
import os, resource, sys
import torch
import spp_ext
ops = torch.ops.spp_ext
spp_ext.spatial_pyramid_pool(torch.zeros(4, 64, 40, 40))
if "asan" not in os.environ.get("LD_PRELOAD", ""):  # which reserves more than any limit
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))

def attempt(call):
    try:
        call()
    except Exception as error:
        print(type(error).__name__, str(error).replace("\\n", "\\\\n"))
    else:
        print("returned")
"""


def attempts(*calls):
    """The outcome of each call, made in a new process that must survive them all."""
    script = textwrap.dedent(PREAMBLE) + "\n".join(f"attempt(lambda: {call})" for call in calls) + "\n"
    result = run_python("-c", script)
    assert result.returncode == 0, f"exit status {result.returncode}\n{result.stdout}{result.stderr}"
    outcomes = result.stdout.splitlines()
    assert len(outcomes) == len(calls)
    return outcomes


def test_running_out_of_memory_is_an_error_like_any_other():
    cell = "torch.zeros(1, 1, 1, 1)"
    outcomes = attempts(
        f"spp_ext.spatial_pyramid_pool({cell}, ((2**20, 2**11 - 1),))",  # the result
        f"spp_ext.spatial_pyramid_pool({cell}, ((2**20, 2**9),))",  # what the kernel works in
        f"spp_ext.spatial_pyramid_pool({cell}, ((2**20, 2**9),), return_indices=True)",
        f"spp_ext.roi_spatial_pyramid_pool({cell}, torch.zeros(1000, 5), ((2**20, 1),))",
        f"spp_ext.spatial_pyramid_pool({cell}.expand(64, 64, 2**10, 2**10), (1,))",  # the contiguous copy
        f"spp_ext.spatial_pyramid_pool({cell}.expand(2**20, 2**20, 2**15, 2**4), (1,))",
        f"spp_ext.roi_spatial_pyramid_pool({cell}, torch.zeros(1, 1).expand(2**30, 5), (1,))",
        "spp_ext._torch.kernels.kernels.scatter(torch.zeros(2**10, 1), torch.zeros(2**10, 1, dtype=torch.int32), None, "
        "[1], [2**10, 1, 2**15, 2**15], False)",
        "spp_ext.spatial_pyramid_pool(torch.zeros(1, 1, 2, 2))",  # the process still works
    )
    assert outcomes.pop() == "returned"
    for outcome in outcomes:
        assert re.fullmatch(r"OutOfMemoryError spp_ext\.\w+: could not allocate the memory [\w ]+", outcome), outcome


# Each call with a little more memory at a time, until there is enough: whichever block is the first that cannot be had.
SHORT_OF_MEMORY = """
x, plane = torch.rand(16, 16, 64, 64), torch.rand(1, 8, 512, 512)
channels_last = x.contiguous(memory_format=torch.channels_last)
rois, indices, boxes = torch.zeros(2**16, 5), torch.zeros(2**16, dtype=torch.int32), [torch.zeros(2**19, 4).half()]
calls = {
    "spatial_pyramid_pool": lambda: spp_ext.spatial_pyramid_pool(x, (64,), return_indices=True),
    "roi_spatial_pyramid_pool": lambda: spp_ext.roi_spatial_pyramid_pool(x[:1, :1], boxes, (1,), return_indices=True),
    "roi_spatial_pyramid_pool ": lambda: spp_ext.roi_spatial_pyramid_pool([x, x], rois, (1,), map_indices=indices),
    "ops.roi_pool": lambda: spp_ext.ops.roi_pool(x, rois, 2),
    "ops.adaptive_max_pool2d": lambda: spp_ext.ops.adaptive_max_pool2d(channels_last, 64, return_indices=True),
    "ops.multi_kernel_max_pool2d": lambda: spp_ext.ops.multi_kernel_max_pool2d(plane, (5, 3)),
}
for name, call in calls.items():
    call()
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    for more in range(1, 400, 2):  # MiB
        resource.setrlimit(resource.RLIMIT_AS, (size + (more << 20), -1))
        try:
            call()
            break
        except Exception as error:
            print(name, type(error).__name__, str(error).replace("\\n", "\\\\n"), sep="|")
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
"""


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="asan reserves more than any limit")
def test_whatever_memory_is_short_the_op_that_was_called_is_named():
    script = "import resource\nimport torch\nimport spp_ext\ntorch.set_num_threads(1)" + SHORT_OF_MEMORY
    done = run_python("-c", script, MALLOC_MMAP_THRESHOLD_="65536")  # a larger block is mapped, and unmapped once free
    assert done.returncode == 0, done.stderr
    failures = [line.split("|") for line in done.stdout.splitlines()]
    for name, kind, message in failures:
        sentence = rf"spp_ext\.{re.escape(name.strip())}: could not allocate the memory [\w ]+"
        assert kind == "OutOfMemoryError" and re.fullmatch(sentence, message), (name, kind, message)
    assert {name.strip() for name, *_ in failures} == {
        "spatial_pyramid_pool",
        "roi_spatial_pyramid_pool",
        "ops.roi_pool",
        "ops.adaptive_max_pool2d",
        "ops.multi_kernel_max_pool2d",
    }
    assert any(message.endswith("of its indices") for *_, message in failures)


def test_hostile_calls_end_in_python_exceptions():
    x, argmax, rois = "torch.zeros(2, 3, 4, 5)", "torch.zeros(2, 3, dtype=torch.int32)", "torch.zeros(2, 5)"
    grad, size = "torch.zeros(2, 3)", "[2, 3, 4, 5]"
    outcomes = attempts(
        # encoded levels
        *(
            f"ops.spatial_pyramid_pool_with_argmax({x}, {levels})"
            for levels in (
                [],
                [1],
                [-1],
                [-1, 1, 1],
                [-(2**63), 2**63 - 1],
                [-(2**31) + 1, 1, 1, 0, 0, 1, 1],
                [2**63 - 1, 2**63 - 1],
                [2**20, 2**20] * 40,
                [0, 0],
                [-1, 2**20, 2**20, 0, 0, 2**20 + 1, 1],
            )
        ),
        # forged argmax
        *(
            f"ops.{op}, {argmax}.fill_({cell}), {rois}, [1]{rest})"
            for cell in (-(2**31), -2, 20, 2**31 - 1)
            for op, rest in ((f"gather({x}", ""), (f"scatter({grad}", f", {size}, False"))
        ),
        f"ops.gather({x}, {argmax}.as_strided([2, 3 * (2**31 - 1)], [0, 0]), None, [2**31 - 2, 1, 1])",
        f"ops.scatter({grad}, {argmax}, None, [2**31 - 1, 2**31 - 1], {size}, False)",
        f"ops.scatter({grad}, {argmax}, None, [1], [2**62, 2**62, 2**62, 2**62], False)",
        f"ops.scatter({grad}, {argmax}, None, [1], [-1, -1, -1, -1], True)",
        f"ops.scatter({grad}, {argmax}, torch.full((2, 5), -1e30), [1], {size}, False)",
        f"ops.scatter({grad}, {argmax}, torch.full((2, 5), float('inf')), [1], {size}, False)",
        # boxes
        *(
            f"ops.roi_spatial_pyramid_pool_with_argmax({x}, torch.full((2, 5), {number}), [1, 1], 1.0, {n}, False)"
            for number in ("float('nan')", "float('inf')", "-float('inf')", "1e30", "-1e30", "2.0", "-1.0")
            for n in range(4)
        ),
        f"ops.roi_spatial_pyramid_pool({x}, torch.zeros(2, 5, dtype=torch.int64), [1, 1], 1.0, 2, False)",
        f"ops.roi_spatial_pyramid_pool({x}, torch.zeros(()), [1, 1], 1.0, 2, False)",
        f"ops.roi_spatial_pyramid_pool({x}, torch.zeros(5, 2**31), [1, 1], 1.0, 2, False)",
        *(f"ops.roi_spatial_pyramid_pool({x}, {rois}, [1, 1], 1.0, {n}, False)" for n in (-1, 4, 2**62, "'outer'")),
        # tensors of other kinds
        f"ops.spatial_pyramid_pool({x}.to_sparse(), [1, 1])",
        f"ops.spatial_pyramid_pool({x}.to_mkldnn(), [1, 1])",
        "ops.spatial_pyramid_pool(None, [1, 1])",
        f"ops.gather({x}, None, None, [1])",
        f"ops.spatial_pyramid_pool({x}, None)",
        f"ops.spatial_pyramid_pool({x}, [1.5, 1])",
    )
    assert [n for n, outcome in enumerate(outcomes) if outcome == "returned"] == []
    assert not [outcome for outcome in outcomes if "INTERNAL ASSERT" in outcome or "bad_alloc" in outcome]


def test_boxes_of_any_size_are_pooled_or_refused_without_a_crash():
    numbers = ["0.0", "-0.0", "0.5", "1e-45", "2.0**31", "-2.0**31", "2.0**63", "3.4e38", "-3.4e38"]
    calls = [
        f"spp_ext.roi_spatial_pyramid_pool(torch.zeros(1, 3, 4, 5), torch.tensor([[0, {a}, {b}, {b}, {a}]]), "
        f"(1, 7, (2**20, 1)), {scale}, convention='{name}', return_indices=True)"
        for a, b in zip(numbers, numbers[3:] + numbers[:3], strict=True)
        for scale in ("1e-30", "1.0", "3e38")
        for name in ("roi_pool", "spp_net", "outer")
    ]
    assert set(attempts(*calls[::4])) == {"returned"}


def test_tensors_without_data_and_boxes_of_no_image_are_survived():
    x, argmax, rois = "torch.zeros(2, 3, 4, 5)", "torch.zeros(2, 3, dtype=torch.int32)", "torch.zeros(2, 5)"
    pooled, public, *others = attempts(
        f"ops.spatial_pyramid_pool({x}.to('meta'), [1, 1])",
        f"spp_ext.spatial_pyramid_pool({x}.to('meta'))",
        f"spp_ext.roi_spatial_pyramid_pool({x}, {rois}.to('meta'))",
        f"ops.gather({x}, {argmax}.to('meta'), None, [1])",
        f"ops.gather({x}.to('meta'), {argmax}, {rois}, [1])",
        f"ops.scatter({argmax}.to('meta').float(), {argmax}, None, [1], [2, 3, 4, 5], False)",
        f"ops.roi_spatial_pyramid_pool({x}, {rois}.to('meta'), [1, 1], 1.0, 2, False)",
        *(
            f"ops.gather({x}, {argmax}, torch.full((2, 5), {n}), [1])"
            for n in ("2.0", "-1.0", "1e30", "-1e30", "float('nan')", "float('inf')")
        ),
    )
    assert pooled == public == "returned"
    elsewhere, of_no_image = others[:5], others[5:]
    assert all(re.fullmatch("ValueError .* on one device, got two", outcome) for outcome in elsewhere), elsewhere
    assert [outcome.split()[0] for outcome in of_no_image] == ["IndexError"] * 4 + ["ValueError"] * 2
