//! Figures as files of their own, which several commands make.

use crate::base::made::Made;
use crate::charts::plot::{Chart, Style};
use crate::charts::saved::save;
use anyhow::Result;
use clap::Args;
use std::path::{Path, PathBuf};
use tracing::info;

#[derive(Debug, Args)]
pub struct FigureArgs {
    /// Also put the charts into this folder, each as SVG and PDF.
    #[arg(long, value_name = "DIR")]
    figures: Option<PathBuf>,
    /// Style of the figures.
    #[arg(long, value_enum, default_value_t = Style::Paper)]
    style: Style,
}

impl FigureArgs {
    /// The folder, if one is given, and the style.
    pub fn given(&self) -> Option<(&Path, Style)> {
        self.figures.as_deref().map(|folder| (folder, self.style))
    }

    /// Saves charts, each in a file of its own, where a folder is given.
    pub fn save(&self, charts: &[Chart]) -> Result<()> {
        let Some((folder, style)) = self.given() else { return Ok(()) };
        let mut made = Made::default();
        for chart in charts {
            save(&mut made, folder, &chart.name, std::slice::from_ref(chart), style)?;
        }
        made.write()?;
        info!("{} figures are in {}", charts.len(), folder.display());
        Ok(())
    }
}
