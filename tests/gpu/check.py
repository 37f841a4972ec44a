"""All that is to be known of eqprop on the GPU of this machine, in five minutes: `make gpu`.

usage: check.py --eqprop PROGRAM --test TEST [--data DIR] [--torch PYTHON] [--out FILE] [--quick]

PROGRAM is eqprop, and TEST the test program tests/cuda.rs, both built with `--features cuda`, here or elsewhere: no
compiler and no network are needed. PYTHON is a Python with PyTorch, for the yardstick; without one it is left out.

Steps: parity with the CPU, and of a replica among many with one alone (TEST); memcheck and racecheck, where
compute-sanitizer is; milliseconds a minibatch for every preset and number of networks, beside PyTorch. Every step has a
time limit that kills it, and is then said to have not ended. The results are a table on standard output, and FILE as JSON.
The exit status is 1 where parity, memcheck or racecheck fails.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

RULES = {"ep": "EP", "cep": "C-EP", "cvf": "C-VF"}
REPLICAS = [1, 8, 45, 132, 256]
WAYS = {
    "all T": ["--synchronous", "--set", "settle.tolerance=0.0"],
    "alternating, ending early": [
        "--set", "settle.order=alternating", "--set", "settle.solver=iterate", "--set", "settle.tolerance=5e-7",
    ],
}
SANITIZED = ["train", "--algo", "cvf", "--psi", "45", "--device", "cuda", "--epochs", "1", "--set", "training.data=glyphs",
             "--set", "training.limit_train=200", "--set", "training.limit_test=100"]


def ended(command, limit, both=False):
    """The output of a command, with what it said on standard error for `both`, or `None` and why there is nothing. It is
    killed after `limit` seconds."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None, f"not ended after {limit} s"
    if process.returncode != 0:
        said = (err.strip() or out.strip() or "nothing said").splitlines()
        return None, f"status {process.returncode}: {' '.join(said[-3:])[:400]}"
    return out + err if both else out, None


