//! `steptime calibrate host --rows`: what a framework's Python costs hosts.

use std::path::Path;

use serde_json::{Value, json};
use steptime_clusters::calibrate_host::{FRAMEWORK_COSTS, FRAMEWORK_MARKER, framework_toml};
use steptime_clusters::{FrameworkCost, host_from_catalogue, host_names};
use steptime_scenarios::{FrameworkHost, FrameworkHosts, StepErrors, calibrate_framework};

use super::{SCHEMA, Shown, in_file, percent, show};
use crate::cli::CalibrateHost;
use crate::failure::{Answer, Failure};
use crate::output::{self, Output};
use crate::present::{right_align, table, trimmed};

/// Fits the hosts of the rows, and shows one or writes the catalogue's.
pub(super) fn calibrate(arguments: &CalibrateHost) -> Result<Answer, Failure> {
    let mut tables = Vec::new();
    for path in &arguments.rows {
        tables.push((path.display().to_string(), output::read(path)?));
    }
    let fit = calibrate_framework(&tables).map_err(|error| Failure::Message(error.to_string()))?;
    if let Some(folder) = &arguments.catalogue {
        return write(&fit, folder, arguments);
    }
    let host = chosen(&fit, arguments.host.as_deref())?;
    let toml = framework_toml("host.megatron", &host.costs, &source(&fit));
    let shown = Shown {
        errors: errors(&fit),
        notes: String::new(),
        toml: toml.trim_start().to_owned(),
        document: document(&fit),
    };
    show(shown, &arguments.to)
}

fn chosen<'a>(fit: &'a FrameworkHosts, name: Option<&str>) -> Result<&'a FrameworkHost, Failure> {
    let names: Vec<&str> = fit.hosts.iter().map(|host| host.name.as_str()).collect();
    match (name, fit.hosts.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => {
            Err(Failure::Message(format!("the rows are of {}: choose one by --host", names.join(", "))))
        }
        (Some(name), hosts) => hosts.iter().find(|host| host.name == name).ok_or_else(|| {
            Failure::Message(format!("--host: found `{name}`, the rows are of {}", names.join(", ")))
        }),
    }
}

/// Writes what was fitted below the marked line of each host of the catalogue.
fn write(fit: &FrameworkHosts, folder: &Path, arguments: &CalibrateHost) -> Result<Answer, Failure> {
    let (mut files, mut changed) = (Vec::new(), Vec::new());
    for name in host_names() {
        let (costs, source) = costs_of(fit, name)?;
        let path = folder.join("hosts").join(format!("{name}.toml"));
        let text = output::read(&path)?;
        let (kept, _) = text.split_once(FRAMEWORK_MARKER).ok_or_else(|| {
            in_file(&path, format!("has no line `{}` to write below", FRAMEWORK_MARKER.trim_end()))
        })?;
        let new = format!("{kept}{FRAMEWORK_MARKER}{}", framework_toml("megatron", &costs, &source));
        if new != text {
            changed.push(path.display().to_string());
            files.push(Output::new(path, new));
        }
    }
    if !arguments.check {
        output::write_all(&files)?;
    }
    if arguments.to.json {
        let mut document = document(fit);
        document["schema"] = SCHEMA.into();
        document["changed"] = json!(changed);
        output::print(&output::json(&document)?)?;
    } else {
        output::print(&trimmed(&errors(fit)))?;
        let verb = if arguments.check { "would change" } else { "changed" };
        for file in &changed {
            output::print(&format!("{verb}: {file}\n"))?;
        }
        if changed.is_empty() {
            output::print("every host is as the rows say\n")?;
        }
    }
    Ok(if arguments.check && !changed.is_empty() { Answer::No } else { Answer::Yes })
}

