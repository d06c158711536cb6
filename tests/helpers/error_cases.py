"""What the tests of errors share: ops, arguments, and words."""

import torch

MAP = "spp_ext.spatial_pyramid_pool"
ROI = "spp_ext.roi_spatial_pyramid_pool"
X = torch.zeros(2, 3, 4, 5)
ROIS = torch.zeros(1, 5)

DTYPES = "of dtype float32, float64, float16 or bfloat16"
ROWS = "expected boxes of shape [K, 5] (batch_index, x1, y1, x2, y2), got"
SCALE = "expected spatial_scale to be a positive finite number, got"


def roi(*numbers, before=0):
    """`before` sound rows, then one of these numbers."""
    return torch.tensor([[0.0, 0, 0, 1, 1]] * before + [numbers], dtype=torch.float64)
