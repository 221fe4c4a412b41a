//! `steptime sweep --parquet`, where the program is built with the feature.

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

use crate::support::steptime;

const SWEEP: &str = r#"name = "grid"
[model]
name = "gpt2"
sequence_length = 1024
[cluster]
name = "dgx-h100"
[workload]
gradient_accumulation_steps = 2
precision = "bf16"
[sweep]
"workload.micro_batch_size" = [1, 4096]
"parallelism.pipeline" = [1, 3]
"parallelism.sequence_parallel" = [false]
"workload.activation_checkpointing" = ["none", "full"]
"#;

fn shown(field: &Field) -> String {
    match field {
        Field::Null => String::new(),
        Field::Long(value) => value.to_string(),
        Field::Double(value) => value.to_string(),
        Field::Bool(value) => value.to_string(),
        Field::Str(value) => value.clone(),
        other => panic!("{other:?}"),
    }
}

/// Every cell is that of the table, in a column of its type; the bytes depend on neither threads nor the way that parts were made.
#[test]
fn the_file_says_what_the_table_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sweep.toml");
    std::fs::write(&path, SWEEP).unwrap();
    let scenario = path.to_str().unwrap();
    let out = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let run = |arguments: &[&str]| {
        let output = steptime(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["sweep", scenario, "--out", &out("one"), "--parquet", "--jobs", "1", "--quiet"]);
    run(&["sweep", scenario, "--out", &out("two"), "--parquet", "--jobs", "2", "--quiet"]);
    for shard in ["1/2", "2/2"] {
        run(&["sweep", scenario, "--out", &out("parts"), "--shard", shard, "--quiet"]);
    }
    run(&["merge", &out("parts"), "--out", &out("merged"), "--parquet"]);
    let file = |name: &str, file: &str| std::fs::read(folder.path().join(name).join(file)).unwrap();
    let bytes = file("one", "sweep.parquet");
    assert_eq!(bytes, file("two", "sweep.parquet"));
    assert_eq!(bytes, file("merged", "sweep.parquet"));

    let reader = SerializedFileReader::new(::bytes::Bytes::from(bytes)).unwrap();
    let columns = reader.metadata().file_metadata().schema_descr().columns().to_vec();
    let types: Vec<String> = columns[..6].iter().map(|column| column.physical_type().to_string()).collect();
    assert_eq!(types, ["INT64", "INT64", "INT64", "BOOLEAN", "BYTE_ARRAY", "BYTE_ARRAY"]);
    let table = file("one", "sweep.csv");
    let mut table = csv::Reader::from_reader(table.as_slice());
    let names: Vec<String> = columns.iter().map(|column| column.name().to_owned()).collect();
    assert_eq!(table.headers().unwrap().iter().collect::<Vec<_>>(), names);
    let mut rows = reader.get_row_iter(None).unwrap();
    for expected in table.records() {
        let row = rows.next().unwrap().unwrap();
        let found: Vec<String> = row.get_column_iter().map(|(_, field)| shown(field)).collect();
        assert_eq!(found, expected.unwrap().iter().collect::<Vec<_>>());
    }
    assert!(rows.next().is_none());
}

#[test]
fn it_needs_a_folder_and_the_whole() {
    let output = steptime(&["sweep", "scenarios/llama3-8b-h100-zero3.toml", "--parquet"]);
    assert_eq!(output.status.code(), Some(2));
}
