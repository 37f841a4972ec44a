//! Letters of three by five pixels, for pictures that are drawn without a font.

/// Five rows of three pixels each, of which the left one is the highest bit. Small letters are drawn as large ones.
type Shape = [u8; 5];

const DIGITS: [Shape; 10] = [
    [7, 5, 5, 5, 7],
    [2, 6, 2, 2, 7],
    [7, 1, 7, 4, 7],
    [7, 1, 7, 1, 7],
    [5, 5, 7, 1, 1],
    [7, 4, 7, 1, 7],
    [7, 4, 7, 5, 7],
    [7, 1, 1, 1, 1],
    [7, 5, 7, 5, 7],
    [7, 5, 7, 1, 7],
];

const LETTERS: [Shape; 26] = [
    [2, 5, 7, 5, 5],
    [6, 5, 6, 5, 6],
    [3, 4, 4, 4, 3],
    [6, 5, 5, 5, 6],
    [7, 4, 6, 4, 7],
    [7, 4, 6, 4, 4],
    [3, 4, 5, 5, 3],
    [5, 5, 7, 5, 5],
    [7, 2, 2, 2, 7],
    [1, 1, 1, 5, 2],
    [5, 5, 6, 5, 5],
    [4, 4, 4, 4, 7],
    [5, 7, 7, 5, 5],
    [5, 7, 7, 7, 5],
    [2, 5, 5, 5, 2],
    [6, 5, 6, 4, 4],
    [2, 5, 5, 6, 3],
    [6, 5, 6, 5, 5],
    [3, 4, 2, 1, 6],
    [7, 2, 2, 2, 2],
    [5, 5, 5, 5, 7],
    [5, 5, 5, 5, 2],
    [5, 5, 7, 7, 5],
    [5, 5, 2, 5, 5],
    [5, 5, 2, 2, 2],
    [7, 1, 2, 4, 7],
];

const SIGNS: [(char, Shape); 10] = [
    (' ', [0, 0, 0, 0, 0]),
    ('-', [0, 0, 7, 0, 0]),
    ('_', [0, 0, 0, 0, 7]),
    ('.', [0, 0, 0, 0, 2]),
    (',', [0, 0, 0, 2, 4]),
    ('+', [0, 2, 7, 2, 0]),
    ('/', [1, 1, 2, 4, 4]),
    ('\'', [2, 2, 0, 0, 0]),
    ('(', [1, 2, 2, 2, 1]),
    (')', [4, 2, 2, 2, 4]),
];

/// The shape of a character, if it has one.
fn shape(character: char) -> Option<Shape> {
    let character = character.to_ascii_uppercase();
    match character {
        '0'..='9' => Some(DIGITS[character as usize - '0' as usize]),
        'A'..='Z' => Some(LETTERS[character as usize - 'A' as usize]),
        _ => SIGNS.into_iter().find(|(sign, _)| *sign == character).map(|(_, shape)| shape),
    }
}

/// The width of a character, with the gap after it.
pub const ADVANCE: usize = 4;

/// The pixels of a text, as (column, row) from its upper left corner. Characters without a shape stay empty.
pub fn pixels(text: &str) -> impl Iterator<Item = (usize, usize)> {
    text.chars().enumerate().flat_map(|(place, character)| {
        let shape = shape(character).unwrap_or_default();
        let all = (0..5).flat_map(|row| (0..3).map(move |column| (column, row)));
        let inked = all.filter(move |(column, row)| shape[*row] >> (2 - column) & 1 == 1);
        inked.map(move |(column, row)| (ADVANCE * place + column, row))
    })
}

/// Labels for so many classes in a picture that has room for `most` characters, in the letters above: the name, cut;
/// or the number where there is no name, where it cannot be drawn, or where that of another class would look the
/// same.
pub fn labels(names: &[String], classes: usize, most: usize) -> Vec<String> {
    named(names, classes, most, '.', |name| {
        let name = name.to_ascii_uppercase();
        name.chars().all(|c| shape(c).is_some()).then_some(name)
    })
}

/// Labels for classes in a font that has Latin, Greek and Cyrillic letters.
pub fn written(names: &[String], classes: usize, most: usize) -> Vec<String> {
    let has = |c: char| !c.is_control() && (c < '\u{530}' || c == '…');
    named(names, classes, most, '…', |name| name.chars().all(has).then_some(name))
}

fn named(
    names: &[String],
    classes: usize,
    most: usize,
    cut: char,
    drawn: impl Fn(String) -> Option<String>,
) -> Vec<String> {
    let short = |name: &String| {
        let short: String = match name.chars().count() {
            count if count > most => name.chars().take(most.saturating_sub(1)).chain([cut]).collect(),
            _ => name.clone(),
        };
        drawn(short).filter(|name| !name.trim().is_empty())
    };
    let drawn: Vec<Option<String>> = names.iter().map(short).collect();
    let label = |class: usize| {
        let name = drawn.get(class)?.as_ref()?;
        let alone = drawn.iter().flatten().filter(|other| *other == name).count() == 1;
        alone.then(|| name.clone())
    };
    (0..classes).map(|class| label(class).unwrap_or_else(|| class.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_characters_look_the_same() {
        let characters = ('0'..='9').chain('A'..='Z').chain(SIGNS.map(|(sign, _)| sign));
        let shapes: Vec<Shape> = characters.map(|character| shape(character).unwrap()).collect();
        assert_eq!(shapes.iter().collect::<BTreeSet<_>>().len(), shapes.len());
        assert!(shapes.iter().flatten().all(|row| *row < 8));
        assert_eq!((shape('a'), shape('ψ')), (shape('A'), None));
    }

    #[test]
    fn a_text_is_drawn_from_left_to_right() {
        // An L and an I.
        let expected = [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 4), (2, 4)];
        let then = [(4, 0), (5, 0), (6, 0), (5, 1), (5, 2), (5, 3), (4, 4), (5, 4), (6, 4)];
        let drawn: BTreeSet<_> = pixels("LI").collect();
        assert_eq!(drawn, expected.into_iter().chain(then).collect());
    }

    #[test]
    fn names_are_cut_and_give_way_to_numbers_where_they_say_nothing() {
        let names = ["cat", "große Katze", "left_hand", "left_foot", "10 dogs or so", ""].map(String::from);
        assert_eq!(labels(&names, 7, 5), ["CAT", "1", "2", "3", "10 D.", "5", "6"]);
        assert_eq!(labels(&[], 2, 5), ["0", "1"]);
        let names = ["große Katze", "große Kuh", "犬", "Ψ", "ok"].map(String::from);
        assert_eq!(written(&names, 5, 11), ["große Katze", "große Kuh", "2", "Ψ", "ok"]);
        assert_eq!(written(&names, 5, 7), ["0", "1", "2", "Ψ", "ok"], "cut, both would be große …");
    }
}
