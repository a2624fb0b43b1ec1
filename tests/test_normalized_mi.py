"""The information of a history as a share of the reference."""

import json
import math

import numpy as np
import pytest

import optax_mi

COLUMNS = ["epoch", "step", "layer", "learning_rate", "mi", "reference"]


def run():
    history = optax_mi.MIHistory()
    for epoch, (conv, dense) in enumerate([(0.5, 1.8), (1.6, 1.8), (1.7, 1.9)]):
        for layer, mi in {"conv": conv, "dense": dense}.items():
            history.add(
                epoch=epoch,
                layer=layer,
                learning_rate=0.01,
                mi=mi,
                reference=2.0,
                accuracy=0.5,
            )
    return history


def test_each_row_has_the_information_normalized_by_the_reference():
    history = run()
    for layer in history.layers:
        mi, reference = (history.column(c, layer) for c in ("mi", "reference"))
        assert history.column("normalized_mi", layer).tolist() == [*(mi / reference)]
    assert list(history.rows[0])[:7] == [*COLUMNS, "normalized_mi"]
    assert history.to_table().splitlines()[:3] == [
        "| epoch | step | layer | learning_rate | mi | reference | normalized_mi "
        "| accuracy |",
        "|---|---|---|---|---|---|---|---|",
        "| 0 |  | conv | 0.01 | 0.5 | 2 | 0.25 | 0.5 |",
    ]


@pytest.mark.parametrize("reference", [np.nan, 0.0, -1.0, np.inf])
def test_without_a_reference_there_is_no_normalized_information(reference, tmp_path):
    history = optax_mi.MIHistory()
    history.add(epoch=0, learning_rate=0.1, mi=1.0, reference=reference)
    assert history.rows[0]["normalized_mi"] is math.nan
    assert np.isnan(history.column("normalized_mi")).all()
    assert "normalized_mi" not in history.to_table()
    assert "normalized_mi" not in history.scalars()[1]
    history.to_csv(tmp_path / "history.csv")  # files have the columns that they had
    assert (tmp_path / "history.csv").read_text().splitlines()[0] == ",".join(
        [*COLUMNS, "normalized_mi"]
    )
    history.append_jsonl(tmp_path / "runs.jsonl", "run")
    assert "normalized_mi" not in (tmp_path / "runs.jsonl").read_text()


def test_estimates_beyond_what_is_possible_are_normalized_as_they_are():
    history = optax_mi.MIHistory()
    for epoch, mi in enumerate((-0.1, 0.0, 2.1, np.inf, np.nan)):
        history.add(epoch=epoch, learning_rate=0.1, mi=mi, reference=2.0)
    expected = [-0.05, 0, 1.05, np.inf, np.nan]
    np.testing.assert_allclose(history.column("normalized_mi"), expected)


def test_normalized_information_cannot_be_given():
    history = optax_mi.MIHistory()
    with pytest.raises(ValueError, match="`normalized_mi` must be left out, as it is"):
        history.add(epoch=0, learning_rate=0.1, mi=1.0, normalized_mi=0.5)
    assert history.rows == []


@pytest.mark.parametrize("in_file", ["before", "another"])
def test_files_give_what_their_information_and_reference_say(tmp_path, in_file):
    history = run()
    json_path, jsonl_path = tmp_path / "history.json", tmp_path / "runs.jsonl"
    history.to_json(json_path)
    history.append_jsonl(jsonl_path, "run")
    rows, line = json.loads(json_path.read_text()), json.loads(jsonl_path.read_text())
    for values in (*rows, *line["history"].values()):
        assert values.pop("normalized_mi")
        if in_file == "another":
            values["normalized_mi"] = values["learning_rate"]
    json_path.write_text(json.dumps(rows))
    jsonl_path.write_text(json.dumps(line) + "\n")
    assert optax_mi.MIHistory.from_json(json_path).rows == history.rows
    ((_, again),) = optax_mi.MIHistory.from_jsonl(jsonl_path)
    for layer in history.layers:
        np.testing.assert_allclose(
            again.column("normalized_mi", layer),
            history.column("normalized_mi", layer),
            rtol=1e-4,
        )
