"""How a history shows itself, and what other tools take of it."""

import re
import sys
import types

import pages
import pandas
import pytest

import optax_mi


def history(epochs=2, layers=("",), **metrics):
    run = optax_mi.MIHistory()
    for epoch in range(epochs):
        for layer in layers:
            run.add(
                epoch=epoch, layer=layer, learning_rate=0.1 / 3, mi=epoch, **metrics
            )
    return run


def test_its_length_is_the_number_of_rows():
    assert len(optax_mi.MIHistory()) == 0
    assert len(history(3, ("conv", "dense"))) == 6


@pytest.mark.parametrize(
    ("run", "told"),
    [
        (optax_mi.MIHistory(), "MIHistory(no rows)"),
        (history(1), "MIHistory(1 row, 1 epoch, 1 layer)"),
        (history(50, ("a", "b")), "MIHistory(100 rows, 50 epochs, 2 layers)"),
    ],
)
def test_it_says_in_a_line_what_it_holds(run, told):
    assert repr(run) == told


def cells(html):
    return [
        re.findall(r"<t[hd]>(.*?)</t[hd]>", line) for line in html.splitlines()[1:-1]
    ]


def test_a_notebook_shows_the_rows_as_a_table():
    run = history(2, ("conv", "<b>"), accuracy=0.5)
    html = run._repr_html_()
    assert html.startswith("<table>")
    assert html.endswith("</table>")
    head, first, second, *_ = cells(html)
    assert " ".join(head) == "epoch step layer learning_rate mi reference accuracy"
    assert first == ["0", "", "conv", "0.03333", "0", "", "0.5"]
    assert second[2] == "&lt;b&gt;"
    head, *_ = cells(history()._repr_html_())
    assert "layer" not in head  # there is the network alone
    assert len(cells(optax_mi.MIHistory()._repr_html_())) == 1


@pytest.mark.parametrize(("epochs", "lines"), [(20, 20), (21, 21), (1000, 21)])
def test_a_long_table_shows_its_beginning_and_its_end(epochs, lines):
    _, *rows = cells(history(epochs)._repr_html_())
    assert len(rows) == lines
    numbers = [row[0] for row in rows]
    last = [str(epoch) for epoch in range(epochs - 10, epochs)]
    assert numbers[:10] == [str(epoch) for epoch in range(10)]
    assert numbers[-10:] == last
    assert ("…" in numbers) == (epochs > 20)


def test_pandas_gets_every_row_and_column(monkeypatch):
    pandas = types.ModuleType("pandas")
    pandas.DataFrame = lambda rows, columns: (rows, columns)
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    run = history(2)
    run.rows[1]["accuracy"] = 0.5  # which the first row lacks
    rows, columns = run.to_pandas()
    assert rows == run.rows
    assert columns[-2:] == ["normalized_mi", "accuracy"]


def test_a_frame_of_pandas_is_that_of_the_rows():
    frame = history(2, ("a", "b"), accuracy=0.5).to_pandas()
    assert frame.shape == (4, 8)
    assert frame.groupby("layer").mi.max().tolist() == [1, 1]
    assert isinstance(optax_mi.MIHistory().to_pandas(), pandas.DataFrame)


def test_without_pandas_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="`to_pandas` needs it: pip install pandas"):
        history().to_pandas()


def test_the_writers_of_the_docs_get_the_numbers_of_the_last_epoch():
    run, written = history(2, accuracy=0.5), []
    run.rows[-1]["step"] = 7
    writer = types.SimpleNamespace(
        add_scalar=lambda tag, value, step: written.append((step, {tag: value})),
        write_scalars=lambda step, scalars: written.append((step, scalars)),
    )
    wandb = types.SimpleNamespace(
        log=lambda scalars, step: written.append((step, scalars))
    )
    bar = types.SimpleNamespace(set_postfix=lambda found: written.append((7, found)))
    names = {"history": run, "writer": writer, "wandb": wandb, "bar": bar}
    exec(pages.programs("guides/observing.md")[1], names)
    numbers = {"learning_rate": 0.1 / 3, "mi": 1.0, "accuracy": 0.5}
    one_by_one = [(7, {tag: value}) for tag, value in numbers.items()]
    assert written == [*one_by_one, *[(7, numbers)] * 3]
