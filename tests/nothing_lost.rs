//! Files of a run, or of anyone, are never deleted, and two processes never write one run.

mod common;

use common::{Place, metrics};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const LAST: &str = "checkpoints/r-data/last.safetensors";
const METRICS: &str = "runs/r-data/metrics.jsonl";

/// A small run named `r-data`, asked to resume by itself.
fn auto<'a>(place: &Place, more: &[&'a str]) -> Vec<&'a str> {
    place.small_run("cep", &[&["--name", "r-data", "--resume", "auto"], more].concat())
}

fn run(place: &Place, arguments: &[&str]) -> (i32, String) {
    let output = place.eqprop().args(arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A place where the run has done two epochs, and a user has left a note with it.
fn place() -> Place {
    let place = Place::new();
    assert_eq!(run(&place, &auto(&place, &["--epochs", "2"])).0, 0);
    fs::write(place.path("runs/r-data/note.txt"), "mine").unwrap();
    place
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while !there() {
        assert!(Instant::now() < deadline, "{what} does not come");
        sleep(Duration::from_millis(10));
    }
}

fn signal(child: &Child, name: &str) {
    Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_run_whose_checkpoints_are_gone_is_not_begun_anew_over_itself() {
    let place = place();
    let before = place.read(METRICS);
    let (status, complaint) =
        run(&place, &auto(&place, &["--epochs", "2", "--checkpoints-dir", "chekpoints"]));
    assert_eq!(status, 1, "{complaint}");
    assert!(
        complaint.contains("has recorded 2 epochs") && complaint.contains("--checkpoints-dir"),
        "{complaint}"
    );
    fs::rename(place.path("checkpoints"), place.path("purged")).unwrap();
    assert_eq!(run(&place, &auto(&place, &["--epochs", "2"])).0, 1);
    assert_eq!((place.read(METRICS), place.read("runs/r-data/note.txt")), (before, "mine".into()));

    // With the best checkpoint only, that stays too.
    fs::create_dir_all(place.path("checkpoints/r-data")).unwrap();
    let best = place.path("checkpoints/r-data/best.safetensors");
    fs::copy(place.path("purged/r-data/last.safetensors"), &best).unwrap();
    let bytes = fs::read(&best).unwrap();
    let (status, complaint) = run(&place, &auto(&place, &["--epochs", "4"]));
    assert_eq!(status, 1, "{complaint}");
    assert!(complaint.contains("--resume checkpoints/r-data/best.safetensors"), "{complaint}");
    assert!(fs::read(&best).unwrap() == bytes);
    // The command in the message works.
    let resume = ["train", "--threads", "1", "--data-dir", "data", "--epochs", "4", "--resume"];
    assert_eq!(run(&place, &[&resume[..], &["checkpoints/r-data/best.safetensors"]].concat()).0, 0);
    assert_eq!((metrics(&place.path(METRICS)).len(), place.read("runs/r-data/note.txt")), (5, "mine".into()));
}

#[test]
fn what_a_run_left_before_its_first_checkpoint_is_moved_aside() {
    let place = Place::new();
    for folder in ["runs/r-data", "runs/r-data.1", "checkpoints/r-data"] {
        fs::create_dir_all(place.path(folder)).unwrap();
        fs::write(place.path(&format!("{folder}/note.txt")), folder).unwrap();
    }
    let (status, said) = run(&place, &auto(&place, &["--epochs", "1"]));
    assert_eq!(status, 0, "{said}");
    assert!(
        said.contains("it is now runs/r-data.2") && said.contains("it is now checkpoints/r-data.2"),
        "{said}"
    );
    for (file, text) in [
        ("runs/r-data.1/note.txt", "runs/r-data.1"),
        ("runs/r-data.2/note.txt", "runs/r-data"),
        ("checkpoints/r-data.2/note.txt", "checkpoints/r-data"),
    ] {
        assert_eq!(place.read(file), text);
    }
    assert_eq!(metrics(&place.path(METRICS)).len(), 2);
}

#[test]
fn files_half_written_when_killed_are_cleaned_up_and_no_others() {
    let place = place();
    let unfinished = |folder: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(place.path(folder)).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "tmp")).collect()
    };
    // Killed until a save was under way.
    let more = ["--epochs", "100000", "--set", "training.checkpoint_every=1"];
    for attempt in 0u64.. {
        assert!(attempt < 300, "never killed while it saved");
        let mut child = place.process().args(auto(&place, &more)).stderr(Stdio::null()).spawn().unwrap();
        sleep(Duration::from_millis(150 + attempt * 7 % 50));
        child.kill().unwrap();
        child.wait().unwrap();
        if !unfinished("checkpoints/r-data").is_empty() {
            break;
        }
    }
    let others = [".eqprop-mine", ".eqprop-a_b.tmp", ".tmpAbCdEf.txt", "note.tmp"];
    for name in others {
        fs::write(place.path(&format!("checkpoints/r-data/{name}")), "mine").unwrap();
    }
    let epochs = (metrics(&place.path(METRICS)).len() + 1).to_string();
    let (status, said) = run(&place, &auto(&place, &["--epochs", &epochs]));
    assert_eq!(status, 0, "{said}");
    let left = unfinished("checkpoints/r-data");
    assert_eq!((left.len(), unfinished("runs/r-data").len()), (2, 0), "{left:?}");
    for name in others {
        assert_eq!(place.read(&format!("checkpoints/r-data/{name}")), "mine");
    }
}

