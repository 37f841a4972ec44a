//! Differences between the groups of a sweep.

use super::results::Group;
use anyhow::Result;
use std::collections::BTreeSet;
use toml::{Table, Value};

/// Keys in which groups differ, among those that the sweep has set, and Ψ.
pub fn keys(groups: &[&Group]) -> Result<Vec<String>> {
    let candidates: BTreeSet<&str> =
        groups.iter().flat_map(|group| &group.changed).map(String::as_str).chain(["network.psi"]).collect();
    let mut varied = Vec::new();
    for key in candidates {
        let values = groups.iter().map(|group| value(group, key)).collect::<Result<BTreeSet<_>>>()?;
        if values.len() > 1 {
            varied.push(key.to_string());
        }
    }
    Ok(varied)
}

/// Keys that differ from the preset in some group and have one value in all, with that value.
pub fn shared(groups: &[&Group]) -> Result<Vec<(String, String)>> {
    let varied = keys(groups)?;
    let candidates: BTreeSet<&String> = groups.iter().flat_map(|group| &group.changed).collect();
    let shared = candidates.into_iter().filter(|key| !varied.contains(key));
    shared.map(|key| Ok((key.clone(), value(groups[0], key)?))).collect()
}

/// The value of a key in a group, as text; "–" where it has none.
pub fn value(group: &Group, key: &str) -> Result<String> {
    let config = &group.runs[0].config;
    if key == "network.psi" {
        return Ok(config.psi_degrees().map_or("–".into(), |psi| format!("{psi}°")));
    }
    let table = Table::try_from(config)?;
    let (section, name) = key.split_once('.').unwrap_or(("", key));
    let value = table.get(section).and_then(|section| section.get(name));
    Ok(match value {
        None => "–".into(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    })
}

/// A key as a heading.
pub fn heading(key: &str) -> &str {
    match key {
        "network.psi" => "Ψ",
        "learning.sigma_prime" => "σ′",
        "learning.beta" => "β",
        _ => key.split('.').next_back().unwrap_or(key),
    }
}

/// A short, unique name for each group: the network where they differ in it, and as few of the varied keys as
/// distinguish them.
pub fn labels(groups: &[&Group]) -> Result<Vec<String>> {
    labels_by(groups, keys(groups)?)
}

/// Short names for groups, from these keys only.
pub fn labels_by(groups: &[&Group], mut keys: Vec<String>) -> Result<Vec<String>> {
    let texts =
        |keys: &[String]| -> Result<Vec<String>> { groups.iter().map(|group| label(group, keys)).collect() };
    let distinct = |keys: &[String]| -> Result<usize> {
        let names = groups.iter().map(|group| group.network());
        Ok(names.zip(texts(keys)?).collect::<BTreeSet<_>>().len())
    };
    let all = distinct(&keys)?;
    // Drops keys that the others make unnecessary, from the last on.
    for key in keys.clone().into_iter().rev() {
        let fewer: Vec<String> = keys.iter().filter(|known| **known != key).cloned().collect();
        if distinct(&fewer)? == all {
            keys = fewer;
        }
    }
    let several = groups.iter().map(|group| group.network()).collect::<BTreeSet<_>>().len() > 1;
    let mut labels = texts(&keys)?;
    for (label, group) in labels.iter_mut().zip(groups) {
        if several || label.is_empty() {
            *label = match &label[..] {
                "" => group.network(),
                label => format!("{}, {label}", group.network()),
            };
        }
    }
    // Names that are still equal differ in their epochs.
    let seen = labels.clone();
    for (label, group) in labels.iter_mut().zip(groups) {
        if seen.iter().filter(|other| *other == label).count() > 1 {
            *label += &format!(", {} epochs", group.epochs_wanted());
        }
    }
    Ok(labels)
}

fn label(group: &Group, keys: &[String]) -> Result<String> {
    let values = keys.iter().map(|key| Ok((key, value(group, key)?))).collect::<Result<Vec<_>>>()?;
    let parts = values.into_iter().filter(|(_, value)| value != "–").map(|(key, value)| match &key[..] {
        "network.psi" | "learning.beta" => format!("{} = {value}", heading(key)),
        "network.init" if value == "glorot" => "Glorot weights".into(),
        "network.init" => format!("{value} weights"),
        _ => format!("{} {value}", heading(key)),
    });
    Ok(parts.collect::<Vec<String>>().join(", "))
}
