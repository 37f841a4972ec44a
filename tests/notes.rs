//! The documentation agrees with other files: links to a line of the program lead to what they name, the tests that
//! hold a promise exist, and tables of results have the numbers of the reports. Comments and pages keep to the style
//! of CONTRIBUTING.md.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The links [`text`](path#Ln) of a text: text, path, n.
fn links(text: &str) -> Vec<(&str, &str, usize)> {
    (text.split("[`").skip(1))
        .filter_map(|rest| {
            let (name, rest) = rest.split_once("`](")?;
            let (path, line) = rest.split_once(')')?.0.split_once("#L")?;
            Some((name, path, line.parse().ok()?))
        })
        .collect()
}

#[test]
fn links_to_lines_lead_to_what_they_name() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let rules = fs::read_dir(docs.join("rules")).unwrap().map(|page| page.unwrap().path());
    let (mut found, mut astray) = (0, Vec::new());
    for page in rules.chain(["implementation-notes.md", "convolutions.md"].map(|page| docs.join(page))) {
        let text = fs::read_to_string(&page).unwrap();
        for (name, path, number) in links(&text) {
            found += 1;
            let file = fs::read_to_string(page.with_file_name(path)).unwrap_or_default();
            let line = file.lines().nth(number - 1).unwrap_or_default();
            if !line.contains(name) {
                let now = file.lines().position(|line| line.contains(name)).map(|at| at + 1);
                let page = page.display();
                astray.push(format!("{page}: {path}#L{number} is not `{name}`, which is at {now:?}"));
            }
        }
    }
    assert!(found > 20, "{found}");
    assert!(astray.is_empty(), "{}", astray.join("\n"));
}

/// True where `file::test` is a test in `tests/`, or `module::tests::test` one in `src/`; `file::*` is any test of a
/// file.
fn is_test(root: &Path, name: &str) -> bool {
    let Some((place, test)) = name.rsplit_once("::") else { return false };
    let path = match place.strip_suffix("::tests") {
        Some(module) => format!("src/{}", module.replace("::", "/")),
        None => format!("tests/{place}"),
    };
    let files = [".rs", "/mod.rs"].map(|end| root.join(path.clone() + end));
    let text = files.iter().find_map(|file| fs::read_to_string(file).ok()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    (0..lines.len()).any(|at| {
        let named = lines[at].strip_prefix("fn ").and_then(|line| line.split_once('('));
        let mut above = lines[..at].iter().rev().take_while(|line| line.starts_with(['#', '/']));
        named.is_some_and(|(name, _)| test == "*" || test == name) && above.any(|line| *line == "#[test]")
    })
}

#[test]
fn every_promise_names_a_test_that_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/reliability.md")).unwrap();
    let (_, table) = page.split_once("| promise | test |\n|---|---|\n").unwrap();
    let rows: Vec<&str> = table.lines().take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 80, "{}", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        let (promise, held) = row.trim_matches(['|', ' ']).rsplit_once(" | ").unwrap();
        let held: Vec<&str> = held.split('`').skip(1).step_by(2).collect();
        // A target of make or a lint holds a promise as well.
        if !held.iter().any(|by| by.contains("::") || by.starts_with("make ")) {
            wrong.push(format!("nothing holds “{promise}”"));
        }
        let gone = held.iter().filter(|by| by.contains("::") && !is_test(root, by));
        wrong.extend(gone.map(|test| format!("there is no test {test}")));
    }
    assert!(wrong.is_empty(), "docs/reliability.md:\n{}", wrong.join("\n"));
}

/// A line of `table3.csv`.
struct Row {
    network: String,
    psi: String,
    is_preset: bool,
    verdict: String,
    n: usize,
    /// Test error, and train error in parentheses.
    here: String,
    paper: String,
    epochs: String,
    difference: String,
    within: String,
}

