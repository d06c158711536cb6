"""How many machine instructions each PTX form becomes, and in which part of a multiprocessor each of them runs.

The numbers are committed in weights.json; measure_weights.py makes them, and says what they leave out.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("weights.json")

Weight = dict[str, float]  # part of a multiprocessor -> instructions

# What changes neither the instructions nor where they run.
IGNORED = re.compile(r"\.(nc|volatile|relaxed|weak|gpu|cta|sys|cg|ca|cs|cv|lu|wb|wt|L1::\w+|L2::\w+|uni|aligned)\b")
MEMORY = re.compile(r"(ld|st)(\.(?:global|shared|param|const|local))?(\.v[248])?\.[a-z]+(\d+)")
PARAMETER_SPACE = re.compile(r"::(entry|func)\b")


def canonical(form: str) -> str:
    """The name under which a form has its weight.

    Without cache hints and scopes; loads, stores and moves without the type, which only says how many bits there are.
    """
    name = form.split()[-1].rstrip(";") if form.startswith("@") and " " in form else form
    name = PARAMETER_SPACE.sub("", name.lstrip("@!"))
    for _ in range(2):
        name = IGNORED.sub("", name)
    if found := MEMORY.fullmatch(name):
        space, vector, bits = found[2] or "", found[3] or "", found[4]
        return f"{found[1]}{space}{vector}.b{bits}"
    if found := re.fullmatch(r"(mov|selp|slct)\.([a-z]+)(\d+)", name):
        return f"{found[1]}.b{found[3]}"
    return name


STATEMENT = re.compile(r"^\s*\{?\s*(?:@!?%\w+\s+)?([a-z][\w]*(?:[.:][\w:]+)*)(?=[\s;])[^;]*;", re.MULTILINE)


def forms_in(ptx: str) -> set[str]:
    """The canonical forms that a PTX module uses."""
    return {canonical(form) for form in STATEMENT.findall(ptx)}


class Weights:
    """The committed weights."""

    def __init__(self, path: Path = PATH) -> None:
        whole = json.loads(path.read_text())
        written = whole["weights"]
        # Kernels without a loop: their forms, and the machine instructions that each architecture makes of them.
        self.checks: dict[str, Any] = whole["checks"]
        self.forms: dict[str, dict[str, Weight]] = {
            form: {architecture: weight for names, weight in by_names.items() for architecture in names.split()}
            for form, by_names in written.items()
        }

    def of(self, form: str, architecture: str) -> Weight:
        """The machine instructions of a form, by part.

        Raises:
            KeyError: it was not measured; the sentence has the command that does.
        """
        name = canonical(form)
        found = self.forms.get(name, {})
        if architecture not in found:
            raise KeyError(
                f"{name} has no weight for sm_{architecture}: python -m tools.gpu_model weights --nvdisasm PATH"
            )
        return found[architecture]

    def total(self, forms: Counter[str], architecture: str) -> Weight:
        """The machine instructions of many, by part."""
        sums: Counter[str] = Counter()
        for form, count in forms.items():
            for part, weight in self.of(form, architecture).items():
                sums[part] += weight * count
        return dict(sums)
