//! The report in a real browser, and its statements about known numbers.
//!
//! `EQPROP_CHROMIUM` names the browser; where there is none, what needs it skips with a message.

mod common;

use common::{Place, skip};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A run that has ended: preset, Ψ, seed, epochs, test and train error.
type Ended = (&'static str, Option<f64>, u64, usize, f64, f64);

/// A run, with everything that a sweep may set in it.
struct Run {
    preset: &'static str,
    set: Vec<String>,
    seed: u64,
    epochs: usize,
    /// Its completed epochs.
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

/// A sweep folder, `s`, with these runs.
fn sweep_of(place: &Place, runs: &[Run]) {
    sweep_in(place, "s", runs);
}

/// A sweep folder of this name with these runs, called `run0`, `run1`, ….
fn sweep_in(place: &Place, sweep: &str, runs: &[Run]) {
    for folder in ["configs", "sweeps", "failed"] {
        fs::create_dir_all(place.path(&format!("{sweep}/{folder}"))).unwrap();
    }
    fs::write(
        place.path(&format!("{sweep}/sweeps/a.toml")),
        "title = 'made up'\n[[rows]]\nconfig = 'ep-1h'\n",
    )
    .unwrap();
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
        fs::write(place.path(&format!("{sweep}/configs/{name}.toml")), config).unwrap();
        fs::create_dir_all(place.path(&format!("{sweep}/runs/{name}"))).unwrap();
        let mut lines = String::from(
            "{\"epoch\":0,\"data\":\"mnist\",\"error/test\":90.0,\"angle/total\":45.5,\"collapsed\":false}\n",
        );
        for epoch in 1..=epochs {
            let falling = |last: f64| last + 40.0 * (epochs - epoch) as f64 / (epochs * epoch) as f64;
            lines += &format!(
                "{{\"epoch\":{epoch},\"data\":\"mnist\",\"error/train\":{},\"error/test\":{},\
                 \"settle/unsettled_percent\":0.25,\"settle/steps\":31.26,\"speed/epoch_seconds\":3.0,\
                 \"collapsed\":false}}\n",
                falling(run.train),
                falling(run.test)
            );
        }
        fs::write(place.path(&format!("{sweep}/runs/{name}/metrics.jsonl")), lines).unwrap();
        plan.push(serde_json::json!({"name": name, "seconds": 1.0}));
    }
    fs::write(place.path(&format!("{sweep}/plan.json")), serde_json::to_vec(&plan).unwrap()).unwrap();
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
        // Figs. 4 and 5a, two insets within; 3 panels of Fig. 16, 9 each of 17 and 18, 2 of EP, and 11 of unsettled
        // images.
        assert!(dom.contains("figures 36 rows"), "{dom}");
    }
}

