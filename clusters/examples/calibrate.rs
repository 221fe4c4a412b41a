//! Fits every GPU of the catalogue that has measured kernels and writes the outcome into its file.
//!
//! `cargo run --release --example calibrate -- MEASUREMENTS CATALOGUE`, where the first folder holds `gemm.csv`,
//! `attention.csv` and `memory_bound.csv`, and the second the GPUs' files.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::fs::{self, File};
use std::path::Path;

use steptime_clusters::calibrate::{self, MARKER, Rows};
use steptime_clusters::{gpu_from_catalogue, gpu_names};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(measurements), Some(catalogue)) = (arguments.next(), arguments.next()) else {
        return Err("usage: calibrate MEASUREMENTS CATALOGUE".into());
    };
    let folder = Path::new(&measurements);
    let mut rows = Rows::default();
    rows.read_gemm(File::open(folder.join("gemm.csv"))?)?;
    rows.read_attention(File::open(folder.join("attention.csv"))?)?;
    rows.read_memory(File::open(folder.join("memory_bound.csv"))?)?;
    for name in gpu_names() {
        let fit = calibrate::gpu(&gpu_from_catalogue(name)?, &rows);
        if fit.tables.is_empty() {
            continue;
        }
        for (path, report) in fit.report() {
            println!("{name} {path}");
            for band in &report.bands {
                let (before, after) = (band.before, band.after);
                println!(
                    "    {:16} {:5} rows: median {:5.1} %, mean {:5.1} %, 80 % {:5.1} %, 90 % {:5.1} %, bias {:+.1} % (before: median {:.1} %, mean {:.1} %)",
                    band.name,
                    after.rows,
                    100.0 * after.median,
                    100.0 * after.mean,
                    100.0 * after.p80,
                    100.0 * after.p90,
                    100.0 * after.bias,
                    100.0 * before.median,
                    100.0 * before.mean,
                );
            }
        }
        let file = Path::new(&catalogue).join(format!("{name}.toml"));
        let text = fs::read_to_string(&file)?;
        let (kept, _) = text.split_once(MARKER).ok_or("the file has no line for calibrate to write below")?;
        fs::write(&file, format!("{kept}{MARKER}{}", fit.to_toml()))?;
    }
    Ok(())
}
