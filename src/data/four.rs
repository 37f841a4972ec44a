//! Sets in four files, images and labels for training and for testing, which are recognised by their names.
//!
//! MNIST's are `train-images-idx3-ubyte`, `t10k-labels-idx1-ubyte` and so on; its kin put the set before it
//! (`emnist-letters-test-images-idx3-ubyte.gz`, `kmnist-train-imgs.npz`), call the part `test`, or write dots and
//! underscores for dashes (`train-images.idx3-ubyte`, `test_labels.npy`).

use super::place::{Place, list, name};
use super::{DataChoice, Dataset, MOST_PIXELS, Result, Source, Split, there};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tracing::info;

/// The format of the four files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// IDX, raw or gzipped.
    Idx,
    /// One array per file: `.npz` or `.npy`.
    Arrays,
}

/// The contents of a file of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Images,
    Labels,
}

const BOTH: [What; 2] = [What::Images, What::Labels];

/// The part of a set: MNIST calls its test images `t10k`, its kin `test`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Train,
    T10k,
    Test,
}

/// The meaning of a file's name; MNIST's files do not name the set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Role {
    set: String,
    part: Part,
    what: What,
}

/// The files of one set that exist.
#[derive(Clone, Debug)]
pub(super) struct Files {
    /// The beginning of their names; empty for MNIST.
    set: String,
    /// Images and labels for training, neither where there are test images alone, and those for testing.
    parts: [[Option<PathBuf>; 2]; 2],
}

/// All sets of a kind in one place.
pub(super) struct Sets {
    kind: Kind,
    sets: Vec<Files>,
}

/// A folder with the four files of a set, or with two for testing.
pub(super) struct FourFiles {
    /// Their format.
    pub kind: Kind,
    /// Reads a file of images and one of their labels, of at most so many pixels.
    pub pair: fn(&Path, &Path, usize) -> Result<Split>,
}

impl FourFiles {
    fn chosen(&self, place: Option<&Place>) -> Option<Files> {
        Sets::in_place(place?, self.kind).chosen().cloned()
    }
}

impl Source for FourFiles {
    fn has(&self, choice: DataChoice, place: Option<&Place>) -> bool {
        choice != DataChoice::Glyphs && self.chosen(place).is_some()
    }

    fn to_train_on(&self, place: &Place) -> Option<String> {
        let chosen = self.chosen(Some(place)).filter(Files::is_whole)?;
        Some(chosen.there().join(" with "))
    }

    fn read(&self, choice: DataChoice, place: Option<&Place>) -> Result<Dataset> {
        let [train, test] = there(self.chosen(place))?.read(self.pair)?;
        Dataset::of_files(choice, there(place)?.given(), train, test)
    }
}

impl Kind {
    /// The role of a file with this name, if any.
    fn role(self, name: &str) -> Option<Role> {
        let name = name.to_lowercase();
        let stem = match self {
            Kind::Idx => {
                let (stem, ending) = name.strip_suffix(".gz").unwrap_or(&name).rsplit_once("idx")?;
                ending.starts_with(|c: char| c.is_ascii_digit()).then_some(stem)?
            }
            Kind::Arrays => name.strip_suffix(".npz").or_else(|| name.strip_suffix(".npy"))?,
        };
        let stem = stem.replace(['_', '.'], "-");
        let words: Vec<&str> = stem.trim_end_matches('-').split('-').collect();
        let (set, [a, b]) = words.split_last_chunk()?;
        let (part, what) = part(a).zip(what(b)).or_else(|| part(b).zip(what(a)))?;
        Some(Role { set: set.join("-"), part, what })
    }

    /// The name of a file in this role.
    fn name(self, set: &str, part: &str, what: What) -> String {
        let dash = if set.is_empty() { "" } else { "-" };
        match (self, what) {
            (Kind::Idx, What::Images) => format!("{set}{dash}{part}-images-idx3-ubyte"),
            (Kind::Idx, What::Labels) => format!("{set}{dash}{part}-labels-idx1-ubyte"),
            (Kind::Arrays, What::Images) => format!("{set}{dash}{part}-imgs.npz"),
            (Kind::Arrays, What::Labels) => format!("{set}{dash}{part}-labels.npz"),
        }
    }
}

fn part(word: &str) -> Option<Part> {
    match word {
        "train" => Some(Part::Train),
        "t10k" => Some(Part::T10k),
        "test" => Some(Part::Test),
        _ => None,
    }
}

fn what(word: &str) -> Option<What> {
    match word {
        "images" | "imgs" | "x" => Some(What::Images),
        "labels" | "y" => Some(What::Labels),
        _ => None,
    }
}

