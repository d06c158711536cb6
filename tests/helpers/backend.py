"""Which kernels the suite tests: the CPU's, the CUDA kernels on a GPU, or the CUDA kernels emulated on the CPU.

Tests hold CPU tensors and call the public API; the registered ops underneath it are exchanged. So one suite serves all.
"""

import functools
import os
from pathlib import Path

import native_builds
import torch
from torch.utils._pytree import tree_map_only

ROOT = Path(__file__).parents[2]
BACKENDS = ["cpu", "simt", "cuda"]

# Registrations of the emulated ops with the dispatcher; they last as long as this object.
_SIMT = torch.library.Library("spp_ext_simt", "FRAGMENT")


def build_simt(sanitize=""):
    """Builds the emulated library and returns its path; nothing is done when it is up to date."""
    build = ROOT / "build" / f"simt{sanitize and '-' + sanitize}"
    options = (f"-DTORCH_DIR={Path(torch.__file__).parent}", f"-DSANITIZE={sanitize}")
    native_builds.build(ROOT / "tests" / "simt", build, *options)
    return build / "libspp_ext_simt.so"


@functools.cache
def simt_library():
    """The path of the emulated library; SPP_EXT_SIMT_LIBRARY names one that is built already."""
    return Path(os.environ.get("SPP_EXT_SIMT_LIBRARY") or build_simt())


def load_simt():
    """Registers ``torch.ops.spp_ext_simt``."""
    if not hasattr(torch.ops.spp_ext_simt, "gather"):
        torch.ops.load_library(os.fspath(simt_library()))
    return torch.ops.spp_ext_simt


def use(backend):
    """Puts the kernels of ``backend`` under the public API, for the rest of the process."""
    if backend == "cpu":
        return
    from spp_ext._torch.kernels import kernels
    from spp_ext._torch.op_table import NAMES, OUT_NAMES, overload
    from spp_ext._torch.registration import register_map_by_map

    if backend == "simt":
        load_simt()
        register_map_by_map(_SIMT)
    for name in (*NAMES, *OUT_NAMES):
        if backend == "simt":
            op = overload(load_simt(), name)
        else:
            op = _through_cuda(getattr(kernels, name))
        setattr(kernels, name, _validating(op) if name.startswith("roi") else op)


def _validating(op):
    """The CPU always checks the contents of boxes; elsewhere it must be asked for. It is the last argument."""
    return lambda *arguments, **out: op(*arguments[:-1], True, **out)


def _through_cuda(op):
    """The op on CUDA; tensors that are not the CPU's, as those without data, stay what they are."""

    def there(tensor):
        return tensor.cuda() if tensor.device.type == "cpu" else tensor

    def back(tensor):
        return tensor.cpu() if tensor.device.type == "cuda" else tensor

    def call(*arguments, **out):
        arguments, moved = tree_map_only(torch.Tensor, there, (arguments, out))
        results = tree_map_only(torch.Tensor, back, op(*arguments, **moved))
        return out["out"].copy_(results) if out else results

    return call
