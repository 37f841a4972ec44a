"""The command `eqprop` as the wheel starts it: exit statuses, signals, output."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import eqprop

SCRIPT = Path(sys.executable).with_name("eqprop")


def command(*words, **settings):
    settings = {"capture_output": True, "text": True, "timeout": 120, **settings}
    return subprocess.run([SCRIPT, *words], **settings)


def test_the_script_is_the_program():
    version = command("--version")
    assert version.returncode == 0 and version.stdout.startswith(f"eqprop {eqprop.__version__} (")
    assert "Usage: eqprop train" in command("train", "--help").stdout
    assert "complete -F _eqprop" in command("completions", "bash").stdout
    wrong = command("train", "--algo", "hebb")
    assert wrong.returncode == 2 and "choose ep" in wrong.stderr and not wrong.stdout
    wrong = command("config", "--algo", "ep", "--set", "learning.betta=1")
    assert wrong.returncode == 2 and wrong.stderr.startswith("eqprop: ")
    assert command("eval", "nothing.safetensors").returncode == 1


def test_a_reader_that_is_gone():
    read, write = os.pipe()
    os.close(read)
    try:
        assert command("man", stdout=write, capture_output=False, stderr=subprocess.PIPE).returncode == 141
    finally:
        os.close(write)


def test_ctrl_c_saves_and_tells_how_to_go_on(tmp_path):
    words = ["train", "--algo", "cvf", "--data", "glyphs", "--set", "training.angle_minibatches=0", "--limit-test", "100"]
    run = subprocess.Popen([SCRIPT, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in run.stderr:
        if line.startswith("epoch   0"):
            break
    time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    said = run.communicate(timeout=60)[1]
    assert run.returncode == 130, said
    assert "KeyboardInterrupt" not in said
    assert f"to resume: {SCRIPT} train --resume" in said
    assert list(tmp_path.glob("checkpoints/*/last.safetensors"))
