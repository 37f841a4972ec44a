//! A watched process: how it ended, its output, and how much memory it took.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The end of a process.
pub struct Ended {
    /// Its exit status; `None` where a signal ended it.
    pub status: Option<i32>,
    /// True where it was killed here because it did not end.
    pub hung: bool,
    /// The most memory it held, bytes.
    pub memory: u64,
    /// Its stderr.
    pub said: String,
}

/// Runs a process for at most so long.
#[expect(clippy::zombie_processes, reason = "wait4 waits for it")]
pub fn run(mut command: Command, most: Duration) -> Ended {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let said = std::thread::spawn(move || {
        let mut said = Vec::new();
        stderr.read_to_end(&mut said).unwrap();
        String::from_utf8_lossy(&said).into_owned()
    });
    let begun = Instant::now();
    let (mut hung, mut status) = (false, 0);
    // SAFETY: an rusage of zeros is one.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // The standard library waits without asking for the memory.
    // SAFETY: the child is ours and nobody else waits for it; the pointers are to what is said.
    while unsafe { libc::wait4(child.id() as i32, &mut status, libc::WNOHANG, &mut usage) } == 0 {
        if begun.elapsed() > most && !hung {
            hung = true;
            // SAFETY: as above; it has not been waited for.
            unsafe { libc::kill(child.id() as i32, libc::SIGKILL) };
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let status = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
    Ended { status, hung, memory: usage.ru_maxrss as u64 * 1024, said: said.join().unwrap() }
}
