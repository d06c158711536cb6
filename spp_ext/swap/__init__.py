"""Swaps the pooling inside a model for this package's: `replace` finds and swaps, `fuse` rewrites YOLO's blocks.

`restore` knows the way back.
"""

from spp_ext.swap.replace import Replacements, Row, replace_pooling, restore_pooling

__all__ = ["Replacements", "Row", "replace_pooling", "restore_pooling"]
