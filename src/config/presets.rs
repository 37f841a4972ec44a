//! The rows of Table 2, and presets derived from them for other depths.
//!
//! With two hidden layers there are two presets for each: one whose layers are updated in turn, with acceleration, and
//! one with the paper's synchronous steps.

use super::{Error, Result};
use crate::base::files;
use crate::base::near::did_you_mean;
use crate::learning::Rule;
use std::io::ErrorKind;
use std::path::Path;
use toml::{Table, Value};

/// A preset: its name and its configuration file.
pub type Preset = (&'static str, &'static str);

/// All rows of Table 2, C-VF with feedback weights that align themselves, and networks with convolutions, as the files in
/// `configs/`.
pub const PRESETS: [Preset; 14] = [
    ("ep-1h", include_str!("../../configs/ep-1h.toml")),
    ("ep-2h", include_str!("../../configs/ep-2h.toml")),
    ("ep-2h-synchronous", include_str!("../../configs/ep-2h-synchronous.toml")),
    ("cep-1h", include_str!("../../configs/cep-1h.toml")),
    ("cep-1h-random-beta", include_str!("../../configs/cep-1h-random-beta.toml")),
    ("cep-2h", include_str!("../../configs/cep-2h.toml")),
    ("cep-2h-synchronous", include_str!("../../configs/cep-2h-synchronous.toml")),
    ("cvf-1h", include_str!("../../configs/cvf-1h.toml")),
    ("cvf-1h-aligned", include_str!("../../configs/cvf-1h-aligned.toml")),
    ("cvf-2h", include_str!("../../configs/cvf-2h.toml")),
    ("cvf-2h-aligned", include_str!("../../configs/cvf-2h-aligned.toml")),
    ("cvf-2h-synchronous", include_str!("../../configs/cvf-2h-synchronous.toml")),
    ("ep-conv", include_str!("../../configs/ep-conv.toml")),
    ("cep-conv", include_str!("../../configs/cep-conv.toml")),
];

/// The networks of the figures of Appendix E.6, rows of Table 1, as the files in `configs/gdd/`.
pub const FIGURES: [Preset; 12] = [
    ("fig10-11", include_str!("../../configs/gdd/fig10-11.toml")),
    ("fig10-11-eta0", include_str!("../../configs/gdd/fig10-11-eta0.toml")),
    ("fig12-13", include_str!("../../configs/gdd/fig12-13.toml")),
    ("fig12-13-eta0", include_str!("../../configs/gdd/fig12-13-eta0.toml")),
    ("fig14-15", include_str!("../../configs/gdd/fig14-15.toml")),
    ("fig14-15-eta0", include_str!("../../configs/gdd/fig14-15-eta0.toml")),
    ("fig5-cep", include_str!("../../configs/gdd/fig5-cep.toml")),
    ("fig5-cep-eta0", include_str!("../../configs/gdd/fig5-cep-eta0.toml")),
    ("fig5-cvf", include_str!("../../configs/gdd/fig5-cvf.toml")),
    ("fig5-cvf-eta0", include_str!("../../configs/gdd/fig5-cvf-eta0.toml")),
    ("fig8-9", include_str!("../../configs/gdd/fig8-9.toml")),
    ("fig8-9-eta0", include_str!("../../configs/gdd/fig8-9-eta0.toml")),
];

/// The text of a preset, or of the network of a figure.
pub fn text(name: &str) -> Option<&'static str> {
    built_in(PRESETS.iter().chain(&FIGURES), name)
}

/// The text among `among` that has this name.
fn built_in<'a>(mut among: impl Iterator<Item = &'a Preset>, name: &str) -> Option<&'static str> {
    among.find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The text of the file at `path`, or, where there is no such file, of the built-in one of this name. Where there is
