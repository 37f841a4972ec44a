//! Pictures of weights, counts, images and states.

use super::letters;
use super::plot::escaped;
use super::saved;
use anyhow::Result;

/// A picture, for TensorBoard and for pages.
pub struct Picture {
    /// Red, green and blue, row by row from the upper left.
    pub pixels: Vec<u8>,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

impl Picture {
    /// As a file for pages.
    ///
    /// # Errors
    /// Where it has no pixels.
    pub fn png(&self) -> Result<Vec<u8>> {
        let mut png = Vec::new();
        let mut encoder = png::Encoder::new(&mut png, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.write_header()?.write_image_data(&self.pixels)?;
        Ok(png)
    }
}

type Color = [u8; 3];

const GREEN: Color = [0, 140, 90];
const RED: Color = [200, 60, 0];
const GREY: Color = [208, 208, 208];

/// Pixels to draw on.
struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Canvas {
    fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![255; width * height * 3] }
    }

    fn fill(&mut self, (x, y): (usize, usize), (width, height): (usize, usize), color: Color) {
        for row in y..(y + height).min(self.height) {
            for column in x..(x + width).min(self.width) {
                self.pixels[3 * (row * self.width + column)..][..3].copy_from_slice(&color);
            }
        }
    }

    /// Draws a text with its upper left corner there.
    fn text(&mut self, text: &str, (x, y): (usize, usize), scale: usize, color: Color) {
        for (column, row) in letters::pixels(text) {
            self.fill((x + scale * column, y + scale * row), (scale, scale), color);
        }
    }

    /// Draws a square image with its upper left corner there.
    fn image(&mut self, side: usize, (x, y): (usize, usize), scale: usize, color: impl Fn(usize) -> Color) {
        for i in 0..side * side {
            self.fill((x + scale * (i % side), y + scale * (i / side)), (scale, scale), color(i));
        }
    }

    fn picture(self) -> Picture {
        Picture { pixels: self.pixels, width: self.width as u32, height: self.height as u32 }
    }
}

/// The shape of square images of so many values: their side, and one channel of grey or three of colour, pixel by
/// pixel.
fn square(values: usize) -> Option<(usize, usize)> {
    let side = |pixels: usize| Some(pixels.isqrt()).filter(|side| *side > 0 && side * side == pixels);
    let grey = side(values).map(|side| (side, 1));
    grey.or_else(|| Some((side(values / 3).filter(|_| values.is_multiple_of(3))?, 3)))
}

/// The colour of a pixel of an image: grey is dark on white.
fn shade(image: &[u8], channels: usize, pixel: usize) -> Color {
    match channels {
        1 => [255 - image[pixel]; 3],
        _ => [0, 1, 2].map(|channel| image[3 * pixel + channel]),
    }
}

/// The colour of a weight beside the largest: red above 0 and blue below it; with one weight for each channel, grey
/// at 0 and that channel's colour above it.
fn field(weights: &[f32], channels: usize, largest: f64, pixel: usize) -> Color {
    let part = |i: usize| f64::from(weights[i]) / largest;
    match channels {
        1 => diverging(part(pixel)),
        _ => [0, 1, 2].map(|channel| (127.5 * (1.0 + part(3 * pixel + channel))).round() as u8),
    }
}

/// The colours in which [`receptive_fields`] shows weights from images of so many values, in words.
pub fn weights_in_words(values: usize) -> &'static str {
    match square(values) {
        Some((_, 3)) => "grey is 0, and each colour is brighter above and darker below it",
        _ => "blue negative, red positive",
    }
}

/// A value from −1 to 1 as a colour from blue over white to red.
pub fn diverging(value: f64) -> Color {
    let value = if value.is_finite() { value.clamp(-1.0, 1.0) } else { 0.0 };
    let end: [f64; 3] = if value < 0.0 { [33.0, 102.0, 172.0] } else { [178.0, 24.0, 43.0] };
    end.map(|channel| (255.0 + (channel - 255.0) * value.abs()).round() as u8)
}

/// The number of columns of a grid of so many tiles.
fn columns(tiles: usize) -> usize {
    (tiles.isqrt() + usize::from(tiles.isqrt().pow(2) < tiles)).max(1)
}

