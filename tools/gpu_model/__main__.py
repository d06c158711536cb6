"""``python -m tools.gpu_model [weights | ceilings]``: the table, or what it rests on measured again."""

import importlib
import sys

COMMANDS = ("weights", "ceilings")


def main(arguments: list[str]) -> int:
    """Runs a command, by default the table."""
    if arguments and arguments[0] in COMMANDS:
        return importlib.import_module(f"tools.gpu_model.{arguments[0]}").main(arguments[1:])
    return importlib.import_module("tools.gpu_model.table").main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
