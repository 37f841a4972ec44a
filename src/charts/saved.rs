//! Figures in files: SVG, and other formats made from it.

use super::pictures::Picture;
use super::plot::{Chart, Style, figure};
use crate::base::made::Made;
use anyhow::{Context, Result, anyhow};
use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg::{Options, Tree, WriteOptions};
use std::path::Path;
use svg2pdf::{ConversionOptions, PageOptions};

/// Makes files of charts, side by side, in `folder`: `NAME.svg` and `NAME.pdf`.
///
/// # Errors
/// Where they cannot be drawn.
pub fn save(made: &mut Made, folder: &Path, name: &str, charts: &[Chart], style: Style) -> Result<()> {
    let svg = figure(charts, style);
    made.add(folder.join(format!("{name}.pdf")), pdf(&svg)?);
    made.add(folder.join(format!("{name}.svg")), svg);
    Ok(())
}

/// A picture of charts for the screen.
///
/// # Errors
/// Where it cannot be drawn.
pub fn picture(charts: &[Chart]) -> Result<Picture> {
    drawn(&figure(charts, Style::Screen))
}

/// SVG as a picture, a pixel for every unit.
///
/// # Errors
/// Where it is no SVG.
pub fn drawn(svg: &str) -> Result<Picture> {
    let tree = tree(svg)?;
    let (width, height) = (tree.size().width().ceil() as u32, tree.size().height().ceil() as u32);
    let mut pixels = Pixmap::new(width, height).context("a figure has no size")?;
    pixels.fill(Color::WHITE);
    resvg::render(&tree, Transform::identity(), &mut pixels.as_mut());
    let pixels =
        pixels.pixels().iter().flat_map(|pixel| [pixel.red(), pixel.green(), pixel.blue()]).collect();
    Ok(Picture { pixels, width, height })
}

/// A figure as PDF, a point for every unit.
fn pdf(svg: &str) -> Result<Vec<u8>> {
    // Letters become outlines when the tree is written.
    let outlined = tree(svg)?.to_string(&WriteOptions::default());
    svg2pdf::to_pdf(&tree(&outlined)?, ConversionOptions::default(), PageOptions { dpi: DPI })
        .map_err(|error| anyhow!("a figure cannot be written as PDF: {error}"))
}

/// A unit is a point.
const DPI: f32 = 72.0;

/// The tree of an SVG, in DejaVu Sans, which has the Greek letters and superscripts, wherever the program runs.
fn tree(svg: &str) -> Result<Tree> {
    let mut options = Options { dpi: DPI, font_family: "DejaVu Sans".into(), ..Options::default() };
    options.fontdb_mut().load_font_data(dejavu::sans::regular().to_vec());
    Tree::from_str(svg, &options).context("a figure cannot be read again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::charts::axis::Scale;
    use crate::charts::plot::{Look, Series};

    fn chart() -> Chart {
        let line = Series::line("Ψ", Look::line(0, 1), [(0.0, 1.0), (2.0, 5.0)]);
        Chart::new(("c", "∇"), "epoch", ("error, %", Scale::Log), vec![line])
    }

    #[test]
    fn every_letter_has_a_shape_in_pictures() {
        // Characters without a glyph become a box or nothing, so that two letters would look the same.
        let drawn = |name: &str| {
            let line = Series::line(name, Look::line(0, 0), [(0.0, 1.0), (2.0, 5.0)]);
            let chart = Chart::new(("c", "c"), "epoch", ("error, %", Scale::Log), vec![line]);
            picture(&[chart]).unwrap().pixels
        };
        let letters = ["Ψ", "θ", "Δ", "∇", "−", "ᵀ", "⁰", "⁻", "ₜ", "₋", "‖", "η", "ε", "±", "½", "𝔉"];
        let pictures: Vec<_> = letters.iter().map(|letter| drawn(letter)).collect();
        for (i, picture) in pictures.iter().enumerate() {
            assert!(pictures[..i].iter().all(|other| other != picture), "{}", letters[i]);
        }
    }

    #[test]
    fn a_figure_is_saved_as_svg_and_as_pdf_of_a_columns_width() {
        let folder = tempfile::tempdir().unwrap();
        let mut made = Made::default();
        save(&mut made, &folder.path().join("f"), "c", &[chart()], Style::Paper).unwrap();
        made.write().unwrap();
        assert!(std::fs::read_to_string(folder.path().join("f/c.svg")).unwrap().contains("Ψ"));
        let pdf = std::fs::read(folder.path().join("f/c.pdf")).unwrap();
        let text = String::from_utf8_lossy(&pdf);
        assert!(text.starts_with("%PDF-") && text.contains("MediaBox [0 0 239"), "{text}");
    }
}
