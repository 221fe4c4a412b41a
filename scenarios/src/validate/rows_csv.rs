//! The rows of a validation as comma-separated values.

use super::{ValidatedRow, Validation};
use crate::report::TimeBreakdown;
use crate::report_csv::quote;

/// A header line and one line a row; empty fields where a number is not known.
pub fn validation_csv(validation: &Validation) -> String {
    let mut text = String::from(
        "run_id,suite,gpu,gpus,predicted_step_time_s,step_time_low_s,step_time_high_s,measured_step_time_s,\
         predicted_peak_allocated_gib,measured_peak_allocated_gib,predicted_peak_reserved_gib,\
         measured_peak_reserved_gib,predicted_static_allocated_gib,measured_static_allocated_gib,\
         predicted_outcome,measured_outcome",
    );
    for (name, _) in TimeBreakdown::default().entries() {
        text.extend([",", name, "_s"]);
    }
    text.push_str(",skipped\n");
    for row in &validation.rows {
        text.push_str(&line(row));
        text.push('\n');
    }
    text
}

fn line(row: &ValidatedRow) -> String {
    let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let word = |value: &Option<String>| quote(value.as_deref().unwrap_or_default());
    let interval = row.predicted_step_time_interval_s;
    let mut fields = vec![quote(&row.run_id), quote(&row.suite), quote(&row.gpu), row.gpus.to_string()];
    let numbers = [
        row.predicted_step_time_s,
        interval.map(|ends| ends[0]),
        interval.map(|ends| ends[1]),
        row.measured_step_time_s,
        row.predicted_peak_allocated_gib,
        row.measured_peak_allocated_gib,
        row.predicted_peak_reserved_gib,
        row.measured_peak_reserved_gib,
        row.predicted_static_allocated_gib,
        row.measured_static_allocated_gib,
    ];
    fields.extend(numbers.map(number));
    fields.extend([&row.predicted_outcome, &row.measured_outcome].map(word));
    let parts = row.predicted_time_breakdown_s.map(|parts| parts.entries().map(|(_, seconds)| Some(seconds)));
    fields.extend(parts.unwrap_or([None; 8]).map(number));
    fields.push(word(&row.skipped));
    fields.join(",")
}