impl Row {
    /// The result of the row in the form of the table of docs/reproduction: errors, n, verdict.
    fn cells(&self) -> String {
        if self.n == 0 {
            return format!("| | | {} ", self.verdict.replace('-', " "));
        }
        let verdict = if self.n == 1 { "no verdict" } else { &self.verdict };
        let within = match &self.within[..] {
            "true" => "inside",
            "false" => "outside",
            _ => "–",
        };
        format!("| {} | {} | {verdict}, {}, {within} ", self.here, self.n, self.difference)
    }

    /// The command that trains the row: `make train`, with the variables that differ from the Makefile's.
    fn command(&self) -> String {
        let (rule, _) = self.network.rsplit_once('-').unwrap();
        let mut command = "make train".to_string();
        if rule != "C-VF" {
            command += &format!(" ALGO={}", rule.replace('-', "").to_lowercase());
        }
        if self.network.ends_with("2h") {
            command += " DEPTH=2";
        }
        if !self.psi.is_empty() {
            command += &format!(" PSI={}", self.psi.trim_end_matches('°'));
        }
        command
    }
}

/// The rows of `table3.csv`.
fn table3(docs: &Path) -> Vec<Row> {
    let mut table = csv::Reader::from_path(docs.join("reproduction/table3.csv")).unwrap();
    let heads = table.headers().unwrap().clone();
    let rows = table.records().map(|record| {
        let record = record.unwrap();
        let get = |name: &str| record[heads.iter().position(|head| head == name).unwrap()].to_string();
        let number = |name: &str| get(name).parse::<f64>().ok();
        let errors = |test: &str, std: &str, train: &str| {
            let spread = number(std).map_or(String::new(), |std| format!(" ± {std:.2}"));
            let mean = number(test).map_or(String::new(), |mean| format!("{mean:.2}"));
            format!("{mean}{spread} ({:.2})", number(train).unwrap_or(f64::NAN))
        };
        Row {
            network: get("network"),
            psi: number("psi").map_or(String::new(), |psi| format!("{psi}°")),
            is_preset: get("network").ends_with("2h") != get("variant").is_empty(),
            verdict: get("verdict"),
            n: get("n").parse().unwrap(),
            here: errors("test", "test_std", "train"),
            paper: errors("test_paper", "test_std_paper", "train_paper"),
            epochs: get("epochs"),
            difference: number("difference").map_or(String::new(), |d| format!("{d:+.2}").replace('-', "−")),
            within: get("published_within_spread"),
        }
    });
    rows.collect()
}

#[test]
fn tables_of_results_are_those_of_the_report() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rows = table3(&root.join("docs"));
    let mut table = "| | Ψ | paper | synchronous | *n* | | alternating, Anderson | *n* | |\n\
                     |---|---|---|---|---|---|---|---|---|\n"
        .to_string();
    // A row with two hidden layers has two lines, the synchronous one first.
    for row in rows.iter().filter(|row| !row.is_preset || !row.network.ends_with("2h")) {
        let preset = rows
            .iter()
            .find(|other| other.is_preset && (&other.network, &other.psi) == (&row.network, &row.psi))
            .filter(|_| row.network.ends_with("2h"));
        let preset = preset.map_or("| – | | ".to_string(), Row::cells);
        table += &format!("| {} | {} | {} {}{preset}|\n", row.network, row.psi, row.paper, row.cells());
    }
    let text = fs::read_to_string(root.join("docs/reproduction/README.md")).unwrap();
    assert!(text.contains(&table), "docs/reproduction/README.md lacks this table:\n{table}");

    // The README shows some of these rows, as they are.
    let rows: Vec<String> = (rows.iter().filter(|row| row.n > 0))
        .map(|row| {
            let psi = if row.psi.is_empty() { String::new() } else { format!(", Ψ = {}", row.psi) };
            let steps = if row.is_preset { "" } else { ", synchronous" };
            let Row { network, epochs, here, n, paper, .. } = row;
            let command = row.command();
            format!("| {network}{psi}{steps} | {epochs} | {here} | {n} | {paper} | `{command}` |")
        })
        .collect();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let (_, shown) = readme.split_once("| *n* | paper | one run |\n|---|---|---|---|---|---|\n").unwrap();
    let shown: Vec<&str> = shown.lines().take_while(|line| line.starts_with('|')).collect();
    assert!(shown.len() >= 5);
    for line in shown {
        assert!(rows.iter().any(|row| line == row), "README.md has a row that the report has not: {line}");
    }
}

