"""``python -m tools.gpu_model [table | weights | ceilings]``: the table, or what it rests on measured again."""

import importlib
import sys

COMMANDS = {"weights": "measure_weights", "ceilings": "ceilings", "table": "table"}


def main(arguments: list[str]) -> int:
    """Runs a command, by default the table."""
    command, rest = (arguments[0], arguments[1:]) if arguments and arguments[0] in COMMANDS else ("table", arguments)
    return importlib.import_module(f"tools.gpu_model.{COMMANDS[command]}").main(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
