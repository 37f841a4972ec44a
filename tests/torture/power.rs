//! A disk that keeps through a power cut only the data for which a process has waited.
//!
//! Of a file survives what it held when it was last synced, and of what was written since then anything: nothing, a
//! part, zeros in its place. Of a folder survive the names that it had when it was last synced, and the first so many
//! changes since.

use super::calls::Call;
use super::inputs::Dice;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// A file's contents now, and when they were last synced.
#[derive(Clone, Default)]
struct Contents {
    now: Vec<u8>,
    synced: Vec<u8>,
}

/// The target of a name: a folder, or one of the files.
#[derive(Clone, Copy, PartialEq)]
enum Node {
    Folder,
    File(usize),
}

/// A change of the names in a folder.
#[derive(Clone)]
struct Change {
    folder: PathBuf,
    gone: Option<PathBuf>,
    there: Option<(PathBuf, Node)>,
}

/// A disk.
#[derive(Clone, Default)]
pub struct Disk {
    files: Vec<Contents>,
    now: BTreeMap<PathBuf, Node>,
    synced: BTreeMap<PathBuf, Node>,
    /// Changes that are not synced yet, in order.
    changes: Vec<Change>,
    /// The position at which each open file is written next, by its number.
    places: HashMap<i64, usize>,
}

impl Disk {
    /// A disk with nothing but this folder.
    pub fn of(root: &Path) -> Self {
        let root = root.canonicalize().unwrap();
        let names: BTreeMap<PathBuf, Node> = [(root, Node::Folder)].into();
        Self { now: names.clone(), synced: names, ..Self::default() }
    }

    fn change(&mut self, gone: Option<&Path>, there: Option<(PathBuf, Node)>) {
        let any = gone.or(there.as_ref().map(|(path, _)| &**path));
        let Some(folder) = any.and_then(Path::parent) else { return };
        let change = Change { folder: folder.into(), gone: gone.map(Path::to_path_buf), there };
        apply(&mut self.now, &change);
        self.changes.push(change);
    }

    fn file(&mut self, path: &Path) -> Option<&mut Contents> {
        match self.now.get(path) {
            Some(Node::File(file)) => self.files.get_mut(*file),
            _ => None,
        }
    }

    /// Applies a call.
    pub fn take(&mut self, call: &Call) {
        let Some(path) = call.paths.first() else { return };
        let descriptor =
            call.rest.split([',', ')']).next().and_then(|number| number.trim().parse::<i64>().ok());
        match &call.name[..] {
            "open" | "openat" => {
                self.places.insert(call.returned, 0);
                let is_made = call.rest.contains("O_CREAT") && !self.now.contains_key(path);
                if is_made
                    && !call.rest.contains("O_TMPFILE")
                    && !path.to_string_lossy().contains(" (deleted)")
                {
                    self.files.push(Contents::default());
                    self.change(None, Some((path.clone(), Node::File(self.files.len() - 1))));
                }
                let length = match self.file(path) {
                    Some(file) if call.rest.contains("O_TRUNC") => {
                        file.now.clear();
                        0
                    }
                    Some(file) => file.now.len(),
                    None => 0,
                };
                if call.rest.contains("O_APPEND") {
                    self.places.insert(call.returned, length);
                }
            }
            "write" | "pwrite64" => {
                let descriptor = descriptor.unwrap_or(-1);
                let at = match &call.name[..] {
                    "write" => self.places.get(&descriptor).copied().unwrap_or(0),
                    _ => call
                        .rest
                        .rsplit([',', ' '])
                        .next()
                        .and_then(|n| n.trim_end_matches(')').parse().ok())
                        .unwrap_or(0),
                };
                let bytes = &call.bytes[..(call.returned as usize).min(call.bytes.len())];
                if let Some(file) = self.file(path) {
                    let end = at + bytes.len();
                    file.now.resize(file.now.len().max(end), 0);
                    file.now[at..end].copy_from_slice(bytes);
                    self.places.insert(descriptor, end);
                }
            }
            "lseek" => {
                self.places.insert(descriptor.unwrap_or(-1), call.returned as usize);
            }
            "ftruncate" => {
                let length =
                    call.rest.rsplit(',').next().and_then(|n| n.trim().trim_end_matches(')').parse().ok());
                if let Some((file, length)) = self.file(path).zip(length) {
                    file.now.resize(length, 0);
                }
            }
            "fsync" | "fdatasync" => match self.file(path) {
                Some(file) => file.synced = file.now.clone(),
                None => {
                    let (done, left) =
                        std::mem::take(&mut self.changes).into_iter().partition(|c| c.folder == *path);
                    self.changes = left;
                    let done: Vec<Change> = done;
                    done.iter().for_each(|change| apply(&mut self.synced, change));
                }
            },
            "rename" | "renameat" | "renameat2" => {
                let to = &call.paths[1];
                if let Some(node) = self.now.get(path).copied() {
                    self.change(Some(path), Some((to.clone(), node)));
                }
            }
            "link" | "linkat" => {
                if let Some(node) = self.now.get(path).copied() {
                    self.change(None, Some((call.paths[1].clone(), node)));
                }
            }
            "unlink" | "unlinkat" => self.change(Some(path), None),
            "mkdir" | "mkdirat" => self.change(None, Some((path.clone(), Node::Folder))),
            _ => {}
        }
    }

    /// A possible state after a power cut now, written into the folder `place`.
    pub fn after_a_cut(&self, root: &Path, place: &Path, dice: &mut Dice) {
        let mut names = self.synced.clone();
        let mut folders: Vec<&PathBuf> = self.changes.iter().map(|change| &change.folder).collect();
        folders.sort();
        folders.dedup();
        for folder in folders {
            let changes: Vec<&Change> =
                self.changes.iter().filter(|change| change.folder == *folder).collect();
            let survive = match dice.below(3) {
                0 => 0,
                1 => changes.len(),
                _ => dice.below(changes.len() as u64 + 1) as usize,
            };
            changes[..survive].iter().for_each(|change| apply(&mut names, change));
        }
        let root = root.canonicalize().unwrap();
        let contents: Vec<Vec<u8>> = self.files.iter().map(|file| file.after_a_cut(dice)).collect();
        let mut written: HashMap<usize, PathBuf> = HashMap::new();
        for (path, node) in &names {
            let to = place.join(path.strip_prefix(&root).unwrap());
            // Files in a folder whose name is lost are lost.
            if !to.parent().is_some_and(Path::is_dir) {
                continue;
            }
            match node {
                Node::Folder => fs::create_dir_all(&to).unwrap(),
                Node::File(file) => match written.get(file) {
                    Some(other) => fs::hard_link(other, &to).unwrap(),
                    None => {
                        fs::write(&to, &contents[*file]).unwrap();
                        written.insert(*file, to);
                    }
                },
            }
        }
    }
}

impl Contents {
    fn after_a_cut(&self, dice: &mut Dice) -> Vec<u8> {
        let more = self.now.len().saturating_sub(self.synced.len());
        match dice.below(4) {
            _ if self.now == self.synced => self.now.clone(),
            0 => self.synced.clone(),
            1 => self.now.clone(),
            // Its length, and not yet its data.
            2 => [&self.synced[..], &vec![0; more]].concat(),
            _ => self.now[..self.now.len() - dice.below(more as u64 + 1) as usize].to_vec(),
        }
    }
}

fn apply(names: &mut BTreeMap<PathBuf, Node>, change: &Change) {
    if let Some(gone) = &change.gone {
        names.remove(gone);
    }
    if let Some((path, node)) = &change.there {
        names.insert(path.clone(), *node);
    }
}