#[test]
fn a_cut_last_checkpoint_gives_way_to_the_newest_whole_one() {
    let undisturbed = Place::new();
    assert_eq!(run(&undisturbed, &auto(&undisturbed, &["--epochs", "3"])).0, 0);
    let expected = fs::read(undisturbed.path(LAST)).unwrap();
    for by_name in [false, true] {
        let place = place();
        let last = place.path(LAST);
        let bytes = fs::read(&last).unwrap();
        // In place, so that the numbered one of the same step, the same file, is cut too.
        fs::write(&last, &bytes[..bytes.len() / 2]).unwrap();
        let file = ["train", "--threads", "1", "--data-dir", "data", "--epochs", "3", "--resume", LAST];
        let (status, said) = match by_name {
            true => run(&place, &file),
            false => run(&place, &auto(&place, &["--epochs", "3"])),
        };
        assert_eq!(status, 0, "{said}");
        assert!(said.contains("resuming from checkpoints/r-data/step-00000021.safetensors"), "{said}");
        assert!(fs::read(&last).unwrap() == expected, "other weights than those of a run never stopped");
        let epochs: Vec<u64> =
            metrics(&place.path(METRICS)).iter().map(|line| line["epoch"].as_u64().unwrap()).collect();
        assert_eq!(epochs, [0, 1, 2, 3]);
    }
}

#[test]
fn resuming_a_finished_run_by_itself_is_no_failure() {
    let place = place();
    let before = fs::read(place.path(LAST)).unwrap();
    let (status, said) = run(&place, &auto(&place, &["--epochs", "2"]));
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("already completed 2 of 2 epochs"), "{said}");
    assert!(fs::read(place.path(LAST)).unwrap() == before);
    // But other settings are still refused.
    let (status, said) = run(&place, &auto(&place, &["--epochs", "2", "--limit-train", "50"]));
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("training.limit_train: not set → 50"), "{said}");
}

#[test]
fn a_run_has_one_process_and_the_second_says_who_that_is() {
    let place = place();
    let long = auto(&place, &["--epochs", "100000"]);
    let mut first = place.process().args(&long).stderr(Stdio::null()).spawn().unwrap();
    wait_for("an epoch", || metrics_so_far(&place) > 3);
    let file = ["train", "--threads", "1", "--data-dir", "data", "--epochs", "100000", "--resume", LAST];
    for second in [&long[..], &file] {
        let (status, said) = run(&place, second);
        assert_eq!(status, 1, "{said}");
        let holder = format!("process {} on ", first.id());
        assert!(said.contains(&holder) && said.contains("r-data"), "{said}");
    }
    first.kill().unwrap();
    first.wait().unwrap();
    // Nothing of the first stands in the way when it is gone.
    let epochs = (metrics_so_far(&place) + 1).to_string();
    let (status, said) = run(&place, &auto(&place, &["--epochs", &epochs]));
    assert_eq!(status, 0, "{said}");

    // Of two that begin at once exactly one trains.
    let place = Place::new();
    let begin = || {
        let mut command = place.process();
        command.args(auto(&place, &["--epochs", "40"])).stderr(Stdio::piped()).spawn().unwrap()
    };
    let outputs: Vec<Output> =
        [begin(), begin()].map(|child| child.wait_with_output().unwrap()).into_iter().collect();
    let statuses: Vec<i32> = outputs.iter().map(|output| output.status.code().unwrap()).collect();
    assert!(statuses == [0, 1] || statuses == [1, 0], "{}\n{}", words(&outputs[0]), words(&outputs[1]));
    let epochs: Vec<u64> =
        metrics(&place.path(METRICS)).iter().map(|line| line["epoch"].as_u64().unwrap()).collect();
    assert_eq!(epochs, (0..=40).collect::<Vec<_>>());
}