/// Test errors with their spread, and the mean train error in parentheses, of every group of runs in the reports, each
/// with its n; those of the paper have n = 5.
fn reported(folder: &Path, found: &mut BTreeSet<(String, usize)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            reported(&path, found);
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        if !["table3.csv", "as-printed.csv", "equilibrium.csv", "sweep.csv"].contains(&name) {
            continue;
        }
        let mut table = csv::Reader::from_path(&path).unwrap();
        let heads = table.headers().unwrap().clone();
        for record in table.records() {
            let record = record.unwrap();
            let number = |name: &str| {
                let at = heads.iter().position(|head| head == name)?;
                record[at].parse::<f64>().ok()
            };
            for (of, n) in [("", number("n").map(|n| n as usize)), ("_paper", Some(5))] {
                let [test, std, train] =
                    ["test", "test_std", "train"].map(|head| number(&format!("{head}{of}")));
                if let (Some(test), Some(std), Some(train), Some(n)) = (test, std, train, n) {
                    found.insert((format!("{test:.2} ± {std:.2} ({train:.2})"), n));
                }
            }
        }
    }
}

/// A mean with its spread and train error at the beginning of some words, `2.46 ± 0.07 (0.73)`, and the n behind it:
/// `, *n* = 5`, or ` | 5` in a table.
fn mean(words: &[&str]) -> Option<(String, Option<usize>)> {
    let &[test, "±", std, train, ref rest @ ..] = words else { return None };
    let test = test.trim_start_matches(|c: char| !c.is_ascii_digit());
    let (train, _) = train.strip_prefix('(')?.split_once(')')?;
    let is_error = |text: &str| text.split_once('.').is_some_and(|(_, digits)| digits.len() == 2);
    if ![test, std, train].into_iter().all(|text| is_error(text) && text.parse::<f64>().is_ok()) {
        return None;
    }
    let n = match rest {
        ["|", n, ..] | ["*n*", "=", n, ..] => n.trim_matches(|c: char| !c.is_ascii_digit()).parse().ok(),
        _ => None,
    };
    // The next column of a table may also count epochs, of which there are more.
    Some((format!("{test} ± {std} ({train})"), n.filter(|n| *n < 20)))
}

/// A mean over four of five seeds, which no report has: the row without the seed that breaks down.
const FOUR_OF_FIVE: &str = "2.40 ± 0.15 (0.65)";

#[test]
fn means_of_results_are_those_of_the_reports() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    reported(&root.join("docs/reproduction"), &mut found);
    let pages = [
        "README.md",
        "docs/reproduction/README.md",
        "docs/equilibrium.md",
        "docs/collapse.md",
        "docs/fashion-mnist.md",
    ];
    let (mut seen, mut wrong) = (0, Vec::new());
    for page in
        pages.map(|page| root.join(page)).into_iter().chain(with_ending(&root.join("docs/rules"), "md"))
    {
        let text = fs::read_to_string(&page).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        for (errors, n) in words.windows(8).filter_map(mean).filter(|(errors, _)| errors != FOUR_OF_FIVE) {
            seen += 1;
            let mut reported = found.iter().filter(|(reported, _)| *reported == errors).map(|(_, n)| *n);
            if !reported.any(|reported| n.is_none_or(|n| n == reported)) {
                wrong.push(format!("{}: no report has {errors}, n = {n:?}", page.display()));
            }
        }
    }
    assert!(seen > 100, "{seen}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // Two sentences of the README have errors of single groups and runs.
    let sweep = fs::read_to_string(root.join("docs/reproduction/alignment/sweep.csv")).unwrap();
    let [plain, aligned] = ["C-VF-1h,,,,180,", "C-VF-1h,kolen-pollack,0.00003,,180,"].map(|begin| {
        let row = sweep.lines().find(|line| line.starts_with(begin)).unwrap();
        [6, 7].map(|at| row.split(',').nth(at).unwrap().parse::<f64>().unwrap())
    });
    let rows = table3(&root.join("docs"));
    let published = &rows.iter().find(|row| row.network == "C-VF-1h" && row.psi == "180°").unwrap().paper;
    let (published, _) = published.split_once(' ').unwrap();
    let angle = format!(
        "from Ψ = 180° ends at {:.2} % ({} run), aligned at {:.2} ({}); paper: {published}.",
        plain[1], plain[0], aligned[1], aligned[0]
    );
    let runs = fs::read_to_string(root.join("docs/reproduction/runs.csv")).unwrap();
    let seeds = runs.lines().filter(|line| line.starts_with("cep-1h-seed"));
    let mut seeds: Vec<f64> = seeds.map(|line| line.split(',').nth(6).unwrap().parse().unwrap()).collect();
    seeds.sort_by(f64::total_cmp);
    let &[least, .., most, last] = &seeds[..] else { panic!("{seeds:?}") };
    let late = format!("One seed of C-EP-1h ends at {last:.2}, the others at {least:.2} to {most:.2}.");
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let readme = readme.split_whitespace().collect::<Vec<_>>().join(" ");
    for said in [angle, late] {
        assert!(readme.contains(&said), "README.md lacks: {said}");
    }
}

