"""What the commands read, and how they say what they found."""

import io
import json
import sys
import time

import numpy as np
import pytest

import optax_mi
from optax_mi.__main__ import main
from optax_mi._command_line import files, terminal
from optax_mi._command_line.terminal import InputError


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


TABLE = """\
height, weight,species,"a, b"
1.5,2,cat,1
1.25,3,dog,2

1e3,-4,cat,99999999999999999999
"""


def write(text, name="t.csv", encoding="utf-8"):
    with open(name, "w", encoding=encoding, newline="") as file:
        file.write(text)


def test_columns_of_a_table_are_taken_by_their_names():
    write(TABLE)
    height, weight = files.array("t.csv:height"), files.array("t.csv:weight")
    assert height.tolist() == [1.5, 1.25, 1000]
    assert weight.dtype == np.int64  # and so classes, if they are the outcomes
    assert weight.tolist() == [2, 3, -4]
    both = files.array("t.csv:weight,height")
    np.testing.assert_array_equal(both, np.stack([weight, height], axis=1))
    assert files.array('t.csv:"a, b"').tolist() == [1, 2, 1e20]
    write(TABLE, "bom.csv", "utf-8-sig")  # as spreadsheets write it
    assert files.array("bom.csv:height").tolist() == height.tolist()


def test_a_table_without_names_after_it_is_all_of_its_columns():
    write("a,b\n1,2\n3,4.5\n")
    assert files.array("t.csv").tolist() == [[1, 2], [3, 4.5]]
    write("a\n1\n3\n")
    assert files.array("t.csv").tolist() == [1, 3]


def test_words_are_outcomes_and_no_inputs():
    write(TABLE)
    assert files.array("t.csv:species", words=True).tolist() == ["cat", "dog", "cat"]
    with pytest.raises(InputError, match="row 1 of t.csv has 'cat' in column 'species"):
        files.array("t.csv:species")


@pytest.mark.parametrize(
    ("text", "source", "message"),
    [
        (TABLE, "t.csv:size", "no column 'size'; its columns are height, weight, spec"),
        ("a,a\n1,2\n", "t.csv:a", "t.csv has several columns 'a'"),
        ("a,b\n1,2\n3\n", "t.csv:a", "row 2 of t.csv has 1 cells under 2 names"),
        ("1.5,2\n3,4\n", "t.csv", "must begin with the columns' names, got 1.5,2"),
        ("a,b\n", "t.csv", "must have a line of names and rows under it"),
        ("", "t.csv", "must have a line of names and rows under it"),
        ("a\n1\n\n2\nn/a\n", "t.csv", "row 3 of t.csv has 'n/a' in column 'a', which"),
        ("a,b\ncat,1\n,2\n", "t.csv:a", "row 2 of t.csv has '' in column 'a'"),
        ("a,b\ncat,1\ndog,2\n", "t.csv", "row 1 of t.csv has 'cat' in column 'a'"),
        ("a\n1\nnan\ninf\n", "t.csv:a", "t.csv:a holds 2 numbers that are NaN or inf"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(text, source, message):
    write(text)
    with pytest.raises(InputError, match=message):
        files.array(source, words=True)


def test_a_table_must_be_text():
    write("näme\n1\n", encoding="latin-1")
    with pytest.raises(InputError, match=r"t.csv is no .csv file in UTF-8"):
        files.array("t.csv")


def test_arrays_of_an_archive_are_taken_by_their_names():
    x, y = np.eye(3), np.arange(3)
    np.savez("a.npz", x=x, y=y)
    np.savez("one.npz", y)
    np.testing.assert_array_equal(files.array("a.npz:x"), x)
    np.testing.assert_array_equal(files.array("one.npz"), y)
    with pytest.raises(InputError, match=r"several arrays: give one of x, y, as a.npz"):
        files.array("a.npz")
    with pytest.raises(InputError, match="no array 'z': give one of x, y"):
        files.array("a.npz:z")


def test_nothing_that_an_archive_pickled_is_run():
    np.savez("bad.npz", x=np.array([object()], dtype=object))
    with pytest.raises(InputError, match=r"bad.npz is no .npy, .npz or .csv file of n"):
        files.array("bad.npz:x")


@pytest.mark.e2e
def test_a_table_and_an_archive_give_the_estimate_of_their_arrays(capsys):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 100)
    x = rng.normal(size=(100, 2)) + labels[:, None]
    names = np.array(["spam", "ham"])[labels]
    rows = [
        f"{a!r},{b!r},{name}" for (a, b), name in zip(x.tolist(), names, strict=True)
    ]
    write("\n".join(["a,b,name", *rows]))
    np.savez("a.npz", x=x, labels=labels)
    for arguments in (["t.csv:a,b", "t.csv:name"], ["a.npz:x", "a.npz:labels"]):
        main(["estimate", *arguments, "--permutations", "0", "--json"])
        told = json.loads(capsys.readouterr().out)
        assert told["outcomes"] == "classes"
        assert told["mi"] == pytest.approx(float(optax_mi.ksg_discrete(x, labels)))
    with pytest.raises(SystemExit):
        main(["estimate", "t.csv:a", "t.csv:name", "--continuous"])
    assert "--continuous needs numbers" in capsys.readouterr().err


def test_a_table_is_aligned_words_to_the_left_and_numbers_to_the_right():
    rows = [["long name", "1"], ["b", "12345.6"]]
    assert terminal.table(["run", "mi"], rows, words=1).splitlines() == [
        "| run       |      mi |",
        "|-----------|--------:|",
        "| long name |       1 |",
        "| b         | 12345.6 |",
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def on_screen(monkeypatch, patience, stream, term="xterm"):
    """In the test itself, as pytest sets the stream anew between fixtures and it."""
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(terminal, "PATIENCE", patience)
    return stream


def wait_for(text, stream):
    end = time.monotonic() + 60
    while text not in stream.getvalue():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_takes_long_says_so_on_a_terminal_and_wipes_it_away(monkeypatch):
    screen = on_screen(monkeypatch, 0.05, Terminal())
    with terminal.Progress("estimating") as progress:
        for _ in progress.count(range(2)):
            wait_for("estimating", screen)
        wait_for("estimating, 1 of 2: 0 s", screen)
    assert screen.getvalue().endswith("\r\033[K")
    terminal.say("a remark")
    assert screen.getvalue().endswith("\r\033[Ka remark\n")


def test_what_is_done_soon_leaves_nothing_to_be_seen(monkeypatch):
    screen = on_screen(monkeypatch, 60, Terminal())
    with terminal.Progress("estimating"):
        pass
    assert not screen.getvalue().strip("\r\033[K")


@pytest.mark.parametrize(
    ("stream", "term"), [(io.StringIO, "xterm"), (Terminal, "dumb")]
)
def test_there_is_no_progress_where_it_could_not_be_wiped_away(
    stream, term, monkeypatch
):
    screen = on_screen(monkeypatch, 0.01, stream(), term)
    with terminal.Progress("estimating"):
        time.sleep(0.2)
    terminal.say("a remark")
    assert screen.getvalue() == "a remark\n"