/// Whole lines of the run's metrics, which another process is writing.
fn metrics_so_far(place: &Place) -> usize {
    fs::read_to_string(place.path(METRICS)).map_or(0, |text| text.matches('\n').count())
}

#[test]
fn signals_are_heard_while_angles_are_measured() {
    // Before training, by angles that take for ever.
    let more = ["--epochs", "2", "--set", "training.angle_minibatches=10000"];
    for (name, status) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        let place = Place::new();
        let child = place.process().args(auto(&place, &more)).stderr(Stdio::piped()).spawn().unwrap();
        wait_for("a checkpoint", || place.path(LAST).is_file());
        sleep(Duration::from_millis(300));
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{}", words(&output));
        assert!(
            words(&output).contains("train --resume checkpoints/r-data/last.safetensors"),
            "{}",
            words(&output)
        );
    }

    // After the first epoch, which is closed when the run resumes.
    let every = ["--set", "training.angle_every=1", "--set", "training.angle_minibatches=960"];
    let more = [&["--epochs", "2"], &every[..]].concat();
    let expected = Place::new();
    assert_eq!(run(&expected, &auto(&expected, &more)).0, 0);
    let place = Place::new();
    let child = place.process().args(auto(&place, &more)).stderr(Stdio::piped()).spawn().unwrap();
    // All 12 minibatches of the first epoch are done when the 9th has been saved and some time has passed.
    wait_for("the first epoch", || place.path("checkpoints/r-data/step-00000009.safetensors").is_file());
    sleep(Duration::from_millis(300));
    signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", words(&output));
    assert!(words(&output).contains("after 0 epochs and 12 minibatches"), "{}", words(&output));
    assert_eq!(run(&place, &auto(&place, &more)).0, 0);
    assert!(fs::read(place.path(LAST)).unwrap() == fs::read(expected.path(LAST)).unwrap());
    assert_eq!(metrics(&place.path(METRICS)), metrics(&expected.path(METRICS)));
}

#[test]
fn a_second_signal_ends_it_at_once_with_a_word() {
    let place = Place::new();
    // A process that waits for the end of its batch, which takes a while, saves and ends with 143.
    let steps = ["--set", "settle.steps=100000", "--set", "network.dims=[64, 4000, 4]"];
    let slow = [&["--epochs", "2", "--set", "training.angle_minibatches=0"][..], &steps].concat();
    let child = place.process().args(auto(&place, &slow)).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a checkpoint", || place.path(LAST).is_file());
    signal(&child, "TERM");
    sleep(Duration::from_millis(300));
    signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert!(words(&output).contains("stopped at once by a second signal"), "{}", words(&output));
}

#[test]
fn a_warning_signal_is_no_first_and_no_second_one() {
    let place = Place::new();
    // One batch takes longer than the test.
    let steps = ["--set", "settle.steps=100000", "--set", "network.dims=[64, 4000, 4]"];
    let slow = [&["--epochs", "2", "--set", "training.angle_minibatches=0"][..], &steps].concat();
    let mut child = place.process().args(auto(&place, &slow)).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a checkpoint", || place.path(LAST).is_file());
    // As the system sends it, with time to be heard each time.
    for word in ["USR1", "XCPU", "XCPU", "TERM", "XCPU"] {
        signal(&child, word);
        sleep(Duration::from_millis(200));
    }
    assert!(child.try_wait().unwrap().is_none(), "ended before it had saved");
    signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
}

/// A file system whose lock service is not there: NFS without `rpc.statd`.
#[cfg(target_os = "linux")]
const NO_LOCKS: &str = r#"
#include <errno.h>
#include <sys/file.h>
int flock(int file, int operation) {
    (void)file;
    if (operation & LOCK_UN) return 0;
    errno = ENOLCK;
    return -1;
}
"#;

