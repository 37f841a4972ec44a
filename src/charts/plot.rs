//! Charts as SVG: within a page, which gives them ink and legend, and as figures of their own.

use super::axis::{Axis, Scale};
use clap::ValueEnum;
use maud::{Markup, PreEscaped, html};

/// Colours that differ in print and for the colour-blind (mostly Okabe and Ito's). Pages have them too, and lighter
/// ones for dark mode.
const COLORS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#886040", "#787878"];

/// The colours as pages name them.
const PAGE_COLORS: [&str; 8] = [
    "var(--line-0)",
    "var(--line-1)",
    "var(--line-2)",
    "var(--line-3)",
    "var(--line-4)",
    "var(--line-5)",
    "var(--line-6)",
    "var(--line-7)",
];

/// Solid, dashed, dotted, and both.
const DASHES: [&str; 4] = ["", "6 4", "2 2.5", "7 3 2 3"];

/// A colour by number, in a page.
pub fn css(number: usize) -> &'static str {
    PAGE_COLORS[number % PAGE_COLORS.len()]
}

/// The style of a figure in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Style {
    /// For print: small, thin, no grid; a single chart is as wide as a column.
    Paper,
    /// For slides and web pages: large, with a grid.
    Screen,
}

/// The sizes of a chart's parts.
struct Measures {
    /// Scale of charts, relative to those in a page.
    size: f64,
    font: f64,
    stroke: f64,
    grid: bool,
    ink: &'static str,
    colors: [&'static str; 8],
}

/// In a page, whose text colour is the ink.
const PAGE: Measures =
    Measures { size: 1.0, font: 13.0, stroke: 1.8, grid: true, ink: "currentColor", colors: PAGE_COLORS };

impl Style {
    fn measures(self) -> Measures {
        match self {
            Style::Paper => {
                Measures { size: 0.52, font: 8.0, stroke: 0.9, grid: false, ink: "#000", colors: COLORS }
            }
            Style::Screen => Measures { ink: "#000", colors: COLORS, ..PAGE },
        }
    }
}

/// The shape of a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A disc.
    Circle,
    /// A square.
    Square,
}

/// The look of a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Its colour; that of the text where there is none.
    pub color: Option<usize>,
    /// Its dashes; 0 is solid.
    pub dash: usize,
    /// A marker at each point, and true where it is hollow.
    pub marker: Option<(Shape, bool)>,
}

impl Look {
    /// A line of this colour.
    pub fn line(color: usize, dash: usize) -> Self {
        Self { color: Some(color), dash, marker: None }
    }

    /// The look of the i-th of several lines: colours and dashes both change.
    pub fn cycle(i: usize) -> Self {
        Self::line(i, i + i / COLORS.len())
    }

    fn css(self, measures: &Measures) -> &'static str {
        self.color.map_or(measures.ink, |color| measures.colors[color % COLORS.len()])
    }

    fn dashes(self, width: f64) -> String {
        let lengths = DASHES[self.dash % DASHES.len()].split_whitespace();
        let lengths: Vec<String> = lengths
            .filter_map(|l| l.parse::<f64>().ok())
            .map(|l| format!("{:.1}", l * width / 1.8))
            .collect();
        if lengths.is_empty() {
            String::new()
        } else {
            format!(" stroke-dasharray=\"{}\"", lengths.join(" "))
        }
    }

    fn opacity(self) -> &'static str {
        if self.marker.is_some_and(|(_, hollow)| hollow) { " stroke-opacity=\".45\"" } else { "" }
    }

    /// The sample for it in a legend, 2.3 em wide.
    fn sample(self, measures: &Measures, x: f64, y: f64) -> String {
        let width = measures.stroke * 1.3;
        let mut text = String::new();
        if self.marker.is_none() {
            text += &format!(
                "<path d=\"M{x:.1} {y:.1}h{:.1}\" stroke=\"{}\" stroke-width=\"{width:.2}\"{}/>",
                2.3 * measures.font,
                self.css(measures),
                self.dashes(width)
            );
        }
        text + &self.marker(x + 1.15 * measures.font, y, measures)
    }

    fn marker(self, x: f64, y: f64, measures: &Measures) -> String {
        let Some((shape, hollow)) = self.marker else { return String::new() };
        let (color, radius) = (self.css(measures), 0.35 * measures.font);
        let paint = match hollow {
            true => format!("fill=\"none\" stroke=\"{color}\" stroke-width=\"{}\"", measures.stroke),
            false => format!("fill=\"{color}\""),
        };
        match shape {
            Shape::Circle => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\" {paint}/>"),
            Shape::Square => {
                let side = 1.8 * radius;
                let (x, y) = (x - side / 2.0, y - side / 2.0);
                format!("<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{side:.1}\" height=\"{side:.1}\" {paint}/>")
            }
        }
    }
}

