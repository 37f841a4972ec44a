//! Configurations that earlier versions have written.

use super::Config;
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Value, json};

/// Keys that are no more, and what says the same now.
pub const FORMER: [(&str, &str); 2] = [
    ("learning.damped", "learning.damping = 0.5 says the same as damped = true"),
    (
        "training.replicas",
        "runs of many seeds are a sweep: `grid.training.seed = [0, 1, 2]` in a file for `eqprop sweep --config`, which \
         trains them at once, and on a GPU together",
    ),
];

/// Whether a file gives a former key the value that it always had where nobody asked for it, and that says nothing: all
/// configurations that earlier versions have written hold one replica.
pub fn says_nothing(key: &str, value: &toml::Value) -> bool {
    key == "training.replicas" && value.as_integer() == Some(1)
}

/// Reads a configuration of this or an earlier version, as checkpoints hold it. What an earlier version did not
/// know is as it was then: σ′ was ignored, steps were damped by a half or not at all. How many runs trained beside one
/// changed nothing in it.
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
    if let Some(training) = config.get_mut("training").and_then(Value::as_object_mut) {
        training.remove("replicas");
    }
    serde_path_to_error::deserialize(config)
        .map_err(|error| D::Error::custom(format!("{}: {}", error.path(), error.inner())))
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
            let learning = older["learning"].as_object_mut().unwrap();
            learning.remove("damping");
            learning.remove("sigma_prime");
            learning.insert("damped".into(), json!(damped));
            let read = of_any_version(older).unwrap();
            let mut expected = config.clone();
            expected.learning.damping = damping;
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
        // In files, one replica says nothing, and more are refused with what to do instead.
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
            refused.contains("training.replicas is no key any more") && refused.contains("sweep"),
            "{refused}"
        );
    }
}
