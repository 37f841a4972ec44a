//! Suggestions for a word that is not known.

/// The known word most like `word`, as ` (did you mean …?)`; empty where none is alike enough.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let alike = |known: &'a str| (strsim::jaro_winkler(&word.to_lowercase(), &known.to_lowercase()), known);
    let best = known.into_iter().map(alike).max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((likeness, known)) if likeness > 0.8 && known != word => format!(" (did you mean {known}?)"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let known = ["ep-1h", "cep-1h", "cvf-1h", "cvf-2h"];
        assert_eq!(did_you_mean("cfv-2h", known), " (did you mean cvf-2h?)");
        assert_eq!(did_you_mean("CVF-1H", known), " (did you mean cvf-1h?)");
        assert_eq!(did_you_mean("backprop", known), "");
    }
}