class Check:
    def __init__(self, choice):
        self.choice = choice
        self.results = {"parity": None, "sanitizer": {}, "ms_per_replica_minibatch": [], "torch": []}
        self.failed = False
        self.started = time.monotonic()

    def say(self, text):
        print(f"{time.monotonic() - self.started:4.0f} s  {text}", file=sys.stderr, flush=True)

    def passed(self, name, command, limit):
        self.say(name)
        out, why = ended(command, limit, both=True)
        skipped = out and re.search(r"SKIPPED: (.*)", out)
        if skipped:
            sys.exit(f"there is nothing to check: {skipped[1]}")
        outcome = why or "passed"
        self.failed |= why is not None and not why.startswith("not ended")
        self.say(f"  {outcome}")
        return outcome

    def parity(self):
        command = [self.choice.test, "--nocapture", "--test-threads", "1"]
        self.results["parity"] = self.passed("parity with the CPU, replicas among many", command, 120)
        self.failed |= self.results["parity"] != "passed"

    def sanitizers(self):
        sanitizer = shutil.which("compute-sanitizer")
        if sanitizer is None:
            self.results["sanitizer"] = "no compute-sanitizer here"
            self.say(self.results["sanitizer"])
            return
        for tool in ("memcheck", "racecheck"):
            folder = pathlib.Path(self.choice.out).resolve().parent / f"gpu-{tool}"
            folder.mkdir(parents=True, exist_ok=True)
            places = ["--runs-dir", str(folder / "runs"), "--checkpoints-dir", str(folder / "checkpoints"), "--overwrite"]
            command = [sanitizer, "--tool", tool, "--error-exitcode", "9", self.choice.eqprop, *SANITIZED, *places]
            self.results["sanitizer"][tool] = self.passed(tool, command, 40)

    def speed(self):
        data = ["--data-dir", self.choice.data] if self.choice.data else []
        for depth in (1, 2):
            for way, settings in WAYS.items():
                for rule in RULES:
                    for replicas in REPLICAS[:2] if self.choice.quick else REPLICAS:
                        count = max(20, (2000 if depth == 1 else 400) // replicas)
                        command = [self.choice.eqprop, "bench", "--algo", rule, "--depth", str(depth), "--device", "cuda",
                                   "--replicas", str(replicas), "--minibatches", str(count), "--json", *settings, *data]
                        out, why = ended(command, 20)
                        row = {"rule": RULES[rule], "depth": depth, "way": way, "replicas": replicas}
                        row |= json.loads(out) if out else {"why": why}
                        self.results["ms_per_replica_minibatch"].append(row)
                        self.say(f"{RULES[rule]}-{depth}h, {way}, {replicas}: "
                                 + (f"{row['ms_per_replica_minibatch']:.4f} ms, {row['engine']}" if out else why))

    def yardstick(self):
        if self.choice.torch is None:
            self.results["torch"] = "no PyTorch was named"
            return
        program = str(pathlib.Path(__file__).resolve().parent.parent / "yardstick" / "torch_gpu.py")
        for depth in (1, 2):
            for rule in RULES:
                for how in ([], ["--captured"]):
                    count = 100 if depth == 1 else 30
                    command = [self.choice.torch, program, rule, str(depth), str(count), *how]
                    command += ["--data", self.choice.data] if self.choice.data else []
                    out, why = ended(command, 30)
                    row = {"rule": RULES[rule], "depth": depth, "captured": bool(how)}
                    row |= {"ms": float(out.split()[0])} if out else {"why": why}
                    self.results["torch"].append(row)
                    self.say(f"PyTorch {RULES[rule]}-{depth}h{' captured' if how else ''}: {row.get('ms', why)}")

    def table(self):
        print(f"{self.results['gpu']}; {self.results['eqprop']}; {'MNIST' if self.choice.data else 'glyphs'}; "
              "milliseconds a minibatch of one network\n")
        columns = [f"{n} network{'s' if n > 1 else ''}" for n in REPLICAS]
        print("| | engine | " + " | ".join(columns) + " | PyTorch | captured |")
        print("|---" * (len(columns) + 4) + "|")
        speeds = self.results["ms_per_replica_minibatch"]
        for depth in (1, 2):
            for way in WAYS:
                for rule in RULES.values():
                    of = {row["replicas"]: row for row in speeds
                          if (row["rule"], row["depth"], row["way"]) == (rule, depth, way)}
                    cells = [f"{of[n]['ms_per_replica_minibatch']:.3g}" if "ms_per_replica_minibatch" in of.get(n, {})
                             else "–" for n in REPLICAS]
                    engines = "/".join(sorted({row["engine"] for row in of.values() if "engine" in row})) or "–"
                    torch = [f"{row['ms']:.3g}" if "ms" in row else "–" for captured in (False, True)
                             for row in self.results["torch"] if isinstance(row, dict)
                             and (row["rule"], row["depth"], row["captured"]) == (rule, depth, captured)]
                    torch = torch if way == "all T" and torch else ["–", "–"]
                    print(f"| {rule}-{depth}h, {way} | {engines} | " + " | ".join(cells + torch) + " |")
        print(f"\nparity: {self.results['parity']}; sanitizer: {self.results['sanitizer']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--eqprop", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--data", default=os.environ.get("EQPROP_DATA"))
    parser.add_argument("--torch")
    parser.add_argument("--out", default="gpu.json")
    parser.add_argument("--quick", action="store_true", help="1 and 8 networks only, to try it out")
    check = Check(parser.parse_args())
    gpu, why = ended(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], 20) \
        if shutil.which("nvidia-smi") else (None, "no nvidia-smi here")
    check.results["gpu"] = gpu.strip() if gpu else why
    version, why = ended([check.choice.eqprop, "--version"], 20)
    check.results["eqprop"] = version.strip() if version else why
    for step in (check.parity, check.sanitizers, check.speed, check.yardstick):
        step()
        part = pathlib.Path(check.choice.out + ".part")
        part.write_text(json.dumps(check.results, indent=1) + "\n")
        part.replace(check.choice.out)
    check.table()
    print(f"{check.choice.out} has all of it", file=sys.stderr)
    sys.exit(1 if check.failed else 0)


if __name__ == "__main__":
    main()
