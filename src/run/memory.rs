//! The memory that a process can have here: free memory, and limits.

use super::error::{Result, refuse};
use crate::base::files;
use crate::config::Config;
use std::path::{Path, PathBuf};

/// Checks that enough memory is free for the least that a run of this configuration needs, before its network is
/// made: the system would end the process without a message.
///
/// # Errors
/// Says how much is needed and how much there is, and by what that is limited.
pub fn check(config: &Config) -> Result<()> {
    let (dims, training) = (&config.network.dims, &config.training);
    let neurons: usize = dims.0.iter().sum();
    // θ and the memory of the synapses, the engine's copy and a checkpoint; the states of two steps, their sums and
    // x.
    let numbers = 3 * config.remembered() + 4 * training.batch_size * neurons;
    let devices = config.network().parameter_count() * config.synapse.synapse().bytes();
    let needed = (numbers * training.dtype.dtype().size_in_bytes() + devices) as u64;
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    if let Some((free, by)) = available().filter(|(free, _)| needed > *free) {
        refuse!(
            "network.dims = {:?} with training.batch_size = {} needs {:.1} GiB of memory at the least, and {:.1} GiB \
             are free here ({by}): choose less of either",
            dims.0,
            training.batch_size,
            gib(needed),
            gib(free)
        );
    }
    Ok(())
}

/// Bytes of memory that this process can still have without swapping, and the limit that binds; `None` where the
/// system does not say.
fn available() -> Option<(u64, String)> {
    let machine = field("/proc/meminfo", "MemAvailable:").map(|free| (free, "of this machine".to_string()));
    machine.into_iter().chain(of_process()).chain(of_group()).min_by_key(|(free, _)| *free)
}

/// The value of a field of a /proc file, given there in kB, in bytes.
fn field(file: &str, name: &str) -> Option<u64> {
    let text = files::read_text(Path::new(file)).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(1024 * line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?)
}

/// The rest within `ulimit`.
#[cfg(unix)]
fn of_process() -> Vec<(u64, String)> {
    let left = |resource, used: &str, name: &str| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the pointer is to a limit that lives as long as the call.
        let known = unsafe { libc::getrlimit(resource, &raw mut limit) } == 0;
        let free = |used: u64| (limit.rlim_cur.saturating_sub(used), format!("by {name}"));
        (known && limit.rlim_cur != libc::RLIM_INFINITY)
            .then(|| field("/proc/self/status", used).map(free))
            .flatten()
    };
    let limits =
        [left(libc::RLIMIT_AS, "VmSize:", "ulimit -v"), left(libc::RLIMIT_DATA, "VmData:", "ulimit -d")];
    limits.into_iter().flatten().collect()
}

/// The rest within `ulimit`.
#[cfg(not(unix))]
fn of_process() -> Vec<(u64, String)> {
    Vec::new()
}

/// The rest within the control groups of this process and those above them, as a container or a batch system sets
/// them.
fn of_group() -> Vec<(u64, String)> {
    let groups = files::read_text(Path::new("/proc/self/cgroup")).unwrap_or_default();
    groups.lines().filter_map(|line| left_by(Path::new("/sys/fs/cgroup"), line)).collect()
}

/// The rest within the group of a line of /proc/self/cgroup, `0::/path` in version 2, `4:memory:/path` in version 1,
/// or within one above it.
fn left_by(root: &Path, line: &str) -> Option<(u64, String)> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let (root, limit, usage, cached) = match controllers {
        "" => (root.to_path_buf(), "memory.max", "memory.current", "inactive_file "),
        _ if controllers.split(',').any(|controller| controller == "memory") => {
            (root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
        }
        _ => return None,
    };
    let group = root.join(path.trim_start_matches('/'));
    let number = |file: PathBuf| files::read_text(&file).ok()?.trim().parse::<u64>().ok();
    let left = |folder: &Path| {
        // Without a limit the value is `max`, or in version 1 more than any machine has.
        let left_of = number(folder.join(limit)).filter(|limit| *limit < 1 << 60)?;
        let statistics = files::read_text(&folder.join("memory.stat")).unwrap_or_default();
        let cached = statistics.lines().find_map(|line| line.strip_prefix(cached)?.parse::<u64>().ok());
        let used = number(folder.join(usage)).unwrap_or(0).saturating_sub(cached.unwrap_or(0));
        Some((left_of.saturating_sub(used), format!("by {}", folder.join(limit).display())))
    };
    // In a container the path may be that of the host, and the group is the root.
    let above = group.ancestors().take_while(|folder| folder.starts_with(&root));
    above.filter_map(left).min_by_key(|(free, _)| *free)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_least_that_a_group_or_one_above_it_leaves_is_what_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let write = |name: &str, text: &str| {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), text).unwrap();
        };
        write("memory.max", "max\n");
        write("job/memory.max", "5000\n");
        write("job/memory.current", "3000\n");
        write("job/memory.stat", "anon 1\ninactive_file 1000\n");
        write("job/step/memory.max", "100000\n");
        write("memory/old/memory.limit_in_bytes", "700\n");
        write("memory/old/memory.usage_in_bytes", "300\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        let left = |line| left_by(root, line).map(|(left, _)| left);
        assert_eq!(left("0::/job/step"), Some(3000));
        assert_eq!(left("0::/"), None);
        assert_eq!(left("4:cpu,memory:/old"), Some(400));
        assert_eq!(left("4:memory:/"), None);
        assert_eq!(left("3:cpu:/old"), None);
        // Some memory is available to the process that runs this test.
        assert!(available().is_none_or(|(free, _)| free > 1 << 20));
    }
}
