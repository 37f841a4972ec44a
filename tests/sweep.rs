//! Sweeps: whatever happens to the workers, every run is trained once and ends as it should.

mod common;

use common::{Place, metrics};
use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const SMALL: &str = r#"
title = "small"
set.network.dims = [64, 24, 4]
set.training.epochs = 12
set.training.checkpoint_every = 3
set.settle.steps = 200
grid.training.seed = [0, 1]

[[rows]]
config = "ep-1h"

[[rows]]
config = "cvf-1h"
grid.network.psi = [0, 90]

[[rows]]
config = "cvf-1h"
label = "wild"
set.learning.learning_rates = [1e30, 1e30]
set.learning.beta = 1e30
"#;

const RUNS: [&str; 6] = [
    "ep-1h-data-seed0",
    "ep-1h-data-seed1",
    "cvf-1h-psi0-partial-data-seed0",
    "cvf-1h-psi0-partial-data-seed1",
    "cvf-1h-psi90-partial-data-seed0",
    "cvf-1h-psi90-partial-data-seed1",
];

/// A place with the small sweep, whose last row must fail.
fn place() -> Place {
    let place = Place::new();
    fs::write(place.path("small.toml"), SMALL).unwrap();
    place
}

fn sweep(place: &Place, more: &[&str]) -> Command {
    let mut command = place.process();
    command.args(["sweep", "--config", "small.toml", "--out", "s", "--data-dir", "data"]).args(more);
    command
}

