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

/// A sweep folder with these runs.
fn finished_sweep(place: &Place, runs: &[Ended]) {
    for folder in ["configs", "sweeps", "failed"] {
        fs::create_dir_all(place.path(&format!("s/{folder}"))).unwrap();
    }
    fs::write(place.path("s/sweeps/a.toml"), "title = 'made up'\n[[rows]]\nconfig = 'ep-1h'\n").unwrap();
    let mut plan = Vec::new();
    for (i, &(preset, psi, seed, epochs, test, train)) in runs.iter().enumerate() {
        let name = format!("run{i}");
        let psi_flag = psi.map(|psi| format!("network.psi={psi}"));
        let mut command = place.eqprop();
        command.args([
            "config",
            "--config",
            preset,
            "--seed",
            &seed.to_string(),
            "--epochs",
            &epochs.to_string(),
        ]);
        if let Some(flag) = &psi_flag {
            command.args(["--set", flag]);
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
                falling(train),
                falling(test)
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
             figures ${{d.querySelectorAll('svg').length}} rows ${{d.querySelectorAll('tbody tr').length}}`; }}\
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
    assert!(line("EP-1h,").contains(",1,30,30,2.28,,0.2,,2.0,0.13,0.2,within,45.5,"), "{table}");
    assert!(table.contains("\"C-EP-1h, ±β\",,,1,100,100,2.64,,0.4,,2.28,0.16,0.41,outside,45.5,"), "{table}");
    let cvf = line("C-VF-1h,0.0,");
    assert!(cvf.starts_with("C-VF-1h,0.0,,3,100,100,2.6") && cvf.contains(",outside,"), "{cvf}");
    assert!(line("C-VF-1h,45.0,").contains(",1,7,100,2.4,"), "{table}");
    assert!(line("C-VF-2h,180.0,").contains(",not-run,"), "{table}");
    assert_eq!(table.lines().count(), 26);
    let page = place.read("r/report.html");
    assert!(page.contains("after 7 of 100 epochs") && page.contains("2.60 ± 0.10"));
    assert!(page.contains(">3.0 s<") && page.contains(">2 min<"), "30 epochs of 3 s");
}
