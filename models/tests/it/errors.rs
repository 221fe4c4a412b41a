//! Messages for what people get wrong.

use steptime_models::{Family, FieldValue, Model, ModelError, Overrides, Place, catalogue_names};

/// The message of a model that must not be.
fn message(name: &str, overrides: &Overrides) -> String {
    Model::from_catalogue(name, overrides).unwrap_err().to_string()
}

fn file_message(text: &str) -> String {
    Model::from_toml(text, &Overrides::none()).unwrap_err().to_string()
}

#[test]
fn unknown_models_suggest_the_nearest() {
    for (found, expected) in [
        ("switch-vit-46", "switch-vit-64"),
        ("vit_b16", "vit_b_16"),
        ("llama-3-8b", "llama3-8b"),
        ("VisionEncoder-Small", "visionencoder-small"),
        ("gpt-2", "gpt2"),
    ] {
        let error = Model::from_catalogue(found, &Overrides::none()).unwrap_err();
        let ModelError::UnknownModel { name, nearest, known } = error else { panic!("{error}") };
        assert_eq!((name.as_str(), nearest.as_deref()), (found, Some(expected)));
        assert_eq!(known, catalogue_names());
    }
    let nothing_like_it = message("zzz", &Overrides::none());
    let expected = format!("the catalogue has no model `zzz`; it has {}, ", catalogue_names()[0]);
    assert!(nothing_like_it.starts_with(&expected), "{nothing_like_it}");
}

#[test]
fn overrides_are_checked() {
    let with = |field, value| Overrides::none().with(field, value);
    assert_eq!(
        message("gpt2", &with("layers", 0)),
        "`layers` is 0, but must be a whole number from 1 to 10000"
    );
    assert_eq!(message("gpt2", &with("heads", 7)), "`heads` is 7, but must be a divisor of hidden (768)");
    assert_eq!(
        message("gpt2", &with("layer", 3)),
        "`architecture` has no field `layer`; did you mean `layers`?; allowed are layers, hidden, heads, \
         feed_forward, vocabulary, positions, tied, dropout"
    );
    assert_eq!(
        message("llama3-8b", &with("kv_heads", 5)),
        "`kv_heads` is 5, but must be a divisor of heads (32)"
    );
    assert_eq!(
        message("vit_b_16", &with("image_size", 225)),
        "`image_size` is 225, but must be a multiple of patch_size (16)"
    );
    assert_eq!(
        message("vit-cifar", &with("image_size", 128)),
        "`positions` is 300, but must be at least the 1024 tokens of an image of 128 pixels a side"
    );
    assert_eq!(
        message("visionencoder", &with("layers", 3)),
        "`architecture` has no field `layers`; it has none"
    );
    assert_eq!(
        message("switch-vit-32", &{
            let mut overrides = with("dense_feed_forward", 8);
            overrides.set("feed_forward", FieldValue::Text("wide".to_owned()));
            overrides
        }),
        "`feed_forward` is \"wide\", but must be a whole number from 1 to 1048576"
    );
    assert!(
        message("switch-vit-32", &with("dense_feed_forward", 8))
            .starts_with("`experts` is 32, but must be less")
    );
}

#[test]
fn values_of_the_wrong_type_are_shown() {
    for (value, shown) in [
        (FieldValue::Float(12.0), "12.0"),
        (FieldValue::Bool(true), "true"),
        (FieldValue::Text("12".to_owned()), "\"12\""),
        (FieldValue::Integer(-12), "-12"),
    ] {
        let overrides: Overrides = [("layers".to_owned(), value)].into_iter().collect();
        assert!(message("gpt2", &overrides).starts_with(&format!("`layers` is {shown}, but must be")));
    }
    let mut overrides = Overrides::none();
    overrides.set("tied", FieldValue::Integer(1));
    assert_eq!(message("gpt2", &overrides), "`tied` is 1, but must be true or false");
}

#[test]
fn the_last_override_counts() {
    let twice = Overrides::none().with("layers", 0).with("layers", 1);
    assert_eq!(Model::from_catalogue("gpt2", &twice).unwrap().layers.len(), 3);
}

const GPT: &str = r#"
name = "mine"
family = "gpt"
source = "me"

[architecture]
layers = 2
hidden = 64
heads = 4
vocabulary = 100
positions = 32
"#;

#[test]
fn a_users_file_works_like_an_entry() {
    let model = Model::from_toml(GPT, &Overrides::none().with("layers", 3)).unwrap();
    assert_eq!((model.name.as_str(), model.layers.len()), ("mine", 5));
}

