"""Milliseconds per training minibatch of EP, C-EP or C-VF in plain PyTorch, float32 on the CPU: the yardstick of speed.

usage: torch_ep.py ep|cep|cvf 1|2 MINIBATCHES [--plain] [--threads N] [--order synchronous|alternating] [--data DIR]

Written as a careful user of PyTorch would: no autograd, all images of a minibatch at once, updates in place, half of the
layers in a half-step of the alternating order and only their updates. No early end of the first phase. With --plain, the
input weights are multiplied at every step and updates are formed before they are added, as in the authors' code. With
--data, a folder with MNIST's IDX files, it trains on MNIST; otherwise on noise.
"""

import argparse
import gzip
import math
import pathlib
import time

import torch

# T, K, β, η (output first): the paper's Table 2.
SETTINGS = {
    ("ep", 1): (30, 10, 0.1, [0.04, 0.08]),
    ("ep", 2): (100, 20, 0.5, [0.005, 0.05, 0.2]),
    ("cep", 1): (40, 15, 0.2, [0.0028, 0.0056]),
    ("cep", 2): (100, 20, 0.5, [0.00018, 0.0018, 0.01]),
    ("cvf", 1): (40, 15, 0.2, [0.0038, 0.0076]),
    ("cvf", 2): (100, 20, 0.35, [0.00016, 0.0016, 0.009]),
}
BATCH = 20
WARM_UP = 3


def sigma(h):
    return torch.sigmoid(4 * h - 2)


class Network:
    """Layers are numbered from the output; weight[n] leads from layer n+1 into layer n, back[n] the other way."""

    def __init__(self, depth, tied, plain=False):
        self.plain = plain
        self.sizes = [10] + [512] * depth + [784]
        self.layers = range(depth + 1)
        self.tied = tied
        self.weight = []
        self.bias = []
        for n in self.layers:
            bound = 1 / math.sqrt(self.sizes[n + 1])
            self.weight.append(torch.empty(self.sizes[n], self.sizes[n + 1]).uniform_(-bound, bound))
            self.bias.append(torch.empty(self.sizes[n]).uniform_(-bound, bound))
        self.back = [w.t().clone() for w in self.weight[:-1]] if not tied else None

    def to(self, device):
        """The network on another device."""
        for tensors in (self.weight, self.bias, self.back or []):
            tensors[:] = [tensor.to(device) for tensor in tensors]
        return self

    def turns(self, order):
        """The layers that move in each of the steps that are repeated."""
        every = list(self.layers)
        return [every] if order == "synchronous" else [every[0::2], every[1::2]]

    def step(self, s, drive, moved, nudge=None):
        """The states after these layers have moved."""
        following = list(s)
        for n in moved:
            h = drive if n == self.layers[-1] else torch.addmm(self.bias[n], s[n + 1], self.weight[n].t())
            if n > 0:
                from_below = s[n - 1] @ (self.weight[n - 1] if self.tied else self.back[n - 1].t())
                h = h + from_below
            following[n] = sigma(h)
            if n == 0 and nudge is not None:
                target, beta = nudge
                following[n] += beta * (target - s[n])
        return following

    def minibatch(self, x, y, settings, turns, rule):
        """Learns a minibatch; returns where the first phase ended."""
        T, K, beta, rates = settings
        s = [torch.zeros(len(x), size, device=x.device) for size in self.sizes[:-1]]
        drive = None if self.plain else self.drive(x)
        for t in range(T):
            s = self.step(s, self.drive(x) if self.plain else drive, turns[t % len(turns)])
        first = s
        for t in range(K):
            moved = turns[t % len(turns)]
            following = self.step(s, self.drive(x) if self.plain else drive, moved, (y, beta))
            if rule != "ep":
                self.learn(s, following, x, moved, rates, 1 / (beta * len(x)))
                drive = None if self.plain else self.drive(x)
            s = following
        if rule == "ep":
            self.learn(first, s, x, list(self.layers), rates, 1 / (beta * len(x)))
        return first

    def drive(self, x):
        return torch.addmm(self.bias[-1], x, self.weight[-1].t())

    def learn(self, before, after, x, moved, rates, scale):
        """The update of a step, or of a whole phase, in place."""
        def add(weight, post, pre, eta):
            if self.plain:
                weight.add_(post.t() @ pre, alpha=eta)
            else:
                weight.addmm_(post.t(), pre, alpha=eta)

        change = {n: after[n] - before[n] for n in moved}
        for n in self.layers:
            eta = rates[n] * scale
            if n == self.layers[-1]:
                if n in change:
                    add(self.weight[n], change[n], x, eta)
            elif self.tied:
                if n in change:
                    add(self.weight[n], change[n], after[n + 1], eta)
                if n + 1 in change:
                    add(self.weight[n], before[n], change[n + 1], eta)
            else:
                if n in change:
                    add(self.weight[n], change[n], before[n + 1], eta)
                if n + 1 in change:
                    add(self.back[n], change[n + 1], before[n], eta)
            if n in change:
                self.bias[n].add_(change[n].sum(0), alpha=eta)


