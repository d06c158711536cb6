"""Export to ONNX; `spp_ext._torch.onnx` has the translations."""

from spp_ext._torch.onnx import translations

__all__ = ["translations"]
