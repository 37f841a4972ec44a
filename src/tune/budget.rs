//! The budget of a tuning: a time, which becomes an amount of arithmetic, or such an amount at once.
//!
//! What is chosen must not depend on how busy the machine is, so probes are planned in multiply-adds. A time is turned
//! into them once, by a short measurement that is written down; a tuning on another machine that is to choose the same
//! is given that number. The clock decides only where probes take longer than was planned.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The value of `--budget`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Budget {
    /// So many seconds, measurements included.
    Seconds(f64),
    /// So many multiply-adds of probes, however long they take.
    MultiplyAdds(f64),
}

/// The planned part of a time; the rest is for a machine that becomes slower.
const PLANNED: f64 = 0.8;

impl Budget {
    /// The multiply-adds that probes may take, where `elapsed` has passed and the machine does `speed` of them a
    /// second.
    pub fn work(self, elapsed: Duration, speed: f64) -> f64 {
        match self {
            Budget::Seconds(seconds) => PLANNED * speed * (seconds - elapsed.as_secs_f64()).max(0.0),
            Budget::MultiplyAdds(work) => work,
        }
    }

    /// The time left; `None` where time does not matter.
    pub fn left(self, elapsed: Duration) -> Option<Duration> {
        match self {
            Budget::Seconds(seconds) => {
                Some(Duration::from_secs_f64((seconds - elapsed.as_secs_f64()).max(0.0)))
            }
            Budget::MultiplyAdds(_) => None,
        }
    }
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().ok().filter(|n: &f64| n.is_finite() && *n > 0.0);
        let times = [("s", 1.0), ("m", 60.0), ("h", 3600.0)];
        let time = times.iter().find_map(|(unit, seconds)| Some(number(text.strip_suffix(unit)?)? * seconds));
        match (time, number(text)) {
            (Some(seconds), _) if seconds <= 1e7 => Ok(Budget::Seconds(seconds)),
            (None, Some(work)) if work >= 1e6 => Ok(Budget::MultiplyAdds(work)),
            _ => Err("give a time, as 90s, 20m or 2h, or a number of multiply-adds, as 3e13".into()),
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Budget::Seconds(seconds) => write!(f, "{seconds} s"),
            Budget::MultiplyAdds(work) => write!(f, "{work:.2e} multiply-adds"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_times_or_arithmetic() {
        let of = |text: &str| text.parse::<Budget>().ok();
        assert_eq!(of("20m"), Some(Budget::Seconds(1200.0)));
        assert_eq!(of("1.5h"), Some(Budget::Seconds(5400.0)));
        assert_eq!(of("3e13"), Some(Budget::MultiplyAdds(3e13)));
        for wrong in ["", "20", "-3m", "m", "20 minutes", "infs", "nan"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_time_buys_what_is_left_of_it() {
        let (budget, passed) = (Budget::Seconds(100.0), Duration::from_secs(50));
        assert_eq!(budget.work(passed, 1e9), 0.8 * 50.0 * 1e9);
        assert_eq!(budget.work(Duration::from_secs(200), 1e9), 0.0);
        assert_eq!(Budget::MultiplyAdds(7e9).work(passed, 1.0), 7e9);
    }
}
