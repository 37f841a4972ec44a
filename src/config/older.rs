//! Configurations that earlier versions have written.

use super::Config;
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Value, json};

/// Keys that are no more, and what says the same now.
pub const FORMER: [(&str, &str); 1] =
    [("learning.damped", "learning.damping = 0.5 says the same as damped = true")];

/// Reads a configuration of this or an earlier version, as checkpoints hold it. What an earlier version did not
/// know is as it was then: σ′ was ignored, steps were damped by a half or not at all.
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
}
