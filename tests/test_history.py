import csv
import json
import math
import multiprocessing
import os
import resource
import struct
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pages
import pytest

import optax_mi

POLICY_B = optax_mi.reference_policy(0.1, 0.1, 0.1)
PARAMS = {"conv": {"kernel": jnp.ones(3)}, "dense": {"kernel": jnp.ones(2)}}
MEASURED = [
    {"conv": 0.5, "dense": 1.8},
    {"conv": 1.6, "dense": 1.8},
    {"conv": 1.7, "dense": 1.9},
]


def run():
    """A layer-wise history of three epochs of two steps."""
    tx = optax.chain(
        optax.sgd(1.0),
        optax_mi.layerwise_mi_dynamic_lr(
            "auto", 0.001, 0.05, reference=2.0, policy=POLICY_B
        ),
    )
    state, history, rates = tx.init(PARAMS), optax_mi.MIHistory(), []
    for epoch, mi in enumerate(MEASURED):
        for _ in range(2):
            _, state = tx.update(PARAMS, state, PARAMS)
        rates.append(optax_mi.learning_rates(state))
        state = optax_mi.record_mi(state, mi)
        history.record(state, epoch=epoch, accuracy=epoch / 4)
    return history, rates


def test_each_epoch_has_the_rate_in_force_and_the_information_it_ended_with():
    history, rates = run()
    assert history.layers == ["conv", "dense"]
    for layer in history.layers:
        assert history.column("mi", layer) == pytest.approx(
            [mi[layer] for mi in MEASURED]
        )
        assert history.column("learning_rate", layer).tolist() == [
            rate[layer] for rate in rates
        ]
    assert history.column("step", "conv").tolist() == [2, 4, 6]
    assert history.column("reference", "dense").tolist() == [2.0] * 3
    assert history.column("accuracy", "dense").tolist() == [0, 0.25, 0.5]
    # The last rate rose in the last epoch by what the second had shown.
    assert rates[2]["conv"] == pytest.approx(0.001 + 0.1 * (1 - 1.6 / 2))


def test_a_measurement_given_in_the_step_is_recorded_too():
    tx = optax_mi.mi_dynamic_lr(0.001, 0.1, policy=optax_mi.change_policy())
    state, history = tx.init(PARAMS), optax_mi.MIHistory()
    history.record(state, epoch=0)
    _, state = tx.update(PARAMS, state, mi=1.5)
    history.record(state, epoch=1)
    np.testing.assert_equal(history.column("mi"), [np.nan, 1.5])
    assert np.isnan(history.column("reference")).all()  # the policy needs none


def test_states_of_a_compiled_run_are_recorded_one_by_one():
    tx = optax_mi.mi_dynamic_lr(
        0.001, 0.1, reference=2.0, policy=optax_mi.reference_policy()
    )

    def epoch(state, mi):
        _, state = tx.update(PARAMS, state, mi=mi)
        return state, state

    _, states = jax.lax.scan(epoch, tx.init(PARAMS), jnp.array([0.5, 1.0, 1.5]))
    history = optax_mi.MIHistory()
    for i in range(3):
        history.record(jax.tree.map(lambda a, i=i: a[i], states), epoch=i)
    assert history.column("learning_rate").tolist() == states.learning_rate.tolist()
    assert history.column("mi").tolist() == [0.5, 1.0, 1.5]


def test_the_table_has_a_line_for_each_row_and_leaves_blank_what_is_missing():
    history = optax_mi.MIHistory()
    history.add(epoch=0, learning_rate=0.0123456, mi=1.0, loss=2)
    history.add(epoch=1, learning_rate=0.01, mi=np.nan)
    assert history.to_table().splitlines() == [
        "| epoch | step | learning_rate | mi | reference | loss |",
        "|---|---|---|---|---|---|",
        "| 0 |  | 0.01235 | 1 |  | 2 |",
        "| 1 |  | 0.01 |  |  |  |",
    ]
    layers, _ = run()
    assert layers.to_table().splitlines()[3].startswith("| 0 | 2 | dense | 0.001 | 1.8")