#[test]
fn verdicts_follow_two_standard_errors() {
    let place = Place::new();
    finished_sweep(
        &place,
        &[
            // Two runs: mean 2.10, s = 0.07; 2·√(0.005/2 + 0.0169/5) = 0.153 around 2.00.
            ("ep-1h", None, 0, 30, 2.05, 0.2),
            ("ep-1h", None, 1, 30, 2.15, 0.2),
            // A single run, without a verdict.
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
    assert_eq!(line("EP-1h,"), "EP-1h,,,agrees,2,2.1,0.07,0.2,0.0,2.0,0.13,0.2,30,0,45.5,0.0,0.1,true");
    let cep = "\"C-EP-1h, ±β\",,,single-run,1,2.64,,0.4,,2.28,0.16,0.41,100,0,45.5,,0.36,";
    assert!(table.contains(cep), "{table}");
    assert!(line("C-VF-1h,0.0,").starts_with("C-VF-1h,0.0,,disagrees,3,2.6,0.1,0.7,0.0,2.43,"), "{table}");
    assert!(
        line("C-VF-1h,45.0,").starts_with("C-VF-1h,45.0,,unfinished,0,,,,,2.37,0.06,0.78,100,1,"),
        "{table}"
    );
    assert!(line("C-VF-2h,180.0,").contains(",not-run,0,"), "{table}");
    // 13 rows with one hidden layer, and 12 with two, in both ways.
    assert_eq!(table.lines().count(), 1 + 13 + 2 * 12);
    assert!(!place.path("r/as-printed.csv").exists() && !place.path("r/sweep.csv").exists());
    let page = place.read("r/report.html");
    let text = without_tags(&page);
    assert!(text.contains(
        "25 rows: 1 in agreement (within two standard errors), 0 better than published, 1 in disagreement, 1 with a single run and no verdict, 1 unfinished, 21 not"
    ));
    assert!(text.contains("In disagreement: C-VF-1h at Ψ = 0°.Single run, no verdict: C-EP-1h, ±β."));
    assert!(page.contains("seed 0: 2.40 after 7 of 100 epochs") && page.contains("2.60\u{a0}±\u{a0}0.10"));
    assert!(page.contains(">3.0 s<") && page.contains(">2 min<"), "30 epochs of 3 s");
    // Figs. 4 and 5a; curves of EP-1h, C-EP-1h and C-VF-1h at 0°: none of unfinished runs.
    assert_eq!(page.matches("role=\"img\"").count(), 5);
    assert!(place.read("r/curves.csv").contains("\nrun4,2,20.3,,22.2,0.25\n"), "numbers are rounded");
}

/// The text of a page.
fn without_tags(page: &str) -> String {
    page.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect()
}

/// A run of a preset, finished unless stated otherwise.
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
    assert!(
        table.contains("C-VF-1h,0.0,,single-run,1,2.4,") && table.contains("EP-1h,,,not-run,0,"),
        "{table}"
    );
    let [_, ep, cvf] = as_printed.lines().collect::<Vec<_>>()[..] else { panic!("{as_printed}") };
    assert!(ep.starts_with("EP-1h,,Glorot weights,single-run,1,2.0,"), "{ep}");
    assert!(
        cvf.starts_with("C-VF-1h,0.0,") && cvf.contains("all biases learn, σ′ ignored, Glorot weights"),
        "{cvf}"
    );
    assert!(cvf.contains(",single-run,1,90.2,"), "{cvf}");
    assert!(place.read("s/sweep.csv").contains("\nEP-1h,1,2.2,,1.1,,30,0\n"));
    let text = without_tags(&place.read("s/report.html"));
    assert!(text.contains("As printed") && text.contains("Not in the paper"));
    assert!(
        text.contains(
            "0 in agreement (within two standard errors), 0 better than published, 0 in disagreement, 1 with a single run and no verdict"
        ),
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
        // Mean 1.91, s = 0.014: 2·√(0.0002/2 + 0.0169/5) = 0.118 around 2.00.
        run("ep-1h", &accelerated, 0, 30, 1.9),
        run("ep-1h", &accelerated, 1, 30, 1.92),
        // The preset's own way, and the one without acceleration.
        run("ep-2h", &[], 0, 50, 1.95),
        run("ep-2h", &["settle.solver=iterate"], 0, 50, 1.95),
        run("cvf-1h", &printed, 0, 100, 3.0),
        // Not to the row's end.
        run("cep-2h", &["settle.solver=iterate"], 0, 30, 2.4),
        // Learning differs, too.
        run("ep-1h", &["learning.K=12", "settle.order=alternating"], 0, 30, 2.2),
        run("cep-1h", &[], 0, 100, 2.8),
        run("cep-1h-random-beta", &[], 0, 100, 2.3),
        run("cvf-1h", &[], 0, 100, 2.4),
        run("cvf-1h", &["network.psi=45"], 0, 100, 2.4),
    ];
    sweep_of(&place, &runs);
    place.eqprop().args(["report", "s"]).assert().success();
    let table = place.read("s/equilibrium.csv");
    let lines: Vec<&str> = table.lines().skip(1).collect();
    let expected = [
        "EP-1h,,\"order = alternating, solver = anderson\",agrees,2,1.91,",
        "EP-2h,,order = alternating,single-run,1,1.95,",
        "C-EP-2h,,order = alternating,unfinished,0,",
        "C-VF-1h,0.0,\"",
    ];
    assert_eq!(lines.len(), expected.len(), "{table}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}");
    }
    assert!(lines[3].contains(",single-run,1,3.0,") && lines[3].contains("σ′ ignored"), "{table}");
    assert!(place.read("s/sweep.csv").contains("\nEP-1h,1,2.2,"));
    let text = without_tags(&place.read("s/report.html"));
    assert!(
        text.contains("0 in disagreement, 5 with a single run and no verdict, 0 unfinished, 20 not run"),
        "they do not count as the paper's"
    );
    assert!(
        text.contains("0 in disagreement, 1 with a single run and no verdict, 0 unfinished, 11 not run"),
        "{text}"
    );
    let said =
        "3 rows have also been trained with another way to equilibrium; 1 of them agree in at least one way.";
    assert!(text.contains(said), "{text}");

    // Alone they are a sweep that varies [settle], beside the paper's numbers.
    runs.retain(|run| run.set.iter().any(|set| set.starts_with("settle")));
    let alone = Place::new();
    sweep_of(&alone, &runs);
    alone.eqprop().args(["report", "s"]).assert().success();
    assert!(!alone.path("s/table3.csv").exists());
    let text = without_tags(&alone.read("s/report.html"));
    assert!(
        text.contains(
            "Rows of the paper among them: 1 in agreement (within two standard errors), 0 better than published, 0 in \
             disagreement, 2 with a single run and no verdict."
        )
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
    let rows = "Rows of the paper among them: 0 in agreement (within two standard errors), 0 better than published, 0 in \
                disagreement, 1 with a single run and no verdict.";
    assert!(text.contains(rows), "{text}");
    assert!(text.contains("EP-1h on mnist; 2 seeds; what varies: β, nudging."), "{text}");
    assert!(!text.contains("Titan RTX"), "no other card's hours");
    assert!(text.contains("seed 0: 2.00 after 4 of 10 epochs"));
    assert!(text.contains("The axis is logarithmic") && !text.contains("Figure 4"));
    assert_eq!(page.matches("role=\"img\"").count(), 1);
    let picture = place.read("s/curves.svg");
    assert!(
        picture.contains("β = 0.5, nudging random (n = 2)") && !picture.contains("β = 0.4"),
        "no line unfinished"
    );
    assert_eq!(picture.matches("stroke-linejoin").count(), 7, "a line for each finished run");
    assert_eq!(picture.matches("β = 0.5").count(), 1, "one name for runs that look alike");

    // Settings that all runs share, unlike their preset, are stated once.
    let limited = Place::new();
    let limits = ["training.limit_train=500", "learning.beta=0.4"];
    sweep_of(&limited, &[0, 1].map(|seed| run("ep-1h", &limits, seed, 10, 3.0)));
    limited.eqprop().args(["report", "s"]).assert().success();
    let text = without_tags(&limited.read("s/report.html"));
    assert!(
        text.contains("EP-1h on mnist; 2 seeds; in all runs, unlike the preset: β = 0.4, limit_train = 500."),
        "{text}"
    );

    // A choice of runs is a sweep of its own.
    place.eqprop().args(["report", "s", "--only", "run7", "--out", "one"]).assert().success();
    assert!(place.read("one/sweep.csv").starts_with("network,n,test,"));
    let none = place.eqprop().args(["report", "s", "--only", "x*"]).output().unwrap();
    assert!(String::from_utf8_lossy(&none.stderr).contains("--only leaves no run to report"));
}

#[test]
fn a_sweep_over_psi_shows_the_error_against_it_beside_the_papers() {
    let place = Place::new();
    let mut runs = Vec::new();
    for (psi, aligned, fixed) in [("180", 2.5, 10.0), ("0", 2.4, 9.0), ("90", 2.3, 9.5)] {
        let psi = format!("network.psi={psi}");
        let no_decay = "learning.decay=0.0";
        runs.push(run("cvf-1h-aligned", &[&psi], 0, 100, aligned));
        runs.push(run("cvf-1h-aligned", &[&psi, "learning.alignment=fixed", no_decay], 0, 100, fixed));
    }
    runs.push(run("cvf-1h-aligned", &["network.psi=0"], 1, 100, 2.6));
    sweep_of(&place, &runs);
    place.eqprop().args(["report", "s"]).assert().success();
    let picture = place.read("s/error-by-psi.svg");
    for name in ["kolen-pollack (n = 1 to 2)", "fixed (n = 1)", "C-VF-1h, paper (n = 5)"] {
        assert!(picture.contains(name), "{name}: {picture}");
    }
    assert!(!picture.contains("C-VF-2h"), "nothing here has two layers");
    // A marker for each of seven runs, nine of the paper's, and one of each in the legend.
    assert_eq!(picture.matches("<circle").count(), 7 + 9 + 3);
    let page = without_tags(&place.read("s/report.html"));
    assert!(page.contains("Test error against the angle between forward and feedback weights"));
    // Where Ψ does not vary there is nothing to show.
    place.eqprop().args(["report", "s", "--only", "run0", "--out", "one"]).assert().success();
    assert!(!place.path("one/error-by-psi.svg").exists() && place.path("one/curves.svg").exists());
}

#[test]
fn a_quantity_of_devices_shows_where_the_error_passes_twice_the_ideal_one() {
    let place = Place::new();
    let mut runs = Vec::new();
    let errors = [
        ("ep-1h", 2.0, [2.1, 3.9, 4.1]),
        ("cep-1h", 3.0, [6.5, 9.0, 80.0]),
        ("cvf-1h", 2.5, [2.6, 2.7, 4.9]),
    ];
    for (preset, ideal, devices) in errors {
        for seed in [0, 1] {
            runs.push(run(preset, &["learning.nudging=random"], seed, 10, ideal));
        }
        for (levels, error) in ["1001", "101", "11"].into_iter().zip(devices) {
            let levels = format!("synapse.levels={levels}");
            let set = ["learning.nudging=random", "synapse.law=device", &levels];
            runs.push(run(preset, &set, 0, 10, error));
        }
    }
    // What varies together with something else draws nothing.
    runs.push(run("ep-1h", &["synapse.law=device", "synapse.stuck=0.1", "synapse.levels=50"], 0, 10, 9.0));
    sweep_of(&place, &runs);
    place.eqprop().args(["report", "s"]).assert().success();
    let text = without_tags(&place.read("s/report.html"));
    assert!(text.contains("Test error against levels"), "{text}");
    for said in ["between 101 and 11", "at 1001 already", "not up to 11"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(!text.contains("Test error against stuck"));
    let picture = place.read("s/threshold-levels.svg");
    for name in ["EP-1h, once a batch (n = 1)", "C-EP-1h, at every step (n = 1)"] {
        assert!(picture.contains(name), "{name}: {picture}");
    }
    // A marker for each of nine runs, and three in the legend.
    assert_eq!(picture.matches("<circle").count(), 9 + 3);
}

#[test]
fn rows_with_two_hidden_layers_are_compared_both_ways() {
    let place = Place::new();
    let psi = ["network.psi=45"];
    // A run from before the presets took alternating steps has recorded synchronous ones.
    let before = ["network.psi=90", "settle.order=synchronous", "settle.solver=iterate"];
    sweep_of(
        &place,
        &[
            // Mean 2.60, s = 0.10: below 3.78 − 0.78, and 3.78 is above 2.60 + 0.20.
            run("cvf-2h", &psi, 0, 150, 2.5),
            run("cvf-2h", &psi, 1, 150, 2.6),
            run("cvf-2h", &psi, 2, 150, 2.7),
            run("cvf-2h-synchronous", &psi, 0, 150, 3.9),
            // Far below 5.05 − 1.17, but a single run.
            run("cvf-2h", &before, 0, 150, 3.5),
            // Mean 1.90, s = 0.10: 1.95 is within 1.90 ± 0.20.
            run("ep-2h-synchronous", &[], 0, 50, 1.8),
            run("ep-2h-synchronous", &[], 1, 50, 1.9),
            run("ep-2h-synchronous", &[], 2, 50, 2.0),
        ],
    );
    place.eqprop().args(["report", "s", "--out", "r"]).assert().success();
    let table = place.read("r/table3.csv");
    let alternating = "\"order = alternating, solver = anderson\"";
    for (start, end) in [
        (format!("C-VF-2h,45.0,{alternating},better,3,2.6,0.1,"), ",-1.18,false"),
        ("C-VF-2h,45.0,,single-run,1,3.9,,".to_string(), ",0.12,"),
        ("C-VF-2h,90.0,,single-run,1,3.5,,".to_string(), ",-1.55,"),
        (format!("C-VF-2h,90.0,{alternating},not-run,0,"), ",,,,"),
        ("EP-2h,,,agrees,3,1.9,0.1,".to_string(), ",-0.05,true"),
        (format!("EP-2h,,{alternating},not-run,0,"), ",,,,"),
    ] {
        let found = table.lines().any(|line| line.starts_with(&start) && line.ends_with(end));
        assert!(found, "{start} … {end}: {table}");
    }
    assert!(!place.path("r/equilibrium.csv").exists());
    let text = without_tags(&place.read("r/report.html"));
    for said in [
        "25 rows: 1 in agreement (within two standard errors), 0 better than published, 0 in disagreement, 2 with a single run",
        "12 rows with two hidden layers: 0 in agreement (within two standard errors), 1 better than published",
        "Better: C-VF-2h at Ψ = 45°.",
        "better−1.18 points; ± 2 s: outside",
        "n = 1, no verdict−1.55 points; ± 2 s: –",
        "agrees−0.05 points; ± 2 s: inside",
        "C-VF-2h at Ψ = 45°, alternating: 0.10 (n = 3) and 0.78",
        "Images that have not settled",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

/// The files of a report, apart from its page.
const WRITTEN: [&str; 5] = ["table3.csv", "as-printed.csv", "runs.csv", "curves.csv", "records.jsonl"];

#[test]
fn a_report_of_its_records_is_the_report_of_the_runs() {
    let place = Place::new();
    let mut runs = vec![
        run("ep-1h", &["training.validation=100"], 0, 30, 2.0),
        run("ep-1h", &[], 1, 30, 1.9),
        run("cvf-1h", &[], 0, 100, 1.0 / 3.0),
        run("cvf-1h", &["learning.sigma_prime=ignored", "learning.authors_code=false"], 0, 100, 90.2),
        run("cvf-2h", &["network.psi=45"], 0, 150, 2.5),
        run("cvf-2h-synchronous", &["network.psi=45"], 0, 150, 3.9),
    ];
    runs[2].done = 7;
    sweep_of(&place, &runs);
    fs::write(place.path("s/failed/run2"), "out of luck\n").unwrap();
    let environment = r#"{"commit": "c0ffee", "threads": 1, "command": ["a long one"]}"#;
    fs::write(place.path("s/runs/run1/environment.json"), environment).unwrap();
    place.eqprop().args(["report", "s", "--out", "r"]).assert().success();
    for (source, out) in [("r", "again"), ("again/records.jsonl", "once-more")] {
        place.eqprop().args(["report", source, "--out", out]).assert().success();
        for file in WRITTEN.iter().chain(&["report.html"]) {
            let [first, then] = ["r", out].map(|folder| place.read(&format!("{folder}/{file}")));
            assert!(first == then, "{out}/{file}:\n{first}\nis now\n{then}");
        }
    }
    let records = place.read("r/records.jsonl");
    assert_eq!(records.lines().count(), runs.len());
    assert!(records.contains("out of luck") && records.contains("c0ffee") && !records.contains("a long one"));
    // A choice of them is a sweep of its own.
    place.eqprop().args(["report", "r", "--only", "run1", "--out", "one"]).assert().success();
    assert_eq!(place.read("one/runs.csv").lines().count(), 2);
}

#[test]
fn rows_are_added_to_records_and_a_run_that_is_there_twice_counts_once() {
    let place = Place::new();
    let mut runs = vec![run("ep-1h", &[], 0, 30, 2.0), run("ep-1h", &[], 1, 30, 2.4)];
    runs[1].done = 7;
    sweep_of(&place, &runs);
    place.eqprop().args(["report", "s", "--out", "r"]).assert().success();
    fs::remove_dir_all(place.path("s")).unwrap();
    // Of seed 0 the first stays, since both are equally long; of seed 1 the longer. A run computed elsewhere is not
    // another run.
    let on_cpu = ["training.device=cpu", "training.angle_minibatches=0"];
    let runs =
        [run("ep-1h", &on_cpu, 0, 30, 1.0), run("ep-1h", &[], 1, 30, 1.8), run("cep-1h", &[], 0, 100, 2.8)];
    sweep_in(&place, "t", &runs);
    place.eqprop().args(["report", "r", "t", "--out", "r"]).assert().success();
    let table = place.read("r/table3.csv");
    // (2.0 + 1.8)/2, and s = 0.2/√2.
    assert!(table.contains("\nEP-1h,,,agrees,2,1.9,0.14,"), "{table}");
    assert!(table.contains("\nC-EP-1h,,,single-run,1,2.8,"), "{table}");
    assert_eq!(place.read("r/records.jsonl").lines().count(), 3);
    // Once more, it is the same.
    let before = WRITTEN.map(|file| fs::read(place.path(&format!("r/{file}"))).ok());
    place.eqprop().args(["report", "r", "t", "--out", "r"]).assert().success();
    assert!(before == WRITTEN.map(|file| fs::read(place.path(&format!("r/{file}"))).ok()));
}

#[test]
fn records_are_not_written_over_by_a_report_that_lacks_some_of_them() {
    let place = Place::new();
    sweep_of(&place, &[run("ep-1h", &[], 0, 30, 2.0), run("ep-1h", &[], 1, 30, 2.4)]);
    place.eqprop().args(["report", "s", "--out", "r"]).assert().success();
    let records = place.read("r/records.jsonl");
    for less in [&["report", "s", "--only", "run0", "--out", "r"][..], &["report", "r", "--only", "run0"]] {
        let refused = place.eqprop().args(less).output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("records.jsonl: 1 of its runs would be lost, run1 among them"), "{said}");
        assert_eq!(place.read("r/records.jsonl"), records);
    }
    // A report in a sweep's folder is made from its runs, which are there.
    place.eqprop().args(["report", "s"]).assert().success();
    place.eqprop().args(["report", "s", "--only", "run0"]).assert().success();
}

#[test]
fn damaged_records_name_file_and_line() {
    let place = Place::new();
    sweep_of(&place, &[run("ep-1h", &[], 0, 3, 2.0), run("ep-1h", &[], 1, 3, 2.4)]);
    place.eqprop().args(["report", "s", "--out", "r"]).assert().success();
    let whole = place.read("r/records.jsonl");
    let second = whole.lines().nth(1).unwrap();
    let with = |second: String| format!("{}\n{second}\n", whole.lines().next().unwrap());
    for (damaged, why) in [
        (whole[..whole.len() - 40].to_string(), "EOF"),
        (with(String::new()), "EOF"),
        (with(second.replace("\"run\":\"run1\"", "\"run\":\"../run1\"")), "another folder"),
        (with(second.replace("\"run\":", "\"walk\":")), "unknown field `walk`"),
        (with(second.replace("\"beta\":", "\"betta\":")), "betta"),
        (with(second.replace("[784,512,10]", "[784]")), "hidden layer"),
        (with(second.replacen("\"test\":[", "\"test\":[1.0,", 1)), "5 test errors, but 4 numbers in train"),
    ] {
        assert_ne!(damaged, whole, "{why}");
        fs::write(place.path("r/records.jsonl"), &damaged).unwrap();
        for arguments in [&["report", "r", "--out", "x"][..], &["report", "s", "--out", "r"]] {
            let refused = place.eqprop().args(arguments).output().unwrap();
            let said = String::from_utf8(refused.stderr).unwrap();
            assert_eq!(refused.status.code(), Some(1), "{said}");
            assert!(said.contains("r/records.jsonl: line 2 is not what a report writes"), "{said}");
            assert!(said.contains(why), "{why}: {said}");
        }
        assert_eq!(place.read("r/records.jsonl"), damaged);
        assert!(!place.path("x").exists());
    }
}

#[test]
fn one_bad_file_of_one_run_is_named_and_not_the_end_of_the_report() {
    let place = Place::new();
    let runs = [run("ep-1h", &[], 0, 30, 2.0), run("ep-1h", &[], 1, 30, 2.4), run("ep-1h", &[], 2, 30, 2.2)];
    sweep_of(&place, &runs);
    let report = |out: &str| {
        let output = place.eqprop().args(["report", "s", "--out", out]).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for (file, contents) in [
        ("runs/run1/metrics.jsonl", "{\"epoch\": 0,\n{}\n"),
        ("runs/run1/metrics.jsonl", "{\"epoch\": 0}\n"),
        ("runs/run1/environment.json", "{"),
        ("configs/run1.toml", "[network]\ndims = 3\n"),
    ] {
        let whole = fs::read(place.path(&format!("s/{file}"))).ok();
        fs::write(place.path(&format!("s/{file}")), contents).unwrap();
        let _ = fs::remove_dir_all(place.path("r"));
        let (status, said) = report("r");
        assert_eq!(status, 0, "{file}: {said}");
        assert!(said.contains("run run1: it is left out") && said.contains(file), "{file}: {said}");
        assert_eq!(place.read("r/runs.csv").lines().count(), 3, "{file}");
        let text = without_tags(&place.read("r/report.html"));
        assert!(text.contains("cannot be read: run1"), "{file}");
        match whole {
            Some(whole) => fs::write(place.path(&format!("s/{file}")), whole).unwrap(),
            None => fs::remove_file(place.path(&format!("s/{file}"))).unwrap(),
        }
    }
    // The runs that the last report here has kept are not lost.
    assert_eq!(report("s").0, 0);
    let before = place.read("s/records.jsonl");
    fs::write(place.path("s/runs/run1/metrics.jsonl"), "?\n").unwrap();
    let (status, said) = report("s");
    assert!(
        status == 0 && said.contains("run run1: its numbers are those of the last report here"),
        "{said}"
    );
    assert_eq!(place.read("s/records.jsonl"), before);
}

#[test]
fn a_seed_counts_once_however_many_runs_and_folders_have_it() {
    let place = Place::new();
    let runs =
        [run("ep-1h", &["learning.beta=0.4"], 0, 10, 2.0), run("ep-1h", &["learning.beta=0.4"], 0, 10, 3.0)];
    sweep_in(&place, "s", &runs);
    sweep_in(&place, "t", &runs[..1]);
    place.eqprop().args(["report", "s", "t", "--out", "r"]).assert().success();
    let table = place.read("r/sweep.csv");
    assert!(table.contains("\nEP-1h,1,2.0,,"), "{table}");
    assert_eq!(place.read("r/runs.csv").lines().count(), 2);
}

/// C-EP has a row with β > 0 and one with β of random sign. What departs from them in the same way is not the same.
#[test]
fn rows_that_share_a_rule_stay_apart_where_both_are_changed() {
    let place = Place::new();
    let rates = "learning.learning_rates=[0.002, 0.001]";
    let runs = ["positive", "random"].map(|nudging| {
        let test = if nudging == "random" { 3.0 } else { 2.0 };
        run("cep-1h", &[rates, &format!("learning.nudging={nudging}")], 0, 10, test)
    });
    sweep_of(&place, &runs);
    place.eqprop().args(["report", "s"]).assert().success();
    let expected = "network,learning.nudging,n,test,test_std,train,train_std,epochs,unfinished\n\
                    C-EP-1h,positive,1,2.0,,1.0,,10,0\n\
                    C-EP-1h,random,1,3.0,,1.5,,10,0\n";
    assert_eq!(place.read("s/sweep.csv"), expected);
    let names = place.read("s/runs.csv");
    assert!(
        names.contains("(learning_rates = [0.002, 0.001])") && names.contains("nudging = random)"),
        "{names}"
    );
}

#[test]
fn a_report_replaces_its_own_files_and_no_others() {
    let place = Place::new();
    let runs = [run("ep-1h", &["learning.beta=0.4"], 0, 10, 2.0), run("ep-1h", &[], 0, 10, 3.0)];
    sweep_of(&place, &runs);
    let report = || {
        let output = place.eqprop().args(["report", "s", "--out", "r", "--figures", "f"]).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    fs::create_dir(place.path("r")).unwrap();
    fs::create_dir(place.path("f")).unwrap();
    let names = [
        "r/report.html",
        "r/runs.csv",
        "r/curves.csv",
        "r/sweep.csv",
        "r/curves.svg",
        "f/curves.svg",
        "f/curves.pdf",
    ];
    for name in names {
        for link in [false, true] {
            let theirs = if link { "mine" } else { name };
            fs::write(place.path(theirs), "my own\n").unwrap();
            if link {
                std::os::unix::fs::symlink(place.path("mine"), place.path(name)).unwrap();
            }
            let before = place.everything();
            let (status, said) = report();
            assert_eq!(status, 2, "{name}: {said}");
            assert!(
                said.contains(&format!("eqprop: {name}: ")) && said.contains("move it away"),
                "{name}: {said}"
            );
            assert!(place.everything() == before, "{name}: nothing else is written");
            fs::remove_file(place.path(name)).unwrap();
        }
    }
    fs::write(place.path("r/.eqprop-abc123.tmp"), "half").unwrap();
    assert_eq!(report().0, 0);
    assert!(names.iter().all(|name| place.path(name).is_file()));
    assert!(!place.path("r/.eqprop-abc123.tmp").exists(), "what a killed report has left");
    assert_eq!(report().0, 0, "its own it replaces");
}
