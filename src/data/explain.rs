//! Explains why a place holds no data set: what is there instead, and what to do with it.

use super::four::{Kind, Sets, is_one_of_four};
use super::place::{Place, ends_in, list, name};
use super::{Error, npz, pngs};
use std::path::{Path, PathBuf};

/// The forms of data that are read, for users who have another.
const READ: &str = "a data folder holds the four IDX files of MNIST or a set like it (train-images-idx3-ubyte, \
                    train-labels-idx1-ubyte, t10k-…), raw or .gz, or one .npz file, or folders of PNGs by class \
                    (train/3/*.png, test/3/*.png); docs/data.md has the rest";

/// The remedy for images and labels in another form.
const AS_NPZ: &str = "save its images and labels as one .npz file, with numpy: numpy.savez(\"set.npz\", x_train=x_train, \
                      y_train=y_train, x_test=x_test, y_test=y_test), images as uint8 (N, height, width)";

/// The extensions of archives.
const ARCHIVES: [&str; 7] = ["zip", "tar", "tgz", "7z", "rar", "xz", "bz2"];

/// The number of names that are listed.
const LISTED: usize = 5;

/// The error for a `place` that holds no single set, nor does one folder `below` it.
pub(super) fn no_set(place: &Place, below: &[Place]) -> Error {
    let problem = match place.is_folder() {
        false => of_file(place.path()),
        true if below.len() > 1 => several_below(place, below),
        true => of_folder(place),
    };
    Error::files(place.path(), problem)
}

fn of_file(path: &Path) -> String {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.display().to_string(),
        _ => ".".into(),
    };
    if is_one_of_four(path) {
        format!("is one of the four files of a set: give its folder, {folder}")
    } else if is_csv(path) {
        format!("CSV is not read: {AS_NPZ}")
    } else if is_archive(path) {
        "is an archive, which is not read: unpack it, and give the folder".into()
    } else if ends_in(path, "gz") {
        format!("is one packed file: give the folder with all four files of a set, perhaps {folder}")
    } else if ends_in(path, "png") {
        "is one image: give the folder with train/ and test/, in which each class has a folder".into()
    } else {
        format!("is not read as a data set: {READ}")
    }
}

fn several_below(place: &Place, below: &[Place]) -> String {
    let paths = below.iter().map(|found| within(place, found));
    format!("has several sets in folders below it, {}: give one of these folders", listed(paths))
}

/// The path from a place to one below it.
fn within(place: &Place, below: &Place) -> String {
    below.path().strip_prefix(place.path()).unwrap_or(below.path()).display().to_string()
}

fn of_folder(place: &Place) -> String {
    let ways = [unclear, parts_of_pngs, loose_pngs, unclear_below, csv, archives];
    ways.iter().find_map(|way| way(place)).unwrap_or_else(|| nothing(place))
}

/// The reason why no set is read from a place with files of some: a file is missing, or there are several sets.
pub(super) fn unclear(place: &Place) -> Option<String> {
    let of_four = |kind| Sets::in_place(place, kind).trouble();
    of_four(Kind::Idx).or_else(|| of_four(Kind::Arrays)).or_else(|| several_npz(place))
}

fn unclear_below(place: &Place) -> Option<String> {
    let below = place.below(&|place| unclear(place).is_some());
    let first = below.first()?;
    Some(format!("{} in it {}", within(place, first), unclear(first)?))
}

fn several_npz(place: &Place) -> Option<String> {
    let archives = npz::archives(place);
    let names = listed(archives.iter().map(|path| name(path)));
    (archives.len() > 1)
        .then(|| format!("holds several .npz files, {names}: give one of them, as --data-dir DIR/NAME.npz"))
}

fn parts_of_pngs(place: &Place) -> Option<String> {
    pngs::Parts::of(place).trouble()
}

/// PNGs that lie elsewhere than in train/CLASS and test/CLASS.
fn loose_pngs(place: &Place) -> Option<String> {
    let is_png = |path: &PathBuf| ends_in(path, "png");
    if place.files.iter().any(is_png) {
        return Some(
            "holds PNGs without a class: put them into folders by class, as train/3/*.png and test/3/*.png"
                .into(),
        );
    }
    let mut classes =
        place.folders.iter().filter(|folder| list(folder).is_ok_and(|(files, _)| files.iter().any(is_png)));
    let class = name(classes.next()?);
    Some(format!(
        "has folders of PNGs by class ({class}), but no train/ and test/: move the training images to \
         train/{class} and so on, and the test images to test/{class}"
    ))
}

