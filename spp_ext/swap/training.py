"""Keeps a swap through the training of ultralytics, which builds the model anew."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from spp_ext._checks import shown
from spp_ext.swap.replace import Replacements, replace_pooling


def replace_pooling_in_training(yolo: Any, report: Callable[[Replacements], object] | None = None) -> None:
    """Has the model that ``yolo.train()`` builds swapped before it is trained.

    ``YOLO(...).train()`` trains a model of its own, built from the configuration, so it knows nothing of what was
    swapped in ``yolo.model``; of a wrapper made from a YAML file alone it does not even take the weights. This adds a
    callback to the wrapper that swaps the pooling of the model to be trained. Its parameters stay the same objects,
    which the optimizer has already. The moving average of the weights is not swapped, so the checkpoints, which are
    made of it, need no spp_ext to be loaded.

    After the training ``yolo.model`` is loaded from such a checkpoint: for inference swap it again, with
    `replace_pooling`. Training on several GPUs happens in other processes, to which ultralytics takes no callback.

    Args:
        yolo: a ``ultralytics.YOLO``, or another wrapper or trainer with its callbacks.
        report: is called with what was swapped, when it was: ``print``, for example.

    Raises:
        TypeError: ``yolo`` takes no callbacks, as the model inside of a wrapper.

    Example::

        >>> yolo = ultralytics.YOLO("yolov8n.pt")
        >>> replace_pooling_in_training(yolo, print)
        >>> yolo.train(data="coco8.yaml")
    """
    op = "spp_ext.swap.replace_pooling_in_training"
    if not callable(getattr(yolo, "add_callback", None)):
        raise TypeError(f"{op}: expected yolo to be an ultralytics.YOLO, got {type(yolo).__name__}")
    if report is not None and not callable(report):
        raise TypeError(f"{op}: expected report to be a function, got {shown(report)}")
    # The last event before the first epoch, when the model is on its device and the moving average has been made of it.
    yolo.add_callback("on_pretrain_routine_end", partial(_swap, report=report))


def _swap(trainer: Any, report: Callable[[Replacements], object] | None) -> None:
    replacements = replace_pooling(trainer.model)
    if report is not None:
        report(replacements)
