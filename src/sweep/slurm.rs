//! A Slurm job array, one task for each run to be trained.

use super::SweepFolder;
use crate::base::made::Made;
use crate::base::output::{is_control, shell_word, usage};
use crate::base::{files, program};
use anyhow::{Context, Result};
use itertools::Itertools;
use std::path::{Path, PathBuf};

impl SweepFolder {
    /// Writes `slurm.sh`: an array whose indices are places in the plan, counted from 1. Task n runs
    /// `eqprop sweep --task n`. `longest` is the estimated time of the longest run, in seconds.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_slurm_script(
        &self,
        tasks: &[usize],
        longest: f64,
        data_dir: Option<&Path>,
    ) -> Result<PathBuf> {
        let absolute = |path: &Path| path.canonicalize().map_err(files::failed(path, "cannot be found"));
        let folder = absolute(&self.path)?;
        let program = program::path().context("cannot tell where this program is")?;
        let data = data_dir.map(absolute).transpose()?;
        for path in [&folder, &program].into_iter().chain(&data) {
            if path.to_str().is_none_or(|text| text.contains(is_control)) {
                usage!("{path:?} cannot be written into a script: choose a path of printable characters");
            }
        }
        let data = data.map_or(String::new(), |data| format!(" --data-dir {}", shell_word(data.display())));
        // In an `#SBATCH` line `%` begins a pattern; one in the folder's own name must not.
        let logs = folder.display().to_string().replace('%', "%%").replace('\\', r"\\").replace('"', "\\\"");
        // Twice the estimate, and an hour: nodes differ.
        let minutes = (2.0 * longest / 60.0).ceil() as u64 + 60;
        let text = format!(
            "#!/bin/bash\n\
             # Written by `eqprop sweep --slurm`; submit with: sbatch {script}\n\
             # Task n trains the n-th run of plan.json. A requeued task resumes from the run's last\n\
             # checkpoint, and so do all that have not ended when this script is submitted again.\n\
             #SBATCH --job-name=eqprop\n\
             #SBATCH --array={array}\n\
             #SBATCH --ntasks=1\n\
             #SBATCH --cpus-per-task=1\n\
             #SBATCH --mem=1G\n\
             #SBATCH --time={minutes}\n\
             #SBATCH --requeue\n\
             # Keeps the messages of attempts that were requeued.\n\
             #SBATCH --open-mode=append\n\
             # Without B: only steps that srun starts would get the signal, and there are none.\n\
             #SBATCH --signal=B:TERM@60\n\
             #SBATCH --output=\"{logs}/slurm-%A_%a.log\"\n\
             exec {program} sweep --task \"$SLURM_ARRAY_TASK_ID\" --out {folder}{data}\n",
            array = ranges(tasks),
            script = shell_word(folder.join("slurm.sh").display()),
            program = shell_word(program.display()),
            folder = shell_word(folder.display()),
        );
        let path = self.path.join("slurm.sh");
        let mut made = Made::default();
        made.add(path.clone(), text);
        made.write()?;
        Ok(path)
    }
}

/// Ascending numbers as Slurm writes them: `1-3,5`.
fn ranges(numbers: &[usize]) -> String {
    let range = |run: &[usize]| match run {
        [first, .., last] => format!("{first}-{last}"),
        one => one[0].to_string(),
    };
    numbers.chunk_by(|a, b| a + 1 == *b).map(range).join(",")
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn indices_are_written_as_slurm_reads_them() {
        assert_eq!(ranges(&[1]), "1");
        assert_eq!(ranges(&[1, 2, 3, 5, 8, 9]), "1-3,5,8-9");
    }
}
