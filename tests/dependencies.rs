//! Every dependency comes from crates.io under a licence that this project may use. `make deny` asks for more: the
//! dependencies of other platforms, which no build here fetches, and advisories, for which it needs the network.
//! deny.toml states the licences, once for both.

use serde_json::Value;
use spdx::Expression;
use std::process::Command;

#[test]
fn dependencies_are_from_crates_io_under_licences_we_may_use() {
    let folder = env!("CARGO_MANIFEST_DIR");
    let cargo = std::env::var("CARGO").unwrap_or("cargo".into());
    let cargo = |arguments: &[&str]| {
        let output = Command::new(&cargo).current_dir(folder).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // The sources of everything compiled are there. The crates of other platforms need not be, and there may be no
    // network.
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let mut arguments =
        vec!["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host];
    if cfg!(not(feature = "hub")) {
        arguments.extend(["--no-default-features", "--features", "cli"]);
    }
    let metadata = cargo(&arguments);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let rules: toml::Table =
        toml::from_str(&std::fs::read_to_string(format!("{folder}/deny.toml")).unwrap()).unwrap();
    let allowed: Vec<&str> =
        rules["licenses"]["allow"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100);
    let mut wrong = Vec::new();
    for package in packages.iter().filter(|package| package["name"] != "eqprop") {
        let name = format!("{} {}", package["name"], package["version"]);
        let source = package["source"].as_str().unwrap_or("a folder");
        if source != "registry+https://github.com/rust-lang/crates.io-index" {
            wrong.push(format!("{name} comes from {source}"));
        }
        let licence = package["license"].as_str().unwrap_or_default();
        let fits = Expression::parse_mode(licence, spdx::ParseMode::LAX).is_ok_and(|expression| {
            expression.evaluate(|requirement| allowed.contains(&requirement.to_string().as_str()))
        });
        if !fits {
            wrong.push(format!("{name} has the licence {licence:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
