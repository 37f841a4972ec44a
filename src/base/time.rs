//! The time now, and durations in words.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub fn since_1970() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A duration in days and hours, hours and minutes, minutes or seconds, whichever is precise enough.
pub fn duration(seconds: f64) -> String {
    let round = |unit: f64| (seconds.clamp(0.0, 1e15) / unit).round() as u64;
    let (minutes, hours) = (round(60.0), round(3600.0));
    match (round(1.0), minutes, hours) {
        (seconds @ ..90, ..) => format!("{seconds} s"),
        (_, ..60, _) => format!("{minutes} min"),
        (.., ..72) => format!("{} h {:02} min", minutes / 60, minutes % 60),
        _ => format!("{} d {:02} h", hours / 24, hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn a_time_is_said_in_the_units_that_matter() {
        let said = [0.4, 89.0, 90.0, 3540.0, 11_110.0, 3599.0, 300_000.0, f64::INFINITY].map(duration);
        let expected = ["0 s", "89 s", "2 min", "59 min", "3 h 05 min", "1 h 00 min", "3 d 11 h"];
        assert_eq!(said[..7], expected);
        assert!(said[7].ends_with(" h"));
    }
}
