//! Configurations that earlier versions have written.

use super::Config;
use crate::base::output::visible;
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Map, Value, json};

/// Keys that no longer exist, with their replacements.
pub const FORMER: [(&str, &str); 2] = [
    ("learning.damped", "settle.damping = 0.5 says the same as damped = true"),
    (
        "training.replicas",
        "runs of many seeds are a sweep: `grid.training.seed = [0, 1, 2]` in a file for `eqprop sweep --config`, which \
         trains them at once, and on a GPU together",
    ),
];

/// A key that has been renamed.
pub struct Renamed {
    /// Its former name.
    pub former: &'static str,
    /// Its name now.
    pub now: &'static str,
    /// Its former value as it is written now.
    value: fn(&str) -> Option<&'static str>,
}

/// Keys that have been renamed, and still work.
pub const RENAMED: [Renamed; 4] = [
    Renamed { former: "learning.T", now: "settle.steps", value: |_| None },
    Renamed { former: "learning.settle_tolerance", now: "settle.tolerance", value: |_| None },
    Renamed { former: "learning.damping", now: "settle.damping", value: |_| None },
    Renamed {
        former: "learning.random_beta",
        now: "learning.nudging",
        value: |value| match value {
            "true" => Some("random"),
            "false" => Some("positive"),
            _ => None,
        },
    },
];

/// The current name of a key.
pub fn current_name(key: &str) -> &str {
    RENAMED.iter().find(|renamed| renamed.former == key).map_or(key, |renamed| renamed.now)
}

/// A key and its value as they are written now. Where `place` has them in their former form, `notes` says so.
pub fn renamed(key: &str, value: toml::Value, place: &str, notes: &mut Vec<String>) -> (String, toml::Value) {
    let Some(Renamed { now, value: rewrite, .. }) = RENAMED.iter().find(|renamed| renamed.former == key)
    else {
        return (key.into(), value);
    };
    let value = rewrite(&value.to_string()).map_or(value, toml::Value::from);
    let place = visible(place);
    notes.push(format!("{place}: {key} is called {now} now, and {now} = {value} says the same"));
    ((*now).into(), value)
}

/// True where a file gives a former key the value that changes nothing: all configurations written by earlier
/// versions hold one replica.
pub fn says_nothing(key: &str, value: &toml::Value) -> bool {
    key == "training.replicas" && value.as_integer() == Some(1)
}

/// Reads a configuration of this or an earlier version, as checkpoints hold it. Keys that the earlier version lacked
/// get the behaviour it had: σ′ ignored, steps damped by a half or not at all. The former number of replicas never
/// changed a result.
///
/// # Errors
/// Those of the deserializer: a missing or unknown key, a value of the wrong kind.
pub fn of_any_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Config, D::Error> {
    let mut config = Value::deserialize(deserializer)?;
    if let Some(learning) = config.get_mut("learning").and_then(Value::as_object_mut) {
        if let Some(damped) = learning.remove("damped") {
            learning.insert("damping".into(), json!(if damped == json!(true) { 0.5 } else { 0.0 }));
        }
        learning.entry("sigma_prime").or_insert("ignored".into());
    }
    if let Some(sections) = config.as_object_mut() {
        move_renamed(sections);
    }
    if let Some(training) = config.get_mut("training").and_then(Value::as_object_mut) {
        training.remove("replicas");
    }
    serde_path_to_error::deserialize(config)
        .map_err(|error| D::Error::custom(format!("{}: {}", error.path(), error.inner())))
}

/// Renames keys of earlier versions, and adds those that they lacked.
fn move_renamed(sections: &mut Map<String, Value>) {
    for Renamed { former, now, value: rewrite } in RENAMED {
        let (Some((section, key)), Some((new_section, new_key))) =
            (former.split_once('.'), now.split_once('.'))
        else {
            continue;
        };
        let removed = sections.get_mut(section).and_then(|section| section.as_object_mut()?.remove(key));
        let Some(value) = removed else { continue };
        let value = rewrite(&value.to_string()).map_or(value, Value::from);
        let section = sections.entry(new_section).or_insert_with(|| json!({}));
        if let Some(section) = section.as_object_mut() {
            section.insert(new_key.into(), value);
        }
    }
    if let Some(settle) = sections.get_mut("settle").and_then(Value::as_object_mut) {
        for (key, value) in
            [("order", json!("synchronous")), ("solver", json!("iterate")), ("window", json!(3))]
        {
            settle.entry(key).or_insert(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Choices, Resolved};
    use crate::learning::{Rule, SigmaPrime};

    #[test]
    fn a_configuration_with_damped_steps_is_read_as_it_was_meant() {
        let choices = Choices { algo: Some(Rule::CVF), ..Choices::default() };
        let config = Resolved::new(&choices).unwrap().config;
        for (damped, damping) in [(true, 0.5), (false, 0.0)] {
            let mut older = serde_json::to_value(&config).unwrap();
            let settle = older.as_object_mut().unwrap().remove("settle").unwrap();
            let learning = older["learning"].as_object_mut().unwrap();
            for key in ["nudging", "sigma_prime"] {
                learning.remove(key);
            }
            learning.insert("T".into(), settle["steps"].clone());
            learning.insert("settle_tolerance".into(), settle["tolerance"].clone());
            learning.insert("random_beta".into(), json!(true));
            learning.insert("damped".into(), json!(damped));
            let read = of_any_version(older).unwrap();
            let mut expected = config.clone();
            expected.settle.damping = damping;
            expected.learning.sigma_prime = SigmaPrime::Ignored;
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn a_configuration_with_replicas_is_read_without_them() {
        let choices = Choices { algo: Some(Rule::EP), ..Choices::default() };
        let config = Resolved::new(&choices).unwrap().config;
        let mut older = serde_json::to_value(&config).unwrap();
        older["training"]["replicas"] = json!(3);
        assert_eq!(of_any_version(older).unwrap(), config);
        // In files, one replica changes nothing; more are refused with a remedy.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("older.toml");
        let text = Resolved::new(&choices).unwrap().annotated();
        let read = |replicas: usize| {
            std::fs::write(&path, format!("{text}replicas = {replicas}\n")).unwrap();
            Resolved::new(&Choices { config: Some(path.clone()), ..Choices::default() })
        };
        assert_eq!(read(1).unwrap().config, config);
        let refused = format!("{:#}", read(3).unwrap_err());
        assert!(
            refused.contains("training.replicas is no longer a key") && refused.contains("sweep"),
            "{refused}"
        );
    }
}
