//! A Slurm job array whose tasks work off a sweep.

use super::Folder;
use crate::base::files;
use crate::base::output::{shell_word, usage};
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
        let data = data_dir.map(absolute).transpose()?;
        for path in [&folder, &program].into_iter().chain(&data) {
            if path.to_str().is_none_or(|text| text.contains(char::is_control)) {
                usage!("{path:?} cannot be written into a script: choose a path of printable characters");
            }
        }
        let data = data.map_or(String::new(), |data| format!(" --data-dir {}", shell_word(data.display())));
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
             # Without B: only steps that srun starts would get the signal, and there are none.\n\
             #SBATCH --signal=B:TERM@60\n\
             #SBATCH --output={logs}\n\
             exec {program} sweep --worker --out {folder}{data}\n",
            script = shell_word(folder.join("slurm.sh").display()),
            logs = logs(&folder),
            program = shell_word(program.display()),
            folder = shell_word(folder.display()),
        );
        let path = self.path.join("slurm.sh");
        files::write_atomically(&path, text.as_bytes())?;
        Ok(path)
    }
}

/// The logs of the tasks as an `#SBATCH` line names them. There `%` begins a pattern, which those of the folder's own
/// name do not.
fn logs(folder: &Path) -> String {
    let folder = folder.display().to_string().replace('%', "%%").replace('\\', r"\\").replace('"', "\\\"");
    format!("\"{folder}/slurm-%A_%a.log\"")
}
