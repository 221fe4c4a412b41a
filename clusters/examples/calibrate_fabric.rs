//! Fits the presets of fabrics and networks that have measured collectives and writes the outcome into their files.
//!
//! `cargo run --release --example calibrate_fabric -- MEASUREMENTS CATALOGUE`, where the first folder holds
//! `collectives.csv` and `collectives_multinode.csv`, and the second the folders `fabrics` and `networks`.
//! Presets are part of the program: run it again after a change, until the files stay as they are.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::fs::{self, File};
use std::path::Path;

use steptime_clusters::calibrate_fabric::{
    self, CollectiveErrors, MARKER, MULTINODE_BYTES, MULTINODE_SOURCE, read_collectives, read_spread,
    rows_of_preset,
};
use steptime_clusters::{Cluster, fabric_names};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(measurements), Some(catalogue)) = (arguments.next(), arguments.next()) else {
        return Err("usage: calibrate_fabric MEASUREMENTS CATALOGUE".into());
    };
    let (folder, catalogue) = (Path::new(&measurements), Path::new(&catalogue));
    let rows = read_collectives(File::open(folder.join("collectives.csv"))?)?;
    for name in fabric_names() {
        let rows = rows_of_preset(name, &rows);
        if rows.is_empty() {
            continue;
        }
        let cluster = Cluster::assemble("h100-80gb-sxm", name, None, 1, 8)?;
        let fit = calibrate_fabric::fit(&cluster, &rows);
        for band in &fit.errors {
            let operation = band.operation.map_or("all", |operation| operation.name());
            print_errors(&format!("{name:20} {operation:15} {:16}", band.band), band.before, band.after);
        }
        write(&catalogue.join("fabrics").join(format!("{name}.toml")), &fit.to_toml())?;
    }
    let spread = File::open(folder.join("collectives_multinode.csv"))?;
    let spread = read_spread(spread, MULTINODE_BYTES, MULTINODE_SOURCE)?;
    let cluster = Cluster::assemble("h100-80gb-sxm", "nvswitch-4", Some(("efa", 3200.0)), 2, 8)?;
    let fit = calibrate_fabric::fit_network(&cluster, &spread).ok_or("no rows of several nodes")?;
    print_errors("efa", fit.before, fit.after);
    write(&catalogue.join("networks").join("efa.toml"), &fit.to_toml())?;
    Ok(())
}

fn print_errors(what: &str, before: CollectiveErrors, after: CollectiveErrors) {
    println!(
        "{what} {:4} rows: median {:5.1} %, mean {:5.1} %, most {:5.1} % (before: median {:.1} %, mean {:.1} %)",
        after.rows,
        100.0 * after.median,
        100.0 * after.mean,
        100.0 * after.most,
        100.0 * before.median,
        100.0 * before.mean,
    );
}

fn write(file: &Path, fitted: &str) -> Result<(), Box<dyn Error>> {
    let text = fs::read_to_string(file)?;
    let (kept, _) = text.split_once(MARKER).ok_or("the file has no line for the fit to write below")?;
    fs::write(file, format!("{kept}{MARKER}{fitted}"))?;
    Ok(())
}
