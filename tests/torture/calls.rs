//! Calls of a process to the file system, as strace records them, and strace's faults.

use super::common::Place;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The calls that change files or folders, or wait for the disk. Calls that a system does not have are ignored.
const CALLS: &str = "?open,openat,write,pwrite64,fsync,fdatasync,?rename,?renameat,?renameat2,?link,?linkat,?unlink,\
                     ?unlinkat,?mkdir,?mkdirat,ftruncate,lseek,close";

/// The calls that are made to fail, and with which errors.
pub const FAULTS: [(&str, &[&str]); 8] = [
    ("openat", &["EIO", "ENOSPC", "EMFILE"]),
    ("write", &["EIO", "ENOSPC", "EDQUOT"]),
    ("fsync", &["EIO", "ENOSPC"]),
    ("fdatasync", &["EIO", "ENOSPC"]),
    ("rename", &["EIO", "ENOSPC"]),
    ("renameat", &["EIO", "ENOSPC"]),
    ("linkat", &["EIO", "ENOSPC", "EPERM"]),
    ("unlinkat", &["EIO"]),
];

/// A call that has succeeded.
pub struct Call {
    /// Its name.
    pub name: String,
    /// The paths that it names, of open files or others; relative ones from the folder of the process.
    pub paths: Vec<PathBuf>,
    /// The bytes that it writes.
    pub bytes: Vec<u8>,
    /// Its arguments, with texts in them left out.
    pub rest: String,
    /// Its return value.
    pub returned: i64,
    /// The number of earlier calls of this name.
    pub earlier: usize,
}

/// True where strace is installed and may trace.
pub fn can_trace() -> bool {
    Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success())
}

/// The process under strace, with these flags.
pub fn traced(command: &Command, place: &Place, flags: &[&str]) -> Command {
    let mut traced = place.process();
    traced.args(["-f", "-o"]).arg(place.path("calls")).args(flags).arg("--");
    traced.arg(command.get_program()).args(command.get_args());
    let mut strace = Command::new("strace");
    strace.args(traced.get_args()).current_dir(place.dir.path()).env_clear();
    strace.env("PATH", std::env::var_os("PATH").unwrap());
    strace
}

/// Runs a process and returns its calls on files in the place.
pub fn record(command: &Command, place: &Place) -> Vec<Call> {
    let status = traced(command, place, &["-y", "-xx", "-s", "100000000", "-e", &format!("trace={CALLS}")])
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "a run under strace fails: {status}");
    let text = fs::read_to_string(place.path("calls")).unwrap();
    fs::remove_file(place.path("calls")).unwrap();
    let root = place.dir.path().canonicalize().unwrap();
    let (mut begun, mut counts, mut calls) = (HashMap::new(), HashMap::new(), Vec::new());
    for line in text.lines() {
        let (process, line) = line.split_once(' ').unwrap_or_default();
        let line = line.trim_start();
        // A call that another thread has interrupted takes two lines.
        let line = match (line.strip_suffix(" <unfinished ...>"), line.strip_prefix("<... ")) {
            (Some(begin), _) => {
                begun.insert(process.to_string(), begin.to_string());
                continue;
            }
            (None, Some(resumed)) => {
                let end = resumed.split_once(" resumed>").map_or("", |(_, end)| end);
                begun.remove(process).unwrap_or_default() + end
            }
            (None, None) => line.to_string(),
        };
        let Some((name, arguments)) = line.split_once('(') else { continue };
        let earlier = counts.entry(name.to_string()).or_insert(0);
        *earlier += 1;
        let Some(call) = parse(name, arguments, *earlier - 1, &root) else { continue };
        if call.paths.iter().any(|path| path.starts_with(&root)) {
            calls.push(call);
        }
    }
    calls
}

fn parse(name: &str, arguments: &str, earlier: usize, root: &Path) -> Option<Call> {
    let (arguments, returned) = arguments.rsplit_once(" = ")?;
    let (mut paths, mut bytes, mut rest) = (Vec::new(), Vec::new(), String::new());
    let mut text = arguments;
    while let Some(at) = text.find(['"', '<']) {
        rest += &text[..at];
        let end = if text[at..].starts_with('"') { '"' } else { '>' };
        let (inside, after) = text[at + 1..].split_once(end)?;
        let plain = unescaped(inside);
        match (name, end) {
            // The folder of the process, from which the next name is.
            _ if end == '>' && text[..at].ends_with("AT_FDCWD") => {}
            ("write" | "pwrite64", '"') => bytes = plain,
            _ => paths.push(root.join(String::from_utf8(plain).ok()?)),
        }
        text = after;
    }
    rest += text;
    let number = returned.split(['<', ' ']).next()?.parse().ok()?;
    if let Some((_, opened)) = returned.split_once('<') {
        paths = vec![PathBuf::from(String::from_utf8(unescaped(opened.split('>').next()?)).ok()?)];
    }
    (number >= 0).then(|| Call { name: name.into(), paths, bytes, rest, returned: number, earlier })
}

/// Bytes that stand there as `\x2f`.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(1..3).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, after.first(), hex) {
            (b'\\', Some(b'x'), Some(byte)) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}
