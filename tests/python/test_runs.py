"""Runs from Python and runs of the program: the same bits, and each can resume the other."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import eqprop
from conftest import assert_same_bits

SETTINGS = {"limit_train": 400, "limit_test": 200, "angle_minibatches": 0}
FLAGS = ["--limit-train=400", "--limit-test=200", "--set=training.angle_minibatches=0"]


def program(*words, cwd, **settings):
    """The command `eqprop`, as the wheel starts it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EQPROP_")}
    command = [sys.executable, "-m", "eqprop", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, **settings)


def network(**settings):
    return eqprop.Network([784, 32, 10], "cvf", psi=45, seed=3, **settings)


def test_a_run_has_the_bits_of_the_program_and_either_goes_on_with_the_other(tmp_path, monkeypatch):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir(), theirs.mkdir()
    flags = ["--algo=cvf", "--psi=45", "--seed=3", "--data=glyphs", "--set=network.dims=[784,32,10]", *FLAGS]
    done = program("train", *flags, "--epochs=2", cwd=theirs)
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(ours)
    net = network()
    told = []
    run = eqprop.train(net, data="glyphs", epochs=2, progress=told.append, **SETTINGS)
    there = theirs / run.checkpoint
    assert there.read_bytes() == run.checkpoint.read_bytes()
    assert [line["epoch"] for line in told] == [0, 1, 2]
    assert_same_bits(net.weights, eqprop.load(there).weights)
    # Each resumes the other, to the same end.
    run.resume(epochs=3)
    done = program("train", f"--resume={run.name}", "--epochs=3", cwd=theirs)
    assert done.returncode == 0, done.stderr
    assert there.read_bytes() == run.checkpoint.read_bytes()
    more = eqprop.Run(run.name, runs_dir=theirs / "runs", checkpoints_dir=theirs / "checkpoints").resume(epochs=4)
    done = program("train", f"--resume={run.checkpoint}", "--epochs=4", cwd=ours)
    assert done.returncode == 0, done.stderr
    assert more.checkpoint.read_bytes() == run.checkpoint.read_bytes()


def test_minibatches_in_a_loop_end_in_the_bits_of_the_run(folders):
    # In the order of the images where every minibatch has all of them.
    settings = {"batch_size": 40, "limit_train": 40, "limit_test": 40, "angle_minibatches": 0}
    net, loop = network(batch_size=40), network(batch_size=40)
    (images, classes), _ = eqprop.load_data("glyphs")
    run = eqprop.train(net, data="glyphs", epochs=3, **settings, **folders)
    for _ in range(3):
        loop.learn(images[:40], classes[:40])
    for name, weight in loop.weights.items():
        np.testing.assert_allclose(weight, run.network().weights[name], atol=1e-6)


def test_weights_that_a_network_has_are_those_a_run_begins_with(folders, minibatch):
    net, other = network(), network()
    net.learn(*minibatch, beta=0.2)
    assert not np.array_equal(net.weights["forward.0.weight"], other.weights["forward.0.weight"])
    before = net.copy()
    run = eqprop.train(net, data="glyphs", epochs=1, **SETTINGS, **folders)
    first = run.checkpoint.parent / "step-00000000.safetensors"
    if first.is_file():
        assert_same_bits(eqprop.load(first).weights, before.weights)
    started = eqprop.train(other, data="glyphs", epochs=1, name="other", **SETTINGS, **folders)
    assert not np.array_equal(run.network().weights["forward.0.weight"], started.network().weights["forward.0.weight"])


def rows_of(table):
    return table.to_dict("records") if hasattr(table, "to_dict") else table


def test_records(folders):
    assert rows_of(eqprop.train(network(), data="glyphs", epochs=1, name="a", **SETTINGS, **folders).metrics)
    run = eqprop.train(network(), data="glyphs", epochs=2, name="b", **SETTINGS, **folders)
    metrics = rows_of(run.metrics)
    assert [line["epoch"] for line in metrics] == [0, 1, 2]
    rows = rows_of(eqprop.runs(folders["runs_dir"]))
    assert [row["run"] for row in rows] == ["a-glyphs", "b-glyphs"]
    assert [row["epochs"] for row in rows] == [1, 2]
    assert rows[1]["learning.beta"] == 0.2 and rows[1]["training.seed"] == 3
    assert rows[1]["test_error_percent"] == metrics[2]["error/test"]
    assert rows[1]["best_test_error_percent"] == min(line["error/test"] for line in metrics)
    assert run.result["network.dims"] == [784, 32, 10]
    assert "<svg" in run._repr_html_() and repr(run).startswith("b-glyphs: ")
    # Nothing is overwritten unless asked for.
    with pytest.raises(eqprop.Error, match="overwrite|resume"):
        eqprop.train(network(), data="glyphs", epochs=2, name="b", **SETTINGS, **folders)
    done = eqprop.train(network(), data="glyphs", epochs=2, name="b", resume=True, **SETTINGS, **folders)
    assert done.checkpoint.read_bytes() == run.checkpoint.read_bytes()


def test_what_is_logged_and_what_a_function_raises(folders, caplog):
    class Enough(Exception):
        pass

    def stops(numbers):
        raise Enough("for today")

    with caplog.at_level(logging.INFO, logger="eqprop"):
        with pytest.raises(Enough, match="for today"):
            eqprop.train(network(), data="glyphs", epochs=1, progress=stops, **SETTINGS, **folders)
    assert any("data: glyphs" in record.message for record in caplog.records)


def test_wrong_usage(folders):
    with pytest.raises(eqprop.UsageError, match=r"say Network\(…, beta=…\)"):
        eqprop.train(network(), data="glyphs", beta=0.1, **folders)
    with pytest.raises(eqprop.UsageError, match="nor a run in"):
        eqprop.Run("nothing", **folders)
    with pytest.raises(eqprop.UsageError, match="no such folder"):
        eqprop.runs(folders["runs_dir"])
    assert not Path(folders["runs_dir"]).exists()


SCRIPT = """
import sys, time, eqprop
net = eqprop.Network([784, 256, 10], "cvf", seed=1)
try:
    eqprop.train(net, data="glyphs", epochs=50, progress=lambda numbers: print("epoch", flush=True), angle_minibatches=0)
except KeyboardInterrupt as stopped:
    print("stopped", time.time(), stopped.run.name, stopped, flush=True)
    assert isinstance(stopped, eqprop.Interrupted)
    weights = eqprop.load(stopped.run.checkpoint).weights
    assert all((weights[name] == net.weights[name]).all() for name in weights)
    sys.exit(7)
"""


def test_ctrl_c_is_heard_within_a_second_and_the_run_is_saved(tmp_path):
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell ignores SIGINT in what it starts in the background, and Python would leave it so.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert script.stdout.readline() == "epoch\n"
    time.sleep(0.5)
    pressed = time.time()
    script.send_signal(signal.SIGINT)
    said, complaint = script.communicate(timeout=60)
    assert script.returncode == 7, complaint
    word, heard, name, *_ = said.split("\n")[-2].split()
    assert word == "stopped" and float(heard) - pressed < 1
    # It resumes where it was.
    run = eqprop.Run(name, runs_dir=tmp_path / "runs", checkpoints_dir=tmp_path / "checkpoints")
    assert run.resume(epochs=1).result["epochs"] == 1
