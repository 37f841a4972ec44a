//! A Slurm job array whose tasks work off a sweep.

use super::Folder;
use crate::train::files;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

impl Folder {
    /// Writes `slurm.sh`: an array of one task a run that is not done, each of which runs
    /// `eqprop sweep --worker`. `longest` is the estimated time of the longest run, seconds.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_slurm_script(&self, open: usize, longest: f64, data_dir: Option<&Path>) -> Result<PathBuf> {
        let absolute =
            |path: &Path| path.canonicalize().with_context(|| format!("{}: cannot be found", path.display()));
        let folder = absolute(&self.path)?;
        let program = std::env::current_exe().context("cannot tell where this program is")?;
        let data = match data_dir {
            Some(data) => format!(" --data-dir {}", quoted(&absolute(data)?)),
            None => String::new(),
        };
        // Twice the estimate, and an hour: nodes differ.
        let minutes = (2.0 * longest / 60.0).ceil() as u64 + 60;
        let text = format!(
            "#!/bin/bash\n\
             # Written by `eqprop sweep --slurm`; submit with: sbatch {script}\n\
             # Each task takes one run of the sweep; a task that is killed leaves its run to another, or to\n\
             # this script submitted again. Runs go on from their last checkpoints.\n\
             #SBATCH --job-name=eqprop\n\
             #SBATCH --array=1-{open}\n\
             #SBATCH --ntasks=1\n\
             #SBATCH --cpus-per-task=1\n\
             #SBATCH --mem=1G\n\
             #SBATCH --time={minutes}\n\
             #SBATCH --requeue\n\
             #SBATCH --signal=TERM@60\n\
             #SBATCH --output={log}\n\
             exec {program} sweep --worker --out {folder}{data}\n",
            script = quoted(&folder.join("slurm.sh")),
            log = folder.join("slurm-%A_%a.log").display(),
            program = quoted(&program),
            folder = quoted(&folder),
        );
        let path = self.path.join("slurm.sh");
        files::write_atomically(&path, text.as_bytes())?;
        Ok(path)
    }
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
