"""Export to ONNX: pooling of whole maps and of regions, for maps of any size.

Whole maps and the drop-ins need nothing: while a model is exported, by either of torch's exporters, they run as ops
that ONNX has. `roi_spatial_pyramid_pool` needs the table, and so does a program that torch.export made before::

    table = spp_ext.onnx.translations()
    torch.onnx.export(model, inputs, dynamo=True, dynamic_shapes=..., custom_translation_table=table)

ONNX's adaptive pooling cannot be written for sizes that are not known, but its MaxRoiPool can pool any rectangle of a
map. So windows are computed in the graph, with the integers of `Bins`, and each bin of each window is a rectangle
pooled to 1 x 1: every level, `Bins` included, and every convention comes out exactly.

Not expressible, and refused with an error: indices (MaxRoiPool has none), several maps in one call, and regions of
inputs that are not float32 (onnxruntime pools nothing else). MaxRoiPool ignores NaN, and -inf becomes the smallest
number; coordinates beyond 2^23 cells are cut off there.
"""

from spp_ext._torch.onnx import translations

__all__ = ["translations"]
