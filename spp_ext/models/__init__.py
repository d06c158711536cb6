"""SPP-net (He et al. 2014, arXiv:1406.4729): the network, its multi-size training, and its detector.

Needs torch alone; what needs another package says so and imports it when called.
"""

from spp_ext.models.sppnet import ZF5, SPPNet, sppnet_zf5, zf5
from spp_ext.models.training import MultiSizeTrainer

__all__ = ["MultiSizeTrainer", "SPPNet", "ZF5", "sppnet_zf5", "zf5"]
