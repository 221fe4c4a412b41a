use std::fs::File;
use std::path::PathBuf;

use steptime_models::Dtype;

use super::*;
use crate::catalogue::{gpu_from_catalogue, gpu_from_toml, widened};
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

/// What GPUs would be predicted with if nothing had been measured on them, against what was measured: borrowed
/// coefficients must be about as wrong as the catalogue says of them, and the document shows it.
#[test]
fn borrowed_coefficients_are_as_wrong_as_they_say() {
    let Some(folder) = measurements() else { return };
    let rows = rows(&folder);
    let document =
        std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/calibration.md"))
            .unwrap();
    let pairs = [
        ("l4", "t4", "gemm.fp32"),
        ("t4", "l4", "gemm.fp32"),
        ("a40", "a100-80gb-sxm", "gemm.fp16"),
        ("l40s", "h100-80gb-sxm", "gemm.bf16"),
        ("h100-80gb-sxm", "a100-80gb-sxm", "gemm.bf16"),
        ("l40s", "a100-80gb-sxm", "attention"),
        ("h100-80gb-sxm", "a100-80gb-sxm", "attention"),
        ("l4", "t4", "memory.elementwise"),
    ];
    let (mut within, mut missing) = (0, Vec::new());
    for (borrower, lender, path) in pairs {
        let own = gpu_from_catalogue(borrower).unwrap();
        let lent = gpu_from_catalogue(lender).unwrap();
        let error = |gpu: &Gpu| match path {
            "attention" => gpu.achievable.attention.ground.error,
            "memory.elementwise" => gpu.achievable.memory.elementwise.error,
            _ => {
                let (_, dtype) = FORMATS.into_iter().find(|(name, _)| path.ends_with(name)).unwrap();
                gpu.arithmetic(dtype).unwrap().model.ground.error
            }
        };
        let said = if own.architecture == lent.architecture {
            widened(error(&lent))
        } else {
            widened(widened(error(&lent)))
        };
        let fit = gpu(&borrowing(&own, &lent), &rows);
        let table = fit.tables.iter().find(|table| table.path == path).unwrap();
        let errors = table.report.bands[0].before;
        let row = format!(
            "| {borrower} | {lender} | {path} | {:.1} % | {:.1} % | {:.1} % |",
            100.0 * errors.median,
            100.0 * errors.p80,
            100.0 * said
        );
        if !document.contains(&row) {
            missing.push(row);
        }
        within += usize::from(errors.p80 <= said);
    }
    assert!(missing.is_empty(), "docs/calibration.md should say\n{}", missing.join("\n"));
    assert_eq!(within, pairs.len(), "80 % of the shapes are within what is stated");
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
    let fit = super::gpu(&gpu, &rows);
    assert!(fit.tables.is_empty());
    let short = &fit.short[0];
    assert_eq!((fit.short.len(), short.path.as_str(), short.needed), (1, "gemm.fp16", 95));
    assert!((25..45).contains(&short.rows), "{short:?}");
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
    let missing = rows.read_gemm(table.replace("dtype", "type").as_bytes()).unwrap_err();
    assert_eq!(missing.to_string(), "line 1: the column `dtype` is missing");
    let huge = table.replace("64,8,4,2", "2000000000,2000000000,4,2");
    assert!(rows.read_gemm(huge.as_bytes()).unwrap_err().to_string().contains("1e18"));
}

#[test]
fn products_beyond_the_peak_are_counted() {
    let gpu = gpu_from_catalogue("h100-80gb-sxm").unwrap();
    let mut rows = invented(&gpu, "bf16");
    assert_eq!(faster_than_peak(&gpu, &rows), 0);
    rows.gemm[7].seconds = 1e-9;
    assert_eq!(faster_than_peak(&gpu, &rows), 1);
}

/// Sums no longer than the cache are spared an unknown part: the fastest streams of weights say what memory gives at most,
/// until there are longer sums.
#[test]
fn memory_gives_no_sum_more_than_the_fastest_stream() {
    let gpu = gpu_from_catalogue("h100-80gb-sxm").unwrap();
    let share = |sums: &[u64], streams: usize| {
        let mut rows = Rows::default();
        let time =
            |bytes: f64, share: f64| 1e6 * (gpu.kernel_latency_s + bytes / (share * gpu.memory_bandwidth));
        let mut table = "gpu,dtype,op,rows,width,time_us,source\n".to_owned();
        for &tokens in sums {
            let us = time(3.0 * 2.0 * tokens as f64 * 8192.0, 0.98);
            table.push_str(&format!("{},fp16,residual_add,{tokens},8192,{us},vidur:test\n", gpu.name));
        }
        rows.read_memory(table.as_bytes()).unwrap();
        let mut table = "gpu,dtype,op,batch,m,n,k,time_us,source\n".to_owned();
        for index in 0..streams as u64 {
            let n = 16_384 + 512 * index;
            let us = time(2.0 * (n * 32_768 + 32_768 + n) as f64, 0.85 + 0.0002 * index as f64);
            table.push_str(&format!("{},bf16,gemm,1,1,{n},32768,{us},aiconfigurator:test\n", gpu.name));
        }
        rows.read_gemm(table.as_bytes()).unwrap();
        memory(&gpu, "elementwise", MemoryBoundKind::Elementwise, &rows).unwrap().values[0]
    };
    let near: Vec<u64> = (0..24).map(|index| 2048 + 64 * index).collect();
    let long: Vec<u64> = (0..24).map(|index| 16_384 + 64 * index).collect();
    let bound = share(&near, 100);
    assert!((0.86..0.87).contains(&bound), "{bound}");
    assert!(share(&near, 0) > 0.9, "without streams nothing bounds the share");
    assert!((share(&long, 100) - 0.98).abs() < 0.01, "long sums tell by themselves");
}
