use super::fit::Residual;
use super::traits::{Condition, Trait, Traits};
use super::{Intervals, Jobs, fold};

/// Runs whose measured time is the prediction times `factor(index)`, on so many nodes.
fn residuals(count: usize, nodes: f64, factor: impl Fn(usize) -> f64) -> Vec<Residual> {
    (0..count)
        .map(|index| Residual {
            run_id: format!("run-{nodes}-{index}"),
            traits: Traits::with(&[(Trait::Nodes, nodes), (Trait::Gpus, 8.0 * nodes), (Trait::Work, 1.0)]),
            ratio: factor(index),
            jobs: None,
        })
        .collect()
}

fn traits(nodes: f64, gpus: f64, work: f64, borrowed: f64) -> Traits {
    Traits::with(&[
        (Trait::Nodes, nodes),
        (Trait::Gpus, gpus),
        (Trait::Work, work),
        (Trait::Borrowed, borrowed),
    ])
}

#[test]
fn the_shipped_tables_are_read_and_have_an_interval_for_everything() {
    let shipped = Intervals::shipped();
    assert!(!shipped.groups().is_empty());
    for nodes in [1.0, 3.0, 500.0] {
        for (work, borrowed) in [(1e-6, 0.0), (1.0, 1.0), (1e6, 2.0)] {
            let found = shipped.of(&traits(nodes, 8.0 * nodes, work, borrowed), None).unwrap();
            assert!(found.low > 0.0 && found.low < found.high && found.high.is_finite());
        }
    }
}

/// Ranks (n + 1) p: of 99 runs, the 10th and the 90th.
#[test]
fn quantiles_have_the_finite_sample_correction() {
    let table = Intervals::fit(&residuals(99, 1.0, |index| 0.5 + index as f64 / 100.0));
    let [group] = table.groups() else { panic!("nothing to divide by") };
    assert!((group.low - 0.59).abs() < 1e-9 && (group.high - 1.39).abs() < 1e-9, "{group:?}");
    assert_eq!(group.runs, 99);
}

/// Where predictions are too fast throughout, the interval begins at the prediction and holds 80 of 99 runs; where too
/// slow, it ends there.
#[test]
fn intervals_hold_the_prediction() {
    let ends = |factor: fn(usize) -> f64| Intervals::fit(&residuals(99, 1.0, factor)).groups()[0].ends();
    let [low, high] = ends(|index| 1.01 + index as f64 / 100.0);
    assert!((low - 1.0).abs() < 1e-12 && (high - 1.80).abs() < 1e-9, "{low} {high}");
    let [low, high] = ends(|index| 0.01 + index as f64 / 200.0);
    assert!((low - (0.01 + 19.0 / 200.0)).abs() < 1e-9 && (high - 1.0).abs() < 1e-12, "{low} {high}");
}

#[test]
fn runs_are_divided_by_what_makes_them_differ() {
    let mut all = residuals(200, 1.0, |index| 1.0 + 0.001 * (index % 10) as f64);
    all.extend(residuals(200, 4.0, |index| 1.5 + 0.01 * (index % 10) as f64));
    let table = Intervals::fit(&all);
    let one = table.of(&traits(1.0, 8.0, 1.0, 0.0), None).unwrap();
    let several = table.of(&traits(4.0, 32.0, 1.0, 0.0), None).unwrap();
    // Those of one node lean a little towards all.
    assert!(one.high < 1.05 && several.high > 1.4, "{one:?} {several:?}");
    assert!(several.group.contains('2'), "{}", several.group);
}

/// Runs known to a few percent are told from others known to a tenth, however wide a third group lies: its loss is a
/// hundred times theirs.
#[test]
fn narrow_groups_are_told_apart_beside_a_wide_one() {
    let spread = |nodes: f64, width: f64| {
        residuals(100, nodes, move |index| libm::exp(width * ((index * 37 % 100) as f64 / 50.0 - 0.99)))
    };
    let all = [spread(1.0, 0.02), spread(4.0, 0.1), spread(64.0, 3.0)].concat();
    let table = Intervals::fit(&all);
    let width = |nodes: f64| {
        let found = table.of(&traits(nodes, 8.0 * nodes, 1.0, 0.0), None).unwrap();
        libm::log(found.high / found.low)
    };
    assert_eq!(table.groups().len(), 3);
    assert!(width(1.0) < 0.08 && (0.15..0.4).contains(&width(4.0)), "{} {}", width(1.0), width(4.0));
    assert!(width(64.0) > 4.0, "{}", width(64.0));
}

/// A group's interval holds what a network that jobs share does not explain: every interval is widened to what that does.
#[test]
fn what_other_jobs_networks_explain_is_no_residual() {
    let jobs = Jobs::between(0.9, 3.0);
    let runs = |jobs: Option<Jobs>| -> Vec<Residual> {
        let factor = |index: usize| if index.is_multiple_of(2) { 0.99 } else { 2.0 + index as f64 / 100.0 };
        residuals(99, 1.0, factor).into_iter().map(|run| Residual { jobs, ..run }).collect()
    };
    let table = Intervals::fit(&runs(Some(jobs)));
    let ends = table.groups()[0].ends();
    assert!(ends.iter().all(|end| (end - 1.0).abs() < 1e-12), "{ends:?}");
    assert!(Intervals::fit(&runs(None)).groups()[0].ends()[1] > 2.5);
    // Beyond what it explains they count as they are.
    let ends = Intervals::fit(&runs(Some(Jobs::between(1.0, 1.5)))).groups()[0].ends();
    assert!((ends[0] - 0.99).abs() < 1e-9 && ends[1] > 2.5, "{ends:?}");
}

