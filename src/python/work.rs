//! Computation while Python goes on: threads, Ctrl-C, and the log.

use super::OrRaise;
use crate::base::panic::guard;
use crate::cli::log_filter;
use crate::run::{Interrupt, guarded, pool};
use anyhow::Result;
use pyo3::prelude::*;
use rayon::ThreadPool;
use std::io::{self, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// The interval at which Python is asked whether Ctrl-C has been pressed.
const HEARS: Duration = Duration::from_millis(50);

/// The number of SIGINT.
const SIGINT: i32 = 2;

/// The threads shared by all who do not ask for a number of their own.
static SHARED: Mutex<Option<Arc<ThreadPool>>> = Mutex::new(None);

fn threads_for(threads: Option<usize>) -> Result<Arc<ThreadPool>> {
    if threads.is_some() {
        return Ok(Arc::new(pool(threads)?));
    }
    let mut shared = guard(&SHARED);
    if let Some(pool) = &*shared {
        return Ok(pool.clone());
    }
    let pool = Arc::new(pool(None)?);
    *shared = Some(pool.clone());
    Ok(pool)
}

/// The outcome of some work, and a Python exception raised in the meantime.
pub struct Done<R> {
    /// The outcome of the work.
    pub outcome: Result<R>,
    /// A `KeyboardInterrupt`, or an exception of another signal handler.
    pub raised: Option<PyErr>,
}

impl<R> Done<R> {
    /// The outcome, unless Python raised something.
    pub fn or_raise(self) -> PyResult<R> {
        match self.raised {
            Some(raised) => Err(raised),
            None => self.outcome.or_raise(),
        }
    }
}

/// Runs some work on threads of its own, by default the shared ones, while other Python threads run. Ctrl-C reaches
/// it through its [`Interrupt`]; the call returns when the work has ended.
pub fn work<R: Send>(
    py: Python,
    threads: Option<usize>,
    work: impl FnOnce(&Interrupt) -> Result<R> + Send,
) -> PyResult<Done<R>> {
    log_to_python()?;
    let pool = threads_for(threads).or_raise()?;
    let (interrupt, outcome) = (Interrupt::default(), Mutex::new(None));
    let (ended, mut told) = mpsc::channel();
    let raised = pool.in_place_scope(|scope| {
        scope.spawn(|_| {
            *guard(&outcome) = Some(guarded(|| work(&interrupt)));
            let _ = ended.send(());
        });
        let mut raised = None;
        loop {
            let (back, heard) = py.detach(move || {
                let heard = told.recv_timeout(HEARS);
                (told, heard)
            });
            told = back;
            if heard != Err(RecvTimeoutError::Timeout) {
                return raised;
            }
            if let Err(error) = py.check_signals() {
                interrupt.ask(SIGINT);
                raised.get_or_insert(error);
            }
        }
    });
    let outcome = guard(&outcome).take();
    let outcome = outcome.unwrap_or_else(|| Err(anyhow::anyhow!("nothing came of it")));
    Ok(Done { outcome, raised })
}

/// Sends the log to Python's logger `eqprop`.
fn log_to_python() -> PyResult<()> {
    static ONCE: Once = Once::new();
    let filter = log_filter("warn,hf_hub=off,eqprop=info").or_raise()?;
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(Logger)
            .with_ansi(false)
            .with_level(false)
            .with_target(false)
            .without_time();
        // Where another subscriber exists already, it stays.
        let _ = subscriber.try_init();
    });
    Ok(())
}

/// Python's logger.
struct Logger;

/// A line for it, of this level.
struct Line(&'static str);

impl<'a> MakeWriter<'a> for Logger {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line("info")
    }

    fn make_writer_for(&'a self, of: &Metadata) -> Line {
        Line(match *of.level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        })
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        // A line that Python cannot log, or no longer, is no reason to fail.
        let _ = Python::try_attach(|py| -> PyResult<()> {
            let logger = py.import("logging")?.call_method1("getLogger", ("eqprop",))?;
            logger.call_method1(self.0, ("%s", text.trim_end()))?;
            Ok(())
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
