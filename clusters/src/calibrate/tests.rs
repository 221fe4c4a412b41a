use std::fs::File;
use std::path::PathBuf;

use steptime_models::Dtype;

use super::*;
use crate::catalogue::{gpu_from_catalogue, gpu_from_toml, gpu_names};
use crate::price::GemmShape;

/// The folder of measured kernels, which is no part of the project.
fn measurements() -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/kernels");
    let folder = std::env::var_os("STEPTIME_KERNELS").map_or(beside, PathBuf::from);
    folder.join("gemm.csv").exists().then_some(folder)
}

fn rows(folder: &std::path::Path) -> Rows {
    let mut rows = Rows::default();
    let open = |name: &str| File::open(folder.join(name)).unwrap();
    rows.read_gemm(open("gemm.csv")).unwrap();
    rows.read_attention(open("attention.csv")).unwrap();
    rows.read_memory(open("memory_bound.csv")).unwrap();
    rows
}

/// The catalogue holds what `calibrate` says of the measurements, to the letter, and the errors are those that
/// the project promises.
#[test]
fn the_catalogue_is_the_outcome_of_calibrate() {
    let Some(folder) = measurements() else {
        eprintln!(
            "SKIPPED: no measured kernels; set STEPTIME_KERNELS to their folder to check the catalogue"
        );
        return;
    };
    let rows = rows(&folder);
    let catalogue = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("catalog/gpus");
    let mut large = Vec::new();
    for name in gpu_names() {
        let fit = gpu(&gpu_from_catalogue(name).unwrap(), &rows);
        let text = std::fs::read_to_string(catalogue.join(format!("{name}.toml"))).unwrap();
        let (_, written) = text.split_once(MARKER).unwrap();
        assert_eq!(written, fit.to_toml(), "{name}");
        for (path, report) in fit.report() {
            large.extend(report.band("from 2 GFLOP").map(|errors| (format!("{name} {path}"), errors.mean)));
        }
    }
    for (what, most) in [
        ("h100-80gb-sxm gemm.bf16", 0.06),
        ("a100-80gb-sxm gemm.bf16", 0.065),
        ("a100-80gb-sxm gemm.fp16", 0.06),
        ("a40 gemm.fp16", 0.08),
        ("h100-80gb-sxm gemm.fp32", 0.10),
        ("a100-80gb-pcie gemm.fp32", 0.10),
        ("a100-40gb-pcie gemm.fp32", 0.10),
        ("v100-32gb-pcie gemm.fp32", 0.10),
        ("h100-80gb-sxm attention", 0.08),
        ("a100-80gb-sxm attention", 0.08),
    ] {
        let (_, mean) = large.iter().find(|(path, _)| path == what).unwrap();
        assert!(*mean <= most, "{what}: {mean}");
    }
}

/// Times made by the model itself, of every size, with no noise.
fn invented(gpu: &Gpu, dtype: &str) -> Rows {
    let mut rows = Rows::default();
    let mut table = "gpu,dtype,op,batch,m,n,k,time_us,source\n".to_owned();
    for index in 0..600_u64 {
        let size = |step: u64| 64 + (index * step) % 97 * 64;
        let (m, n, k) = (size(7), size(31), size(53));
        table.push_str(&format!("{},{dtype},gemm,1,{m},{n},{k},1,aiconfigurator:test\n", gpu.name));
    }
    rows.read_gemm(table.as_bytes()).unwrap();
    for row in &mut rows.gemm {
        row.seconds = as_measured::gemm(gpu, row).unwrap();
    }
    rows
}

#[test]
fn a_fit_finds_the_model_that_made_the_times() {
    let gpu = gpu_from_toml(include_str!("../catalogue/fixtures/gpu.toml")).unwrap();
    let fit = super::gpu(&gpu, &invented(&gpu, "tf32"));
    let table = &fit.tables[0];
    assert_eq!((fit.tables.len(), table.path.as_str()), (1, "gemm.tf32"));
    let after = table.report.after();
    assert!(after.mean < 0.02, "{after:?}");
    assert!((table.values[1] - 0.8).abs() < 0.05, "tiles of 128x128: {}", table.values[1]);
    assert_eq!(fit, super::gpu(&gpu, &invented(&gpu, "tf32")), "the same rows give the same fit");
}

/// Which shapes are held out depends on the shape alone.
#[test]
fn a_third_of_the_shapes_is_held_out_whatever_their_times() {
    let gpu = gpu_from_catalogue("h100-80gb-sxm").unwrap();
    let mut rows = invented(&gpu, "bf16");
    let held: Vec<bool> = rows.gemm.iter().map(GemmRow::held_out).collect();
    let share = held.iter().filter(|&&held| held).count() as f64 / held.len() as f64;
    assert!((0.25..0.42).contains(&share), "{share}");
    rows.gemm.iter_mut().for_each(|row| row.seconds *= 3.0);
    assert_eq!(held, rows.gemm.iter().map(GemmRow::held_out).collect::<Vec<_>>());
}

#[test]
fn few_rows_fit_nothing() {
    let gpu = gpu_from_catalogue("a40").unwrap();
    let mut rows = invented(&gpu, "fp16");
    rows.gemm.truncate(50);
    assert!(super::gpu(&gpu, &rows).tables.is_empty());
}

#[test]
fn tables_are_read_by_name_of_column_and_errors_name_the_line() {
    let mut rows = Rows::default();
    let table = "k,n,m,batch,dtype,gpu,time_us,source\n64,8,4,2,fp32,a100-pcie-40gb,10,NeuSight:dataset\n";
    rows.read_gemm(table.as_bytes()).unwrap();
    let row = &rows.gemm[0];
    // NeuSight writes the length of the sums in the column `n`.
    let shape = GemmShape { batch: 2, m: 4, n: 64, k: 8, dtype: Dtype::Fp32 };
    assert_eq!((row.gpu.as_str(), row.shape), ("a100-40gb-pcie", shape));
    assert!((row.seconds - 10e-6).abs() < 1e-18);
    let wrong = table.replace(",10,", ",-1,");
    assert_eq!(
        rows.read_gemm(wrong.as_bytes()).unwrap_err().to_string(),
        "line 2: column `time_us` holds \"-1\", expected microseconds above 0"
    );
    assert!(rows.read_gemm(table.replace("fp32", "int4").as_bytes()).is_err());
    assert!(rows.read_gemm(table.replace("dtype", "type").as_bytes()).is_err());
}
