//! Headers of safetensors files.

use std::path::Path;

use super::fixture;
use crate::support::steptime;

/// Writes a file whose header has these tensors of 16-bit values, one behind the other, without their data; the
/// file is as long as if it had it.
pub(super) fn write(path: &Path, tensors: &[(String, Vec<u64>)]) {
    let mut at = 0;
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".to_owned(), serde_json::json!({ "format": "pt" }));
    for (name, shape) in tensors {
        let end = at + 2 * shape.iter().product::<u64>();
        header.insert(
            name.clone(),
            serde_json::json!({ "dtype": "BF16", "shape": shape, "data_offsets": [at, end] }),
        );
        at = end;
    }
    let header = serde_json::to_vec(&header).unwrap();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], &header].concat();
    std::fs::write(path, &bytes).unwrap();
    // A hole: the file has this length and takes no room.
    std::fs::File::options().write(true).open(path).unwrap().set_len(bytes.len() as u64 + at).unwrap();
}

/// Tensors of a decoder of Llama's kind.
fn llama(layers: u64, hidden: u64, kv: u64, feed_forward: u64, vocabulary: u64) -> Vec<(String, Vec<u64>)> {
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocabulary, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
        ("lm_head.weight".to_owned(), vec![vocabulary, hidden]),
    ];
    for layer in 0..layers {
        for (name, shape) in [
            ("input_layernorm.weight", vec![hidden]),
            ("post_attention_layernorm.weight", vec![hidden]),
            ("self_attn.q_proj.weight", vec![hidden, hidden]),
            ("self_attn.k_proj.weight", vec![kv, hidden]),
            ("self_attn.v_proj.weight", vec![kv, hidden]),
            ("self_attn.o_proj.weight", vec![hidden, hidden]),
            ("mlp.gate_proj.weight", vec![feed_forward, hidden]),
            ("mlp.up_proj.weight", vec![feed_forward, hidden]),
            ("mlp.down_proj.weight", vec![hidden, feed_forward]),
        ] {
            tensors.push((format!("model.layers.{layer}.{name}"), shape));
        }
    }
    tensors
}

/// Runs the import and returns exit code, standard output, and standard error without the folder.
fn run(arguments: &[&str], folder: &Path) -> (i32, String, String) {
    let output = steptime(&[&["import", "safetensors"], arguments].concat());
    let error = String::from_utf8(output.stderr).unwrap();
    let error = error.replace(&format!("{}/", folder.display()), "");
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap(), error)
}

#[test]
fn a_checkpoint_is_checked_against_its_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path, &llama(32, 4096, 1024, 14336, 128256));
    std::fs::write(folder.path().join("config.json"), fixture("hf/llama-3-8b.json")).unwrap();
    let (code, model, error) = run(&[path.to_str().unwrap()], folder.path());
    assert_eq!(code, 0, "{error}");
    assert!(model.contains("feed_forward = 14336\n"), "{model}");
    insta::assert_snapshot!(error);
}

#[test]
fn what_does_not_agree_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let config = folder.path().join("other.json");
    std::fs::write(&config, fixture("hf/llama-3-8b.json")).unwrap();
    let right = llama(32, 4096, 1024, 14336, 128256);
    let mut all = String::new();
    let mut wider = right.clone();
    wider[11].1 = vec![14336, 4097];
    let mut longer = right.clone();
    longer.push(("model.layers.32.mlp.up_proj.weight".to_owned(), vec![14336, 4096]));
    let mut fewer = right.clone();
    fewer.retain(|(name, _)| name != "model.layers.7.mlp.up_proj.weight");
    for tensors in [wider, longer, fewer] {
        write(&path, &tensors);
        let (code, model, error) =
            run(&[path.to_str().unwrap(), "--config", config.to_str().unwrap()], folder.path());
        assert_eq!((code, model.as_str()), (2, ""), "{error}");
        all += &error;
    }
    // Without a configuration the heads are not known, unless a norm of queries or a table of frequencies tells.
    write(&path, &right);
    let (code, _, error) = run(&[path.to_str().unwrap()], folder.path());
    assert_eq!(code, 2);
    all += &error;
    write(&path, &[("transformer.wte.weight".to_owned(), vec![10, 4])]);
    all += &run(&[path.to_str().unwrap()], folder.path()).2;
    insta::assert_snapshot!(all);
}

#[test]
fn shapes_alone_describe_a_model_with_a_norm_of_queries() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut tensors = llama(2, 256, 64, 512, 1000);
    tensors.retain(|(name, _)| name != "lm_head.weight");
    tensors.push(("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), vec![16]));
    write(&path, &tensors);
    let (code, model, error) = run(&[path.to_str().unwrap()], folder.path());
    assert_eq!(code, 0, "{error}");
    insta::assert_snapshot!(format!("{model}{error}"));
}

#[test]
fn an_index_is_read_with_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = llama(32, 4096, 1024, 14336, 128256);
    let rest = tensors.split_off(100);
    let mut map = serde_json::Map::new();
    for (file, part) in [("a.safetensors", &tensors), ("b.safetensors", &rest)] {
        write(&folder.path().join(file), part);
        for (name, _) in part {
            map.insert(name.clone(), file.into());
        }
    }
    let index = folder.path().join("model.safetensors.index.json");
    std::fs::write(&index, serde_json::json!({ "metadata": {}, "weight_map": map }).to_string()).unwrap();
    std::fs::write(folder.path().join("config.json"), fixture("hf/llama-3-8b.json")).unwrap();
    let output = steptime(&["import", "safetensors", index.to_str().unwrap(), "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["tensors"]["count"], 291);
    assert_eq!(document["tensors"]["formats"][0]["values"], 8_030_261_248_u64);
    std::fs::remove_file(folder.path().join("b.safetensors")).unwrap();
    assert_eq!(run(&[index.to_str().unwrap()], folder.path()).0, 2);
    let outside = serde_json::json!({ "weight_map": { "a": "../a.safetensors" } });
    std::fs::write(&index, outside.to_string()).unwrap();
    let (code, _, error) = run(&[index.to_str().unwrap()], folder.path());
    assert_eq!(code, 2);
    assert!(error.contains("allowed: the name of a file in the same folder"), "{error}");
}

#[test]
fn broken_headers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        format!("{{\"a\":{{\"dtype\":{dtype},\"shape\":{shape},\"data_offsets\":{offsets}}}}}")
    };
    let two = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\
               \"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}";
    let mut all = String::new();
    let mut refuse = |bytes: Vec<u8>| {
        std::fs::write(&path, bytes).unwrap();
        let (code, _, error) = run(&[path.to_str().unwrap()], folder.path());
        assert_eq!(code, 2, "{error}");
        all += &error;
    };
    refuse(vec![1, 2, 3]);
    refuse(u64::MAX.to_le_bytes().to_vec());
    refuse([&100_u64.to_le_bytes()[..], b"{}"].concat());
    for header in [
        String::new(),
        "{\"a\":".to_owned(),
        "[]".to_owned(),
        "{\"a\":1}".to_owned(),
        "{\"a\":{}}".to_owned(),
        tensor("\"F33\"", "[2]", "[0,8]"),
        tensor("\"F32\"", "[2]", "[0,9]"),
        tensor("\"F32\"", "[4]", "[0,16]"),
        tensor("\"F32\"", "[-1]", "[0,8]"),
        tensor("\"F32\"", "[4294967296,4294967296,4]", "[0,8]"),
        tensor("\"F32\"", "[2]", "[8]"),
        two.to_owned(),
    ] {
        refuse([&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 12]].concat());
    }
    insta::assert_snapshot!(all);
}