/// The runs that are listed in this state.
fn names(place: &Place, state: &str) -> BTreeSet<String> {
    let listed = sweep(place, &["--dry-run"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let words = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    words.filter(|words| words[1] == state).map(|words| words[0].to_string()).collect()
}

/// The report without anything that depends on the clock.
fn report(place: &Place) -> Vec<String> {
    place.eqprop().args(["report", "s"]).assert().success();
    let page = place.read("s/report.html");
    let (before, times) = page.split_once("<section id=\"times\">").unwrap();
    let (_, after) = times.split_once("</section>").unwrap();
    let tables = ["sweep", "runs", "curves"].map(|name| place.read(&format!("s/{name}.csv")));
    [before.to_string(), after.to_string()].into_iter().chain(tables).collect()
}

fn assert_complete(place: &Place) {
    let reasons: Vec<String> = (names(place, "failed").into_iter())
        .map(|name| format!("{name}: {}", place.read(&format!("s/failed/{name}"))))
        .collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert_eq!(names(place, "done"), RUNS.iter().map(|name| name.to_string()).collect());
    for name in names(place, "failed") {
        assert!(name.starts_with("cvf-1h-psi0-partial-data-wild-seed"), "{name}");
        assert!(place.read(&format!("s/failed/{name}")).contains("diverged"));
    }
}

#[test]
fn killed_five_times_a_sweep_ends_as_one_never_stopped() {
    let undisturbed = place();
    // Some runs fail, which is neither success nor failure of the sweep.
    assert_eq!(sweep(&undisturbed, &[]).stderr(Stdio::null()).status().unwrap().code(), Some(4));
    assert_complete(&undisturbed);

    // Killed whenever 8 more of the 78 epochs are recorded.
    let killed = place();
    let recorded = || -> usize {
        let lines = |run: &str| fs::read_to_string(killed.path(&format!("s/runs/{run}/metrics.jsonl")));
        RUNS.iter().map(|run| lines(run).map_or(0, |text| text.lines().count())).sum()
    };
    for kill in 1..=5 {
        let mut child = sweep(&killed, &[]).stderr(Stdio::null()).spawn().unwrap();
        while recorded() < 8 * kill {
            assert!(child.try_wait().unwrap().is_none(), "over before it was killed {kill} times");
            sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    sweep(&killed, &[]).stderr(Stdio::null()).status().unwrap();
    assert_complete(&killed);
    assert_eq!(report(&killed), report(&undisturbed));
    for run in RUNS {
        let weights =
            |place: &Place| fs::read(place.path(&format!("s/checkpoints/{run}/last.safetensors"))).unwrap();
        assert!(weights(&killed) == weights(&undisturbed), "{run}: other weights");
        let numbers = |place: &Place| metrics(&place.path(&format!("s/runs/{run}/metrics.jsonl")));
        assert_eq!(numbers(&killed), numbers(&undisturbed), "{run}");
    }
}

#[test]
fn interrupted_it_saves_its_runs_and_leaves_them_to_the_next() {
    let place = place();
    let long = ["--workers", "2", "--set", "training.epochs=100000"];
    let child = sweep(&place, &long).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(300);
    let begun = |name: &str| place.path(&format!("s/checkpoints/{name}/last.safetensors")).is_file();
    while !(begun(RUNS[0]) && begun(RUNS[2])) {
        assert!(Instant::now() < deadline, "the sweep does not begin");
        sleep(Duration::from_millis(10));
    }
    Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(names(&place, "running").is_empty() && names(&place, "done").is_empty());
    assert_eq!(names(&place, "waiting").len() + names(&place, "failed").len(), 8);
    assert!(begun(RUNS[0]) && begun(RUNS[2]));
}

/// The number of runs that the processes with this output have completed.
fn completed(outputs: &[Output]) -> usize {
    let said = outputs.iter().map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
    said.map(|said| {
        said.lines().filter(|line| line.starts_with('[') && line.contains(": test error")).count()
    })
    .sum()
}

/// Every epoch of every run is recorded once.
fn assert_recorded_once(place: &Place) {
    for run in RUNS {
        let epochs: Vec<u64> = (metrics(&place.path(&format!("s/runs/{run}/metrics.jsonl"))).iter())
            .map(|line| line["epoch"].as_u64().unwrap())
            .collect();
        assert_eq!(epochs, (0..=12).collect::<Vec<_>>(), "{run}");
    }
}

#[test]
fn processes_that_train_one_sweep_at_once_share_its_runs() {
    let place = place();
    let children = [(); 3].map(|()| {
        sweep(&place, &["--workers", "1"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    });
    let outputs = children.map(|child| child.wait_with_output().unwrap());
    for output in &outputs {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 4)), "{said}");
    }
    assert_complete(&place);
    assert_recorded_once(&place);
    assert_eq!(completed(&outputs), 6);
}

#[test]
fn the_tasks_of_a_job_array_train_each_its_run_and_go_on_when_requeued() {
    let place = place();
    sweep(&place, &["--slurm"]).stderr(Stdio::null()).status().unwrap();
    let script = place.read("s/slurm.sh");
    assert!(script.contains("#SBATCH --array=1-8\n"), "{script}");
    assert_eq!(names(&place, "waiting").len(), 8);
    let task = |index: usize| {
        let mut command = Command::new("bash");
        command.arg(place.path("s/slurm.sh")).env("SLURM_ARRAY_TASK_ID", index.to_string());
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    // One task is killed in the middle of its run, the first of the plan.
    let mut victim = task(1);
    let deadline = Instant::now() + Duration::from_secs(300);
    while !place.path(&format!("s/checkpoints/{}/last.safetensors", RUNS[0])).is_file() {
        assert!(Instant::now() < deadline, "the task does not begin");
        sleep(Duration::from_millis(2));
    }
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(names(&place, "waiting").contains(RUNS[0]), "{} was over already", RUNS[0]);

    // The first task comes twice, as where the system has not noticed that a task is gone: one waits for the other.
    let tasks: Vec<_> = (1..=8).chain([1]).map(task).collect();
    let outputs: Vec<_> = tasks.into_iter().map(|task| task.wait_with_output().unwrap()).collect();
    assert_complete(&place);
    assert_recorded_once(&place);
    assert_eq!(completed(&outputs), 6);
    let statuses: Vec<_> = outputs.iter().map(|output| output.status.code().unwrap()).collect();
    assert_eq!(statuses, [0, 0, 0, 4, 0, 0, 0, 4, 0]);
    // A task that comes too late finds nothing to do.
    for index in [1, 4] {
        let output = task(index).wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains(if index == 1 { "is done" } else { "has failed" }), "{said}");
    }
    let output = task(9).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--task 9") && said.contains("has 8 runs"), "{said}");

    // The indices are places in the plan, whatever part of it is asked for.
    let more = ["--slurm", "--set", "training.epochs=13", "--only", "cvf-1h-psi90-*"];
    sweep(&place, &more).stderr(Stdio::null()).status().unwrap();
    let script = place.read("s/slurm.sh");
    assert!(script.contains("#SBATCH --array=3,7\n"), "{script}");
}

#[test]
fn listing_touches_nothing_and_going_on_adds_only_what_is_new() {
    let place = place();
    let listed = sweep(&place, &["--dry-run"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for name in RUNS {
        assert!(listed.lines().any(|line| line.starts_with(name) && line.contains("12 epochs")), "{listed}");
    }
    assert!(listed.contains("8 runs; those to be done take about"), "{listed}");
    assert!(!place.path("s").exists());

    // All are planned, and only the chosen ones are trained.
    assert!(
        sweep(&place, &["--slurm", "--set", "training.epochs=1"])
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
    let some = ["--only", "ep-1h-*", "--set", "training.epochs=2"];
    assert!(sweep(&place, &some).stderr(Stdio::null()).status().unwrap().success());
    assert_eq!(names(&place, "done"), BTreeSet::from([RUNS[0].to_string(), RUNS[1].to_string()]));
    assert_eq!(names(&place, "waiting").len(), 6);
    let first = fs::read(place.path("s/runs/ep-1h-data-seed0/metrics.jsonl")).unwrap();
    // The same command again does nothing; more epochs resume; other science is refused.
    assert!(sweep(&place, &some).stderr(Stdio::null()).status().unwrap().success());
    assert_eq!(fs::read(place.path("s/runs/ep-1h-data-seed0/metrics.jsonl")).unwrap(), first);
    let more = ["--only", "ep-1h-*", "--set", "training.epochs=3"];
    assert!(sweep(&place, &more).stderr(Stdio::null()).status().unwrap().success());
    let longer = fs::read(place.path("s/runs/ep-1h-data-seed0/metrics.jsonl")).unwrap();
    assert!(longer.len() > first.len() && longer.starts_with(&first));
    let other = sweep(&place, &["--only", "ep-1h-*", "--set", "learning.beta=0.3"]).output().unwrap();
    let said = String::from_utf8(other.stderr).unwrap();
    assert_eq!(other.status.code(), Some(1));
    assert!(
        said.contains("run ep-1h-data-seed0 exists with other settings (learning.beta: 0.1 → 0.3)"),
        "{said}"
    );
}

/// The runs of such a sweep file in the order in which they are listed, or the error.
fn listing(place: &Place, text: &str) -> Result<Vec<String>, String> {
    fs::write(place.path("s.toml"), text).unwrap();
    let arguments = ["sweep", "--config", "s.toml", "--data-dir", "data", "--dry-run"];
    let output = place.eqprop().args(arguments).output().unwrap();
    if !output.status.success() {
        assert_eq!(output.status.code(), Some(2));
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let listed = String::from_utf8(output.stdout).unwrap();
    let runs = listed.lines().filter(|line| line.contains(" epochs "));
    Ok(runs.filter_map(|line| Some(line.split_whitespace().next()?.to_string())).collect())
}

#[test]
fn a_sweep_has_every_combination_once_row_by_row() {
    let text = r#"
        title = "t"
        grid.training.seed = [0, 1]
        [[rows]]
        config = "ep-1h"
        set.network.dims = ["auto", 24, "auto"]
        [[rows]]
        algo = "cvf"
        depth = 2
        set.settle.order = "synchronous"
        set.settle.solver = "iterate"
        set.network.dims = ["auto", 24, 24, "auto"]
        grid.network.psi = [0, 22.5]
        grid.learning.beta = [0.1]
        [[rows]]
        config = "cep-2h"
        set.network.dims = ["auto", 24, 24, "auto"]
    "#;
    let expected = [
        "ep-1h-data-seed0",
        "cvf-2h-psi0-partial-data-beta0.1-seed0",
        "cvf-2h-psi22.5-partial-data-beta0.1-seed0",
        "cep-2h-alternating-anderson-data-seed0",
        "ep-1h-data-seed1",
        "cvf-2h-psi0-partial-data-beta0.1-seed1",
        "cvf-2h-psi22.5-partial-data-beta0.1-seed1",
        "cep-2h-alternating-anderson-data-seed1",
    ];
    assert_eq!(listing(&Place::new(), text).unwrap(), expected);
}

#[test]
fn mistakes_in_a_sweep_file_name_the_row() {
    let place = Place::new();
    let refused = |text: &str, words: &[&str]| {
        let said = listing(&place, &format!("title = 't'\n{text}")).unwrap_err();
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    };
    let row = "[[rows]]\nconfig = 'ep-1h'\nset.network.dims = ['auto', 24, 'auto']\n";
    let twice = format!("{row}{row}set.training.epochs = 3\n");
    refused(&twice, &["s.toml row 2: its run ep-1h-data-seed0 has the name of another"]);
    let labelled = listing(&place, &format!("title = 't'\n{twice}label = 'short'"));
    assert_eq!(labelled.unwrap(), ["ep-1h-data-seed0", "ep-1h-data-short-seed0"]);
    refused(&format!("{row}set.learning.betta = 1"), &["s.toml row 1"]);
    refused(&format!("grid.training.seed = 3\n{row}"), &["grid.training.seed = 3", "expected a sequence"]);
    refused(&format!("grid.training.seed = []\n{row}"), &["grid key training.seed has no values"]);
}

#[test]
fn mistakes_are_one_paragraph() {
    let place = place();
    for (arguments, status, expected) in [
        (&["sweep", "--config", "nowhere.toml"][..], 1, "nowhere.toml: cannot be read as a sweep"),
        (&["sweep", "--task", "1", "--out", "nowhere"], 1, "nowhere: holds no sweep"),
        (&["report", "nowhere"], 1, "nowhere: holds no sweep"),
        (
            &["sweep", "--config", "small.toml", "--data-dir", "data", "--only", "x*"],
            2,
            "small.toml: --only leaves nothing to run",
        ),
    ] {
        let output = place.eqprop().args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(said.contains(expected) && !said.contains("panicked"), "{said}");
    }
    // Keys and flags of earlier versions are refused with their replacements.
    let config = ["--config", "small.toml", "--data-dir", "data"];
    for (arguments, expected) in [
        (&["--worker", "--out", "nowhere"][..], "--task N"),
        (&[&config[..], &["--together"]].concat(), "leave it out"),
        (&[&config[..], &["--set", "training.replicas=3"]].concat(), "grid.training.seed"),
    ] {
        let output = place.eqprop().arg("sweep").args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
    assert!(!place.path("sweeps").exists() && !place.path("nowhere").exists());
}

#[test]
fn a_run_that_another_process_has_is_left_to_it_and_one_that_cannot_be_is_marked_failed() {
    let place = place();
    assert!(sweep(&place, &["--slurm", "--only", "ep-*"]).stderr(Stdio::null()).status().unwrap().success());
    // Another process has the first run; the second has lost its checkpoints.
    for folder in ["runs", "checkpoints"] {
        fs::create_dir_all(place.path(&format!("s/{folder}/{}", RUNS[0]))).unwrap();
    }
    let held = fs::File::create(place.path(&format!("s/runs/{}/lock", RUNS[0]))).unwrap();
    held.try_lock().unwrap();
    let lost = place.path(&format!("s/runs/{}", RUNS[1]));
    fs::create_dir_all(&lost).unwrap();
    fs::write(lost.join("metrics.jsonl"), "{\"epoch\":5}\n").unwrap();
    let train = || sweep(&place, &["--only", "ep-*"]).output().unwrap();
    assert_eq!(names(&place, "running"), BTreeSet::from([RUNS[0].to_string()]));
    let output = train();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("another process is at work there"), "{said}");
    assert!(said.contains("1 left, 1 of them with other processes"), "{said}");
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert_eq!(names(&place, "failed"), BTreeSet::from([RUNS[1].to_string()]));
    assert!(place.read(&format!("s/failed/{}", RUNS[1])).contains("has recorded 5 epochs"), "{said}");
    assert_eq!(names(&place, "running"), BTreeSet::from([RUNS[0].to_string()]));
    drop(held);
    assert!(train().status.success());
    assert_eq!(names(&place, "done"), BTreeSet::from([RUNS[0].to_string()]));
    // A failed run is tried once more only where that is asked for.
    assert_eq!(names(&place, "failed"), BTreeSet::from([RUNS[1].to_string()]));
    fs::remove_dir_all(&lost).unwrap();
    let again = sweep(&place, &["--only", "ep-*", "--retry-failed"]).stderr(Stdio::null()).status().unwrap();
    assert!(again.success());
    assert_eq!(names(&place, "done").len(), 2);
}

#[test]
fn two_that_plan_at_once_lose_no_run() {
    let place = place();
    let rows: Vec<_> = [
        "ep-1h-data-seed0",
        "ep-1h-data-seed1",
        "cvf-1h-psi0-partial-data-seed0",
        "cvf-1h-psi90-partial-data-seed1",
    ]
    .map(|name| {
        let mut command = sweep(&place, &["--slurm", "--only", name]);
        command.stderr(Stdio::piped()).spawn().unwrap()
    })
    .into_iter()
    .collect();
    for child in rows {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let plan: Vec<serde_json::Value> = serde_json::from_str(&place.read("s/plan.json")).unwrap();
    assert_eq!((plan.len(), names(&place, "waiting").len()), (4, 4), "{plan:?}");
}

#[test]
fn what_is_not_science_can_be_changed_and_another_runs_checkpoint_is_no_end() {
    let place = place();
    let plan = |more: &[&str]| {
        let arguments = [&["--slurm", "--only", "ep-*"], more].concat();
        assert!(sweep(&place, &arguments).stderr(Stdio::null()).status().unwrap().success());
        place.read(&format!("s/configs/{}.toml", RUNS[0]))
    };
    assert!(plan(&[]).contains("checkpoint_every = 3 "));
    assert!(plan(&["--set", "training.checkpoint_every=5"]).contains("checkpoint_every = 5 "));
    assert!(sweep(&place, &["--only", "ep-*"]).stderr(Stdio::null()).status().unwrap().success());
    assert_eq!(names(&place, "done").len(), 2);
    // The finished files of one run in the place of another's.
    let folder = |kind: &str, run: &str| place.path(&format!("s/{kind}/{run}"));
    fs::remove_dir_all(folder("runs", RUNS[0])).unwrap();
    let last = |run: &str| folder("checkpoints", run).join("last.safetensors");
    fs::copy(last(RUNS[1]), last(RUNS[0])).unwrap();
    assert_eq!(names(&place, "done"), BTreeSet::from([RUNS[1].to_string()]));
    let output = sweep(&place, &["--only", "ep-*"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(place.read(&format!("s/failed/{}", RUNS[0])).contains("cannot be resumed with other science"));
}

const ROW: &str = "[[rows]]\nconfig = 'ep-1h'\nset.network.dims = ['auto', 24, 'auto']\n";

#[test]
fn a_key_has_one_value_in_a_run() {
    let place = Place::new();
    let refused = |text: &str, words: &[&str]| {
        let said = listing(&place, &format!("title = 't'\n{text}")).unwrap_err();
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
    };
    let beta = "learning.beta = [0.1, 0.2]\n";
    refused(
        &format!("grid.{beta}{ROW}grid.{beta}"),
        &["s.toml row 1", "learning.beta in grid", "grid of the row"],
    );
    refused(&format!("set.learning.beta = 0.3\ngrid.{beta}{ROW}"), &["learning.beta in set", "in grid"]);
    refused(
        &format!("{ROW}set.learning.beta = 0.3\ngrid.{beta}"),
        &["in set of the row", "in grid of the row"],
    );
    refused(&format!("grid.{beta}{ROW}set.learning.beta = 0.3\n"), &["in set of the row", "in grid are"]);
    // The same under another name.
    refused(
        &format!("grid.settle.steps = [9]\n{ROW}set.learning.T = 9\n"),
        &["settle.steps in grid", "learning.T in set"],
    );
    refused(&format!("grid.settle.steps = [8]\ngrid.learning.T = [9]\n{ROW}"), &["learning.T in grid"]);
    // A row's own value beats that of all rows.
    let own =
        format!("title = 't'\nset.learning.nudging = 'random'\n{ROW}set.learning.nudging = 'centered'\n");
    assert_eq!(listing(&place, &own).unwrap(), ["ep-1h-centered-data-seed0"]);

    fs::write(place.path("s.toml"), format!("title = 't'\ngrid.training.seed = [0, 1]\n{ROW}")).unwrap();
    let listed = |more: &[&str], variable: Option<(&str, &str)>| {
        let arguments = ["sweep", "--config", "s.toml", "--data-dir", "data", "--dry-run"];
        let output = place.eqprop().args(arguments).args(more).envs(variable).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for (more, variable) in
        [(&["--set", "training.seed=7"][..], None), (&[], Some(("EQPROP_TRAINING_SEED", "7")))]
    {
        let (status, said) = listed(more, variable);
        let given = variable.map_or("--set training.seed=7", |(name, _)| name);
        assert_eq!(status, 2, "{said}");
        assert!(said.contains(&format!("eqprop: {given}: s.toml row 1 varies training.seed")), "{said}");
        assert!(said.contains("--only"), "{said}");
    }
}

#[test]
fn what_varies_plays_a_part() {
    let place = Place::new();
    let said = listing(&place, &format!("title = 't'\n{ROW}grid.settle.window = [2, 4]\n")).unwrap_err();
    assert!(said.contains("s.toml row 1: settle.window has no effect"), "{said}");
    let accelerated =
        format!("title = 't'\n{ROW}set.settle.solver = 'anderson'\ngrid.settle.window = [2, 4]\n");
    assert_eq!(listing(&place, &accelerated).unwrap().len(), 2);
}

#[test]
fn a_sweep_file_sets_less_than_the_environment_and_that_less_than_flags() {
    let place = Place::new();
    fs::write(place.path("s.toml"), format!("title = 't'\nset.training.epochs = 2\n{ROW}")).unwrap();
    let epochs = |more: &[&str], variable: Option<(&str, &str)>| {
        let arguments = ["sweep", "--config", "s.toml", "--data-dir", "data", "--dry-run"];
        let output = place.eqprop().args(arguments).args(more).envs(variable).output().unwrap();
        let listed = String::from_utf8(output.stdout).unwrap();
        let (before, _) = listed.split_once(" epochs").unwrap();
        before.split_whitespace().last().unwrap().to_string()
    };
    let five = Some(("EQPROP_TRAINING_EPOCHS", "5"));
    assert_eq!([epochs(&[], None), epochs(&[], five)], ["2", "5"]);
    assert_eq!(epochs(&["--set", "training.epochs=7"], five), "7");
}

#[test]
fn parts_of_a_data_set_are_kept_as_long_as_a_run_has_them() {
    let place = Place::new();
    let resources = eqprop::run::Resources::new(Some(place.path("data")));
    let of = |limit: i64| {
        let config = eqprop::Config::preset(eqprop::Rule::EP, [64, 24, 4]).unwrap();
        resources.dataset(&config.with("training.limit_train", limit).unwrap().training).unwrap()
    };
    let (first, again) = (of(10), of(10));
    assert!(std::sync::Arc::ptr_eq(&first, &again));
    assert_eq!((first.train.images.len(), first.train.labels.len()), (10 * 64, 10));
    assert!(first.train.images.capacity() < 11 * 64, "the rest of the set is not kept behind it");
    let left = std::sync::Arc::downgrade(&first);
    drop((first, again));
    assert!(left.upgrade().is_none());
    assert_eq!(of(20).train.images[..10 * 64], of(10).train.images);
    // A set that is no larger than the limit is used as it is.
    assert!(std::sync::Arc::ptr_eq(&of(1000), &of(2000)));
}

/// The name of the run of `ROW`.
const ROWS_RUN: &str = "ep-1h-data-seed0";

#[test]
fn a_sweep_writes_into_folders_of_its_own_only() {
    let make = |epochs: usize| {
        let place = Place::new();
        fs::write(place.path("small.toml"), format!("title = 't'\nset.training.epochs = {epochs}\n{ROW}"))
            .unwrap();
        // A plan without any run yet.
        let planned = sweep(&place, &["--slurm"]).output().unwrap();
        assert!(planned.status.success(), "{}", String::from_utf8_lossy(&planned.stderr));
        fs::create_dir_all(place.path(&format!("elsewhere/{ROWS_RUN}"))).unwrap();
        fs::write(place.path(&format!("elsewhere/{ROWS_RUN}/mine.txt")), "mine").unwrap();
        place
    };
    let link = |place: &Place, to: &str, at: &str| {
        std::os::unix::fs::symlink(place.path(to), place.path(at)).unwrap();
    };
    let elsewhere = |place: &Place| -> Vec<_> {
        place.everything().into_iter().filter(|(path, _)| path.starts_with(place.path("elsewhere"))).collect()
    };
    let task = |place: &Place| {
        let output = place
            .eqprop()
            .args(["sweep", "--task", "1", "--out", "s", "--data-dir", "data"])
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for folder in ["runs", "checkpoints", "failed", "configs", "sweeps"] {
        let place = make(1);
        let _ = fs::remove_dir_all(place.path(&format!("s/{folder}")));
        link(&place, "elsewhere", &format!("s/{folder}"));
        let before = elsewhere(&place);
        let again = sweep(&place, &["--workers", "1"]).output().unwrap();
        let again = (again.status.code().unwrap(), String::from_utf8(again.stderr).unwrap());
        for (status, said) in [task(&place), again] {
            assert_eq!(status, 2, "{folder}: {said}");
            assert!(said.contains(&format!("s/{folder}: is a link")), "{folder}: {said}");
        }
        assert_eq!(elsewhere(&place), before, "{folder}");
    }
    for (at, to) in [
        (format!("s/runs/{ROWS_RUN}"), format!("elsewhere/{ROWS_RUN}")),
        (format!("s/checkpoints/{ROWS_RUN}"), format!("elsewhere/{ROWS_RUN}")),
        (format!("s/runs/{ROWS_RUN}/metrics.jsonl"), format!("elsewhere/{ROWS_RUN}/mine.txt")),
        (format!("s/checkpoints/{ROWS_RUN}/last.safetensors"), format!("elsewhere/{ROWS_RUN}/new")),
    ] {
        let place = make(1);
        fs::create_dir_all(place.path(&at).parent().unwrap()).unwrap();
        link(&place, &to, &at);
        let before = elsewhere(&place);
        let (status, said) = task(&place);
        assert_eq!(status, 4, "{at}: {said}");
        assert!(said.contains(&at) && said.contains("is a link"), "{at}: {said}");
        assert_eq!(elsewhere(&place), before, "{at}");
    }
    // Nor is the user's own folder moved aside if it has the name of a run.
    let place = make(1);
    fs::create_dir_all(place.path("s/runs")).unwrap();
    fs::rename(place.path(&format!("elsewhere/{ROWS_RUN}")), place.path(&format!("s/runs/{ROWS_RUN}")))
        .unwrap();
    let (status, said) = task(&place);
    assert_eq!(status, 4, "{said}");
    assert!(said.contains("is not written by a run"), "{said}");
    assert_eq!(place.read(&format!("s/runs/{ROWS_RUN}/mine.txt")), "mine");
}

#[test]
fn a_plan_replaces_nothing_that_it_has_not_made() {
    let place = Place::new();
    fs::write(place.path("small.toml"), format!("title = 't'\nset.training.epochs = 1\n{ROW}")).unwrap();
    let plan = || {
        let output = sweep(&place, &["--slurm"]).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for folder in ["configs", "sweeps"] {
        fs::create_dir_all(place.path(&format!("s/{folder}"))).unwrap();
    }
    for file in [&format!("s/configs/{ROWS_RUN}.toml")[..], "s/sweeps/small.toml"] {
        fs::write(place.path(file), "# my own\n").unwrap();
        let before = place.everything();
        let (status, said) = plan();
        assert_eq!(status, 2, "{said}");
        assert!(said.contains(file), "{file}: {said}");
        assert_eq!(place.everything(), before, "{file}");
        fs::remove_file(place.path(file)).unwrap();
    }
    fs::write(place.path("s/slurm.sh"), "#!/bin/bash\n# my own; it is\n").unwrap();
    let (status, said) = plan();
    assert!(status == 2 && said.contains("s/slurm.sh: already exists"), "{said}");
    fs::remove_file(place.path("s/slurm.sh")).unwrap();
    assert_eq!(plan().0, 0);
    // Files made by a plan may be replaced by the next; files that a killed one has left half written are removed.
    fs::write(place.path("s/.eqprop-abc123.tmp"), "half").unwrap();
    fs::write(place.path("s/.eqprop-mine"), "mine").unwrap();
    fs::write(place.path("small.toml"), format!("title = 't'\nset.training.epochs = 2\n{ROW}")).unwrap();
    let (status, said) = plan();
    assert_eq!(status, 0, "{said}");
    assert!(place.read(&format!("s/configs/{ROWS_RUN}.toml")).contains("epochs = 2"));
    assert!(place.read("s/sweeps/small.toml").contains("epochs = 2"));
    assert!(!place.path("s/.eqprop-abc123.tmp").exists() && place.path("s/.eqprop-mine").exists());
}