/// A value with its spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Abscissa.
    pub x: f64,
    /// Ordinate.
    pub y: f64,
    /// Standard deviation of y; 0 where there is none, or it is unknown.
    pub std: f64,
    /// Lower and upper quartile, drawn instead of the standard deviation.
    pub quartiles: Option<[f64; 2]>,
}

impl From<(f64, f64)> for Point {
    fn from((x, y): (f64, f64)) -> Self {
        Self { x, y, std: 0.0, quartiles: None }
    }
}

/// Points of one kind. Spreads are bars where there are markers, else a band.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend; if it is empty, it has no entry there.
    pub name: String,
    /// Its look.
    pub look: Look,
    /// Joins points whose x differ by at most this; none where it is below 0.
    pub joined: f64,
    /// In order of x. Points that are not finite are left out.
    pub points: Vec<Point>,
}

impl Series {
    /// A line through all points.
    pub fn line<P: Into<Point>>(
        name: impl Into<String>,
        look: Look,
        points: impl IntoIterator<Item = P>,
    ) -> Self {
        let points = points.into_iter().map(P::into).collect();
        Self { name: name.into(), look, joined: f64::INFINITY, points }
    }
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// The name of its file.
    pub name: String,
    /// Its title.
    pub title: String,
    /// Further remarks.
    pub note: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The series.
    pub series: Vec<Series>,
    /// Entries of the legend beside the names of series.
    pub keys: Vec<(String, Look)>,
    /// A vertical line, and its label.
    pub mark: Option<(f64, String)>,
    /// Axes of a smaller chart within, of the same series.
    pub inset: Option<(Axis, Axis)>,
    /// Width and height.
    pub size: (f64, f64),
}

impl Chart {
    /// A chart with room for all of its series; `y_label` goes with its scale.
    pub fn new(
        (name, title): (&str, &str),
        x_label: &str,
        (y_label, scale): (&str, Scale),
        series: Vec<Series>,
    ) -> Self {
        let points = || series.iter().flat_map(|line| &line.points);
        Self {
            name: name.into(),
            title: title.into(),
            note: String::new(),
            x: Axis::exact(x_label, points().map(|point| point.x)),
            y: Axis::roomy(y_label, scale, points().map(|point| point.y)),
            series,
            keys: Vec::new(),
            mark: None,
            inset: None,
            size: (460.0, 300.0),
        }
    }

    /// Adds a note.
    pub fn noted(self, note: &str) -> Self {
        Self { note: note.into(), ..self }
    }

    /// Adds a vertical line, and room for it.
    pub fn marked(mut self, at: f64, what: &str) -> Self {
        let (low, high) = self.x.range;
        self.x.range = (low.min(at), high.max(at));
        Self { mark: Some((at, what.into())), ..self }
    }

    /// True where there is nothing to draw.
    pub fn is_empty(&self) -> bool {
        self.series.iter().all(|line| line.points.is_empty())
    }

    /// The entries of its legend: lines and markers with their names.
    fn legend(&self) -> Vec<(&str, Look)> {
        let keys = self.keys.iter().map(|(name, look)| (&name[..], *look));
        let named = self.series.iter().filter(|line| !line.name.is_empty());
        keys.chain(named.map(|line| (&line.name[..], line.look))).collect()
    }

