//! Runs: training, and its results.

use super::keys::flags;
use super::network::{PyNetwork, State};
use super::work::work;
use super::{Diverged, Interrupted, OrRaise, framed, from_json, wrong};
use crate::cli::{data_folder, weights_of};
use crate::config::{Choices, Resolved};
use crate::run::checkpoint::{CheckpointFolder, read_progress};
use crate::run::locate::{locate, names};
use crate::run::{self, Finished, Options, Outcome, Prepared, Resources, Resume};
use crate::study::inspect;
use crate::study::record::Record;
use crate::telemetry::observer::{Epoch, Extent, Observer};
use crate::telemetry::progress::Display;
use crate::telemetry::records;
use anyhow::{Result, anyhow};
use numpy::{PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Rows as a DataFrame of pandas or polars, or a list of dicts.
fn table<'py>(py: Python<'py>, rows: Vec<Value>) -> PyResult<Bound<'py, PyAny>> {
    py.import("eqprop._table")?.call_method1("table", (from_json(py, &Value::from(rows))?,))
}

/// The records and the result of a run.
fn read(folder: &Path) -> Result<(Record, Finished)> {
    let record = Record::read(folder, 0)?;
    let held_out = record.config.as_ref().is_some_and(|config| config.training.validation > 0);
    let finished = Finished::recorded(folder, &record.name, record.data(), record.epochs(), held_out)?;
    Ok((record, finished))
}

/// The result of a run, and its settings by key.
fn row(folder: &Path) -> Result<Map<String, Value>> {
    let (record, finished) = read(folder)?;
    let Value::Object(mut row) = serde_json::to_value(finished)? else { return Ok(Map::new()) };
    row.remove("already_done");
    row.insert("collapsed_in_epoch".into(), json!(record.collapsed()));
    row.insert("angle_before_training".into(), json!(record.first("start/angle")));
    if let Some(config) = &record.config {
        for (key, value) in config.values()? {
            row.insert(key, serde_json::to_value(value)?);
        }
    }
    Ok(row)
}

