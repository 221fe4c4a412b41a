//! The page about accuracy, `docs/fidelity.md`: every number in it is computed here.

mod catalogue;
mod tables;

use std::path::Path;

use steptime_plots::{Format, Width, parity};
use steptime_scenarios::{Intervals, Validation, published};

use crate::commands::plot::render;
use crate::failure::Failure;
use crate::output::Output;
use crate::present::thousands;

const HEAD: &str = "\
# How good the predictions are

Every number on this page is written by the program, from published measurements that are no part of the repository;
a test keeps the page at what today's program says:

```text
steptime validate --data FILE.csv ... --fidelity docs/fidelity.md
```

A row of a table of measured runs says what was trained, on what, how, and how long a step took. It becomes the scenario
that a user would write (`steptime validate --data FILE.csv --scenario RUN_ID` shows it); the prediction knows nothing
else of the run. Every row is scored or named as skipped, with its reason. Without tables, `steptime validate` scores
the [published facts](#published-facts) that come along with the program.

**Errors** are of step time unless said otherwise: predicted / measured - 1. *Median*, *mean*, *p90* and *max* are of
its absolute value; *bias* is its mean, negative where predictions are too fast; *rank* is Spearman's correlation: 1 if
the slower of two runs is always predicted to be the slower. *In 80 %* is the share of measured steps inside the
predicted 80 % interval, each interval from a table that the row had no part in; near 80 % is right.

**Classes.** What a prediction knows decides what it may be compared with:

| class | knows | here |
| --- | --- | --- |
| P0 | data sheets | GPUs whose kernel prices are borrowed from another |
| P1 | and kernels and collectives measured once per GPU and fabric, nothing of the model | GPUs with fitted prices |
| P2 | and a profile of the model that is predicted | never |
";

/// The page and its figure, `figures/parity.svg` beside it.
pub(super) fn page(
    path: &Path,
    validation: &Validation,
    intervals: &Intervals,
) -> Result<Vec<Output>, Failure> {
    let (facts, predictions) = published()?;
    let facts_scored = predictions.scored(intervals);
    let sections = [
        HEAD.to_owned(),
        summary(validation),
        FIGURE.to_owned(),
        section("Beside others", OTHERS, &tables::others(validation)),
        section("Step time by suite", "", &tables::times(validation)),
        section("Memory by suite", MEMORY, &tables::memory(validation)),
        section("Running out of memory", OUTCOME, &tables::outcomes(validation)),
        section("Choosing a plan", CHOICE, &tables::choices(validation)),
        section("By GPU", GPUS, &tables::by_gpu(validation)),
        section("By size", "", &tables::by_size(validation)),
        section("Intervals", &interval_words(intervals), &tables::intervals(intervals)),
        section("Furthest off", FURTHEST, &tables::worst(validation, 20)),
        section("Skipped rows", "", &tables::skipped(validation)),
        section("Published facts", FACTS, &tables::facts(&facts, &facts_scored)),
        section("Kernels", KERNELS, &catalogue::kernels()?),
        section("Collectives", COLLECTIVES, &catalogue::fabrics()?),
        "## What is not modelled\n\n[What is not modelled yet](limits.md) says where predictions cannot be right.\n"
            .to_owned(),
    ];
    let folder = path.parent().unwrap_or(Path::new("")).join("figures");
    let mut outputs = render(&folder, &[parity(validation, Width::TwoColumn)?], &[Format::Svg])?;
    outputs.push(Output::new(path.to_owned(), sections.join("\n")));
    Ok(outputs)
}

const FIGURE: &str = "\
![Predicted over measured step times, one panel a suite](figures/parity.svg)

Predicted over measured step time; on the diagonal both are equal.
";
const OTHERS: &str = "\
Numbers that others reach on the same runs, as they publish them or as their programs give them, and what steptime
reaches. *Profiled* is class P2.
";
const MEMORY: &str = "\
Of PyTorch's caching allocator: *allocated* is the peak of bytes in tensors, *reserved* the peak of what the allocator
holds, *after step* what lives on between steps.
";
const OUTCOME: &str = "\
*Missed* is the share of runs out of memory that were predicted to fit, *false alarms* the share of runs that fitted and
were predicted not to.
";
const CHOICE: &str = "\
Runs of one job, the same model on as many of the same GPUs with the same batch and software, differ by their plan. *Behind* is how
much longer the measured step of the plan predicted to be the fastest is than that of the fastest measured one; *blind* is
the median of what a plan taken by chance loses. *Rank* is Spearman's correlation within jobs of three plans and more, each
job counted by its plans.
";
const GPUS: &str =
    "*Fitted* lists the number formats whose matrix products were measured on the GPU itself.\n";
const FURTHEST: &str = "\
By the logarithm of predicted over measured, with the largest parts of the predicted step: where to look first.
";
const FACTS: &str = "\
Numbers printed in papers and documentation; throughputs are turned into seconds a step. `steptime validate` without
tables scores them, `steptime validate --scenario NAME` shows a scenario.
";
const KERNELS: &str = "\
What the kernel models were fitted to, and how far they are off on shapes that were held out of the fit, as each GPU's
catalogue entry says (`steptime clusters NAME` shows the rest).
";
const COLLECTIVES: &str = "\
Fabrics whose curves were fitted to measured collectives; the others are scaled from data sheets.
";

fn section(title: &str, words: &str, table: &str) -> String {
    let gap = if words.is_empty() { "" } else { "\n" };
    format!("## {title}\n\n{words}{gap}{table}")
}

/// The page in three sentences.
fn summary(validation: &Validation) -> String {
    let scored: usize = validation.suites.iter().filter_map(|suite| suite.time).map(|time| time.scored).sum();
    let skipped: usize = validation.suites.iter().map(|suite| suite.skipped).sum();
    let all = steptime_scenarios::score_rows(&validation.rows);
    let Some(all) = all else { return String::new() };
    format!(
        "## In short\n\n{} rows of {} suites, {} of them skipped; {} step times are compared. Their median error is {}, \
         and\n{} lie inside their 80 % interval. Suites differ much: see below.\n",
        thousands(validation.rows.len() as u64),
        validation.suites.len(),
        thousands(skipped as u64),
        thousands(scored as u64),
        super::text::percent(all.median_ape),
        super::text::optional(all.interval_coverage),
    )
}

fn interval_words(intervals: &Intervals) -> String {
    format!(
        "The 80 % interval of a prediction holds 80 % of {} measured runs whose steps resemble it: split conformal\n\
         prediction in groups that a tree of questions finds, with finite-sample quantiles that lean outwards to those of the\n\
         larger group where runs are few. Questions are about what the step is made of, never about where a row comes\n\
         from. *Low* and *high* are factors of the predicted step; where such steps come out too\n\
         fast or too slow throughout, the interval begins or ends at the prediction. A prediction on a GPU, of a size or\n\
         with kernels beyond what its group was measured on gets a wider interval, and its `provenance` says why.\n\
         `steptime validate --data ... --write-intervals scenarios/src/interval/residuals.toml`\n\
         fits the tables anew.\n",
        thousands(intervals.runs() as u64)
    )
}