/// The weights (one row per neuron) as images, at most `most` of them; `None` where the images are not square.
pub fn receptive_fields(weights: &[Vec<f32>], most: usize) -> Option<Picture> {
    let shown = weights.len().min(most);
    let (side, channels) = weights.first().and_then(|weights| square(weights.len()))?;
    let scale = (56 / side).max(1);
    let (tile, columns) = (side * scale + 2, columns(shown));
    let mut canvas = Canvas::new(columns * tile, shown.div_ceil(columns) * tile);
    for (i, weights) in weights.iter().take(shown).enumerate() {
        let largest = weights.iter().fold(0.0f32, |largest, w| largest.max(w.abs()));
        let largest = f64::from(if largest > 0.0 { largest } else { 1.0 });
        let at = (i % columns * tile, i / columns * tile);
        canvas.image(side, at, scale, |pixel| field(weights, channels, largest, pixel));
    }
    Some(canvas.picture())
}

/// The most letters of a class beside a confusion matrix.
const LONGEST: usize = 14;

/// Numbers of images, by true class (rows) and answer (columns), with the names of the classes, which are written
/// upwards above their columns.
///
/// # Errors
/// Where it cannot be drawn.
pub fn confusion(counts: &[Vec<usize>], names: &[String]) -> Result<Picture> {
    saved::drawn(&confusion_svg(counts, names))
}

