//! The results of one run.

use crate::base::files;
use crate::config::{Config, Resolved};
use crate::sweep::{State, SweepFolder};
use crate::telemetry::records::{METRICS, Told};
use anyhow::{Context, Result};
use serde_json::{Map, Value};

/// A number rounded to so many decimals.
pub fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (value * scale).round() / scale
}

/// The numbers of one epoch, percent; 0 is before training.
#[derive(Clone, Copy, Debug)]
pub struct Epoch {
    pub number: usize,
    pub train: Option<f64>,
    /// The error on images held out, if any.
    pub validation: Option<f64>,
    pub test: f64,
    /// Training images that have not settled.
    pub unsettled: Option<f64>,
    /// Mean steps of the first phase, not percent.
    pub steps: Option<f64>,
}

impl Epoch {
    /// The error by which the best epoch is chosen.
    fn judged(&self) -> f64 {
        self.validation.unwrap_or(self.test)
    }
}

/// The part of a run's environment that its numbers and its duration may depend on.
const SURROUNDINGS: [&str; 6] = ["version", "commit", "device", "engine", "threads", "vector_instructions"];

/// One run: its settings and its results. Numbers are rounded as in [`super::records`], so that a report made from
/// records equals the one made from the runs.
#[derive(Debug)]
pub struct Measured {
    pub name: String,
    /// Titles of the sweeps it may belong to: those of its folder.
    pub titles: Vec<String>,
    pub config: Config,
    /// The data set that was really used; empty where it has not begun.
    pub data: String,
    pub failed: Option<String>,
    pub epochs: Vec<Epoch>,
    /// Ψ(Δtot, −∇BPTT tot) before training, degrees.
    pub angle: Option<f64>,
    pub collapsed: Option<usize>,
    /// Seconds of training, without tests and checkpoints.
    pub seconds: f64,
    /// The values of [`SURROUNDINGS`] in `environment.json`.
    pub environment: Map<String, Value>,
}

impl Measured {
    /// Reads the results so far of the run `name` of the sweep.
    pub fn read(folder: &SweepFolder, name: &str, titles: &[String]) -> Result<Self> {
        let config = Resolved::new(&folder.choices(name))?.config;
        let place = folder.runs().join(name);
        let failed = match folder.state(name)? {
            State::Failed(reason) => Some(reason),
            _ => None,
        };
        let mut environment: Map<String, Value> = match files::read_if_there(&place.join("environment.json"))?
        {
            Some(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{}/environment.json: not valid JSON", place.display()))?,
            None => Map::new(),
        };
        environment.retain(|key, _| SURROUNDINGS.contains(&key.as_str()));
        let mut run = Self {
            name: name.to_string(),
            titles: titles.to_vec(),
            config,
            data: String::new(),
            failed,
            epochs: Vec::new(),
            angle: None,
            collapsed: None,
            seconds: 0.0,
            environment,
        };
        // Empty where the run has not begun.
        for line in Told::lines(&place, 0)? {
            let complaint = || format!("{}: not what a run writes", place.join(METRICS).display());
            run.take(&line.into()).with_context(complaint)?;
        }
        run.seconds = rounded(run.seconds, 1);
        Ok(run)
    }

    fn take(&mut self, line: &Value) -> Result<()> {
        let number = line["epoch"].as_u64().context("a line without an epoch")? as usize;
        let test = line["error/test"].as_f64().context("a line without error/test")?;
        self.data = line["data"].as_str().unwrap_or_default().to_string();
        let number_at = |tag: &str, decimals| Some(rounded(line[tag].as_f64()?, decimals));
        self.epochs.push(Epoch {
            number,
            train: number_at("error/train", 3),
            validation: number_at("error/validation", 3),
            test: rounded(test, 3),
            unsettled: number_at("settle/unsettled_percent", 3),
            steps: number_at("settle/steps", 1),
        });
        if number == 0 {
            self.angle = number_at("angle/total", 2);
        }
        if line["collapsed"] == true {
            self.collapsed.get_or_insert(number);
        }
        self.seconds += line["speed/epoch_seconds"].as_f64().unwrap_or_default();
        Ok(())
    }

    /// The first epoch with the lowest error of those that judge it, as in `best.safetensors`: 0 where training has
    /// never beaten its start. `None` before the first epoch is done.
    pub fn best(&self) -> Option<Epoch> {
        self.last()?;
        self.epochs.iter().copied().min_by(|a, b| a.judged().total_cmp(&b.judged()))
    }

    /// The images by which its best epoch is chosen.
    pub fn judged_by(&self) -> &'static str {
        if self.config.training.validation > 0 { "validation" } else { "test" }
    }

    /// The last completed epoch.
    pub fn last(&self) -> Option<Epoch> {
        self.epochs.last().copied().filter(|epoch| epoch.number > 0)
    }
}
