"""The page has the tables that the tests check; `make soak` writes them."""

import mutants
import pytest
import rows
import survivors
import test_hostile_arrays
import test_hostile_capture
import test_hostile_control
import test_hostile_labels
import test_hostile_parameters
from generated import SOAK

TABLES = {
    name: table
    for module in (
        test_hostile_arrays,
        test_hostile_labels,
        test_hostile_control,
        test_hostile_parameters,
        test_hostile_capture,
        survivors,
    )
    for name, table in module.tables().items()
}


def test_the_page_has_the_rows_that_are_tested():
    page = rows.PAGE.read_text(encoding="utf-8")
    expected = page
    for name, table in TABLES.items():
        expected = rows.replaced(expected, name, table)
    if SOAK:
        rows.PAGE.write_text(expected, encoding="utf-8")
    else:
        assert page == expected


def test_before_any_change_is_tried_a_survivor_whose_line_is_gone_is_named(
    monkeypatch, capsys
):
    module = "optax_mi/_policies.py"
    first = (mutants.ROOT / module).read_text(encoding="utf-8").splitlines()[0]
    changes = [f"⟦ → not ⟧{first}", "no such ⟦line → lines⟧"]
    monkeypatch.setitem(mutants.SURVIVORS, module, {"a reason": changes})
    monkeypatch.setattr("sys.argv", ["mutants.py", "--only", "_policies"])
    assert mutants.main() == 1
    *_, named = capsys.readouterr().out.splitlines()
    assert named == f"{module}: no such ⟦line → lines⟧"
    assert mutants.moved(module) == changes[1:]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("x > 0", "x >= 0", "x ⟦> → >=⟧ 0"),
        ("f(0, 0)", "f(0,  1)", "f(0, ⟦0 → 1⟧)"),
        ("a if b else c", "a if not b else c", "a if ⟦ → not⟧b else c"),
        ("return ~x", "return x", "return ⟦~ → ⟧x"),
        ("@static", "", "⟦@static → ⟧"),
    ],
)
def test_a_change_is_marked_in_its_line(before, after, expected):
    assert mutants.changed(before, after) == expected
    assert survivors.before(expected) == before


def test_what_nothing_evaluates_is_left_out():
    code = "def f(a: int | None) -> int | None:\n    b: int | None = a | 1\n"
    spans = mutants.annotations(code)
    places = [
        (n, i)
        for n, line in enumerate(code.splitlines(), 1)
        for i, c in enumerate(line)
        if c == "|"
    ]
    inside = [any(low <= place < high for low, high in spans) for place in places]
    assert inside == [True, True, True, False]