/// The files below a folder whose names end so, in order.
fn with_ending(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(with_ending(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The most characters of a line of a comment or a page.
const WIDTH: usize = 120;

/// True where the first words of a doc comment do not say what its item is or does.
fn is_clause(comment: &str) -> bool {
    let mut words = comment.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
    match words.next().unwrap_or_default() {
        "The" => words.next() == Some("same"),
        word => ["What", "Whether", "Where", "How", "Which", "Who", "When"].contains(&word),
    }
}

#[test]
fn comments_are_narrow_and_begin_with_what_an_item_is_or_does() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["src", "tests", "benches", "examples"].map(|folder| root.join(folder));
    let files = folders.iter().flat_map(|folder| with_ending(folder, "rs")).chain([root.join("build.rs")]);
    let (mut seen, mut wrong) = (0, Vec::new());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let (mut in_text, mut before) = (false, "");
        for (number, line) in text.lines().enumerate() {
            let comment = line.trim_start();
            // Of a text between r#" and "# nothing is a comment.
            in_text = (in_text || line.contains("r#\"")) && !line.ends_with("\"#;");
            if in_text || !comment.starts_with("//") {
                before = "";
                continue;
            }
            seen += 1;
            let place = || format!("{}:{}", file.display(), number + 1);
            if line.chars().count() > WIDTH {
                wrong.push(format!("{} has {} characters", place(), line.chars().count()));
            }
            let kind = ["///", "//!"].into_iter().find(|kind| comment.starts_with(kind));
            if let Some(kind) = kind.filter(|kind| *kind != before)
                && is_clause(&comment[kind.len()..])
            {
                wrong.push(format!("{} begins with a clause: {comment}", place()));
            }
            before = kind.unwrap_or_default();
        }
    }
    assert!(seen > 5000, "{seen}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lines_of_pages_are_narrow() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages =
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "tests/README.md"].map(|page| root.join(page));
    let mut wrong = Vec::new();
    for page in with_ending(&root.join("docs"), "md").iter().chain(&pages) {
        let mut in_program = false;
        let most = if page == &pages[0] { 100 } else { WIDTH };
        for (number, line) in fs::read_to_string(page).unwrap().lines().enumerate() {
            in_program ^= line.starts_with("```");
            // Tables have a line for each row, and programs their own width.
            if line.chars().count() > most && !in_program && !line.starts_with('|') {
                wrong.push(format!("{}:{}", page.display(), number + 1));
            }
        }
    }
    let readme = fs::read_to_string(&pages[0]).unwrap();
    assert!(readme.lines().count() <= 80, "README.md has {} lines", readme.lines().count());
    assert!(wrong.is_empty(), "too wide:\n{}", wrong.join("\n"));
}
