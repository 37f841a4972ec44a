//! What the documentation says of other files is so: links to a line of the program lead to what they name, and tables of
//! results have the numbers of `table3.csv`.

use std::fs;
use std::path::Path;

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
    /// In what way the row came out, as the table of docs/reproduction has it: errors, n, verdict.
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
}

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
            format!("| {network}{psi}{steps} | {epochs} | {here} | {n} | {paper} |")
        })
        .collect();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let (_, shown) = readme.split_once("| *n* | paper | command |\n|---|---|---|---|---|---|\n").unwrap();
    let shown: Vec<&str> = shown.lines().take_while(|line| line.starts_with('|')).collect();
    assert!(shown.len() >= 5);
    for line in shown {
        assert!(
            rows.iter().any(|row| line.starts_with(row)),
            "README.md has a row that the report has not: {line}"
        );
    }
}
