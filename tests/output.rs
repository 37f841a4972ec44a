//! Output that nobody can or will read: results are written or the command fails, progress without a reader is
//! dropped, and nothing ends in a panic.

mod common;

use common::{Place, metrics};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// A pipe whose reader is gone.
fn gone() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A place with a checkpoint, and a command of each kind that has a result.
fn commands() -> (Place, Vec<Vec<String>>) {
    let place = Place::new();
    place.eqprop().args(place.small_run("ep", &["--epochs", "1", "--name", "r-data"])).assert().success();
    let words = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
    let eval = "eval --checkpoint checkpoints/r-data/last.safetensors --data-dir data";
    let small = place.small_run("ep", &["--dry-run"]).into_iter().map(str::to_string).collect();
    let commands = vec![
        words("config --algo ep"),
        words("toy"),
        words(eval),
        words(&format!("{eval} --json")),
        words("--help"),
        words("--version"),
        small,
    ];
    (place, commands)
}

fn run(place: &Place, arguments: &[String], stdout: Stdio, stderr: Stdio) -> (Option<i32>, String) {
    let mut child = place.process().args(arguments).stdout(stdout).stderr(stderr).spawn().unwrap();
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said).unwrap();
    }
    (child.wait().unwrap().code(), said)
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure_in_one_line() {
    let (place, commands) = commands();
    for arguments in commands {
        let (status, said) = run(&place, &arguments, full(), Stdio::piped());
        let complaints: Vec<_> = said.lines().filter(|line| !line.starts_with(" INFO")).collect();
        assert_eq!((status, complaints.len()), (Some(1), 1), "{arguments:?}: {said}");
        assert!(complaints[0].contains("standard output"), "{said}");
    }
}

#[test]
fn a_reader_of_the_result_who_is_gone_ends_the_command_quietly() {
    let (place, commands) = commands();
    for arguments in commands {
        let (status, said) = run(&place, &arguments, gone(), Stdio::piped());
        let complaints = said.lines().filter(|line| !line.starts_with(" INFO")).count();
        assert_eq!((status, complaints), (Some(128 + 13), 0), "{arguments:?}: {said}");
    }
}

#[test]
fn progress_that_nobody_reads_is_dropped() {
    let (place, commands) = commands();
    for arguments in commands {
        for stderr in [full(), gone()] {
            let (status, _) = run(&place, &arguments, Stdio::null(), stderr);
            assert_eq!(status, Some(0), "{arguments:?}");
        }
    }
    // Errors have their status whether they are read or not.
    for stderr in [full(), gone()] {
        let wrong =
            ["config".to_string(), "--algo".into(), "ep".into(), "--set".into(), "settle.steps=0".into()];
        assert_eq!(run(&place, &wrong, Stdio::null(), stderr).0, Some(2));
    }
    // A whole run, as one whose output was read.
    let heard = place.path("runs/r-data/metrics.jsonl");
    for (name, stderr) in [("full-data", full()), ("gone-data", gone())] {
        let more = ["--epochs", "1", "--name", name];
        let arguments: Vec<String> = place.small_run("ep", &more).into_iter().map(str::to_string).collect();
        assert_eq!(run(&place, &arguments, Stdio::null(), stderr).0, Some(0));
        assert_eq!(metrics(&place.path(&format!("runs/{name}/metrics.jsonl"))), metrics(&heard));
    }
}

#[test]
fn closed_standard_streams_are_no_trouble() {
    let place = Place::new();
    let binary = assert_cmd::cargo::cargo_bin!("eqprop").to_string_lossy().into_owned();
    for closed in [">&-", "2>&-", "<&-", "<&- >&- 2>&-"] {
        let script = format!(
            r#""$0" train --algo ep --data-dir data --dry-run --set "network.dims=[64, 24, 4]" {closed}"#
        );
        let status = Command::new("sh").args(["-c", &script, &binary]).current_dir(place.dir.path()).output();
        assert_eq!(status.unwrap().status.code(), Some(0), "{closed}");
    }
}