    /// The chart as a part of a page, without title and legend.
    pub fn svg(&self) -> Markup {
        let (width, height) = self.size;
        html! {
            svg viewBox=(format!("0 0 {width} {height}")) role="img" font-size=(PAGE.font)
                style=(format!("max-width: {:.0}px", 1.3 * width))
                aria-label=(format!("{} against {}", self.y.label, self.x.label)) {
                (PreEscaped(self.drawn(self.size, 0.0, &PAGE)))
            }
        }
    }

    /// Axes, their labels, and the series, in a rectangle of this size; `top` is left free.
    fn drawn(&self, (width, height): (f64, f64), top: f64, measures: &Measures) -> String {
        let font = measures.font;
        let y_ticks = self.y.ticks(((height - top) / font / 4.5).clamp(3.0, 8.0));
        let widest = y_ticks.iter().map(|(_, text)| text.chars().count()).max().unwrap_or(0);
        let left = 0.62 * font * widest as f64 + 2.4 * font;
        let area = Area { left, top: top + 0.9 * font, right: width - 1.3 * font, foot: height - 3.4 * font };
        let mut text = area.axes(&self.x, &self.y, measures);
        let below = ((area.left + area.right) / 2.0, height - 0.5 * font);
        text += &words(below, "middle", measures.ink, &self.x.label);
        text += &format!(
            "<text transform=\"translate({:.1} {:.1}) rotate(-90)\" text-anchor=\"middle\" fill=\"{}\">{}</text>",
            1.1 * font,
            (area.top + area.foot) / 2.0,
            measures.ink,
            escaped(&self.y.label)
        );
        if let Some((at, what)) = &self.mark {
            let x = area.x(&self.x, *at);
            let (anchor, aside) = if self.x.share(*at) > 0.2 { ("end", -0.3) } else { ("start", 0.3) };
            text += &format!(
                "<path d=\"M{x:.1} {:.1}V{:.1}\" stroke=\"{}\" stroke-opacity=\".6\" stroke-width=\"{}\" \
                 stroke-dasharray=\"2 3\"/>",
                area.top,
                area.foot,
                measures.ink,
                0.6 * measures.stroke
            );
            text += &words((x + aside * font, area.top + 0.85 * font), anchor, measures.ink, what);
        }
        for line in &self.series {
            text += &area.series(line, &self.x, &self.y, measures);
        }
        if let Some((x, y)) = &self.inset {
            // At the upper left, where small angles with large errors would be.
            let (wide, high) = (area.right - area.left, area.foot - area.top);
            let inner = Area {
                left: area.left + 0.12 * wide,
                top: area.top + 0.06 * high,
                right: area.left + 0.52 * wide,
                foot: area.top + 0.5 * high,
            };
            let small = Measures { font: 0.85 * font, ..*measures };
            text += &format!("<g font-size=\"{:.1}\">{}", small.font, inner.axes(x, y, &small));
            for line in &self.series {
                text += &inner.series(line, x, y, &small);
            }
            text += "</g>";
        }
        text
    }
}

/// The rectangle between the axes.
struct Area {
    left: f64,
    top: f64,
    right: f64,
    foot: f64,
}

impl Area {
    fn x(&self, axis: &Axis, value: f64) -> f64 {
        self.left + (self.right - self.left) * axis.share(value)
    }

    fn y(&self, axis: &Axis, value: f64) -> f64 {
        self.foot - (self.foot - self.top) * axis.share(value)
    }

