//! `[[jobs]]`: other jobs on the same switches, whose traffic this one shares links with.

use std::sync::Arc;

use steptime_clusters::{Blueprint, Cluster, Topology};
use steptime_core::{NoObserver, World, WorldError, simulate};
use steptime_plans::{Lowered, Plan, PlanError, lower};

use crate::error::InputError;
use crate::files::Files;
use crate::report::Provenance;
use crate::scenario::{Job, Scenario};
use crate::section::{Section, tables};
use crate::tree::Node;

/// Most records of all jobs together.
const MOST_RECORDS: u64 = 1 << 26;

/// Reads the jobs beside a scenario's own, which `blueprint` and its cluster's places are those of.
pub(crate) fn read(
    root: &Node,
    files: &dyn Files,
    blueprint: Option<&Blueprint>,
) -> Result<Vec<Scenario>, InputError> {
    let top = Section::top(root)?;
    let listed = tables(&top, "jobs")?;
    if listed.is_empty() {
        return Ok(Vec::new());
    }
    let Some(blueprint) = blueprint.filter(|it| it.shape.is_some()) else {
        let message = "share links of a network with this one, which needs cluster.topology with a `kind`";
        return Err(top.conflict("jobs", message));
    };
    let mut taken = blueprint.at.clone();
    listed.iter().map(|table| job(Section::inner(table, "jobs")?, files, blueprint, &mut taken)).collect()
}

fn job(
    section: Section<'_>,
    files: &dyn Files,
    blueprint: &Blueprint,
    taken: &mut Vec<u32>,
) -> Result<Scenario, InputError> {
    let (path, _) =
        section.text("file")?.ok_or_else(|| section.missing("file", "a scenario, from this one's folder"))?;
    let text = files.read(&path).map_err(|message| section.conflict("file", message))?;
    let mut other = Scenario::read(&path, &text, &[], files)?;
    let refuse = |what: &str| section.conflict("file", format!("{path} {what}"));
    if other.variability.is_some() || !other.jobs.is_empty() {
        return Err(refuse(
            "has [variability] or [[jobs]] of its own, which a job beside another cannot have",
        ));
    }
    let Job::Gpus { cluster, plan, .. } = &mut other.job else {
        return Err(refuse("is about vehicles, which share no switches"));
    };
    if cluster.topology.is_some() {
        return Err(refuse("has a topology of its own; it gets this scenario's"));
    }
    let needed = "the places of the job's nodes, a list";
    let at = section.counts("at")?.ok_or_else(|| section.missing("at", needed))?;
    let at: Vec<u32> = at.into_iter().map(|place| u32::try_from(place).unwrap_or(u32::MAX)).collect();
    if at.len() as u64 != u64::from(cluster.nodes) {
        let message = format!("names {} places for the {} nodes of {path}", at.len(), cluster.nodes);
        return Err(section.conflict("at", message));
    }
    if let Some(twice) = at.iter().find(|place| taken.contains(place)) {
        return Err(section.conflict("at", format!("place {twice} is another job's")));
    }
    taken.extend(&at);
    if blueprint.inside.is_some() && cluster.gpus_per_node != blueprint.gpus_per_node {
        return Err(refuse("has nodes with another number of GPUs than the topology describes"));
    }
    let topology = Topology::new(&Blueprint { at, ..blueprint.clone() });
    let topology = topology.map_err(|error| section.conflict("at", error.to_string()))?;
    cluster.topology = Some(Arc::new(topology));
    plan.explicit = true;
    section.finish()?;
    Ok(other)
}

/// The world of a scenario's own job with the other jobs, each of which goes on for as long as this one's step.
pub(crate) fn together(scenario: &Scenario, lowered: &Lowered) -> Result<World, PlanError> {
    let own = lowered.world.ranks().len();
    let alone = simulate(&lowered.world, &mut NoObserver)?.end.picos();
    let mut others = Vec::new();
    for other in &scenario.jobs {
        let Job::Gpus { cluster, plan, workload } = &other.job else { continue };
        let plan = Plan { explicit: true, ..plan.as_ref().clone() };
        let world = lower(&other.model, cluster, &plan, workload)?.world;
        let step = simulate(&world, &mut NoObserver)?.end.picos().max(1);
        let times = u32::try_from(alone / step + 2).unwrap_or(u32::MAX);
        others.push((world, shared_links(cluster), times));
    }
    loop {
        let records = |(world, _, times): &(World, Vec<String>, u32)| {
            let of = |rank: &steptime_core::RankSpec| world.programs()[rank.program as usize].len() as u64;
            world.ranks().iter().map(of).sum::<u64>().saturating_mul(u64::from(*times))
        };
        let all: u64 = others.iter().map(records).fold(0, u64::saturating_add);
        if all > MOST_RECORDS {
            return Err(PlanError::TooManyRecords { records: all, limit: MOST_RECORDS });
        }
        let world = merged(lowered, &others)?;
        let outcome = simulate(&world, &mut NoObserver)?;
        let end = outcome.ranks[..own].iter().map(|rank| rank.end).max();
        let mut first = own;
        let mut short = false;
        for (other, _, times) in &mut others {
            let ranks = &outcome.ranks[first..first + other.ranks().len()];
            first += other.ranks().len();
            if ranks.iter().map(|rank| rank.end).max() < end {
                *times = times.saturating_mul(2);
                short = true;
            }
        }
        if !short {
            return Ok(world);
        }
    }
}

/// Names of the links behind the ports of a job's nodes.
fn shared_links(cluster: &Cluster) -> Vec<String> {
    let edges = cluster.topology.as_ref().map(|it| it.edges()).unwrap_or_default();
    let mut names: Vec<String> = edges.iter().map(|edge| edge.name.clone()).collect();
    names.sort_unstable();
    names
}

fn merged(lowered: &Lowered, others: &[(World, Vec<String>, u32)]) -> Result<World, WorldError> {
    let mut world = lowered.world.clone();
    for (number, (other, shared, times)) in others.iter().enumerate() {
        let again = other.varied(|_, program| program.repeated(*times), |link| link.bytes_per_second)?;
        let is_shared = |name: &str| shared.binary_search_by(|it| it.as_str().cmp(name)).is_ok();
        world = world.beside(&again, &format!("job {} ", number + 1), is_shared)?;
    }
    Ok(world)
}

/// What the report's numbers rest on besides.
pub(crate) fn provenance(scenario: &Scenario) -> Provenance {
    let names: Vec<&str> = scenario.jobs.iter().map(|job| job.name.as_str()).collect();
    Provenance {
        what: "other jobs".to_owned(),
        kind: "assumption".to_owned(),
        source: format!("{} run beside this job and begin a step when it does", names.join("; ")),
        error: "links are shared max-min fairly by flows; no congestion control is modelled".to_owned(),
    }
}

/// Refuses what is not modelled beside other jobs.
pub(crate) fn check(scenario: &Scenario) -> Result<(), InputError> {
    let Some(variability) = scenario.variability.as_ref().filter(|_| !scenario.jobs.is_empty()) else {
        return Ok(());
    };
    Err(variability.place.conflict("is not modelled together with [[jobs]]; leave one of them out"))
}