#[test]
#[cfg(target_os = "linux")]
fn where_the_file_system_has_no_locks_a_run_warns_and_goes_on() {
    let place = Place::new();
    fs::write(place.path("locks.c"), NO_LOCKS).unwrap();
    let compiler = ["-shared", "-fPIC", "-o", "locks.so", "locks.c"];
    match Command::new("cc").current_dir(place.dir.path()).args(compiler).status() {
        Ok(status) => assert!(status.success()),
        Err(_) => return common::skip("there is no cc"),
    }
    let sweep =
        "title = 's'\nset.network.dims = [64, 24, 4]\nset.training.epochs = 1\n[[rows]]\nconfig = 'ep-1h'\n";
    fs::write(place.path("s.toml"), sweep).unwrap();
    let data = ["--data-dir", "data"];
    for arguments in [
        auto(&place, &["--epochs", "1"]),
        [&["train", "--resume", "r-data", "--epochs", "2", "--threads", "1"], &data[..]].concat(),
        [&["sweep", "--config", "s.toml", "--out", "s", "--workers", "1"], &data[..]].concat(),
    ] {
        let output =
            place.eqprop().args(&arguments).env("LD_PRELOAD", place.path("locks.so")).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        assert!(said.contains("this file system has no locks ("), "{said}");
    }
    assert_eq!(metrics(&place.path(METRICS)).len(), 3);
    assert!(place.path("s/checkpoints/ep-1h-data-seed0/last.safetensors").is_file());
}

#[test]
fn a_hangup_that_is_ignored_stays_so() {
    let place = Place::new();
    let program = assert_cmd::cargo::cargo_bin!("eqprop");
    let mut command = Command::new("nohup");
    command.current_dir(place.dir.path()).arg(program).args(auto(&place, &["--epochs", "100000"]));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("an epoch", || metrics_so_far(&place) > 1);
    signal(&child, "HUP");
    let lines = metrics_so_far(&place);
    wait_for("an epoch after the hangup", || metrics_so_far(&place) > lines + 2);
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_finished_run_whose_last_checkpoint_is_cut_gets_it_back() {
    let place = place();
    let last = place.path(LAST);
    let whole = fs::read(&last).unwrap();
    for cut in [true, false] {
        // The last and the numbered one are one file.
        fs::remove_file(&last).unwrap();
        if cut {
            fs::write(&last, &whole[..60]).unwrap();
        }
        let (status, said) = run(&place, &auto(&place, &["--epochs", "2", "--dry-run"]));
        assert_eq!(status, 0, "{said}");
        assert_eq!(last.exists(), cut, "a dry run writes nothing");
        let (status, said) = run(&place, &auto(&place, &["--epochs", "2"]));
        assert_eq!(status, 0, "{said}");
        assert!(said.contains("already completed 2 of 2 epochs"), "{said}");
        assert!(fs::read(&last).unwrap() == whole);
    }
}

#[test]
fn lines_of_metrics_are_neither_joined_nor_lost() {
    let place = place();
    let metrics_file = place.path(METRICS);
    let text = fs::read_to_string(&metrics_file).unwrap();
    // An editor has left out the last end of line, and somebody has noted something.
    fs::write(&metrics_file, format!("my note\n{}", text.trim_end())).unwrap();
    let (status, said) = run(&place, &auto(&place, &["--epochs", "3"]));
    assert_eq!(status, 0, "{said}");
    let epochs: Vec<u64> =
        metrics(&metrics_file).iter().map(|line| line["epoch"].as_u64().unwrap()).collect();
    assert_eq!(epochs, [0, 1, 2, 3]);
    assert!(said.contains("metrics.jsonl.1"), "{said}");
    assert!(place.read(&format!("{METRICS}.1")).starts_with("my note\n"));
}

#[test]
fn a_file_called_lock_that_is_somebodys_own_stays_as_it_is() {
    let place = Place::new();
    fs::create_dir_all(place.path("runs/r-data")).unwrap();
    let lock = place.path("runs/r-data/lock");
    fs::write(&lock, "my precious\n").unwrap();
    let (status, said) = run(&place, &auto(&place, &["--epochs", "1"]));
    assert_eq!((status, said.contains("runs/r-data/lock: is not a lock")), (1, true), "{said}");
    assert_eq!(fs::read(&lock).unwrap(), b"my precious\n");
    // Nor if a link leads to it.
    fs::rename(&lock, place.path("precious")).unwrap();
    std::os::unix::fs::symlink(place.path("precious"), &lock).unwrap();
    let (status, said) = run(&place, &auto(&place, &["--epochs", "1"]));
    assert_eq!((status, said.contains("runs/r-data/lock: is not a lock")), (1, true), "{said}");
    assert_eq!(place.read("precious"), "my precious\n");
}

#[test]
fn runs_and_checkpoints_in_one_folder_are_refused() {
    let place = Place::new();
    let one = ["--epochs", "1", "--name", "s", "--runs-dir", "x", "--checkpoints-dir", "./x"];
    let (status, said) = run(&place, &place.small_run("ep", &one));
    assert_eq!((status, said.contains("--checkpoints-dir are one folder")), (2, true), "{said}");
    assert!(!place.path("x").exists());
}

#[test]
fn a_folder_that_takes_no_checkpoint_is_found_before_the_first_epoch() {
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    let place = place();
    let before = place.read(METRICS);
    // As root everything can be written: somebody else resumes the run.
    let nobody = (fs::metadata(place.path("data")).unwrap(), 65534);
    let is_root = std::os::unix::fs::MetadataExt::uid(&nobody.0) == 0;
    if is_root {
        fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        let mut paths: Vec<PathBuf> = place.everything().into_iter().map(|(path, _)| path).collect();
        for folder in ["runs", "checkpoints"] {
            let own = [folder.to_string(), format!("{folder}/r-data"), format!("{folder}/r-data/lock")];
            paths.extend(own.map(|path| place.path(&path)));
        }
        paths.iter().for_each(|path| chown(path, Some(nobody.1), Some(nobody.1)).unwrap());
    }
    for folder in ["checkpoints/r-data", "runs/r-data"] {
        fs::set_permissions(place.path(folder), fs::Permissions::from_mode(0o555)).unwrap();
        let mut command = place.process();
        command.args(auto(&place, &["--epochs", "3"]));
        if is_root {
            command.uid(nobody.1).gid(nobody.1);
        }
        let output = command.output().unwrap();
        fs::set_permissions(place.path(folder), fs::Permissions::from_mode(0o755)).unwrap();
        let said = words(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("{folder}: takes no new file")), "{said}");
        assert!(!said.contains("epoch 3"), "{said}");
        assert_eq!(place.read(METRICS), before);
    }
}