#[test]
fn outside_the_covered_range_the_interval_widens_and_says_so() {
    let table = Intervals::fit(&residuals(99, 1.0, |index| 0.5 + index as f64 / 100.0));
    let inside = table.of(&traits(1.0, 8.0, 1.0, 0.0), None).unwrap();
    assert!(inside.widened.is_empty());
    // Eight times the GPUs: three doublings, a quarter each.
    let larger = table.of(&traits(8.0, 64.0, 1.0, 0.0), None).unwrap();
    let width = |it: &super::Interval| libm::log(it.high / it.low);
    assert!((width(&larger) / width(&inside) - 1.75).abs() < 1e-9);
    assert!(larger.widened.contains("8 to 8 GPUs"), "{}", larger.widened);
    let unknown = table.of(&traits(1.0, 8.0, 1.0, 2.0), None).unwrap();
    assert!((width(&unknown) / width(&inside) - 1.5).abs() < 1e-9);
}

/// Ten runs under a trainer's own host code are too few for a group; of a hundred none says anything of a step without it.
#[test]
fn runs_under_another_host_are_no_part_of_a_group() {
    let under = |trainer: f64, count: usize, ratio: f64| {
        (0..count).map(move |index| Residual {
            run_id: format!("run-{trainer}-{index}"),
            traits: Traits::with(&[
                (Trait::Trainer, trainer),
                (Trait::Gpus, 8.0),
                (Trait::Work, 1.0),
                (Trait::Host, 0.5),
            ]),
            ratio: ratio + 0.001 * (index % 10) as f64,
            jobs: None,
        })
    };
    let step = Traits::with(&[(Trait::Gpus, 8.0), (Trait::Work, 1.0), (Trait::Host, 0.5)]);
    let few: Vec<Residual> = under(0.0, 100, 1.0).chain(under(1.0, 10, 9.0)).collect();
    assert_eq!(Intervals::fit(&few).of(&step, None).unwrap().runs, 110);
    // The question gains nothing in width where all are alike, and is asked all the same.
    let alike: Vec<Residual> = under(0.0, 100, 1.0).chain(under(1.0, 100, 1.0)).collect();
    let found = Intervals::fit(&alike).of(&step, None).unwrap();
    assert_eq!((found.runs, found.group.as_str()), (100, "PyTorch's own host code"));
}

/// Measured runs wait up to a tenth of the step for samples; this one waits for half of it, four tenths more.
#[test]
fn shares_beyond_those_of_the_runs_widen_by_how_far_they_lie_beyond() {
    let runs: Vec<Residual> = residuals(99, 1.0, |index| 0.5 + index as f64 / 100.0)
        .into_iter()
        .map(|run| Residual { traits: waiting(0.1), ..run })
        .collect();
    let table = Intervals::fit(&runs);
    let width = |share: f64| {
        let found = table.of(&waiting(share), None).unwrap();
        (libm::log(found.high / found.low), found.widened)
    };
    let (inside, nothing) = width(0.12);
    let (outside, reason) = width(0.5);
    assert!(nothing.is_empty() && (outside / inside - 1.4).abs() < 1e-9, "{outside} {inside}");
    assert!(reason.contains("up to 10 % of loading"), "{reason}");
}

fn waiting(share: f64) -> Traits {
    Traits::with(&[(Trait::Gpus, 8.0), (Trait::Work, 1.0), (Trait::Loading, share)])
}

/// Three quarters to nine tenths of runs that the tables have not seen lie inside.
#[test]
fn left_out_runs_are_covered() {
    let spread = |index: usize| 0.7 + 0.6 * ((index * 7919) % 1000) as f64 / 1000.0;
    let all = residuals(1000, 1.0, spread);
    let table = Intervals::fit(&all);
    let inside = |it: &&Residual| {
        let found = table.without(&it.run_id, &it.traits, None).unwrap();
        (found.low..=found.high).contains(&it.ratio)
    };
    let covered = all.iter().filter(inside).count();
    assert!((750..=900).contains(&covered), "{covered}");
}

#[test]
fn parts_have_about_equal_shares() {
    let mut counts = [0; super::FOLDS as usize];
    for index in 0..1000 {
        counts[fold(&format!("nanotron-{index}")) as usize] += 1;
    }
    assert!(counts.iter().all(|count| (140..=260).contains(count)), "{counts:?}");
}

#[test]
fn what_is_written_is_read_again() {
    let mut all = residuals(100, 1.0, |index| 1.0 + 0.001 * (index % 10) as f64);
    all.extend(residuals(100, 4.0, |index| 1.5 + 0.01 * (index % 10) as f64));
    let table = Intervals::fit(&all);
    let text = table.text();
    assert_eq!(Intervals::read(&text).unwrap().text(), text);
    for wrong in [text.replace(">=", "=>"), text.replace("nodes", "knots"), text.replace("low = ", "low = -")]
    {
        assert!(Intervals::read(&wrong).is_err());
    }
}

#[test]
fn conditions_read_like_words() {
    let words = |kind, at_least, threshold| Condition { kind, at_least, threshold }.words();
    assert_eq!(words(Trait::Host, true, 0.2), "host 20 % or more");
    assert_eq!(words(Trait::Nodes, false, 2.0), "less than 2 nodes");
    assert_eq!(words(Trait::Training, false, 1.0), "inference");
}
