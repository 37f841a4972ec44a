"""Rules and synapses that are functions of Python."""

import numpy as np
import pytest

import eqprop
from conftest import assert_same_bits, double

RULES = ["ep", "cep", "cep-rescaled", "vf", "cvf"]


def built_in(rule, minibatch, **settings):
    """Returns the weights after two minibatches of the rule on the plain engine."""
    net = double(rule=rule, engine="plain", **settings)
    for _ in range(2):
        net.learn(*minibatch)
    return net.weights


@pytest.mark.parametrize("rule", RULES)
def test_a_hook_that_returns_what_the_rule_has_is_the_rule(rule, minibatch):
    for answer in [lambda step: None, lambda step: step.delta]:
        net = double(rule=rule, engine="plain")
        for _ in range(2):
            net.learn(*minibatch, rule=answer)
        assert_same_bits(net.weights, built_in(rule, minibatch))


@pytest.mark.parametrize("rule", ["ep", "cep", "cvf"])
def test_a_rule_written_out_is_the_rule(rule, minibatch):
    # Eq. 89 and 12, in numpy: equal except for the order of summation.
    images, _ = minibatch
    x = images / 255

    def update(step):
        before, after, scale = step.before + [x], step.states + [x], 1 / (step.beta * len(x))
        delta = {}
        for n in range(2):
            if rule == "cvf":
                delta[f"forward.{n}"] = scale * (after[n] - before[n]).T @ before[n + 1]
            else:
                delta[f"forward.{n}"] = scale * (after[n].T @ after[n + 1] - before[n].T @ before[n + 1])
            delta[f"forward.{n}.bias"] = scale * (after[n] - before[n]).sum(0)
        if rule == "cvf":
            delta["feedback.0"] = scale * (after[1] - before[1]).T @ before[0]
        return delta

    # As Eq. 12 is printed.
    settings = {"sigma_prime": "ignored", "authors_code": False} if rule == "cvf" else {}
    net = double(rule=rule, engine="plain", **settings)
    for _ in range(2):
        net.learn(*minibatch, rule=update)
    for name, weight in built_in(rule, minibatch, **settings).items():
        np.testing.assert_allclose(net.weights[name], weight, rtol=0, atol=1e-13)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("nudging", ["positive", "centered"])
def test_a_synapse_that_does_as_it_is_told_is_the_ideal_one(rule, nudging, minibatch):
    net = double(rule=rule, engine="plain", nudging=nudging)
    for _ in range(2):
        net.learn(*minibatch, synapse=lambda name, weights, wished: weights + wished)
    assert_same_bits(net.weights, built_in(rule, minibatch, nudging=nudging))


@pytest.mark.parametrize("rule", ["ep", "cvf"])
def test_a_synapse_with_momentum_is_the_built_in_one(rule, minibatch):
    velocity = {}

    def synapse(name, weights, wished):
        velocity[name] = 0.5 * velocity.get(name, 0) + wished
        return weights + velocity[name]

    net = double(rule=rule, engine="plain")
    for _ in range(2):
        net.learn(*minibatch, synapse=synapse)
    assert_same_bits(net.weights, built_in(rule, minibatch, law="momentum", momentum=0.5))
    assert velocity["feedback.0.weight" if rule == "cvf" else "forward.1.weight"].ndim == 2


def test_hooks_see_each_step_and_each_tensor(minibatch):
    seen, changed = [], []

    def rule(step):
        seen.append((step.t, step.weights["forward.0.weight"]))
        return {"forward.1": np.zeros_like(step.delta["forward.1"])}

    def synapse(name, weights, wished):
        changed.append((name, weights.shape, wished.shape))
        return weights + wished

    net = double(K=5)
    before = net.weights
    net.learn(*minibatch, rule=rule, synapse=synapse)
    assert [t for t, _ in seen] == [0, 1, 2, 3, 4]
    # C-VF is continual: each step sees the weights that the last one has left.
    assert not np.array_equal(seen[0][1], seen[1][1])
    after = net.weights
    assert np.array_equal(after["forward.1.weight"], before["forward.1.weight"])
    assert not np.array_equal(after["forward.0.weight"], before["forward.0.weight"])
    shapes = {name: weight.shape for name, weight in before.items()}
    assert len(changed) == 5 * len(shapes)
    assert all(shapes[name] == weights == wished for name, weights, wished in changed)


def test_angles_are_of_the_hooked_rule(minibatch):
    net = double(rule="ep", beta=0.05)
    reversed_ = net.angle(*minibatch, rule=lambda step: {name: -value for name, value in step.delta.items()})
    assert reversed_.degrees == pytest.approx(180 - net.angle(*minibatch).degrees, abs=1e-6)


def test_what_a_hook_raises_comes_back_and_nothing_has_changed(minibatch):
    class Broken(Exception):
        pass

    def breaks(*_):
        raise Broken("no current")

    net = double()
    before = net.weights
    for hook in [{"rule": breaks}, {"synapse": breaks}]:
        with pytest.raises(Broken, match="no current"):
            net.learn(*minibatch, **hook)
    for hook, said in [
        ({"rule": lambda step: {"forward.9": 1.0}}, "the network has"),
        ({"rule": lambda step: {"forward.0": np.zeros((2, 2))}}, "has shape"),
        ({"synapse": lambda name, weights, wished: weights[:1]}, "numbers for"),
    ]:
        with pytest.raises((eqprop.Error, eqprop.UsageError)) as error:
            net.learn(*minibatch, **hook)
        assert said in str(error.value)
    with pytest.raises(eqprop.Error, match="at work"):
        net.learn(*minibatch, rule=lambda step: net.weights)
    assert_same_bits(net.weights, before)