/// The epochs of the lines of the run's metrics, in order.
fn epochs(place: &Place) -> Vec<u64> {
    metrics(&place.path(METRICS)).iter().map(|line| line["epoch"].as_u64().unwrap()).collect()
}

#[test]
fn lines_of_metrics_that_are_missing_or_doubled_are_said() {
    let place = Place::new();
    assert_eq!(run(&place, &auto(&place, &["--epochs", "4"])).0, 0);
    let text = place.read(METRICS);
    let lines: Vec<&str> = text.lines().collect();
    let some = |numbers: &[usize]| numbers.iter().map(|i| format!("{}\n", lines[*i])).collect::<String>();
    for (damaged, words, left) in [
        (some(&[0, 2, 3, 4]), "the numbers of epoch 1\n", &[0, 2, 3, 4, 5][..]),
        (some(&[1, 4]), "the numbers of epochs 0, 2 to 3\n", &[1, 4, 5]),
        (some(&[0, 1]), "the numbers of epochs 2 to 4\n", &[0, 1, 5]),
        (String::new(), "the numbers of epochs 0 to 4\n", &[5]),
        (text.repeat(2), "several lines are of one epoch (epochs 0 to 4)", &[0, 1, 2, 3, 4, 5]),
        (some(&[0, 1, 1, 2, 4, 3]), "several lines are of one epoch (epoch 1)", &[0, 1, 2, 3, 4, 5]),
    ] {
        let checkpoints = place.everything();
        fs::write(place.path(METRICS), &damaged).unwrap();
        // Commands that read it report it too; the end they know from the checkpoint.
        for command in ["compare", "inspect"] {
            let (status, said) = run(&place, &[command, "r-data"]);
            let told = said.contains("runs/r-data/metrics.jsonl: ") && said.contains(words);
            assert!(status == 0 && told, "{command}, {words}: {said}");
        }
        let (status, said) = run(&place, &auto(&place, &["--epochs", "5"]));
        assert_eq!(status, 0, "{said}");
        assert!(said.contains("runs/r-data/metrics.jsonl: ") && said.contains(words), "{words}: {said}");
        assert_eq!(epochs(&place), left);
        // Its state before it resumed.
        for folder in ["runs", "checkpoints"] {
            fs::remove_dir_all(place.path(folder)).unwrap();
        }
        for (path, bytes) in checkpoints {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
    let kept = place.read(METRICS);
    fs::remove_file(place.path(METRICS)).unwrap();
    let (status, said) = run(&place, &auto(&place, &["--epochs", "4", "--dry-run"]));
    assert!(status == 0 && said.contains("runs/r-data/metrics.jsonl: is gone"), "{said}");
    let (status, said) = run(&place, &["inspect", "r-data"]);
    assert!(status == 0 && said.contains("runs/r-data/metrics.jsonl: is gone"), "{said}");
    let (status, said) = run(&place, &["compare", "runs/r-data"]);
    assert!(status == 1 && said.contains("runs/r-data/metrics.jsonl: is not there"), "{said}");
    fs::write(place.path(METRICS), kept).unwrap();
    // A run that begins at another's checkpoint lacks none.
    let from =
        ["train", "--resume", LAST, "--name", "o", "--epochs", "5", "--data-dir", "data", "--threads", "1"];
    let (status, said) = run(&place, &from);
    assert!(status == 0 && !said.contains("missing"), "{said}");
    let more = ["train", "--resume", "o-data", "--epochs", "6", "--data-dir", "data", "--threads", "1"];
    let (status, said) = run(&place, &more);
    assert!(status == 0 && !said.contains("missing"), "{said}");
}

#[test]
fn lines_that_differ_or_are_no_text_are_kept_beside() {
    let place = place();
    let text = fs::read(place.path(METRICS)).unwrap();
    let other = b"{\"epoch\":1,\"error/test\":99.0}\n";
    // An epoch that no run has would be the last of very many missing ones.
    let absurd = b"{\"epoch\":18446744073709551615}\n";
    for (number, damage) in [(1, &b"\xff\xfe\n"[..]), (2, other), (3, b"\n"), (4, absurd)] {
        fs::write(place.path(METRICS), [damage, &text].concat()).unwrap();
        let (status, said) = run(&place, &["compare", "r-data"]);
        match damage == other {
            true => assert!(status == 0 && said.contains("(epoch 1)"), "{said}"),
            false => assert!(
                status == 1 && said.contains("metrics.jsonl: line 1 is not what a run writes"),
                "{said}"
            ),
        }
        let (status, said) = run(&place, &auto(&place, &["--epochs", &(2 + number).to_string()]));
        let aside = format!("metrics.jsonl.{number}");
        assert!(status == 0 && said.contains(&aside), "{said}");
        assert!(fs::read(place.path(&format!("runs/r-data/{aside}"))).unwrap() == [damage, &text].concat());
        assert_eq!(epochs(&place)[..3], [0, 1, 2]);
        assert!(metrics(&place.path(METRICS))[1]["error/test"] != 99.0);
    }
    // A mention in a session or in the record of the beginning is no reason not to resume.
    for (file, epochs) in [("sessions.jsonl", "7"), ("environment.json", "8")] {
        let path = place.path(&format!("runs/r-data/{file}"));
        let bytes = [b"\xff\n", &fs::read(&path).unwrap()[..]].concat();
        fs::write(&path, &bytes).unwrap();
        let (status, said) = run(&place, &auto(&place, &["--epochs", epochs]));
        assert_eq!(status, 0, "{file}: {said}");
        assert!(fs::read(&path).unwrap().starts_with(b"\xff\n"), "{file}");
    }
}

#[test]
fn a_log_of_a_tuning_names_the_line_that_is_none() {
    let place = Place::new();
    fs::create_dir(place.path("t")).unwrap();
    fs::write(place.path("t/tune.jsonl"), b"{}\n{}\n\xff\n{}\n").unwrap();
    let tune =
        ["tune", "--algo", "ep", "--data-dir", "data", "--out", "t", "--set", "network.dims=[64, 24, 4]"];
    let (status, said) = run(&place, &tune);
    assert!(status == 1 && said.contains("t/tune.jsonl: line 3 is not what a tuning writes"), "{said}");
}

#[test]
fn a_best_checkpoint_that_is_gone_or_empty_is_said() {
    let place = place();
    let best = place.path("checkpoints/r-data/best.safetensors");
    let (status, said) = run(&place, &auto(&place, &["--epochs", "2"]));
    assert!(status == 0 && !said.contains("best.safetensors"), "{said}");
    fs::write(&best, "").unwrap();
    let (status, said) = run(&place, &auto(&place, &["--epochs", "2"]));
    assert!(status == 0 && said.contains("r-data/best.safetensors: is not whole"), "{said}");
    fs::remove_file(&best).unwrap();
    let (status, said) = run(&place, &auto(&place, &["--epochs", "3"]));
    assert!(status == 0 && said.contains("r-data/best.safetensors: is gone"), "{said}");
}

#[test]
fn a_last_checkpoint_that_missed_the_newest_gives_way_to_it_unless_the_run_went_back() {
    let undisturbed = Place::new();
    assert_eq!(run(&undisturbed, &auto(&undisturbed, &["--epochs", "3"])).0, 0);
    // A power cut may leave `last` in its earlier state.
    let place = place();
    let last = place.path(LAST);
    fs::remove_file(&last).unwrap();
    fs::hard_link(place.path("checkpoints/r-data/step-00000021.safetensors"), &last).unwrap();
    let (status, said) = run(&place, &auto(&place, &["--epochs", "3"]));
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("last.safetensors is older than"), "{said}");
    assert!(said.contains("resuming from checkpoints/r-data/step-00000024.safetensors"), "{said}");
    assert!(fs::read(&last).unwrap() == fs::read(undisturbed.path(LAST)).unwrap());
    assert_eq!(metrics(&place.path(METRICS)), metrics(&undisturbed.path(METRICS)));

    let place = Place::new();
    let all = ["--set", "training.keep_checkpoints=0"];
    assert_eq!(run(&place, &auto(&place, &[&["--epochs", "3"], &all[..]].concat())).0, 0);
    let back = "checkpoints/r-data/step-00000021.safetensors";
    let back = ["train", "--threads", "1", "--data-dir", "data", "--epochs", "2", "--resume", back];
    assert_eq!(run(&place, &back).0, 0);
    let (status, said) = run(&place, &auto(&place, &[&["--epochs", "2"], &all[..]].concat()));
    assert!(status == 0 && said.contains("already completed 2 of 2 epochs"), "{said}");
}

/// The number of times that the event files of the run name a tag that every epoch has.
fn shown(place: &Place) -> usize {
    let tag = b"error/test";
    let files =
        place.everything().into_iter().filter(|(path, _)| path.to_string_lossy().contains("tfevents"));
    files.map(|(_, bytes)| bytes.windows(tag.len()).filter(|window| window == tag).count()).sum()
}

#[test]
fn what_event_files_have_lost_they_have_again() {
    let event_file = |place: &Place| {
        let mut files =
            place.everything().into_iter().filter(|(path, _)| path.to_string_lossy().contains("tfevents"));
        files.next().unwrap()
    };
    for from in [0, 2] {
        let place = place();
        let (path, bytes) = event_file(&place);
        let tags: Vec<usize> =
            (0..bytes.len() - 10).filter(|at| &bytes[*at..at + 10] == b"error/test").collect();
        // Nothing of it, or everything before the number of the last epoch.
        match from {
            0 => fs::remove_file(&path).unwrap(),
            _ => fs::write(&path, &bytes[..*tags.last().unwrap()]).unwrap(),
        }
        let left = shown(&place);
        let (status, said) = run(&place, &auto(&place, &["--epochs", "3"]));
        assert_eq!(status, 0, "{said}");
        assert!(said.contains(&format!("had lost numbers from epoch {from} on")), "{said}");
        // Each lost epoch once more, and the new one.
        assert!(shown(&place) - left >= 4 - from, "{left}");
        let (status, said) = run(&place, &auto(&place, &["--epochs", "4"]));
        assert!(status == 0 && !said.contains("had lost"), "{said}");
    }
}