/// All runs in a folder, with their results and settings: a DataFrame of pandas or polars where one is installed,
/// else a list of dicts. Errors are in percent. Folders that are no runs, or cannot be read, are left out.
#[pyfunction]
#[pyo3(signature = (runs_dir=PathBuf::from("runs")))]
pub fn runs(py: Python<'_>, runs_dir: PathBuf) -> PyResult<Bound<'_, PyAny>> {
    if !runs_dir.is_dir() {
        wrong!("{}: there is no such folder", runs_dir.display());
    }
    let mut names = names(&runs_dir);
    names.sort();
    let folders =
        names.iter().map(|name| runs_dir.join(name)).filter(|folder| records::holds_metrics(folder));
    let rows: Vec<Value> =
        folders.map(|folder| row(&folder).map(Value::from)).collect::<Result<_>>().or_raise()?;
    table(py, rows)
}

/// The folders of runs.
#[derive(Clone)]
struct Places {
    runs: PathBuf,
    checkpoints: PathBuf,
    data: Option<PathBuf>,
}

/// A run: its records and its checkpoints.
///
/// Run(what, *, runs_dir="runs", checkpoints_dir="checkpoints"), by its name, its folder or a checkpoint.
#[pyclass(name = "Run", module = "eqprop", frozen)]
pub struct PyRun {
    /// Its name.
    #[pyo3(get)]
    name: String,
    places: Places,
}

impl PyRun {
    fn records(&self) -> PathBuf {
        self.places.runs.join(&self.name)
    }

    fn saved(&self) -> CheckpointFolder {
        CheckpointFolder(self.places.checkpoints.join(&self.name))
    }
}

#[pymethods]
impl PyRun {
    #[new]
    #[pyo3(signature = (what, *, runs_dir=PathBuf::from("runs"), checkpoints_dir=PathBuf::from("checkpoints")))]
    fn new(what: PathBuf, runs_dir: PathBuf, checkpoints_dir: PathBuf) -> PyResult<Self> {
        let found = locate(&what, &runs_dir, &checkpoints_dir).or_raise()?;
        let above = |path: &Path| path.parent().map(Path::to_path_buf);
        let saved = found.checkpoint.as_deref().and_then(Path::parent).and_then(above);
        let runs = found.folder.as_deref().and_then(above).unwrap_or(runs_dir);
        let places = Places { runs, checkpoints: saved.unwrap_or(checkpoints_dir), data: None };
        Ok(Self { name: found.name, places })
    }

    /// Its folder, with config.toml, metrics.jsonl and the files of TensorBoard.
    #[getter]
    fn folder(&self) -> PathBuf {
        self.records()
    }

    /// Its last checkpoint, a safetensors file, from which `eqprop train --resume` resumes.
    #[getter]
    fn checkpoint(&self) -> PathBuf {
        self.saved().last()
    }

    /// The checkpoint of its best epoch.
    #[getter]
    fn best_checkpoint(&self) -> PathBuf {
        self.saved().best()
    }

    /// The numbers of each epoch, 0 before training: a DataFrame of pandas or polars where one is installed, else a
    /// list of dicts.
    #[getter]
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let record = Record::read(&self.records(), 0).or_raise()?;
        table(py, record.lines.into_iter().map(Value::from).collect())
    }

    /// Its result: errors in percent, the best epoch, and its settings by key.
    #[getter]
    fn result<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        from_json(py, &row(&self.records()).or_raise()?.into())
    }

    /// The network of its last checkpoint, or of its best.
    #[pyo3(signature = (*, best=false))]
    fn network(&self, best: bool) -> PyResult<PyNetwork> {
        read_network(&if best { self.saved().best() } else { self.saved().last() })
            .or_raise()
            .map(PyNetwork::of)
    }

    /// Resumes from its last checkpoint, up to `epochs` epochs in all where that is given. Only settings that do not
    /// change the science may differ. Returns the `Run`.
    #[pyo3(signature = (epochs=None, *, data_dir=None, threads=None, progress=None, **settings))]
    fn resume(
        &self,
        py: Python,
        epochs: Option<usize>,
        data_dir: Option<PathBuf>,
        threads: Option<usize>,
        progress: Option<Py<PyAny>>,
        settings: Option<&Bound<PyDict>>,
    ) -> PyResult<Self> {
        let mut flags = flags(settings)?;
        flags
            .extend(epochs.map(|epochs| ("epochs".into(), "training.epochs".into(), (epochs as i64).into())));
        let choices = Choices { flags, ..Choices::default() };
        let options = Options {
            resume: Some(Resume::File(self.saved().last())),
            ..options(self.places.clone(), None, false)
        };
        let places = Places { data: data_dir.or(self.places.data.clone()), ..self.places.clone() };
        trained(py, Asked { choices, options, places, threads, progress }, None)
    }

    fn __repr__(&self) -> PyResult<String> {
        let records = self.records();
        if !records::holds_metrics(&records) {
            return Ok(format!("Run({:?})", self.name));
        }
        let (_, finished) = read(&records).or_raise()?;
        Ok(finished.line().trim_end().to_string())
    }

    fn _repr_html_(&self) -> PyResult<String> {
        inspect::glance(&self.records()).map(|page| framed(&page)).or_raise()
    }
}

/// The network of a checkpoint.
fn read_network(path: &Path) -> Result<State> {
    let (checkpoint, progress) = read_progress(path)?;
    State::saved(&checkpoint, &progress, &path.display().to_string())
}

/// The network that a run has saved: by the run's name, its folder, or a checkpoint.
#[pyfunction]
#[pyo3(signature = (what, *, runs_dir=PathBuf::from("runs"), checkpoints_dir=PathBuf::from("checkpoints")))]
pub fn load(what: PathBuf, runs_dir: PathBuf, checkpoints_dir: PathBuf) -> PyResult<PyNetwork> {
    let path = weights_of(&what, &runs_dir, &checkpoints_dir).or_raise()?;
    read_network(&path).or_raise().map(PyNetwork::of)
}

/// A data set as the program reads it: (x_train, y_train), (x_test, y_test); images are bytes (N, pixels), classes
/// (N,).
#[pyfunction]
#[pyo3(signature = (data="auto", *, data_dir=None))]
pub fn load_data<'py>(
    py: Python<'py>,
    data: &str,
    data_dir: Option<PathBuf>,
) -> PyResult<Bound<'py, PyTuple>> {
    let choice = serde_json::from_value(json!(data));
    let Ok(choice) = choice else {
        wrong!("data = {data:?}: choose auto, mnist, fashion-mnist, cifar10 or glyphs")
    };
    let folder = data_folder(data_dir).or_raise()?;
    let dataset = work(py, None, |_| Ok(crate::data::load(choice, folder.as_deref())?))?.or_raise()?;
    let arrays = |split: &crate::data::Split| -> PyResult<_> {
        let images = PyArray1::from_slice(py, &split.images).reshape([split.len(), split.pixels])?;
        Ok((images, PyArray1::from_slice(py, &split.labels)))
    };
    (arrays(&dataset.train)?, arrays(&dataset.test)?).into_pyobject(py)
}