def images(count, folder):
    """Pixels and one-hot classes."""
    if folder is None:
        return torch.rand(count, 784), torch.nn.functional.one_hot(torch.randint(10, (count,)), 10).float()

    def read(name, header):
        for path in (pathlib.Path(folder) / name, pathlib.Path(folder) / (name + ".gz")):
            if path.exists():
                data = gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
                return torch.frombuffer(bytearray(data[header:]), dtype=torch.uint8)
        raise SystemExit(f"{folder} has no {name}")

    pixels = read("train-images-idx3-ubyte", 16).view(-1, 784).float() / 255
    labels = read("train-labels-idx1-ubyte", 8).long()
    order = torch.randperm(len(labels)).repeat(1 + count // len(labels))[:count]
    return pixels[order], torch.nn.functional.one_hot(labels[order], 10).float()


def arguments(description):
    """A parser of what every program of this kind is told."""
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("rule", choices=["ep", "cep", "cvf"])
    parser.add_argument("depth", type=int, choices=[1, 2])
    parser.add_argument("minibatches", type=int)
    parser.add_argument("--order", choices=["synchronous", "alternating"], default="synchronous")
    parser.add_argument("--data")
    return parser


def measure(learn, x_all, y_all, minibatches, wait=lambda: None):
    """Times `learn` on minibatches of these images, after a few that are not timed, and prints the result. `wait` waits
    until all that was asked for is done."""
    wrong = torch.zeros((), dtype=torch.long, device=x_all.device)
    for m in range(minibatches + WARM_UP):
        if m == WARM_UP:
            wait()
            started = time.perf_counter()
        x, y = x_all[BATCH * m :][:BATCH], y_all[BATCH * m :][:BATCH]
        first = learn(x, y)
        wrong += (first[0].argmax(1) != y.argmax(1)).sum()
    wait()
    milliseconds = 1000 * (time.perf_counter() - started) / minibatches
    share = 100 * int(wrong) / (BATCH * (minibatches + WARM_UP))
    print(f"{milliseconds:.3f} ms per minibatch; {share:.1f} % of the images wrong on the way")


def main():
    parser = arguments(__doc__)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    choice = parser.parse_args()
    torch.set_num_threads(choice.threads)
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    settings = SETTINGS[choice.rule, choice.depth]
    network = Network(choice.depth, tied=choice.rule != "cvf", plain=choice.plain)
    turns = network.turns(choice.order)
    x_all, y_all = images(BATCH * (choice.minibatches + WARM_UP), choice.data)
    measure(lambda x, y: network.minibatch(x, y, settings, turns, choice.rule), x_all, y_all, choice.minibatches)


if __name__ == "__main__":
    main()