/// Costs of a host of the catalogue: fitted, or of the fitted host whose launches take nearest as long, by their ratio.
fn costs_of(fit: &FrameworkHosts, name: &str) -> Result<(FrameworkCost, String), Failure> {
    if let Some(host) = fit.hosts.iter().find(|host| host.name == name) {
        return Ok((host.costs, source(fit)));
    }
    let launch = |name: &str| {
        let host = host_from_catalogue(name).map_err(|error| Failure::Message(error.to_string()))?;
        Ok::<f64, Failure>(host.launch.eager_forward_s)
    };
    let own = launch(name)?;
    let mut nearest: Option<(f64, &FrameworkHost)> = None;
    for host in fit.hosts.iter().filter(|host| host_names().contains(&host.name.as_str())) {
        let ratio = own / launch(&host.name)?;
        let distance = |ratio: f64| ratio.max(1.0 / ratio);
        let farther = |(best, _): &(f64, &FrameworkHost)| distance(ratio) >= distance(*best);
        if !nearest.as_ref().is_some_and(farther) {
            nearest = Some((ratio, host));
        }
    }
    let (ratio, lender) =
        nearest.ok_or_else(|| Failure::Message("the rows are of no host of the catalogue".to_owned()))?;
    let text = format!("{ratio:.2} times those of {}, as kernel launches take: {}", lender.name, source(fit));
    Ok((lender.costs.scaled(ratio), text))
}

/// What a table says of its fit.
fn source(fit: &FrameworkHosts) -> String {
    let seen: usize = fit.hosts.iter().map(|host| host.seen[1].steps).sum();
    let held_out = fit.held_out[1];
    let names: Vec<&str> = fit.hosts.iter().map(|host| host.name.as_str()).collect();
    format!(
        "Fitted to {} steps of {} on {}, one set of times and a ratio for each host, {} steps with faults left out; on {} held-out steps median {}, mean {}",
        seen - fit.faulty,
        fit.sources.join(", "),
        names.join(", "),
        fit.faulty,
        held_out.steps,
        percent(held_out.median),
        percent(held_out.mean),
    )
}

fn errors(fit: &FrameworkHosts) -> String {
    let mut list = table(&[
        "host",
        "steps",
        "",
        "median before",
        "after",
        "mean before",
        "after",
        "bias before",
        "after",
    ]);
    list.set_width(110);
    let mut row = |name: &str, what: &str, [before, after]: [StepErrors; 2]| {
        list.add_row([
            name.to_owned(),
            before.steps.to_string(),
            what.to_owned(),
            percent(before.median),
            percent(after.median),
            percent(before.mean),
            percent(after.mean),
            percent(before.bias),
            percent(after.bias),
        ]);
    };
    for host in &fit.hosts {
        row(&host.name, "seen", host.seen);
        row("", "held out", host.held_out);
    }
    row("all", "held out", fit.held_out);
    right_align(&mut list, 3);
    let keys = fit.keys.join(", ");
    format!(
        "{list}\nleft out as faulty: {} steps of those that the fit may see\nfitted: {keys}\n",
        fit.faulty
    )
}

fn document(fit: &FrameworkHosts) -> Value {
    let of = |errors: StepErrors| json!({ "steps": errors.steps, "median": errors.median, "mean": errors.mean, "bias": errors.bias });
    let both = |[before, after]: [StepErrors; 2]| json!({ "before": of(before), "after": of(after) });
    let hosts: Vec<Value> = fit
        .hosts
        .iter()
        .map(|host| {
            let costs = FRAMEWORK_COSTS.iter().zip(host.costs.values());
            let costs: serde_json::Map<String, Value> =
                costs.map(|((key, _), seconds)| ((*key).to_owned(), json!(seconds))).collect();
            json!({ "host": host.name, "seen": both(host.seen), "held_out": both(host.held_out), "costs_s": costs })
        })
        .collect();
    json!({ "kind": "host", "hosts": hosts, "left_out": fit.faulty, "fitted": fit.keys, "held_out": both(fit.held_out) })
}
