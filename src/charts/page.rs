//! The common parts of pages: a frame that needs no other file, charts with legends, pictures.

use super::pictures::Picture;
use super::plot::{Chart, legend};
use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// The style of pages with charts and pictures, beside the common style.
const STYLE: &str = "
.panels { grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }
.panels figcaption small { display: block; font-weight: 400; color: var(--dim); }
figure img { display: block; max-width: 100%; height: auto; background: #fff; image-rendering: pixelated; }
figure img.wide { width: 100%; }
.heat img { width: 100%; height: auto; }
";

/// A whole page with charts and pictures.
pub fn page(title: &str, body: &Markup) -> String {
    let head = html! {
        link rel="icon" href="data:,";
        style { (PreEscaped(STYLE)) }
    };
    frame(title, &head, body)
}

/// A whole page in the common style, with `head` added to its head.
pub fn frame(title: &str, head: &Markup, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(include_str!("page.css"))) }
                (head)
            }
            body { (body) }
        }
    };
    page.into_string()
}

/// A page, and its charts, which can be figures of their own.
pub struct Illustrated {
    /// The page, whole.
    pub page: String,
    /// The charts that have something to draw.
    pub charts: Vec<Chart>,
}

/// Charts side by side, each with caption and legend; those with nothing to draw are left out.
pub fn panels(charts: &[Chart]) -> Markup {
    html! {
        div .panels {
            @for chart in charts.iter().filter(|chart| !chart.is_empty()) {
                figure {
                    figcaption { (chart.title) @if !chart.note.is_empty() { small { (chart.note) } } }
                    (chart.svg())
                    (legend(chart))
                }
            }
        }
    }
}

/// A picture as an address of its own.
///
/// # Errors
/// Where it has no pixels.
pub fn data_url(picture: &Picture) -> Result<String> {
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(picture.png()?)))
}

/// A picture as part of the page; `alt` says what it shows.
///
/// # Errors
/// Where it has no pixels.
pub fn picture(picture: &Picture, alt: &str, wide: bool) -> Result<Markup> {
    let url = data_url(picture)?;
    Ok(html! { img .wide[wide] src=(url) alt=(alt) width=(picture.width) height=(picture.height); })
}