/// A request to train, and the way to show progress.
struct Asked {
    choices: Choices,
    options: Options,
    places: Places,
    threads: Option<usize>,
    progress: Option<Py<PyAny>>,
}

fn options(places: Places, name: Option<String>, overwrite: bool) -> Options {
    Options {
        init: None,
        resume: None,
        name,
        runs_dir: places.runs,
        checkpoints_dir: places.checkpoints,
        dry_run: false,
        overwrite,
        keep_epochs: false,
    }
}

/// Trains a network as `eqprop train` does: the same folders, the same checkpoints, the same bits. Afterwards the
/// network has the weights of the end. Returns the `Run`.
///
/// `data` is "mnist", "fashion-mnist", "cifar10", "glyphs" or "auto"; `data_dir` a file or folder with a set.
/// `resume=True` resumes the run where it already exists; `overwrite=True` moves it aside. `progress` is True for a
/// line per epoch (a bar on a terminal), False for none, or a function that gets the numbers of each epoch as a dict.
/// Any key of the configuration is a keyword, as in `Network`. Ctrl-C saves the run and raises `Interrupted`.
#[pyfunction]
#[pyo3(signature = (net, data=None, epochs=None, *, data_dir=None, name=None, runs_dir=PathBuf::from("runs"), checkpoints_dir=PathBuf::from("checkpoints"), resume=false, overwrite=false, threads=None, progress=None, **settings))]
#[allow(clippy::too_many_arguments)] // They are keywords.
pub fn train(
    py: Python,
    net: &Bound<PyNetwork>,
    data: Option<String>,
    epochs: Option<i64>,
    data_dir: Option<PathBuf>,
    name: Option<String>,
    runs_dir: PathBuf,
    checkpoints_dir: PathBuf,
    resume: bool,
    overwrite: bool,
    threads: Option<usize>,
    progress: Option<Py<PyAny>>,
    settings: Option<&Bound<PyDict>>,
) -> PyResult<PyRun> {
    let config = net.get().state()?.config.clone();
    let given = |key: &str, value: toml::Value| ("Network".to_string(), key.to_string(), value);
    let mut all: Vec<_> =
        config.values().or_raise()?.into_iter().map(|(key, value)| given(&key, value)).collect();
    let own = flags(settings)?;
    if let Some((word, ..)) = own.iter().find(|(_, key, _)| !key.starts_with("training.")) {
        wrong!("{word} is a setting of the network: say Network(…, {word}=…)");
    }
    all.extend(own);
    all.extend(data.map(|data| ("data".into(), "training.data".into(), data.into())));
    all.extend(epochs.map(|epochs| ("epochs".into(), "training.epochs".into(), epochs.into())));
    let rule = config.learning.rule;
    let depth = Some(config.network.dims.depth());
    let choices = Choices { algo: Some(rule), depth, flags: all, ..Choices::default() };
    let places = Places { runs: runs_dir, checkpoints: checkpoints_dir, data: data_dir };
    let mut options = options(places.clone(), name, overwrite);
    options.resume = resume.then_some(Resume::Auto);
    trained(py, Asked { choices, options, places, threads, progress }, Some(net.get()))
}