/// True where a file is one of a set's four, by its name.
pub(super) fn is_one_of_four(path: &Path) -> bool {
    [Kind::Idx, Kind::Arrays].iter().any(|kind| kind.role(&name(path)).is_some())
}

impl Files {
    /// Images and labels of a part, where both exist.
    fn pair(&self, part: usize) -> Option<(&Path, &Path)> {
        let [images, labels] = &self.parts[part];
        images.as_deref().zip(labels.as_deref())
    }

    fn is_whole(&self) -> bool {
        self.pair(0).and(self.pair(1)).is_some()
    }

    fn is_to_test_on(&self) -> bool {
        self.parts[0] == [None, None] && self.pair(1).is_some()
    }

    /// Training and test images, each pair read by `read`; no training images where there are no files of them.
    ///
    /// # Errors
    /// Those of `read`.
    fn read(&self, read: impl Fn(&Path, &Path, usize) -> Result<Split>) -> Result<[Split; 2]> {
        if !self.set.is_empty() {
            info!("reading the files of {}", self.set);
        }
        let split = |part, most| match self.pair(part) {
            Some((images, labels)) => read(images, labels, most),
            None => Ok(Split::default()),
        };
        let train = split(0, MOST_PIXELS)?;
        let test = split(1, MOST_PIXELS - train.images.len())?;
        Ok([train, test])
    }

    /// The names of the existing files.
    fn there(&self) -> Vec<String> {
        self.parts.iter().flatten().flatten().map(|path| name(path)).collect()
    }

    /// The names of the missing files.
    fn missing(&self, kind: Kind) -> Vec<String> {
        let test = if self.set.is_empty() { "t10k" } else { "test" };
        let all = ["train", test].into_iter().flat_map(|part| BOTH.map(|what| (part, what)));
        let missing = all.zip(self.parts.iter().flatten()).filter(|(_, file)| file.is_none());
        missing.map(|((part, what), _)| kind.name(&self.set, part, what)).collect()
    }
}

impl Sets {
    /// The sets in a place. Where a file exists in two forms, the raw one is taken.
    pub fn in_place(place: &Place, kind: Kind) -> Self {
        let role = move |path: &PathBuf| Some((kind.role(&name(path))?, path.clone()));
        let (packed, raw): (Vec<_>, Vec<_>) = place
            .files
            .iter()
            .filter_map(role)
            .partition(|(_, path)| name(path).to_lowercase().ends_with(".gz"));
        // Some programs unpack a file into a folder with the file's name. The folder is not the file.
        let within = place.folders.iter().filter_map(role).flat_map(|(wanted, folder)| {
            let files = list(&folder).map_or_else(|_| Vec::new(), |(files, _)| files);
            files.into_iter().filter_map(move |path| role(&path)).filter(move |(role, _)| *role == wanted)
        });
        let mut files = BTreeMap::new();
        for (role, path) in raw.into_iter().chain(packed).chain(within) {
            files.entry(role).or_insert(path);
        }
        let mut names: Vec<String> = files.keys().map(|role| role.set.clone()).collect();
        names.dedup();
        let sets = names.into_iter().map(|set| {
            let mut pair = |part| BOTH.map(|what| files.remove(&Role { set: set.clone(), part, what }));
            let [train, t10k, test] = [Part::Train, Part::T10k, Part::Test].map(&mut pair);
            let test = match (&t10k, &test) {
                ([Some(_), Some(_)], _) => t10k,
                (_, [Some(_), Some(_)]) => test,
                _ => {
                    let ([a, b], [c, d]) = (t10k, test);
                    [a.or(c), b.or(d)]
                }
            };
            Files { set, parts: [train, test] }
        });
        Self { kind, sets: sets.collect() }
    }

    /// The readable ones: with all four files, or else with those for testing only.
    fn readable(&self) -> Vec<&Files> {
        let those = |is: fn(&Files) -> bool| self.sets.iter().filter(|set| is(set)).collect::<Vec<_>>();
        let whole = those(Files::is_whole);
        if whole.is_empty() { those(Files::is_to_test_on) } else { whole }
    }

    /// The set to read: the one without a name, or the only one.
    pub fn chosen(&self) -> Option<&Files> {
        match self.readable()[..] {
            [only] => Some(only),
            ref several => several.iter().find(|files| files.set.is_empty()).copied(),
        }
    }