/// The confusion matrix as SVG.
fn confusion_svg(counts: &[Vec<usize>], names: &[String]) -> String {
    const CELL: (usize, usize) = (54, 38);
    // TensorBoard shows it at little more than half of its size.
    const FONT: usize = 20;
    let css = |[red, green, blue]: Color| format!("rgb({red},{green},{blue})");
    let labels = letters::written(names, counts.len(), LONGEST);
    let longest = labels.iter().map(|label| label.chars().count()).max().unwrap_or(1);
    // Room beside the labels of the axes.
    let room = FONT * 7 / 10 * longest + 14;
    let (left, top) = (room + 28, if names.is_empty() { 54 } else { room + 28 });
    let (width, height) = (left + counts.len() * CELL.0 + 4, top + counts.len() * CELL.1 + 4);
    let mut text = String::new();
    let mut write = |(x, y): (usize, usize), upwards: bool, anchor: &str, color: Color, what: &str| {
        let turned = if upwards { " rotate(-90)" } else { "" };
        text += &format!(
            "<text transform=\"translate({x} {y}){turned}\" text-anchor=\"{anchor}\" fill=\"{}\">{}</text>",
            css(color),
            escaped(what)
        );
    };
    write((left + counts.len() * CELL.0 / 2, 20), false, "middle", RED, "answer");
    write((20, top + counts.len() * CELL.1 / 2), true, "middle", GREEN, "truth");
    let mut cells = String::new();
    for (class, row) in counts.iter().enumerate() {
        let (x, y) = (left + class * CELL.0, top + class * CELL.1);
        write((left - 8, y + CELL.1 / 2 + 7), false, "end", GREEN, &labels[class]);
        match names {
            [] => write((x + CELL.0 / 2, top - 8), false, "middle", RED, &labels[class]),
            _ => write((x + CELL.0 / 2 + 7, top - 8), true, "start", RED, &labels[class]),
        }
        let all = row.iter().sum::<usize>().max(1) as f64;
        for (answer, &count) in row.iter().enumerate() {
            let x = left + answer * CELL.0;
            // The square root, so that a few mistakes are seen.
            let share = (count as f64 / all).sqrt();
            let color = if answer == class { diverging(-0.75 * share) } else { diverging(share) };
            cells += &format!(
                "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" fill=\"{}\"/>",
                CELL.0 - 1,
                CELL.1 - 1,
                css(color)
            );
            let ink = if count == 0 { GREY } else { [20, 20, 20] };
            write((x + CELL.0 / 2, y + CELL.1 / 2 + 7), false, "middle", ink, &count.to_string());
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-size=\"{FONT}\">{cells}{text}</svg>"
    )
}

/// Images with their true and their given class below, side by side where these are numbers and else one below the
/// other; `None` where there are none, or they are not square.
pub fn most_wrong(images: &[(&[u8], [usize; 2])], names: &[String]) -> Option<Picture> {
    let (side, channels) = images.first().and_then(|(pixels, _)| square(pixels.len()))?;
    let scale = (56 / side).max(1);
    let (tile, columns) = (side * scale + 4, columns(images.len()));
    let letter = if tile < 56 && !names.is_empty() { 1 } else { 2 };
    let classes = images.iter().flat_map(|(_, classes)| classes).max().map_or(0, |most| most + 1);
    let labels = letters::labels(names, classes, tile / (letters::ADVANCE * letter));
    let line = if names.is_empty() { 0 } else { 6 * letter };
    let height = tile + 14 + line;
    let mut canvas = Canvas::new(columns * tile, images.len().div_ceil(columns) * height);
    for (i, &(pixels, [truth, answer])) in images.iter().enumerate() {
        let (x, y) = (i % columns * tile, i / columns * height);
        canvas.image(side, (x, y), scale, |pixel| shade(pixels, channels, pixel));
        let (truth, answer, below) = (&labels[truth], &labels[answer], y + side * scale + 2);
        if names.is_empty() {
            canvas.text(truth, (x + 4, below), 2, GREEN);
            canvas.text(answer, (x + 14 + 2 * letters::ADVANCE * truth.len(), below), 2, RED);
        } else {
            canvas.text(truth, (x + 1, below), letter, GREEN);
            canvas.text(answer, (x + 1, below + line), letter, RED);
        }
    }
    Some(canvas.picture())
}

/// A square image, dark on white.
pub fn image(pixels: &[u8]) -> Option<Picture> {
    let (side, channels) = square(pixels.len())?;
    let mut canvas = Canvas::new(side, side);
    canvas.image(side, (0, 0), 1, |pixel| shade(pixels, channels, pixel));
    Some(canvas.picture())
}

/// States (one row per neuron, one column per step) as colours: white at 0, dark blue at 1, red below 0. Each is a
/// cell of this size; a line is drawn before column `mark`.
pub fn heat_map(rows: &[Vec<f64>], cell: (usize, usize), mark: usize) -> Picture {
    let columns = rows.first().map_or(1, Vec::len).max(1);
    let mut canvas = Canvas::new(columns * cell.0, rows.len().max(1) * cell.1);
    for (y, row) in rows.iter().enumerate() {
        for (x, &state) in row.iter().enumerate() {
            canvas.fill((x * cell.0, y * cell.1), cell, diverging(-state));
        }
    }
    let height = canvas.height;
    canvas.fill((mark * cell.0, 0), (1, height), RED);
    canvas.picture()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_have_a_tile_for_each_thing() {
        let fields = receptive_fields(&vec![vec![0.5; 64]; 10], 9).unwrap();
        assert_eq!((fields.width, fields.height), (3 * (8 * 7 + 2), 3 * (8 * 7 + 2)));
        assert!(receptive_fields(&[vec![0.5; 63]], 9).is_none());
        assert!(most_wrong(&[], &[]).is_none());
    }

    #[test]
    fn a_confusion_matrix_says_what_its_rows_and_columns_are() {
        let counts = [vec![9, 1], vec![0, 10]];
        let names = ["große Katze".to_string(), "<b>".to_string()];
        for (names, labels) in [(&names[..], ["große Katze", "&lt;b>"]), (&[], ["0", "1"])] {
            let svg = confusion_svg(&counts, names);
            let says = |what: &str| svg.matches(&format!(">{what}</text>")).count();
            assert_eq!([says("truth"), says("answer")], [1, 1]);
            // Once at its row and once at its column; without names there is one count of 0, and one of 1.
            let counted = usize::from(names.is_empty());
            assert_eq!(labels.map(says), [2 + counted, 2 + counted], "{svg}");
            assert_eq!([says("9"), says("10")], [1, 1]);
            let picture = confusion(&counts, names).unwrap();
            assert!(picture.width as usize > 2 * 54 && picture.height as usize > 2 * 38);
            assert!(picture.pixels.chunks(3).any(|pixel| pixel == GREEN));
        }
    }

    #[test]
    fn names_below_the_most_wrong_take_another_line() {
        let names = ["ox".to_string(), "tiger".to_string()];
        let wrong = [(&[0; 64][..], [0, 1])];
        let [named, numbered] = [&names[..], &[]].map(|names| most_wrong(&wrong, names).unwrap().height);
        assert_eq!(named, numbered + 12);
    }

    #[test]
    fn images_are_grey_or_coloured_by_their_size() {
        assert_eq!(
            [square(784), square(3072), square(64), square(12)],
            [(28, 1), (32, 3), (8, 1), (2, 3)].map(Some)
        );
        assert_eq!([square(0), square(63), square(2)], [None; 3]);
        let picture = image(&[255, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9]).unwrap();
        assert_eq!((picture.width, &picture.pixels[..6]), (2, &[255, 0, 9, 1, 2, 3][..]));
        assert_eq!(image(&[0, 255, 1, 2]).unwrap().pixels[..6], [255, 255, 255, 0, 0, 0]);
        assert_eq!(field(&[0.0, 1.0, -1.0], 3, 1.0, 0), [128, 255, 0]);
    }

    #[test]
    fn colours_are_white_at_zero_and_say_the_sign() {
        assert_eq!(diverging(0.0), [255; 3]);
        assert_eq!(diverging(f64::NAN), [255; 3]);
        let ([blue, ..], [_, _, red]) = (diverging(-1.0), diverging(1.0));
        assert!(blue < 100 && red < 100);
    }
}