#[test]
fn a_run_whose_listener_left_still_saves_when_it_is_stopped() {
    let place = Place::new();
    let arguments = place.small_run("ep", &["--epochs", "100000", "--name", "r-data"]);
    let mut child = place.process().args(arguments).stderr(Stdio::piped()).spawn().unwrap();
    // As `2>&1 | head -1` does.
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    lines.read_line(&mut String::new()).unwrap();
    drop(lines);
    let last = place.path("checkpoints/r-data/last.safetensors");
    while fs::metadata(&last).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "ended with its listener");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::thread::sleep(std::time::Duration::from_millis(200));
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn a_run_whose_event_file_finds_no_space_says_so_and_goes_on_later() {
    let place = Place::new();
    let undisturbed = place.small_run("ep", &["--epochs", "6", "--name", "u-data"]);
    place.eqprop().args(undisturbed).assert().success();
    let arguments = place.small_run("ep", &["--epochs", "6", "--name", "r-data", "--resume", "auto"]);
    let mut limited = place.process();
    // No file may become larger, which to the program is as if the disk were full. Event files are the largest.
    // SAFETY: between fork and exec it makes two calls, which are allowed there.
    unsafe {
        limited.pre_exec(|| {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            let limit = libc::rlimit { rlim_cur: 60_000, rlim_max: 60_000 };
            match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let output = limited.args(&arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let complaint = said.lines().last().unwrap();
    assert!(complaint.contains("tfevents") && complaint.contains("Is there space left?"), "{said}");
    let epochs = metrics(&place.path("runs/r-data/metrics.jsonl")).len();
    assert!((2..7).contains(&epochs), "{epochs}");
    place.eqprop().args(&arguments).assert().success();
    let [undisturbed, gone_on] =
        ["u-data", "r-data"].map(|name| metrics(&place.path(&format!("runs/{name}/metrics.jsonl"))));
    assert_eq!(gone_on, undisturbed);
}

#[test]
fn a_page_replaces_a_page_and_nothing_else() {
    let place = Place::new();
    place.eqprop().args(place.small_run("ep", &["--epochs", "1", "--name", "r"])).assert().success();
    let inspect = |out: &str| {
        let arguments = ["inspect", "r-data", "--data-dir", "data", "--out", out];
        let output = place.eqprop().args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let last = "checkpoints/r-data/last.safetensors";
    let before = fs::read(place.path(last)).unwrap();
    let (status, said) = inspect(last);
    assert_eq!((status, said.contains("is no page")), (Some(2), true), "{said}");
    assert!(fs::read(place.path(last)).unwrap() == before);
    // Through a link, twice: the first page gives way to the second.
    std::os::unix::fs::symlink("page.html", place.path("link.html")).unwrap();
    for _ in 0..2 {
        fs::write(place.path("page.html"), "<!DOCTYPE html>old").unwrap();
        assert_eq!(inspect("link.html").0, Some(0));
        assert!(place.path("link.html").is_symlink());
        assert!(place.read("page.html").contains("What it has learnt"));
    }
    // The page whose name the program chooses follows none.
    fs::write(place.path("page.html"), "<!DOCTYPE html>mine").unwrap();
    std::os::unix::fs::symlink("../../page.html", place.path("runs/r-data/inspect.html")).unwrap();
    let output = place.eqprop().args(["inspect", "r-data", "--data-dir", "data"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.contains("inspect.html: is a link")), (Some(2), true), "{said}");
    assert_eq!(place.read("page.html"), "<!DOCTYPE html>mine");
    // A pipe is written to.
    let pipe = std::ffi::CString::new(place.path("pipe").to_str().unwrap()).unwrap();
    // SAFETY: a path that ends in a zero.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    let reader = std::thread::spawn({
        let pipe = place.path("pipe");
        move || fs::read_to_string(pipe).unwrap()
    });
    assert_eq!(inspect("pipe").0, Some(0));
    assert!(reader.join().unwrap().contains("What it has learnt"));
}
