//! Reads what hooks take, measured beside a launch of the same machine.

use steptime_models::Dimension;

use super::error::CatalogueError;
use super::reader::{Section, parse};
use crate::cluster::LaunchCost;
use crate::fact::Fact;
use crate::hooks::{HOOK_COSTS, HookCost};

const TEXT: &str = include_str!("../../catalog/hooks.toml");
/// Tables of libraries; keys of [`HOOK_COSTS`] begin with them.
const TABLES: [&str; 3] = ["fsdp1", "fsdp2", "deepspeed"];

/// What hooks take a host with these launches: as much more than where they were measured as its launches do.
pub(super) fn hooks_of(launch: &LaunchCost, facts: &mut Vec<Fact>) -> Result<HookCost, CatalogueError> {
    let document = parse(TEXT)?;
    let root = Section::root(TEXT, &document, &["launch", "fsdp1", "fsdp2", "deepspeed"])?;
    let mut found = Vec::new();
    let measured_s = root.quantity("launch", Dimension::Seconds, &mut found)?.value;
    let mut costs = [0.0; HOOK_COSTS.len()];
    for table in TABLES {
        let places = || {
            HOOK_COSTS
                .iter()
                .enumerate()
                .filter_map(|(place, name)| Some((place, name.strip_prefix(table)?.strip_prefix('_')?)))
        };
        let keys: Vec<&str> = places().map(|(_, key)| key).collect();
        let section = root.section(table, &keys)?;
        for (place, key) in places() {
            costs[place] = section.quantity(key, Dimension::Seconds, &mut found)?.value;
        }
    }
    facts.extend(found.into_iter().map(|fact| Fact { what: format!("hooks.{}", fact.what), ..fact }));
    Ok(HookCost::from_values(costs).scaled(launch.eager_forward_s / measured_s))
}
