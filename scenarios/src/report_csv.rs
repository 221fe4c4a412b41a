//! The report as one row of comma-separated values.

use crate::report::{Report, Verdict};

/// A header line and one line a report; empty fields where a value is not known.
pub fn report_csv(reports: &[Report]) -> String {
    let mut text = String::from(
        "name,verdict,step_time_s,step_time_low_s,step_time_high_s,samples_per_s,tokens_per_s,\
         model_flops_utilization,hardware_flops_utilization,gpus,parameters,flops_per_step",
    );
    let parts = crate::report::TimeBreakdown::default();
    for (name, _) in parts.entries() {
        text.extend([",", name, "_s"]);
    }
    text.push_str(
        ",peak_allocated_bytes,peak_reserved_bytes,peak_device_bytes,capacity_bytes,short_by_bytes,scenario_hash,version,seed\n",
    );
    for report in reports {
        text.push_str(&row(report));
        text.push('\n');
    }
    text
}

fn row(report: &Report) -> String {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let verdict = match report.verdict {
        Verdict::Fits => "fits",
        Verdict::OutOfMemory => "out_of_memory",
    };
    let interval = report.step_time_interval_s;
    let mut fields = vec![
        quote(&report.name),
        verdict.to_owned(),
        number(report.step_time_s),
        number(interval.map(|ends| ends[0])),
        number(interval.map(|ends| ends[1])),
        number(report.samples_per_s),
        number(report.tokens_per_s),
        number(report.model_flops_utilization),
        number(report.hardware_flops_utilization),
        report.gpus.to_string(),
        report.parameters.total.to_string(),
        report.flops_per_step.to_string(),
    ];
    fields.extend(report.time_breakdown_s.entries().iter().map(|(_, seconds)| seconds.to_string()));
    let memory = &report.peak_memory;
    fields.extend(
        [memory.allocated_bytes, memory.reserved_bytes, memory.device_bytes, memory.capacity_bytes]
            .map(|bytes| bytes.to_string()),
    );
    fields.push(report.out_of_memory.as_ref().map_or_else(String::new, |oom| oom.short_by_bytes.to_string()));
    fields.push(report.scenario_hash.clone().unwrap_or_default());
    fields.push(quote(&report.version));
    fields.push(report.seed().map_or_else(String::new, |seed| seed.to_string()));
    fields.join(",")
}

/// RFC 4180: a field with a comma, a quote or a line break stands in quotes.
pub(crate) fn quote(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
