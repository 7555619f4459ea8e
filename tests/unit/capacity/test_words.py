"""What people read of reservations exists in both languages."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import sekisho.capacity
from sekisho.capacity import faults
from sekisho.kernel.errors import SekishoError

FOLDER = Path(str(inspect.getfile(sekisho.capacity))).parent
FAULTS = {name for name, kind in vars(faults).items() if isinstance(kind, type) and issubclass(kind, SekishoError)}
JAPANESE = re.compile(r"[぀-ヿ一-鿿]")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_every_fault_says_fact_and_next_step_in_both_languages(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FAULTS):
            continue
        said = {each.arg: ast.unparse(each.value) for each in node.keywords}
        assert {"hint", "fact_ja", "hint_ja"} <= set(said), f"{path.name}:{node.lineno}"
        assert JAPANESE.search(said["fact_ja"]), f"{path.name}:{node.lineno}"