#[test]
fn faults_in_a_file_have_their_place() {
    assert_eq!(
        file_message(&GPT.replace("heads = 4", "heads = 5")),
        "line 9, column 1: `heads` is 5, but must be a divisor of hidden (64)"
    );
    assert_eq!(
        file_message(&GPT.replace("hidden = 64", "hiden = 64")),
        "line 8, column 1: `architecture` has no field `hiden`; did you mean `hidden`?; allowed are layers, \
         hidden, heads, feed_forward, vocabulary, positions, tied, dropout"
    );
    assert_eq!(
        file_message(&GPT.replace("layers = 2\n", "")),
        "line 6, column 2: `architecture` lacks the field `layers`, which must be a whole number from 1 to 10000"
    );
    assert_eq!(
        file_message(&GPT.replace("\"gpt\"", "\"gtp\"")),
        format!(
            "line 3, column 1: no family `gtp`; did you mean `gpt`?; allowed are {}",
            Family::ALL.map(Family::name).join(", ")
        )
    );
    assert_eq!(
        file_message(&GPT.replace("source", "sources")),
        "line 4, column 1: `the file` has no field `sources`; did you mean `source`?; allowed are name, family, \
         source, architecture"
    );
    let error = Model::from_toml("name = \"a\"\nlayers = = 2", &Overrides::none()).unwrap_err();
    assert!(matches!(error, ModelError::BadToml { line: 2, column: 10, .. }), "{error}");
    let error = Model::from_toml(&GPT.replace("= 100", "= \"many\""), &Overrides::none()).unwrap_err();
    assert!(
        matches!(error, ModelError::BadValue { place: Some(Place { line: 10, column: 1 }), .. }),
        "{error}"
    );
}

const PARTS: &str = r#"
name = "parts"
family = "components"
source = "me"
[[component]]
name = "Camera"
flops_per_sample = "3 GFLOP"
capacity = "1 GB"
[[partition]]
name = "All"
communication_volume = "0.6 GB"
components = ["Camera"]
"#;

#[test]
fn component_files_are_checked() {
    assert!(Model::from_toml(PARTS, &Overrides::none()).is_ok());
    let changed = |from: &str, to: &str| file_message(&PARTS.replace(from, to));
    assert_eq!(
        changed("\"3 GFLOP\"", "3e9"),
        "line 7, column 1: `flops_per_sample` is 3000000000.0, but must be a text with a unit, like \"3 GFLOP\""
    );
    assert_eq!(
        changed("1 GB", "1"),
        "line 8, column 1: `capacity` is \"1\", but must be a text with a unit, like \"80 GiB\" (`1` has no unit; \
         write it like \"80 GiB\")"
    );
    assert_eq!(
        changed("[\"Camera\"]", "[\"Camra\"]"),
        "line 12, column 15: partition `All` refers to a component `Camra` that does not exist; did you mean \
         `Camera`?; there are Camera"
    );
    assert_eq!(changed("[\"Camera\"]", "[]"), "line 12, column 1: partition `All` names no component");
    assert_eq!(
        changed(
            "[[partition]]",
            "[[component]]\nname = \"Camera\"\nflops_per_sample = \"1 FLOP\"\ncapacity = \"1 B\"\n[[partition]]"
        ),
        "line 10, column 1: two components are named `Camera`"
    );
    let lidar =
        "[[component]]\nname = \"Lidar\"\nflops_per_sample = \"1 FLOP\"\ncapacity = \"1 B\"\n[[partition]]";
    assert_eq!(
        changed("[[partition]]", lidar),
        "line 10, column 1: `name` is `Lidar`, a component that no partition has, but must be the name of a \
         component that stands in one partition"
    );
    assert_eq!(
        changed("[\"Camera\"]", "[\"Camera\", \"Camera\"]"),
        "line 12, column 25: `components` is a list with `Camera`, which stands twice in partition `All`, but must \
         be a list of components that stand in one partition, once"
    );
    let again = "[\"Camera\"]\n[[partition]]\nname = \"More\"\ncommunication_volume = \"1 B\"\ncomponents = [\"Camera\"]";
    assert_eq!(
        changed("[\"Camera\"]", again),
        "line 16, column 15: `components` is a list with `Camera`, which stands in partition `All` and in partition \
         `More`, but must be a list of components that stand in one partition, once"
    );
    assert_eq!(
        file_message("name = \"a\"\nfamily = \"components\"\nsource = \"b\""),
        "`the file` lacks the field `component`, which must be at least one table [[component]]"
    );
}

#[test]
fn garbage_is_an_error_and_no_panic() {
    let long_line = "a = [".repeat(5000);
    let texts = [
        "",
        "\u{0}",
        "[[[[",
        "name",
        "= 1",
        "[architecture]",
        "name = 1979-05-27",
        "\u{feff}x=1",
        &long_line,
    ];
    for text in texts {
        assert!(Model::from_toml(text, &Overrides::none()).is_err());
    }
    for cut in (0..GPT.len() - 30).filter(|&cut| GPT.is_char_boundary(cut)) {
        assert!(Model::from_toml(&GPT[..cut], &Overrides::none()).is_err(), "cut at {cut}");
    }
    let huge = GPT.replace("layers = 2", "layers = 99999999999999999999");
    assert!(file_message(&huge).contains("beyond 64 bits"));
}