/// neither, the error names the use that it `cannot` have, and lists the names in `told`.
///
/// # Errors
/// Where it is neither.
pub fn file_or_built_in<'a>(
    path: &Path,
    among: impl Iterator<Item = &'a Preset>,
    cannot: &str,
    told: &[Preset],
) -> Result<String> {
    let name = path.display().to_string();
    match built_in(among, &name).filter(|_| !path.is_file()) {
        Some(text) => Ok(text.into()),
        None => files::read_text(path).map_err(|source| {
            let told: Vec<&str> = told.iter().map(|(name, _)| *name).collect();
            let problem = match source.kind() {
                ErrorKind::NotFound => {
                    let meant = did_you_mean(&name, told.iter().copied());
                    format!("{name}: {cannot} {}{meant}", told.join(" "))
                }
                _ => format!("{name}: cannot be read"),
            };
            Error::Unreadable { problem, source }
        }),
    }
}

/// The paper's way to equilibrium, as keys and values: all layers at once, without acceleration.
pub const SYNCHRONOUS: [(&str, &str); 2] = [("settle.order", "synchronous"), ("settle.solver", "iterate")];

/// The choice made by `--algo` and `--depth`: a name to show, the table, and what had to be derived.
pub struct Picked {
    /// The name of the preset.
    pub name: String,
    /// Its contents.
    pub table: Table,
    /// Its difference from a row of Table 2, if any.
    pub note: Option<String>,
}

/// The preset for a rule and a depth, derived from the nearest row of Table 2 where there is no such row.
///
/// Rules without a row take EP's: VF, whose updates are not continual either, Algorithm 5, for which the
/// paper says so (F.2), and the baselines. From two hidden layers on, layers are updated in turn, with acceleration;
/// [`SYNCHRONOUS`] undoes that. Beyond two hidden layers T
/// and K grow by what the second layer brought (60 and 5 steps), and each further hidden layer of
/// 512 neurons is put on the output side with a tenth of its neighbour's learning rate, as the second was.
pub fn pick(rule: Rule, depth: usize) -> Result<Picked> {
    let name = format!("{}-{}h", rule.preset, depth.clamp(1, 2));
    let mut table: Table = toml::from_str(text(&name).unwrap_or_default())?;
    let mut changes = Vec::new();
    if !name.starts_with(&format!("{}-", rule.name())) {
        set(&mut table, "learning", "rule", |_| rule.name().into());
        changes.push(format!("rule = \"{}\"", rule.name()));
        if rule.corrects.is_some()
            && let Some(learning) = table.get_mut("learning").and_then(Value::as_table_mut)
        {
            learning.insert("sigma_prime".into(), "full".into());
            changes.push("sigma_prime = \"full\"".into());
        }
    }
    if depth > 2 {
        let extra = depth - 2;
        let lengthen = |steps: i64| {
            move |value: &Value| Value::from(value.as_integer().unwrap_or(0) + steps * extra as i64)
        };
        set(&mut table, "settle", "steps", lengthen(60));
        set(&mut table, "learning", "K", lengthen(5));
        set(&mut table, "network", "dims", |dims| {
            let mut dims = dims.as_array().cloned().unwrap_or_default();
            let output = dims.len() - 1;
            dims.splice(output..output, vec![Value::from(512); extra]);
            dims.into()
        });
        set(&mut table, "learning", "learning_rates", |rates| {
            let mut rates = rates.as_array().cloned().unwrap_or_default();
            for _ in 0..extra {
                let last = rates.last().and_then(Value::as_float).unwrap_or(0.0);
                rates.push((last / 10.0).into());
            }
            rates.into()
        });
        changes.push(format!(
            "{extra} more hidden layer(s) of 512 neurons on the output side, each with a tenth of its \
             neighbour's learning rate, T + {} and K + {} steps",
            60 * extra,
            5 * extra
        ));
    }
    let note = (!changes.is_empty())
        .then(|| format!("Table 2 has no such row: derived from {name} with {}", changes.join(", ")));
    Ok(Picked { name, table, note })
}

fn set(table: &mut Table, section: &str, key: &str, change: impl Fn(&Value) -> Value) {
    if let Some(value) = table.get_mut(section).and_then(|s| s.get_mut(key)) {
        *value = change(value);
    }
}
