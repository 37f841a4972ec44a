//! The report in a real browser, and what it says of numbers that are known.
//!
//! `EQPROP_CHROMIUM` names the browser; where there is none, what needs it skips with a message.

mod common;

use common::{Place, skip};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A run that has ended: preset, Ψ, seed, epochs, test and train error.
type Ended = (&'static str, Option<f64>, u64, usize, f64, f64);

/// A run, with all that a sweep may set in it.
struct Run {
    preset: &'static str,
    set: Vec<String>,
    seed: u64,
    epochs: usize,
    /// Epochs that it has done.
    done: usize,
    test: f64,
    train: f64,
}

/// A sweep folder with these runs, which have ended.
fn finished_sweep(place: &Place, runs: &[Ended]) {
    let run = |&(preset, psi, seed, epochs, test, train): &Ended| Run {
        preset,
        set: psi.map(|psi| format!("network.psi={psi}")).into_iter().collect(),
        seed,
        epochs,
        done: epochs,
        test,
        train,
    };
    sweep_of(place, &runs.iter().map(run).collect::<Vec<_>>());
}

/// A sweep folder with these runs.
fn sweep_of(place: &Place, runs: &[Run]) {
    for folder in ["configs", "sweeps", "failed"] {
        fs::create_dir_all(place.path(&format!("s/{folder}"))).unwrap();
    }
    fs::write(place.path("s/sweeps/a.toml"), "title = 'made up'\n[[rows]]\nconfig = 'ep-1h'\n").unwrap();
    let mut plan = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let (name, epochs) = (format!("run{i}"), run.done);
        let mut command = place.eqprop();
        command.args(["config", "--config", run.preset, "--seed", &run.seed.to_string()]);
        command.args(["--epochs", &run.epochs.to_string()]);
        for set in &run.set {
            command.args(["--set", set]);
        }
        let config = command.output().unwrap().stdout;
        fs::write(place.path(&format!("s/configs/{name}.toml")), config).unwrap();
        fs::create_dir_all(place.path(&format!("s/runs/{name}"))).unwrap();
        let mut lines = String::from(
            "{\"epoch\":0,\"data\":\"mnist\",\"error/test\":90.0,\"angle/total\":45.5,\"collapsed\":false}\n",
        );
        for epoch in 1..=epochs {
            let falling = |last: f64| last + 40.0 * (epochs - epoch) as f64 / (epochs * epoch) as f64;
            lines += &format!(
                "{{\"epoch\":{epoch},\"data\":\"mnist\",\"error/train\":{},\"error/test\":{},\
                 \"speed/epoch_seconds\":3.0,\"collapsed\":false}}\n",
                falling(run.train),
                falling(run.test)
            );
        }
        fs::write(place.path(&format!("s/runs/{name}/metrics.jsonl")), lines).unwrap();
        plan.push(serde_json::json!({"name": name, "seconds": 1.0}));
    }
    fs::write(place.path("s/plan.json"), serde_json::to_vec(&plan).unwrap()).unwrap();
}

/// Every row of Table 3, three seeds around the paper's mean.
fn whole_table() -> Vec<Ended> {
    let angles = [0.0, 22.5, 45.0, 67.5, 90.0, 112.5, 135.0, 157.5, 180.0];
    let errors_1h = [2.43, 2.38, 2.37, 2.48, 2.46, 4.51, 86.61, 91.08, 92.82];
    let errors_2h = [2.97, 3.54, 3.78, 4.59, 5.05, 20.33, 59.04, 77.90, 74.17];
    let mut rows = vec![
        ("ep-1h", None, 2.0, 30),
        ("ep-2h", None, 1.95, 50),
        ("cep-1h", None, 2.85, 100),
        ("cep-1h-random-beta", None, 2.28, 100),
        ("cep-2h", None, 2.44, 150),
    ];
    for (psi, (one, two)) in angles.into_iter().zip(errors_1h.into_iter().zip(errors_2h)) {
        rows.push(("cvf-1h", Some(psi), one, 100));
        rows.push(("cvf-2h", Some(psi), two, 150));
    }
    (rows.into_iter())
        .flat_map(|(preset, psi, error, epochs)| {
            (0..3)
                .map(move |seed| (preset, psi, seed, epochs, error + 0.05 * (seed as f64 - 1.0), error / 2.0))
        })
        .collect()
}