    /// The reason why none is chosen, where there are files of any.
    pub fn trouble(&self) -> Option<String> {
        let readable = self.readable();
        if readable.len() > 1 {
            let names: Vec<&str> = readable.iter().map(|files| files.set.as_str()).collect();
            return Some(format!(
                "holds several sets, {}: give a folder with the files of one of them",
                names.join(", ")
            ));
        }
        let fullest = self.sets.iter().max_by_key(|files| files.there().len())?;
        let packed = if self.kind == Kind::Idx { ", raw or .gz" } else { "" };
        Some(format!(
            "has {}, but no {}{packed}: a set has images and labels to train on, and others to test on",
            fullest.there().join(", "),
            fullest.missing(self.kind).join(" and no ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_are_known_by_their_names() {
        let role = |set: &str, part, what| Some(Role { set: set.into(), part, what });
        for (name, expected) in [
            ("train-images-idx3-ubyte", role("", Part::Train, What::Images)),
            ("t10k-labels.idx1-ubyte.gz", role("", Part::T10k, What::Labels)),
            ("emnist-letters-test-images-idx3-ubyte.GZ", role("emnist-letters", Part::Test, What::Images)),
            ("qmnist-train-labels-idx2-int", role("qmnist", Part::Train, What::Labels)),
            ("train-images.png", None),
            ("idx3-ubyte", None),
            ("images-idx3-ubyte", None),
        ] {
            assert_eq!(Kind::Idx.role(name), expected, "{name}");
        }
        for (name, expected) in [
            ("kmnist-train-imgs.npz", role("kmnist", Part::Train, What::Images)),
            ("test_labels.npy", role("", Part::Test, What::Labels)),
            ("X_train.npy", role("", Part::Train, What::Images)),
            ("mnist.npz", None),
        ] {
            assert_eq!(Kind::Arrays.role(name), expected, "{name}");
        }
    }

    /// The set that is chosen of these files; names with a slash are in a folder.
    fn chosen(names: &[&str]) -> std::result::Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            fs::write(folder.path().join(name), "").unwrap();
        }
        let sets = Sets::in_place(&Place::at(folder.path()).unwrap(), Kind::Idx);
        match sets.chosen() {
            Some(files) => Ok(files.there()),
            None => Err(sets.trouble().unwrap_or_default()),
        }
    }

    #[test]
    fn one_set_is_chosen_or_it_is_said_why_not() {
        const MNIST: [&str; 4] = [
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        ];
        let with = |set: &str| MNIST.map(|name| format!("{set}-{name}"));
        let (letters, digits) = (with("emnist-letters"), with("emnist-digits"));
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        let digits: Vec<&str> = digits.iter().map(String::as_str).collect();
        assert_eq!(chosen(&MNIST).unwrap(), MNIST);
        assert_eq!(chosen(&letters).unwrap(), letters);
        assert_eq!(chosen(&[&MNIST[..], &letters].concat()).unwrap(), MNIST);
        let trouble = chosen(&[&letters[..], &digits].concat()).unwrap_err();
        assert!(trouble.contains("several sets, emnist-digits, emnist-letters"), "{trouble}");
        assert_eq!(chosen(&MNIST[2..]).unwrap(), MNIST[2..]);
        assert_eq!(chosen(&[&MNIST[2..], &letters].concat()).unwrap(), letters, "a whole one before a part");
        let trouble = chosen(&MNIST[1..]).unwrap_err();
        assert!(trouble.starts_with("has train-labels-idx1-ubyte, t10k-"), "{trouble}");
        assert!(trouble.contains("but no train-images-idx3-ubyte, raw or .gz"), "{trouble}");
        assert!(chosen(&MNIST[..2]).unwrap_err().contains("no t10k-images-idx3-ubyte and no t10k-labels"));
        assert_eq!(chosen(&["notes.txt"]).unwrap_err(), "");
    }

    #[test]
    fn raw_files_come_before_packed_ones_and_those_in_folders() {
        let rest = ["train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];
        for (names, taken) in [
            (&["train-images-idx3-ubyte.gz", "train-images.idx3-ubyte"][..], "train-images.idx3-ubyte"),
            (
                &["train-images-idx3-ubyte/train-images.idx3-ubyte", "train-images-idx3-ubyte.gz"],
                "train-images-idx3-ubyte.gz",
            ),
            (&["train-images-idx3-ubyte/train-images.idx3-ubyte"], "train-images.idx3-ubyte"),
        ] {
            assert_eq!(chosen(&[names, &rest].concat()).unwrap()[0], taken);
        }
        let other = ["train-images-idx3-ubyte/train-labels-idx1-ubyte"];
        assert!(chosen(&[&other[..], &rest].concat()).is_err(), "labels are no images");
        // Neither is whole alone, but together they are.
        let mixed = ["train-images-idx3-ubyte", rest[0], "test-images-idx3-ubyte", rest[2]];
        assert_eq!(chosen(&mixed).unwrap(), mixed);
    }
}
