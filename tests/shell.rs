//! Encounters with a shell, a batch system or a strange clock: scripts and printed commands take any path, signals
//! arrive, and a clock that is set back gives no wrong speed.

mod common;

use common::Place;
use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A folder that needs quoting, in a shell and in an `#SBATCH` line.
const ODD: &str = "it's 50% $HOME \"x\" \\";

const SWEEP: &str =
    "title = 't'\nset.network.dims = [64, 24, 4]\nset.training.epochs = 100000\n[[rows]]\nconfig = 'ep-1h'\n";

/// The words into which a shell splits the arguments of `command`, whose program is given as a function.
fn words(place: &Place, program: &str, command: &str) -> Vec<String> {
    let script = format!("{program}() {{ printf '%s\\n' \"$@\"; }}\n{command}");
    let output = Command::new("sh").current_dir(place.dir.path()).args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{command}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_string).collect()
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(300), "{what} does not come");
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_job_script_takes_any_path_and_its_signal() {
    let place = Place::new();
    fs::write(place.path("s.toml"), SWEEP).unwrap();
    fs::create_dir(place.path(ODD)).unwrap();
    fs::rename(place.path("data"), place.path(ODD).join("data")).unwrap();
    let (data, out) = (format!("{ODD}/data"), format!("{ODD}/s"));
    let arguments = ["sweep", "--config", "s.toml", "--out", &out, "--data-dir", &data, "--slurm"];
    let said = String::from_utf8(place.eqprop().args(arguments).output().unwrap().stderr).unwrap();
    let (_, submit) = said.split_once("submit them with: ").unwrap_or_else(|| panic!("{said}"));
    assert_eq!(words(&place, "sbatch", submit.trim()), [format!("{out}/slurm.sh")]);

    let script = place.read(&format!("{out}/slurm.sh"));
    // To the batch script, which `exec` makes the run's process; without B: only to steps of srun.
    assert!(script.contains("\n#SBATCH --signal=B:TERM@60\n"), "{script}");
    assert!(script.contains(r##"it's 50%% $HOME \"x\" \\/s/slurm-%A_%a.log""##), "{script}");
    // The messages of an attempt that is requeued would be lost: Slurm begins the log anew.
    assert!(script.contains("\n#SBATCH --open-mode=append\n"), "{script}");
    let sessions = place.path(&format!("{out}/runs/ep-1h-data-seed0/sessions.jsonl"));
    // The signal that the script asks for, and the one that many ask for in their own.
    for (attempt, (signal, status)) in [("TERM", 143), ("USR1", 138)].into_iter().enumerate() {
        let mut task = Command::new("bash")
            .arg(place.path(&format!("{out}/slurm.sh")))
            .current_dir("/")
            .env("SLURM_ARRAY_TASK_ID", "1")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = || fs::read_to_string(&sessions).is_ok_and(|lines| lines.lines().count() > attempt);
        wait_for("the session", begun);
        Command::new("kill").args(["-s", signal, &task.id().to_string()]).status().unwrap();
        assert_eq!(task.wait().unwrap().code(), Some(status));
        let lines = fs::read_to_string(&sessions).unwrap();
        let line: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        assert!(line["to_step"].is_u64(), "ended without saving: {line}");
    }
    let listed = place.eqprop().args(&arguments[..7]).arg("--dry-run").output().unwrap().stdout;
    let listed = String::from_utf8(listed).unwrap();
    assert!(
        listed.lines().any(|line| line.starts_with("ep-1h-data-seed0 ") && line.contains(" waiting ")),
        "{listed}"
    );

    // No script can hold a path of two lines.
    let arguments = ["sweep", "--config", "s.toml", "--out", "a\nb", "--data-dir", &data, "--slurm"];
    let output = place.eqprop().args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_command_that_goes_on_can_be_pasted() {
    let place = Place::new();
    fs::create_dir(place.path(ODD)).unwrap();
    fs::rename(place.path("data"), place.path(ODD).join("data")).unwrap();
    let [runs, checkpoints, data] = ["runs", "c", "data"].map(|name| format!("{ODD}/{name}"));
    let child = place
        .process()
        .args([
            "train",
            "--algo",
            "ep",
            "--set",
            "network.dims=[64, 24, 4]",
            "--epochs",
            "100000",
            "--name",
            "r-data",
        ])
        .args(["--runs-dir", &runs, "--checkpoints-dir", &checkpoints, "--data-dir", &data])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the checkpoint", || place.path(&format!("{checkpoints}/r-data/last.safetensors")).is_file());
    sleep(Duration::from_millis(200));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    let (_, command) = said.split_once("to resume: ").unwrap_or_else(|| panic!("{said}"));
    let command = format!("{} --dry-run", command.trim());
    let pasted = Command::new("sh").current_dir(place.dir.path()).args(["-c", &command]).output().unwrap();
    let again = String::from_utf8(pasted.stderr).unwrap();
    assert!(pasted.status.success() && again.contains("resuming r-data"), "{command}: {again}");
}

/// Clocks that are set back by an hour whenever they are read: the wall clock, or all of them.
const CLOCKS: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    static long reads;
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_REALTIME || getenv("ALL_CLOCKS")) now->tv_sec += 360000000 - 3600 * ++reads;
    return failed;
}
"#;

#[test]
fn a_clock_that_is_set_back_makes_no_speed() {
    let place = Place::new();
    fs::write(place.path("clocks.c"), CLOCKS).unwrap();
    let compiled = Command::new("cc")
        .current_dir(place.dir.path())
        .args(["-shared", "-fPIC", "-o", "clocks.so", "clocks.c"])
        .status();
    assert!(compiled.unwrap().success());
    for (name, all) in [("wall-data", None), ("all-data", Some("1"))] {
        let mut command = place.eqprop();
        command.args(place.small_run("ep", &["--epochs", "3", "--name", name]));
        command.env("LD_PRELOAD", place.path("clocks.so"));
        if let Some(all) = all {
            command.env("ALL_CLOCKS", all);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let mut speeds = Vec::new();
        for line in place.read(&format!("runs/{name}/metrics.jsonl")).lines().skip(1) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            speeds.extend(line["speed/minibatches_per_second"].as_f64());
        }
        let shown = said.split_whitespace().collect::<Vec<_>>();
        let shown = shown
            .windows(2)
            .filter(|pair| pair[1] == "minibatches/s")
            .map(|pair| pair[0].parse::<f64>().unwrap());
        speeds.extend(shown);
        // No machine trains this network at a million minibatches a second.
        assert!(speeds.iter().all(|speed: &f64| (1.0..1e6).contains(speed)), "{speeds:?}: {said}");
        assert_eq!(speeds.len(), if all.is_some() { 0 } else { 6 }, "{said}");
    }
}

#[test]
fn make_hands_on_what_its_variables_hold() {
    let run = |arguments: &[&str]| {
        let output = Command::new("make")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            // Instead of cargo: prints one word per line.
            .args(["-s", "CARGO=printf '%s\\n'"])
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{arguments:?}: {said}");
        said.lines().map(str::to_string).collect::<Vec<_>>()
    };
    let makes = |arguments: &[&str], flags: &[&str]| {
        let said = run(arguments);
        assert!(said.windows(flags.len()).any(|words| words == flags), "{arguments:?}: {said:?}");
    };
    makes(&["train", &format!("DATA_DIR={ODD}")], &["--data-dir", ODD]);
    makes(&["train", "PSI=45; echo gone"], &["--psi", "45; echo gone"]);
    makes(&["train", "ALGO=ep' --epochs '1", "DEPTH=2"], &["--algo", "ep' --epochs '1", "--depth", "2"]);
    makes(&["train", "RESUME=a run", "SEED=1 2"], &["--resume", "a run", "--seed", "1 2"]);
    makes(&["eval", "CHECKPOINT=a b", "DEVICE=c d"], &["--checkpoint", "a b", "--device", "c d"]);
    makes(&["inspect", "CHECKPOINT=a;b"], &["inspect", "a;b"]);
    makes(&["tune", "BUDGET=1 h", "OUT=a b"], &["--budget", "1 h", "--out", "a b"]);
    makes(&["gdd", "FIG=5", "OUT=it's a"], &["--out", "it's a/fig5-cvf"]);
    makes(&["reproduce", "OUT=a b", "WORKERS=1 2"], &["--out", "a b", "--workers", "1 2"]);
    makes(&["reproduce", "SWEEP=quick;x"], &["--config", "configs/reproduce/quick;x.toml"]);
    // Flags are several words, and a home folder is one, as in a shell.
    makes(&["train", "ARGS=--json --threads 2"], &["--json", "--threads", "2"]);
    let home = format!("{}/data", std::env::var("HOME").unwrap());
    makes(&["train", "DATA_DIR=~/data"], &["--data-dir", &home]);
    // The last line is what the shell alone would have made of it.
    assert!(!run(&["config", "PSI=45; echo gone"]).contains(&"gone".to_string()));
}