fn browser() -> Option<PathBuf> {
    let named = std::env::var_os("EQPROP_CHROMIUM").map(PathBuf::from);
    let usual = ["chromium", "chromium-browser", "google-chrome"].map(PathBuf::from);
    let found = named.into_iter().chain(usual).find(|program| {
        Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        skip("no Chromium; EQPROP_CHROMIUM may name one");
    }
    found
}

#[test]
fn it_fits_wide_and_narrow_windows_in_a_browser_without_complaint() {
    let Some(browser) = browser() else { return };
    let place = Place::new();
    finished_sweep(&place, &whole_table());
    place.eqprop().args(["report", "s"]).assert().success();
    let page = place.read("s/report.html");
    for outside in ["http:", "https:", "src=", "<link", "<script", "@import", "url("] {
        let elsewhere = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains(outside), "the report is not self-contained: {outside}");
    }
    for width in [1280, 400] {
        // A frame of that width, for windows cannot be made so narrow.
        let frame = format!(
            "<body><iframe id=f src=report.html style='width:{width}px;height:900px;border:0'></iframe><script>\
             f.onload = () => {{ const d = f.contentDocument, w = d.documentElement.clientWidth; \
             const out = [...d.querySelectorAll('svg, h1, h2, p, figure, .scroll, .panels')].filter(\
             e => e.getBoundingClientRect().right > w + 1 || \
             (e.className == 'scroll' && e.scrollWidth > e.clientWidth + 1)).length; \
             document.body.innerHTML = `width ${{w}} content ${{d.documentElement.scrollWidth}} outside ${{out}} \
             figures ${{d.querySelectorAll('svg[role=img]').length}} rows ${{d.querySelectorAll('tbody tr').length}}`; }}\
             </script></body>"
        );
        fs::write(place.path("s/frame.html"), frame).unwrap();
        let profile = place.path(&format!("profile{width}"));
        let output = Command::new(&browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--allow-file-access-from-files", "--hide-scrollbars", "--enable-logging=stderr"])
            .args(["--window-size=1400,1000", "--virtual-time-budget=20000", "--dump-dom"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(format!("file://{}", place.path("s/frame.html").display()))
            .output()
            .unwrap();
        let (dom, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!log.contains("CONSOLE"), "{log}");
        let expected = format!("width {width} content {width} outside 0 figures ");
        assert!(dom.contains(&expected), "at {width}: {dom}");
        // Figs. 4 and 5a, two insets within; 3 panels of Fig. 16, 9 each of 17 and 18, and 2 of EP.
        assert!(dom.contains("figures 25 rows"), "{dom}");
    }
}

#[test]
fn verdicts_follow_two_standard_errors() {
    let place = Place::new();
    finished_sweep(
        &place,
        &[
            // One run each: 2·√(0.13² + 0.13²/5) = 0.285 around 2.00.
            ("ep-1h", None, 0, 30, 2.28, 0.2),
            // 2·√(0.16² + 0.16²/5) = 0.351 around 2.28.
            ("cep-1h-random-beta", None, 0, 100, 2.64, 0.4),
            // Three runs: mean 2.60, s = 0.10; 2·√(0.01/3 + 0.0064/5) = 0.136 around 2.43.
            ("cvf-1h", Some(0.0), 0, 100, 2.50, 0.7),
            ("cvf-1h", Some(0.0), 1, 100, 2.60, 0.7),
            ("cvf-1h", Some(0.0), 2, 100, 2.70, 0.7),
            ("cvf-1h", Some(45.0), 0, 7, 2.40, 0.7),
        ],
    );
    place.eqprop().args(["report", "s", "--out", "r"]).assert().success();
    let table = place.read("r/table3.csv");
    let line = |start: &str| table.lines().find(|line| line.starts_with(start)).unwrap().to_string();
    assert_eq!(line("EP-1h,"), "EP-1h,,,agrees,1,2.28,,0.2,,2.0,0.13,0.2,30,0,45.5,");
    let cep = "\"C-EP-1h, ±β\",,,disagrees,1,2.64,,0.4,,2.28,0.16,0.41,100,0,45.5,";
    assert!(table.contains(cep), "{table}");
    assert!(line("C-VF-1h,0.0,").starts_with("C-VF-1h,0.0,,disagrees,3,2.6,0.1,0.7,0.0,2.43,"), "{table}");
    assert!(
        line("C-VF-1h,45.0,").starts_with("C-VF-1h,45.0,,unfinished,0,,,,,2.37,0.06,0.78,100,1,"),
        "{table}"
    );
    assert!(line("C-VF-2h,180.0,").contains(",not-run,0,"), "{table}");
    assert_eq!(table.lines().count(), 26);
    assert!(!place.path("r/as-printed.csv").exists() && !place.path("r/sweep.csv").exists());
    let page = place.read("r/report.html");
    let text = without_tags(&page);
    assert!(text.contains(
        "25 rows: 1 in agreement (within two standard errors), 2 in disagreement, 1 unfinished, 21 not"
    ));
    assert!(text.contains("In disagreement: C-EP-1h, ±β, C-VF-1h at Ψ = 0°."));
    assert!(page.contains("seed 0: 2.40 after 7 of 100 epochs") && page.contains("2.60\u{a0}±\u{a0}0.10"));
    assert!(page.contains(">3.0 s<") && page.contains(">2 min<"), "30 epochs of 3 s");
    // Figs. 4 and 5a; curves of EP-1h, C-EP-1h and C-VF-1h at 0°: none of what is unfinished.
    assert_eq!(page.matches("role=\"img\"").count(), 5);
    assert!(place.read("r/curves.csv").contains("\nrun3,2,20.3,,22.2\n"), "numbers are rounded");
}

/// The text of a page.
fn without_tags(page: &str) -> String {
    page.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect()
}

/// A run of a preset, done unless something else is said.
fn run(preset: &'static str, set: &[&str], seed: u64, epochs: usize, test: f64) -> Run {
    let set = set.iter().map(|set| set.to_string()).collect();
    Run { preset, set, seed, epochs, done: epochs, test, train: test / 2.0 }
}

#[test]
fn what_is_as_printed_stands_in_a_table_of_its_own() {
    let place = Place::new();
    let printed = ["network.init=glorot", "learning.sigma_prime=ignored", "learning.authors_code=false"];
    sweep_of(
        &place,
        &[
            run("cvf-1h", &[], 0, 100, 2.4),
            run("cvf-1h", &printed, 0, 100, 90.2),
            run("ep-1h", &["network.init=glorot"], 0, 30, 2.0),
            run("ep-1h", &["learning.K=12"], 0, 30, 2.2),
        ],
    );
    place.eqprop().args(["report", "s"]).assert().success();
    let (table, as_printed) = (place.read("s/table3.csv"), place.read("s/as-printed.csv"));
    assert!(table.contains("C-VF-1h,0.0,,agrees,1,2.4,") && table.contains("EP-1h,,,not-run,0,"), "{table}");
    let [_, ep, cvf] = as_printed.lines().collect::<Vec<_>>()[..] else { panic!("{as_printed}") };
    assert!(ep.starts_with("EP-1h,,Glorot weights,agrees,1,2.0,"), "{ep}");
    assert!(
        cvf.starts_with("C-VF-1h,0.0,") && cvf.contains("all biases learn, σ′ ignored, Glorot weights"),
        "{cvf}"
    );
    assert!(cvf.contains(",disagrees,1,90.2,"), "{cvf}");
    assert!(place.read("s/sweep.csv").contains("\nEP-1h,1,2.2,,1.1,,30,0\n"));
    let text = without_tags(&place.read("s/report.html"));
    assert!(text.contains("As printed") && text.contains("Not in the paper"));
    assert!(
        text.contains("1 in agreement (within two standard errors), 0 in disagreement"),
        "printed rows do not count"
    );
}

#[test]
fn another_way_to_equilibrium_is_compared_in_a_table_of_its_own() {
    let place = Place::new();
    let printed = ["learning.sigma_prime=ignored", "learning.authors_code=false", "settle.order=alternating"];
    let accelerated = ["settle.order=alternating", "settle.solver=anderson"];
    let mut runs = vec![
        run("ep-1h", &[], 0, 30, 2.0),
        run("ep-1h", &accelerated, 0, 30, 1.9),
        run("ep-2h", &accelerated, 0, 50, 1.95),
        run("cvf-1h", &printed, 0, 100, 3.0),
        // Not to the row's end.
        run("cep-2h", &accelerated, 0, 30, 2.4),
        // What is learnt differs, too.
        run("ep-1h", &["learning.K=12", "settle.order=alternating"], 0, 30, 2.2),
        run("cep-1h", &[], 0, 100, 2.8),
        run("cep-1h-random-beta", &[], 0, 100, 2.3),
    ];
    sweep_of(&place, &runs);
    place.eqprop().args(["report", "s"]).assert().success();
    let table = place.read("s/equilibrium.csv");
    let lines: Vec<&str> = table.lines().skip(1).collect();
    let expected = [
        "EP-1h,,\"order = alternating, solver = anderson\",agrees,1,1.9,",
        "EP-2h,,\"order = alternating, solver = anderson\",agrees,1,1.95,",
        "C-EP-2h,,\"order = alternating, solver = anderson\",unfinished,0,",
        "C-VF-1h,0.0,\"",
    ];
    assert_eq!(lines.len(), expected.len(), "{table}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}");
    }
    assert!(lines[3].contains(",disagrees,1,3.0,") && lines[3].contains("σ′ ignored"), "{table}");
    assert!(place.read("s/sweep.csv").contains("\nEP-1h,1,2.2,"));
    let text = without_tags(&place.read("s/report.html"));
    assert!(text.contains("25 rows: 3 in agreement"), "they do not count as the paper's");
    let said = "3 rows have been trained with another way to equilibrium, too; 2 of them agree in one way at least, of which those above do not \
                have: EP-2h.";
    assert!(text.contains(said), "{text}");

    // Alone they are a sweep that varies [settle], beside the paper's numbers.
    runs.retain(|run| run.set.iter().any(|set| set.starts_with("settle")));
    let alone = Place::new();
    sweep_of(&alone, &runs);
    alone.eqprop().args(["report", "s"]).assert().success();
    assert!(!alone.path("s/table3.csv").exists());
    let text = without_tags(&alone.read("s/report.html"));
    assert!(
        text.contains("Rows of the paper among them: 2 in agreement (within two standard errors), 1 in dis")
    );
}

#[test]
fn a_sweep_that_is_not_the_papers_shows_what_it_varies() {
    let place = Place::new();
    let mut runs = Vec::new();
    for (beta, test) in [("0.1", 3.0), ("0.2", 2.0), ("0.5", 30.0)] {
        for seed in 0..2 {
            let set = [&format!("learning.beta={beta}")[..], "learning.nudging=random"];
            runs.push(run("ep-1h", &set, seed, 10, test + 0.1 * seed as f64));
        }
    }
    runs.push(run("ep-1h", &["learning.beta=0.4"], 0, 10, 2.0));
    runs[6].done = 4;
    runs.push(run("ep-1h", &[], 0, 30, 2.0));
    sweep_of(&place, &runs);
    place.eqprop().args(["report", "s"]).assert().success();
    let table = place.read("s/sweep.csv");
    let expected = "network,learning.beta,learning.nudging,n,test,test_std,train,train_std,epochs,unfinished\n\
                    EP-1h,0.1,random,2,3.05,0.07,1.53,0.04,10,0\n\
                    EP-1h,0.2,random,2,2.05,0.07,1.02,0.04,10,0\n\
                    EP-1h,0.5,random,2,30.05,0.07,15.03,0.04,10,0\n\
                    EP-1h,0.4,positive,0,,,,,10,1\n\
                    EP-1h,0.1,positive,1,2.0,,1.0,,30,0\n";
    assert_eq!(table, expected);
    assert!(!place.path("s/table3.csv").exists(), "nothing of the paper is missing here");
    let page = place.read("s/report.html");
    let text = without_tags(&page);
    assert!(text.contains("8 runs with 5 different settings: 7 finished, 1 unfinished, 0 not begun."));
    assert!(text.contains("Rows of the paper among them: 1 in agreement"));
    assert!(text.contains("seed 0: 2.00 after 4 of 10 epochs"));
    assert!(text.contains("The axis is logarithmic") && !text.contains("Figure 4"));
    assert_eq!(page.matches("role=\"img\"").count(), 1);
    let picture = place.read("s/curves.svg");
    assert!(
        picture.contains("β = 0.5, nudging random (n = 2)") && !picture.contains("β = 0.4"),
        "no line unfinished"
    );

    // A choice of runs is a sweep of its own.
    place.eqprop().args(["report", "s", "--only", "run7", "--out", "one"]).assert().success();
    assert!(place.read("one/sweep.csv").starts_with("network,n,test,"));
    let none = place.eqprop().args(["report", "s", "--only", "x*"]).output().unwrap();
    assert!(String::from_utf8_lossy(&none.stderr).contains("--only leaves no run to report"));
}
