//! What crossed each link over a step, as a table.

use std::collections::BTreeMap;

use steptime_scenarios::Recording;

/// One line for every link: its ends where it is a link of a topology, what it can carry, what it carried, for how long,
/// and the share of the step that it would take at its full rate.
pub fn links_csv(recording: &Recording) -> String {
    let (world, end) = (&recording.world, recording.outcome.end);
    // Bytes, and the stretches in which any flow is under way: flows come by start.
    let mut carried: BTreeMap<u32, (u128, u64, u64)> = BTreeMap::new();
    for flow in recording.recorder.flows().iter().filter(|flow| flow.end <= end) {
        let group = &world.groups()[flow.group.0 as usize];
        for hop in group.path() {
            let bytes = u128::from(flow.bytes) * u128::from(hop.weight) / u128::from(group.parts().max(1));
            let (all, busy, until) = carried.entry(hop.link.0).or_default();
            *all += bytes;
            *busy += flow.end.picos().saturating_sub(flow.start.picos().max(*until));
            *until = (*until).max(flow.end.picos());
        }
    }
    let mut text = String::from("link,from,to,bytes_per_s,bytes,busy_s,load\n");
    for (number, link) in world.links().iter().enumerate() {
        let (bytes, busy, _) = carried.get(&(number as u32)).copied().unwrap_or_default();
        let (from, to) = ends(&link.name).unwrap_or_default();
        let most = link.bytes_per_second * end.seconds();
        let load = if most > 0.0 { bytes as f64 / most } else { 0.0 };
        let busy_s = busy as f64 / 1e12;
        text += &format!("{},{from},{to},{},{bytes},{busy_s},{load}\n", link.name, link.bytes_per_second);
    }
    text
}

/// Both ends of `leaf 0 > spine 1 (2)`.
fn ends(name: &str) -> Option<(&str, &str)> {
    let (from, to) = name.split_once('>')?;
    let to = to.split_once(" (").map_or(to, |(to, _)| to);
    Some((from.trim(), to.trim()))
}

#[cfg(test)]
mod tests {
    use super::ends;

    #[test]
    fn links_beside_each_other_have_the_same_ends() {
        assert_eq!(ends("leaf 0 > spine 1 (2)"), Some(("leaf 0", "spine 1")));
        assert_eq!(ends("gpu 0 out"), None);
    }
}
