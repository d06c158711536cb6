"""SPP-net (He et al. 2014, arXiv:1406.4729): the network, its multi-size training, and its detector.

Needs torch alone; what needs another package says so and imports it when called.
"""

from spp_ext.models.boxes import Detections, Truth, average_precision, box_iou, mean_average_precision, nms
from spp_ext.models.detector import FIVE_SCALES, ONE_SCALE, SPPDetector
from spp_ext.models.finetuning import fine_tune, sample_regions
from spp_ext.models.proposals import propose
from spp_ext.models.sppnet import ZF5, SPPNet, sppnet_zf5, zf5
from spp_ext.models.svm import class_overlaps, fit_svms
from spp_ext.models.training import MultiSizeTrainer

__all__ = [
    "FIVE_SCALES",
    "ONE_SCALE",
    "ZF5",
    "Detections",
    "MultiSizeTrainer",
    "SPPDetector",
    "SPPNet",
    "Truth",
    "average_precision",
    "box_iou",
    "class_overlaps",
    "fine_tune",
    "fit_svms",
    "mean_average_precision",
    "nms",
    "propose",
    "sample_regions",
    "sppnet_zf5",
    "zf5",
]
