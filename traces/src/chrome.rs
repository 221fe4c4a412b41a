//! Chrome's trace event format, which Perfetto's viewer reads: JSON with one event a line.
//!
//! Times are microseconds with the picoseconds as fraction. Ranks are processes, streams threads.

use std::fmt::Write;

use crate::tracks::{Counter, Slice, Track, TrackGroup, Tracks};

/// The trace as JSON.
pub fn chrome_json(tracks: &Tracks) -> String {
    let mut out = Writer { text: String::from("{\"displayTimeUnit\":\"ms\",\"otherData\":{"), first: true };
    let facts =
        [("name".to_owned(), tracks.name.clone()), ("makespan_us".to_owned(), micros(tracks.makespan))];
    for (at, (name, text)) in facts.iter().chain(&tracks.facts).enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let _ = write!(out.text, "{comma}{}:{}", quoted(name), quoted(text));
    }
    out.text.push_str("},\"traceEvents\":[\n");
    for (number, group) in tracks.groups.iter().enumerate() {
        out.group(number + 1, group, tracks.makespan);
    }
    out.text.push_str("\n]}\n");
    out.text
}

struct Writer {
    text: String,
    first: bool,
}

impl Writer {
    /// Begins the next event.
    fn event(&mut self) -> &mut String {
        if !self.first {
            self.text.push_str(",\n");
        }
        self.first = false;
        &mut self.text
    }

    fn group(&mut self, pid: usize, group: &TrackGroup, makespan: u64) {
        let name = quoted(&group.name);
        let _ = write!(
            self.event(),
            "{{\"ph\":\"M\",\"pid\":{pid},\"name\":\"process_name\",\"args\":{{\"name\":{name}}}}}"
        );
        let _ = write!(
            self.event(),
            "{{\"ph\":\"M\",\"pid\":{pid},\"name\":\"process_sort_index\",\"args\":{{\"sort_index\":{pid}}}}}"
        );
        for (number, track) in group.tracks.iter().enumerate() {
            self.track(pid, number + 1, track, makespan);
        }
        for counter in &group.counters {
            self.counter(pid, counter);
        }
    }

    fn track(&mut self, pid: usize, tid: usize, track: &Track, makespan: u64) {
        let (busy, idle) = (micros(track.busy), micros(makespan.saturating_sub(track.busy)));
        let name = quoted(&track.name);
        let _ = write!(
            self.event(),
            "{{\"ph\":\"M\",\"pid\":{pid},\"tid\":{tid},\"name\":\"thread_name\",\"args\":{{\"name\":{name},\"busy_us\":{busy},\"idle_us\":{idle}}}}}"
        );
        let _ = write!(
            self.event(),
            "{{\"ph\":\"M\",\"pid\":{pid},\"tid\":{tid},\"name\":\"thread_sort_index\",\"args\":{{\"sort_index\":{tid}}}}}"
        );
        for slice in &track.slices {
            self.slice(pid, tid, slice);
        }
    }

    fn slice(&mut self, pid: usize, tid: usize, slice: &Slice) {
        let (name, category) = (quoted(&slice.name), quoted(&slice.category));
        let (start, length) = (micros(slice.start), micros(slice.end - slice.start));
        let text = self.event();
        let _ = write!(
            text,
            "{{\"ph\":\"X\",\"pid\":{pid},\"tid\":{tid},\"ts\":{start},\"dur\":{length},\"name\":{name},\"cat\":{category}"
        );
        let facts = [("micro_batch", slice.micro_batch), ("bytes", slice.bytes)];
        let facts: Vec<String> =
            facts.iter().filter_map(|(key, value)| value.map(|value| format!("\"{key}\":{value}"))).collect();
        if !facts.is_empty() {
            let _ = write!(text, ",\"args\":{{{}}}", facts.join(","));
        }
        text.push('}');
        let Some(arrow) = slice.arrow else { return };
        // An arrow is bound to the slice that is open at its moment: the last picosecond of the receiving one.
        let (phase, at, bound) =
            if arrow.leaves { ("s", slice.start, "") } else { ("f", slice.end - 1, ",\"bp\":\"e\"") };
        let (at, number) = (micros(at), arrow.number);
        let _ = write!(
            self.event(),
            "{{\"ph\":\"{phase}\",\"id\":{number},\"pid\":{pid},\"tid\":{tid},\"ts\":{at},\"name\":\"send\",\"cat\":\"send\"{bound}}}"
        );
    }

    fn counter(&mut self, pid: usize, counter: &Counter) {
        let name = quoted(&counter.name);
        for (at, values) in &counter.points {
            let at = micros(*at);
            let parts: Vec<String> = counter
                .series
                .iter()
                .zip(values)
                .map(|(name, value)| format!("{}:{value}", quoted(name)))
                .collect();
            let parts = parts.join(",");
            let _ = write!(
                self.event(),
                "{{\"ph\":\"C\",\"pid\":{pid},\"ts\":{at},\"name\":{name},\"args\":{{{parts}}}}}"
            );
        }
    }
}

/// Picoseconds as microseconds, without a fraction of zeros.
fn micros(picos: u64) -> String {
    let (whole, rest) = (picos / 1_000_000, picos % 1_000_000);
    if rest == 0 {
        return whole.to_string();
    }
    let text = format!("{whole}.{rest:06}");
    text.trim_end_matches('0').to_owned()
}

/// A JSON string.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::micros;

    #[test]
    fn microseconds_keep_every_picosecond() {
        assert_eq!(
            [0, 1_000_000, 1, 1_500_000, 12_345_678].map(micros),
            ["0", "1", "0.000001", "1.5", "12.345678"]
        );
    }
}