    /// Both axes with their numbers, and the grid.
    fn axes(&self, x_axis: &Axis, y_axis: &Axis, measures: &Measures) -> String {
        let Measures { font, ink, .. } = *measures;
        let Area { left, top, right, foot } = *self;
        let line = format!("stroke=\"{ink}\" stroke-width=\"{}\"", 0.55 * measures.stroke);
        let mut text = String::new();
        for (value, number) in y_axis.ticks(((foot - top) / font / 3.5).clamp(3.0, 8.0)) {
            let y = self.y(y_axis, value);
            text += &match measures.grid {
                true => format!("<path d=\"M{left:.1} {y:.1}H{right:.1}\" {line} stroke-opacity=\".13\"/>"),
                false => format!("<path d=\"M{left:.1} {y:.1}h{:.1}\" {line}/>", 0.35 * font),
            };
            text += &words((left - 0.45 * font, y + 0.35 * font), "end", ink, &number);
        }
        for (value, number) in x_axis.ticks(((right - left) / font / 5.0).clamp(2.0, 9.0)) {
            let x = self.x(x_axis, value);
            let tick = if measures.grid { 0.3 * font } else { -0.35 * font };
            text += &format!("<path d=\"M{x:.1} {foot:.1}v{tick:.1}\" {line}/>");
            text += &words((x, foot + 1.4 * font), "middle", ink, &number);
        }
        text + &format!("<path d=\"M{left:.1} {top:.1}V{foot:.1}H{right:.1}\" fill=\"none\" {line}/>")
    }

    fn series(&self, line: &Series, x_axis: &Axis, y_axis: &Axis, measures: &Measures) -> String {
        let (look, color) = (line.look, line.look.css(measures));
        let inside = |point: &&Point| {
            (x_axis.range.0..=x_axis.range.1).contains(&point.x)
                && point.y <= y_axis.range.1
                && point.y.is_finite()
        };
        let points: Vec<&Point> = line.points.iter().filter(inside).collect();
        let high = |y: f64| self.y(y_axis, y.min(y_axis.range.1));
        let at = |point: &Point, y: f64| (self.x(x_axis, point.x), high(y));
        let mut text = String::new();
        if look.marker.is_none() && points.iter().any(|point| point.std > 0.0) {
            let upper = points.iter().map(|point| at(point, point.y + point.std));
            let lower = points.iter().rev().map(|point| at(point, point.y - point.std));
            let band: Vec<String> = upper.chain(lower).map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
            text += &format!("<path d=\"M{}Z\" fill=\"{color}\" fill-opacity=\".2\"/>", band.join("L"));
        }
        let mut path = String::new();
        let mut before = f64::NEG_INFINITY;
        for point in &points {
            let (x, y) = at(point, point.y);
            let pen = if point.x - before <= line.joined && before.is_finite() { 'L' } else { 'M' };
            path += &format!("{pen}{x:.1} {y:.1}");
            before = point.x;
        }
        text += &format!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{}\" stroke-linejoin=\"round\"{}{}/>",
            measures.stroke,
            look.dashes(measures.stroke),
            look.opacity()
        );
        if let ([point], None) = (&points[..], look.marker) {
            let (x, y) = at(point, point.y);
            text += &format!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{:.1}\" fill=\"{color}\"/>",
                0.27 * measures.font
            );
        }
        for point in points.iter().filter(|_| look.marker.is_some()) {
            let (x, y) = at(point, point.y);
            let spread = [point.y - point.std, point.y + point.std];
            let [low, top] = point.quartiles.unwrap_or(spread);
            if top > low {
                text += &format!(
                    "<path d=\"M{x:.1} {:.1}V{:.1}\" stroke=\"{color}\" stroke-width=\"{}\" stroke-opacity=\".6\"/>",
                    high(low),
                    high(top),
                    measures.stroke
                );
            }
            text += &look.marker(x, y, measures);
        }
        text
    }
}

/// A text that begins, is centred or ends there, by its anchor.
fn words((x, y): (f64, f64), anchor: &str, ink: &str, text: &str) -> String {
    let text = escaped(text);
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{ink}\">{text}</text>")
}

/// The legend of charts that share it, as a part of a page.
pub fn legend(chart: &Chart) -> Markup {
    html! {
        div .legend {
            @for (name, look) in chart.legend() {
                span {
                    svg viewBox="0 0 30 13" aria-hidden="true" { (PreEscaped(look.sample(&PAGE, 0.0, 6.5))) }
                    (name)
                }
            }
        }
    }
}

/// The number of charts in a row of a figure that needs several rows.
const COLUMNS: usize = 3;