/// Trains, and leaves the final weights in `net`.
fn trained(py: Python, asked: Asked, net: Option<&PyNetwork>) -> PyResult<PyRun> {
    let Asked { choices, options, places, threads, progress } = asked;
    Resolved::new(&choices)
        .map(|_| ())
        .or_else(|error| if options.resume.is_some() { Ok(()) } else { Err(error) })
        .or_raise()?;
    let mut held = net.map(PyNetwork::state).transpose()?;
    let mut state = held.as_deref_mut();
    let resources = Resources::new(data_folder(places.data.clone()).or_raise()?);
    let mut shown = Shown::new(py, progress)?;
    let done = work(py, threads, |interrupt| {
        let mut run = match run::Run::prepare(&choices, &options, &resources)? {
            Prepared::Ready(run) => run,
            Prepared::Complete(ending) => return Ok((ending.finished()?.run, Outcome::Done)),
        };
        if let Some(state) = state.as_mut().filter(|state| !state.fresh && !run.resumed) {
            let config = &run.resolved.config;
            run.engine = state.engine(config, &resources.device(config)?)?;
        }
        let name = run.progress.run.clone();
        shown.begin(&run.extent());
        Ok((name, run::train(*run, &mut shown, interrupt)?))
    })?;
    drop(shown);
    let (name, outcome) = match (done.outcome, done.raised) {
        (Ok(ended), None) => ended,
        (Ok((name, outcome @ Outcome::Interrupted(_))), Some(_)) => (name, outcome),
        (_, Some(raised)) => return Err(raised),
        (Err(error), None) => return Err(super::raised(error)),
    };
    let run = PyRun { name, places };
    if let Some(state) = state {
        // The last checkpoint holds the network's present state.
        if run.saved().last().is_file() {
            *state = read_network(&run.saved().last()).or_raise()?;
        }
    }
    let ended = |error: PyErr, run: PyRun| -> PyErr {
        match error.value(py).setattr("run", run) {
            Ok(()) => error,
            Err(other) => other,
        }
    };
    match outcome {
        Outcome::Done => Ok(run),
        Outcome::Diverged => {
            let text = format!(
                "{}: its numbers have run away; its last good checkpoint is {}",
                run.name,
                run.saved().last().display()
            );
            Err(ended(Diverged::new_err(text), run))
        }
        Outcome::Interrupted(_) => {
            let text = format!(
                "{} is saved; resume it with run.resume() or `eqprop train --resume {}`",
                run.name,
                run.saved().last().display()
            );
            Err(ended(Interrupted::new_err(text), run))
        }
    }
}

/// The ways to show progress.
enum Shown {
    /// Not at all.
    Nothing,
    /// As the program does, on a terminal.
    Terminal(Option<Display>),
    /// One line per epoch, by `print`.
    Lines(Option<Display>),
    /// A call of a function.
    Function(Py<PyAny>),
}

impl Shown {
    fn new(py: Python, progress: Option<Py<PyAny>>) -> PyResult<Self> {
        let Some(progress) = progress else { return Ok(Shown::Nothing) };
        let progress = progress.bind(py);
        if progress.is_callable() {
            return Ok(Shown::Function(progress.clone().unbind()));
        }
        if !progress.is_truthy()? {
            return Ok(Shown::Nothing);
        }
        let terminal = py.import("sys")?.getattr("stderr")?.call_method0("isatty");
        let terminal = terminal.and_then(|is_terminal| is_terminal.is_truthy()).unwrap_or(false);
        Ok(if terminal { Shown::Terminal(None) } else { Shown::Lines(None) })
    }

    fn begin(&mut self, run: &Extent) {
        match self {
            Shown::Terminal(display) => *display = Some(Display::new(run)),
            Shown::Lines(display) => *display = Some(Display::of_lines(run)),
            Shown::Nothing | Shown::Function(_) => {}
        }
    }

    fn display(&mut self) -> Option<&mut Display> {
        match self {
            Shown::Terminal(display) | Shown::Lines(display) => display.as_mut(),
            Shown::Nothing | Shown::Function(_) => None,
        }
    }
}

impl Observer for Shown {
    fn begin(&mut self) {
        if let Some(display) = self.display() {
            Observer::begin(display);
        }
    }

    fn minibatch(&mut self, epoch: usize, train_error: f64) {
        if let Some(display) = self.display() {
            display.minibatch(epoch, train_error);
        }
    }

    fn epoch(&mut self, epoch: &mut Epoch) -> Result<()> {
        let told = match self {
            Shown::Nothing | Shown::Terminal(None) | Shown::Lines(None) => return Ok(()),
            Shown::Terminal(Some(display)) => return display.epoch(epoch),
            Shown::Lines(Some(display)) => {
                let line = display.line(epoch);
                Python::attach(|py| py.import("builtins")?.call_method1("print", (line,)).map(|_| ()))
            }
            Shown::Function(function) => {
                let mut numbers = Map::new();
                numbers.insert("epoch".into(), json!(epoch.number));
                numbers.extend(epoch.metrics.0.iter().map(|(tag, value)| (tag.clone(), json!(value))));
                Python::attach(|py| function.call1(py, (from_json(py, &numbers.into())?,)).map(|_| ()))
            }
        };
        told.map_err(|error| anyhow!(error))
    }
}
