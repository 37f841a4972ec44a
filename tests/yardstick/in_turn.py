"""The table of docs/performance.md for this machine: `eqprop bench` and torch_ep.py in turn, in float32 on the CPU.

usage: in_turn.py [--eqprop PROGRAM] [--data DIR] [--threads N] [--sittings N] [--isa avx2|avx512|portable ...] [--quick]

Each sitting runs every program once, and once with each of the instruction sets named, so that a machine that drifts
drifts for all of them. There is a table for each instruction set. Numbers are milliseconds per training minibatch of 20
images, the median over the sittings; ratios to the plain program are medians of the ratios within a sitting. Run it on a
machine that does nothing else.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys

CASES = [(rule, depth) for depth in (1, 2) for rule in ("ep", "cep", "cvf")]
NAMES = {"ep": "EP", "cep": "C-EP", "cvf": "C-VF"}
ALL_STEPS = ["--synchronous", "--set", "settle.tolerance=0.0"]
ALTERNATING = ["--set", "settle.order=alternating"]
ACCELERATED = [*ALTERNATING, "--set", "settle.solver=anderson", "--set", "settle.tolerance=5e-7"]
YARDSTICKS = ["plain torch", "careful torch", "careful, alternating"]
OURS = ["all T steps", "alternating", "alternating, Anderson"]
COLUMNS = [*YARDSTICKS, *OURS]


def cpu():
    """The processor's name, with the vectors that it has."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"model name\s*: (.*)", text)
    flags = [flag for flag in ("avx2", "fma", "avx512f") if re.search(rf"\b{flag}\b", text)]
    return f"{name[1] if name else platform.machine()} ({', '.join(flags) or 'no AVX2'}), {os.cpu_count()} cores"


def output(command, isa=None):
    environment = {**os.environ, "EQPROP_ISA": isa} if isa else None
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed with status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--eqprop", default="target/release/eqprop")
    parser.add_argument("--data")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sittings", type=int, default=3)
    parser.add_argument("--isa", choices=["portable", "avx2", "avx512"], nargs="+", default=[None])
    parser.add_argument("--quick", action="store_true", help="a tenth of the minibatches, to try it out")
    choice = parser.parse_args()
    data = choice.data or os.environ.get("EQPROP_DATA")
    share = 10 if choice.quick else 1
    yardstick = str(pathlib.Path(__file__).with_name("torch_ep.py"))

    def torch(rule, depth, *how):
        count = (300 if depth == 1 else 60) // share
        command = [sys.executable, yardstick, rule, str(depth), str(count), "--threads", str(choice.threads)]
        command += [*how, *(["--data", data] if data else [])]
        return float(output(command).split()[0])

    def eqprop(rule, depth, settings, isa):
        count = (900 if depth == 1 else 180) // share
        command = [choice.eqprop, "bench", "--algo", rule, "--depth", str(depth), "--minibatches", str(count), "--json"]
        # The bench classifies, too, which is not asked for here.
        command += ["--set", "training.limit_test=1000"]
        command += ["--threads", str(choice.threads), *settings, *(["--data-dir", data] if data else [])]
        return json.loads(output(command, isa))["ms_per_minibatch"]

    sittings = {(isa, *case): [] for isa in choice.isa for case in CASES}
    for sitting in range(choice.sittings):
        for rule, depth in CASES:
            print(f"sitting {sitting + 1} of {choice.sittings}: {NAMES[rule]}-{depth}h", file=sys.stderr)
            yardsticks = [torch(rule, depth, *how) for how in (["--plain"], [], ["--order", "alternating"])]
            for isa in choice.isa:
                ours = [eqprop(rule, depth, settings, isa) for settings in (ALL_STEPS, ALTERNATING, ACCELERATED)]
                sittings[isa, rule, depth].append(yardsticks + ours)

    version = output([choice.eqprop, "--version"]).strip()
    torch_version = output([sys.executable, "-c", "import torch; print(torch.__version__)"]).strip()
    print(f"{cpu()}, {choice.threads} threads; {version}; torch {torch_version}; {choice.sittings} sittings; "
          f"{'MNIST' if data else 'no data given'}")
    for (isa, rule, depth), rows in sittings.items():
        if (rule, depth) == CASES[0]:
            print(f"\n{f'EQPROP_ISA={isa}' if isa else 'the best instruction set'}\n")
            print("| | " + " | ".join(COLUMNS) + " |")
            print("|---" * (len(COLUMNS) + 1) + "|")
        cells = []
        for column in range(len(COLUMNS)):
            cell = f"{statistics.median(row[column] for row in rows):.3g}"
            if column >= len(YARDSTICKS):
                ratio = statistics.median(row[0] / row[column] for row in rows)
                cell += f" (1/{ratio:.3g})"
            cells.append(cell)
        print(f"| {NAMES[rule]}-{depth}h | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
