//! Links from the documentation to a line of the program lead to what they name.

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
    let text = fs::read_to_string(docs.join("implementation-notes.md")).unwrap();
    let links = links(&text);
    assert!(links.len() > 20, "{}", links.len());
    let mut astray = Vec::new();
    for (name, path, number) in links {
        let file = fs::read_to_string(docs.join(path)).unwrap_or_default();
        let line = file.lines().nth(number - 1).unwrap_or_default();
        if !line.contains(name) {
            let now = file.lines().position(|line| line.contains(name)).map(|at| at + 1);
            astray.push(format!("{path}#L{number} is not `{name}`, which is at {now:?}"));
        }
    }
    assert!(astray.is_empty(), "{}", astray.join("\n"));
}
