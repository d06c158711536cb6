"""Every cell of the table in docs/captured_by.md is a test that exists."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.cpu_only

DOCUMENT = Path(__file__).parents[2] / "docs" / "captured_by.md"
LINK = re.compile(r'\[([^\]]+)\]\((\S+\.py) "(test_\w+)"\)')
ROWS = {
    cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
    for cells in (line.split("|") for line in DOCUMENT.read_text().splitlines() if line.startswith("| "))
}
COLUMNS = ROWS.pop("tool")


def test_the_columns():
    assert COLUMNS == ["functions", "modules", "swapped models"]
    assert len(ROWS) > 15


@pytest.mark.parametrize("tool", ROWS)
def test_every_cell_is_a_test_that_exists(tool):
    assert len(ROWS[tool]) == len(COLUMNS)
    cells = [cell for cell in ROWS[tool] if cell != "-"]
    assert cells
    for cell in cells:
        found = LINK.fullmatch(cell)
        assert found, cell
        _, file, test = found.groups()
        assert f"\ndef {test}(" in (DOCUMENT.parent / file).read_text(), cell