/// Charts side by side in a file of their own, with their titles where there are several, and one common legend. All
/// have the size of the first.
pub fn figure(charts: &[Chart], style: Style) -> String {
    let measures = style.measures();
    let font = measures.font;
    let title = if charts.len() > 1 { 1.8 * font } else { 0.0 };
    let columns = if charts.len() > COLUMNS + 1 { COLUMNS } else { charts.len() };
    let size = charts.first().map_or((0.0, 0.0), |chart| chart.size);
    let (wide, high) = (size.0 * measures.size, size.1 * measures.size + title);
    let width = wide * columns as f64;
    let mut keys: Vec<(&str, Look)> = Vec::new();
    for key in charts.iter().flat_map(Chart::legend) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let (mut x, mut y) = (font, 0.0);
    let mut body = String::new();
    for (name, look) in keys {
        let long = 3.0 * font + 0.6 * font * name.chars().count() as f64;
        if y == 0.0 || x + long > width {
            (x, y) = (font, y + 1.6 * font);
        }
        body += &look.sample(&measures, x, y - 0.35 * font);
        body += &format!("<text x=\"{:.1}\" y=\"{y:.1}\">{}</text>", x + 2.8 * font, escaped(name));
        x += long + 1.2 * font;
    }
    let top = if y > 0.0 { y + 0.6 * font } else { 0.0 };
    for (i, chart) in charts.iter().enumerate() {
        let (column, row) = ((i % columns) as f64, (i / columns) as f64);
        body += &format!("<g transform=\"translate({:.1} {:.1})\">", column * wide, top + row * high);
        if title > 0.0 {
            let (x, y) = (wide / 2.0 + 2.0 * font, 1.5 * font);
            body += &format!(
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{}</text>",
                escaped(&chart.title)
            );
        }
        body += &chart.drawn((wide, high), title, &measures);
        body += "</g>";
    }
    let height = top + high * charts.len().div_ceil(columns.max(1)) as f64;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}pt\" \
         height=\"{height:.0}pt\" font-family=\"DejaVu Sans, sans-serif\" font-size=\"{font}\">\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>{body}</svg>\n"
    )
}

/// Text as part of SVG.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        let line = |points: Vec<(f64, f64)>| Series::line("a < b", Look::line(0, 1), points);
        let series = vec![line(vec![(0.0, 0.0), (1.0, f64::NAN), (2.0, 5.0)]), line(vec![(0.0, 1.0)])];
        Chart::new(("c", "c"), "epoch", ("error, %", Scale::Log), series).marked(3.0, "here")
    }

    #[test]
    fn a_chart_has_a_path_for_every_line_whatever_the_values() {
        let svg = chart().svg().into_string();
        assert_eq!(svg.matches("stroke-linejoin").count(), 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn a_figure_has_one_legend_of_all_and_the_titles_of_several() {
        for style in [Style::Paper, Style::Screen] {
            let one = figure(&[chart()], style);
            assert_eq!((one.matches("a &lt; b").count(), one.matches(">c<").count()), (1, 0), "{one}");
            let two = figure(&[chart(), chart()], style);
            assert_eq!((two.matches("a &lt; b").count(), two.matches(">c<").count()), (1, 2), "{two}");
        }
    }

    #[test]
    fn no_two_of_many_lines_look_the_same() {
        let looks: Vec<Look> = (0..32).map(Look::cycle).collect();
        let drawn = |look: &Look| (look.css(&PAGE), look.dashes(1.8));
        for (i, look) in looks.iter().enumerate() {
            assert!(looks[..i].iter().all(|other| drawn(other) != drawn(look)), "{i}");
        }
    }

    #[test]
    fn points_farther_apart_than_they_may_be_joined_are_not() {
        let look = Look { marker: Some((Shape::Circle, true)), ..Look::line(0, 0) };
        let points = [0.0, 1.0, 3.0].map(|x| Point { x, y: x, std: 0.1, quartiles: None }).to_vec();
        let series = Series { name: String::new(), look, joined: 1.5, points };
        let svg = Chart::new(("c", "c"), "x", ("y", Scale::Linear), vec![series]).svg().into_string();
        let path = svg.split("<path d=\"").find(|part| part.contains("stroke-linejoin")).unwrap();
        let path = path.split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1), "{path}");
        assert_eq!(svg.matches("<circle").count(), 3);
    }
}
