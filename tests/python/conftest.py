"""Shared parts of the tests of the Python module. `make python` builds the module and runs them."""

import numpy as np
import pytest

import eqprop


@pytest.fixture(scope="session")
def glyphs():
    """Some glyphs: images (N, 784) in bytes, classes (N,)."""
    (images, classes), _ = eqprop.load_data("glyphs")
    return images[:200], classes[:200]


@pytest.fixture
def minibatch(glyphs):
    images, classes = glyphs
    return images[:20], classes[:20]


@pytest.fixture
def folders(tmp_path):
    """A folder for the files of a run."""
    return {"runs_dir": tmp_path / "runs", "checkpoints_dir": tmp_path / "checkpoints"}


def double(dims=(784, 32, 10), rule="cvf", **settings):
    """A network in float64, with rates at which a minibatch is worth something."""
    rates = settings.pop("learning_rates", [0.02, 0.01, 0.005][: len(dims) - 1])
    return eqprop.Network(list(dims), rule, dtype="f64", learning_rates=rates, **settings)


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(a[name], b[name]), name