fn csv(place: &Place) -> Option<String> {
    let names = files(place, is_csv)?;
    Some(format!("holds {names}, and CSV is not read: {AS_NPZ}"))
}

fn archives(place: &Place) -> Option<String> {
    let names = files(place, is_archive)?;
    Some(format!("holds {names}, and archives are not read: unpack it, and give the folder; {READ}"))
}

fn nothing(place: &Place) -> String {
    let folders = place.folders.iter().map(|path| format!("{}/", name(path)));
    let names = listed(place.files.iter().map(|path| name(path)).chain(folders));
    match names.as_str() {
        "" => format!("is empty: {READ}"),
        names => format!("holds {names}, and no data set in a known form: {READ}"),
    }
}

/// The names of the files of a kind; `None` where there are none.
fn files(place: &Place, is: fn(&Path) -> bool) -> Option<String> {
    let names = listed(place.files.iter().filter(|path| is(path)).map(|path| name(path)));
    (!names.is_empty()).then_some(names)
}

/// Some names, and the number of further ones.
pub(super) fn listed(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    let text = names.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

fn is_csv(path: &Path) -> bool {
    let name = name(path).to_lowercase();
    [".csv", ".tsv"].iter().any(|ending| name.strip_suffix(".gz").unwrap_or(&name).ends_with(ending))
}

fn is_archive(path: &Path) -> bool {
    ARCHIVES.iter().any(|ending| ends_in(path, ending)) || name(path).to_lowercase().ends_with(".tar.gz")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_there_is_said_and_what_to_do_with_it() {
        for (names, expected) in [
            (&[][..], "is empty: a data folder holds"),
            (&[".DS_Store"], "is empty"),
            (&["a.parquet", "b.mat", "c.pkl"], "holds a.parquet, b.mat, c.pkl, and no data set"),
            (&["1", "2", "3", "4", "5", "6", "7/x"], "holds 1, 2, 3, 4, 5 and 2 more, and"),
            (&["mnist.zip"], "holds mnist.zip, and archives are not read: unpack it"),
            (&["a.tar.gz"], "holds a.tar.gz, and archives"),
            (&["mnist_test.CSV"], "holds mnist_test.CSV, and CSV is not read: save"),
            (&["a.npz", "b.npz"], "several .npz files, a.npz, b.npz: give one of them"),
            (&["3/a.png"], "folders of PNGs by class (3), but no train/ and test/"),
            (&["a.png"], "PNGs of no class"),
            (&["train/3/a.png"], "has train/, but no test/"),
            (&["train/3/a.png", "Training/3/a.png", "test/3/a.png"], "has Training/ and train/"),
            (
                &["MNIST/raw/t10k-labels-idx1-ubyte"],
                "MNIST/raw in it has t10k-labels-idx1-ubyte, but no train",
            ),
            (&["train-labels-idx1-ubyte"], "has train-labels-idx1-ubyte, but no train-images-idx3-ubyte"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            for name in names {
                fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
                fs::write(folder.path().join(name), "").unwrap();
            }
            let said = no_set(&Place::at(folder.path()).unwrap(), &[]).to_string();
            assert!(said.contains(expected), "{names:?}: {said}");
        }
    }

    #[test]
    fn a_file_that_is_no_set_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        for (name, expected) in [
            ("t10k-labels.idx1-ubyte.gz", "is one of the four files of a set: give its folder"),
            ("kmnist-test-imgs.npz", "is one of the four files of a set: give its folder"),
            ("train.gz", "is one packed file: give the folder"),
            ("mnist.tar.gz", "is an archive"),
            ("mnist_train.csv.gz", "CSV is not read"),
            ("a.png", "is one image"),
            ("a.mat", "is not read as a data set: a data folder holds"),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, "").unwrap();
            let said = no_set(&Place::at(&path).unwrap(), &[]).to_string();
            assert!(said.contains(expected), "{name}: {said}");
        }
    }
}