def test_csv_has_every_row_and_column(tmp_path):
    history, _ = run()
    history.add(epoch=3, learning_rate=0.1, mi=np.inf, layer='a,"b', loss=0.5)
    history.to_csv(tmp_path / "history.csv")
    with open(tmp_path / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7
    assert [float(row["mi"]) for row in rows[:6]] == [r["mi"] for r in history.rows[:6]]
    assert rows[6]["layer"] == 'a,"b'
    assert rows[6]["mi"] == rows[6]["step"] == rows[0]["loss"] == ""
    assert [p.name for p in tmp_path.iterdir()] == ["history.csv"]


def test_json_gives_the_history_back_and_is_standard_json(tmp_path):
    history, _ = run()
    history.add(epoch=3, learning_rate=0.1, mi=np.nan, loss=0.1)
    history.to_json(tmp_path / "history.json")

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    json.loads((tmp_path / "history.json").read_text(), parse_constant=refuse)
    again = optax_mi.MIHistory.from_json(str(tmp_path / "history.json"))
    np.testing.assert_equal(again.rows, history.rows)  # NaN equals NaN here
    optax_mi.MIHistory().to_json(tmp_path / "history.json")
    assert optax_mi.MIHistory.from_json(tmp_path / "history.json").rows == []


def test_a_line_has_each_column_once_to_five_digits_and_gives_the_run_back(tmp_path):
    history, _ = run()
    history.add(epoch=3, layer="conv", learning_rate=1 / 3, mi=np.inf, loss=12345.678)
    path = tmp_path / "runs.jsonl"
    history.append_jsonl(path, "layers", config={"gamma": 1 / 3})
    optax_mi.MIHistory().append_jsonl(str(path), "curve", sizes=[1, 2])

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    lines = [
        json.loads(x, parse_constant=refuse) for x in path.read_text().splitlines()
    ]
    assert [line["name"] for line in lines] == ["layers", "curve"]
    assert list(lines[0]["history"]) == ["conv", "dense"]
    conv = lines[0]["history"]["conv"]
    assert conv["epoch"] == [0, 1, 2, 3]
    assert conv["step"] == [2, 4, 6, None]
    assert conv["learning_rate"][3] == 0.33333
    assert conv["mi"] == [0.5, 1.6, 1.7, None]
    assert conv["loss"] == [None, None, None, 12346]
    assert "loss" not in lines[0]["history"]["dense"]

    (about, again), (curve, none) = optax_mi.MIHistory.from_jsonl(path)
    assert about == {"name": "layers", "config": {"gamma": 1 / 3}}
    assert curve == {"name": "curve", "sizes": [1, 2]}
    assert none.rows == []
    assert again.layers == history.layers
    assert [row["epoch"] for row in again.rows] == [0, 0, 1, 1, 2, 2, 3]
    for layer in history.layers:
        for name in ("epoch", "step", "learning_rate", "reference", "accuracy"):
            want = history.column(name, layer)
            np.testing.assert_allclose(again.column(name, layer), want, rtol=5e-5)
    np.testing.assert_equal(again.column("mi", "conv")[2:], [1.7, np.nan])
    del history.rows[-1], again.rows[-1]
    assert again.scalars() == (6, pytest.approx(history.scalars()[1], rel=5e-5))


def test_a_run_of_which_nothing_was_measured_comes_back(tmp_path):
    history = optax_mi.MIHistory()
    history.add(epoch=0, learning_rate=np.nan, mi=np.nan, accuracy=0.5)
    history.append_jsonl(tmp_path / "runs.jsonl", "fixed")
    ((_, again),) = optax_mi.MIHistory.from_jsonl(tmp_path / "runs.jsonl")
    np.testing.assert_equal(again.rows, history.rows)


def short(rate):
    history = optax_mi.MIHistory()
    history.add(epoch=0, learning_rate=rate, mi=1.5)
    return history


@pytest.mark.parametrize("left", [1, 5, 9, 10, 40, -2])
def test_a_line_cut_off_anywhere_loses_no_other(tmp_path, left):
    path = tmp_path / "runs.jsonl"
    short(0.25).append_jsonl(path, "before")
    whole = path.stat().st_size
    short(0.5).append_jsonl(path, "killed")
    os.truncate(path, whole + left if left > 0 else path.stat().st_size + left)
    with pytest.warns(UserWarning, match=r"runs\.jsonl': line 2 is not whole") as told:
        assert len(optax_mi.MIHistory.from_jsonl(path)) == 1
    assert len(told) == 1
    short(0.75).append_jsonl(path, "after")
    with pytest.warns(UserWarning, match="line 2 is not whole"):
        runs = optax_mi.MIHistory.from_jsonl(path)
    assert [(about["name"], run.rows[0]["learning_rate"]) for about, run in runs] == [
        ("before", 0.25),
        ("after", 0.75),
    ]


def test_a_line_that_lacks_its_end_alone_is_whole(tmp_path):
    path = tmp_path / "runs.jsonl"
    short(0.25).append_jsonl(path, "first")
    os.truncate(path, path.stat().st_size - 1)
    assert len(optax_mi.MIHistory.from_jsonl(path)) == 1
    short(0.5).append_jsonl(path, "second")
    names = [about["name"] for about, _ in optax_mi.MIHistory.from_jsonl(path)]
    assert names == ["first", "second"]


def _append_many(path, process, barrier):
    history = optax_mi.MIHistory()
    for epoch in range(400):  # of more than a page
        history.add(epoch=epoch, learning_rate=process, mi=1 / (1 + epoch))
    barrier.wait()
    for i in range(50):
        history.append_jsonl(path, f"{process}-{i}")


@pytest.mark.e2e
def test_processes_that_append_at_once_lose_nothing(tmp_path):
    path = tmp_path / "runs.jsonl"
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    processes = [
        context.Process(target=_append_many, args=(path, i, barrier)) for i in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    runs = optax_mi.MIHistory.from_jsonl(path)
    assert sorted(about["name"] for about, _ in runs) == sorted(
        f"{process}-{i}" for process in range(4) for i in range(50)
    )
    for about, history in runs:
        rates = set(history.column("learning_rate"))
        assert rates == {float(about["name"].split("-")[0])}
        assert len(history.rows) == 400


def test_a_disk_that_takes_a_part_of_a_line_is_said_and_costs_that_line(tmp_path):
    path = tmp_path / "runs.jsonl"
    short(0.25).append_jsonl(path, "first")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, hard))
    try:
        with pytest.raises(OSError, match="took a part of a line only"):
            short(0.5).append_jsonl(path, "lost")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.warns(UserWarning, match="line 2"):
        ((about, _),) = optax_mi.MIHistory.from_jsonl(path)
    assert about["name"] == "first"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[", "line 1: Expecting value"),
        ("plain text", "line 1: Expecting value"),
        ("[1]", "line 1: "),
        ('{"a": 1}', "line 1: 'name'"),
        ('{"name": "a"}\n\n{"name": "b", "history": []}', "line 3: "),
        ('{"name": "a", "history": {"": {"mi": [1]}}}', "line 1: 'epoch'"),
        (
            '{"name": "a", "history": {"": {"epoch": [0, 1], "mi": [1]}}}',
            "line 1: zip",
        ),
        (
            '{"name": "a", "history": {"": {"epoch": [0], "mi": ["b"]}}}',
            "line 1: could",
        ),
    ],
)
def test_another_file_of_lines_is_refused_with_the_line(tmp_path, text, reason):
    path = tmp_path / "other.jsonl"
    path.write_text(text)
    message = (
        r"`path` must be a file that .*append_jsonl` wrote, got '.*other\.jsonl' \("
    )
    with pytest.raises(ValueError, match=message + reason):
        optax_mi.MIHistory.from_jsonl(path)


@pytest.mark.parametrize("about", [{"x": object()}, {"x": math.nan}, {"history": 1}])
def test_what_json_cannot_hold_is_refused_and_nothing_written(tmp_path, about):
    with pytest.raises(ValueError, match="`about` must be "):
        short(0.5).append_jsonl(tmp_path / "runs.jsonl", "a", **about)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", '{"a": 1}', '[{"epoch": 1}]', "[1]"])
def test_another_file_is_refused(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"`path` must be .* got '.*other.json'"):
        optax_mi.MIHistory.from_json(path)


def test_a_write_that_fails_leaves_the_file_of_before(tmp_path):
    path = tmp_path / "history.json"
    history, _ = run()
    history.to_json(path)
    before = path.read_text()
    history.rows.append({"epoch": object()})
    with pytest.raises(TypeError):
        history.to_json(path)
    assert path.read_text() == before


def events(directory):
    """The scalars of an event file, {(tag, step): value}."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = directory.iterdir()
    data, found = path.read_bytes(), {}
    while data:  # each record: length, checksum, event, checksum
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        found |= {(v.tag, event.step): v.simple_value for v in event.summary.value}
    return found


def test_tensorboard_has_every_number_at_its_step(tmp_path):
    history, _ = run()
    history.rows[0]["mi"] = history.rows[0]["normalized_mi"] = math.nan
    history.to_tensorboard(tmp_path)
    expected = {
        (f"{name}/{row['layer']}", row["step"]): row[name]
        for row in history.rows
        for name in ("learning_rate", "mi", "reference", "normalized_mi")
    } | {("accuracy", row["step"]): row["accuracy"] for row in history.rows}
    del expected["mi/conv", 2], expected["normalized_mi/conv", 2]
    assert events(tmp_path) == pytest.approx(expected)
    assert "tensorflow" not in sys.modules


def test_without_steps_tensorboard_counts_epochs(tmp_path):
    history = optax_mi.MIHistory()
    history.add(epoch=3, learning_rate=0.5, mi=1.0)
    history.to_tensorboard(tmp_path)
    assert events(tmp_path) == {("learning_rate", 3): 0.5, ("mi", 3): 1.0}


def test_the_latest_scalars_go_to_any_writer():
    assert optax_mi.MIHistory().scalars() == (None, {})
    history, _ = run()
    step, scalars = history.scalars()
    assert step == 6
    assert scalars["mi/conv"] == pytest.approx(1.7)
    assert scalars["normalized_mi/conv"] == pytest.approx(0.85)
    assert sorted(scalars) == [
        "accuracy",
        *("learning_rate/conv", "learning_rate/dense"),
        *("mi/conv", "mi/dense", "normalized_mi/conv", "normalized_mi/dense"),
        *("reference/conv", "reference/dense"),
    ]


def test_unknown_columns_and_layers_are_refused_with_the_known_ones():
    history, _ = run()
    with pytest.raises(ValueError, match="`name` must be one of .*'accuracy', got 'a'"):
        history.column("a", "conv")
    with pytest.raises(ValueError, match="`layer` must be one of 'conv', 'dense'"):
        history.column("mi")


def test_a_state_without_the_transformation_is_refused():
    with pytest.raises(ValueError, match="`opt_state` must be the state of an opt"):
        optax_mi.MIHistory().record(optax.sgd(0.1).init(PARAMS), epoch=0)


def test_the_program_of_the_docs_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    measurements = iter([0.5, 1.0, 1.5])
    names = {
        "optax": optax,
        "optax_mi": optax_mi,
        "params": jnp.ones(3),
        "epochs": 3,
        "train_epoch": lambda state: names["tx"].update(
            jnp.ones(3), state, names["params"]
        )[1],
        "measure": lambda: next(measurements),
        "accuracy": lambda: 0.5,
    }
    exec(pages.programs("guides/observing.md")[0], names)
    assert names["history"].column("mi").tolist() == [0.5, 1.0, 1.5]
    assert names["history"].to_table() in capsys.readouterr().out
    assert optax_mi.MIHistory.from_json("history.json").rows == names["history"].rows
    ((about, again),) = optax_mi.MIHistory.from_jsonl("runs.jsonl")
    assert about == {"name": "first", "gamma": 0.1}
    assert again.column("mi").tolist() == [0.5, 1.0, 1.5]
    assert (tmp_path / "history.csv").exists()
    assert (tmp_path / "runs" / "mi").is_dir()


def test_a_measurement_that_failed_is_none_where_it_is_given():
    tx = optax_mi.mi_dynamic_lr(
        0.001, 0.1, reference=2.0, policy=optax_mi.reference_policy()
    )
    state, history = tx.init(PARAMS), optax_mi.MIHistory()
    for epoch, mi in enumerate((1.5, np.nan, {"": 1.6})):
        state = optax_mi.record_mi(state, mi)
        history.record(state, epoch=epoch, mi=mi)
        _, state = tx.update(PARAMS, state)
    np.testing.assert_allclose(history.column("mi"), [1.5, np.nan, 1.6], rtol=1e-6)


def test_a_state_of_several_runs_is_refused_with_a_way_out():
    states = jax.vmap(optax_mi.mi_dynamic_lr(0.001, 0.1).init)(jnp.ones((3, 2)))
    with pytest.raises(ValueError, match=r"`opt_state` must be of one run .*a\[i\]"):
        optax_mi.MIHistory().record(states, epoch=0)
    with pytest.raises(ValueError, match=r"got rates of shape \(3,\)"):
        optax_mi.learning_rates(states)


def test_one_rate_takes_the_output_of_a_mapping_of_all_layers():
    tx = optax_mi.mi_dynamic_lr(1e-3, 0.1)
    params, mi = jnp.ones(3), {"conv": 1.8, "dense": 1.5, "": 1.2}
    history = optax_mi.MIHistory()
    recorded = optax_mi.record_mi(tx.init(params), mi)
    history.record(recorded, epoch=0, mi=mi)
    assert history.rows[0]["mi"] == pytest.approx(1.2)
    _, after = tx.update(params, recorded, params)
    _, given = tx.update(params, tx.init(params), params, mi=mi)
    assert optax_mi.learning_rates(after) == optax_mi.learning_rates(given)
    with pytest.raises(ValueError, match="a mapping with the whole network, '', in it"):
        optax_mi.record_mi(tx.init(params), {"conv": 1.8, "dense": 1.5})
