//! The world of a job: its groups and links, and which rank runs which program.

use steptime_core::{GroupId, RankSpec, World, WorldBuilder};

use super::host_ports::{HostPath, HostPorts};
use super::placement::{Along, Ports};
use super::stage::{Meeting, StageProgram};
use super::{Job, PlayedRank, capacity};
use crate::classes;
use crate::error::PlanError;

impl Job<'_> {
    pub(super) fn world(
        &self,
        stages: Vec<Vec<StageProgram>>,
        folded: bool,
    ) -> Result<(World, Vec<PlayedRank>), PlanError> {
        let layout = self.layout;
        let mut world = WorldBuilder::new();
        world.host_class(classes::HOST);
        world.tail_class(classes::TAIL);
        let ports = Ports::new(&mut world, self.cluster, self.plan.context_method, layout, folded);
        let lanes = if folded { 1 } else { layout.lanes() };
        let mut meetings = Vec::with_capacity(stages.len());
        let mut programs = Vec::with_capacity(stages.len());
        // Records of each program that take a place in the launch queue, and the entries that they stand for.
        let mut pending = Vec::with_capacity(stages.len());
        for views in stages {
            // All views of a stage meet in the same groups.
            meetings.push(views.first().map(|stage| stage.meetings.clone()).unwrap_or_default());
            pending.push(
                views.iter().map(|stage| (stage.program.launches(), stage.entries)).collect::<Vec<_>>(),
            );
            programs.push(views.into_iter().map(|stage| world.program(stage.program)).collect::<Vec<_>>());
        }
        let has = |stage: u32, meeting| meetings[stage as usize].contains(&meeting);
        let stage_count = layout.pipeline;
        // Groups are made in a fixed order: by stage, then lane.
        let mut of_stage = Vec::new();
        let mut forward = Vec::new();
        let mut backward = Vec::new();
        for stage in 0..stage_count {
            of_stage.push(Along::ALL.map(|along| {
                if !has(stage, Meeting::Group(along)) {
                    return Vec::new();
                }
                self.lane_groups(&mut world, &ports, along, stage, lanes)
            }));
        }
        let wanted = |stage| has(stage, Meeting::Pieces);
        let pieces = self.piece_groups(&mut world, &ports, lanes, wanted);
        for boundary in 0..self.schedule.virtual_stages().saturating_sub(1) {
            let ((from, chunk), (to, _)) = (self.schedule.place(boundary), self.schedule.place(boundary + 1));
            let (down, up) = if from == to || self.schedule.after(boundary).is_none() {
                (Vec::new(), Vec::new())
            } else {
                let (from, to) = (from as u32, to as u32);
                let mut pair = |wanted: bool, from, to| -> Vec<_> {
                    let lanes = if wanted { 0..lanes } else { 0..0 };
                    lanes.map(|lane| ports.pair(&mut world, from, to, lane)).collect()
                };
                let down = pair(has(from, Meeting::ForwardOut(chunk)), from, to);
                (down, pair(has(from, Meeting::BackwardIn(chunk)), to, from))
            };
            forward.push(down);
            backward.push(up);
        }
        let embedding: Vec<_> = if has(0, Meeting::Embedding) {
            (0..lanes).map(|lane| ports.exchange(&mut world, 0, self.head_stage(), lane)).collect()
        } else {
            Vec::new()
        };
        let twofold = has(0, Meeting::Opposite);
        let opposite = if twofold { self.opposite_groups(&mut world, &ports, lanes) } else { Vec::new() };
        let hosts = self.host_groups(&mut world, &ports, (lanes, folded), &meetings);
        if let Some(fault) = ports.fault() {
            return Err(PlanError::Topology(fault));
        }
        let at = |stage: usize, chunk: usize| self.schedule.virtual_stage(stage, chunk as u32);
        let mut ranks = Vec::new();
        for stage in 0..stage_count {
            for lane in 0..lanes {
                let (s, r) = (stage as usize, lane as usize);
                let groups = meetings[s]
                    .iter()
                    .filter_map(|meeting| match meeting {
                        Meeting::Group(along) => of_stage[s][*along as usize].get(r).copied(),
                        Meeting::ForwardOut(chunk) => forward[at(s, *chunk)].get(r).copied(),
                        Meeting::BackwardIn(chunk) => backward[at(s, *chunk)].get(r).copied(),
                        Meeting::ForwardIn(chunk) => forward[at(s, *chunk) - 1].get(r).copied(),
                        Meeting::BackwardOut(chunk) => backward[at(s, *chunk) - 1].get(r).copied(),
                        Meeting::Embedding => embedding.get(r).copied(),
                        Meeting::Pieces => pieces[s].get(r).copied(),
                        Meeting::Opposite => opposite.get(s).and_then(|pairs| pairs.get(r)).copied(),
                        Meeting::Host(way) => {
                            hosts.get(s * lanes as usize + r).and_then(|ways| ways[*way as usize])
                        }
                    })
                    .collect();
                let multiplicity = layout.lanes() / lanes;
                let number = self.views.number(stage, lane);
                let view = &self.views.of_stage[s][number];
                let own = self.cluster.kind(view.kind);
                world.rank(RankSpec {
                    program: programs[s][number],
                    groups,
                    memory_capacity: Some(capacity(&own.gpu)),
                    queue_depth: queue_depth(own.host.launch_queue, pending[s][number]),
                    multiplicity,
                });
                let (kind, samples, count) = (view.kind, view.samples, view.count);
                let rank = u64::from(layout.number(stage, lane));
                let multiplicity = u64::from(multiplicity);
                ranks.push(PlayedRank { rank, stage: s, multiplicity, kind, samples, count });
            }
        }
        Ok((world.build()?, ranks))
    }

    /// Groups by stage and lane in which parts go round a ring: their meetings are counted by themselves.
    fn piece_groups(
        &self,
        world: &mut WorldBuilder,
        ports: &Ports<'_>,
        lanes: u32,
        wanted: impl Fn(u32) -> bool,
    ) -> Vec<Vec<GroupId>> {
        let of_stage = |stage| {
            if wanted(stage) {
                self.lane_groups(world, ports, Along::Tensor, stage, lanes)
            } else {
                Vec::new()
            }
        };
        (0..self.layout.pipeline).map(of_stage).collect()
    }

    /// Pairs by stage and lane of ranks that hold the same layers on opposite stages.
    fn opposite_groups(&self, world: &mut WorldBuilder, ports: &Ports<'_>, lanes: u32) -> Vec<Vec<GroupId>> {
        let stages = self.layout.pipeline;
        let mut groups = vec![Vec::new(); stages as usize];
        for stage in 0..stages / 2 {
            let other = stages - 1 - stage;
            let pairs: Vec<GroupId> =
                (0..lanes).map(|lane| ports.exchange(world, stage, other, lane)).collect();
            groups[other as usize].clone_from(&pairs);
            groups[stage as usize] = pairs;
        }
        groups
    }

    /// For each played rank the groups of the ways that it takes through its host, by their numbers; none where nothing is
    /// offloaded.
    fn host_groups(
        &self,
        world: &mut WorldBuilder,
        ports: &Ports<'_>,
        (lanes, folded): (u32, bool),
        meetings: &[Vec<Meeting>],
    ) -> Vec<[Option<GroupId>; HostPath::ALL.len()]> {
        let Some(mut hosts) = HostPorts::new(self.cluster, self.plan, self.layout, folded) else {
            return Vec::new();
        };
        let ranks = (0..self.layout.pipeline).flat_map(|stage| (0..lanes).map(move |lane| (stage, lane)));
        let ways = |at: (u32, u32)| {
            HostPath::ALL.map(|way| {
                let taken = meetings[at.0 as usize].contains(&Meeting::Host(way));
                taken.then(|| hosts.group(world, ports, way, at))
            })
        };
        ranks.map(ways).collect()
    }

    /// For each played lane of a stage the group that it belongs to; each group is made once.
    fn lane_groups(
        &self,
        world: &mut WorldBuilder,
        ports: &Ports<'_>,
        along: Along,
        stage: u32,
        lanes: u32,
    ) -> Vec<GroupId> {
        let mut made: Vec<Option<GroupId>> = vec![None; lanes as usize];
        (0..lanes)
            .map(|lane| {
                let first = self.layout.first_member(along, lane) as usize;
                let known = made[first];
                let group = known.unwrap_or_else(|| ports.group(world, along, stage, lane));
                made[first] = Some(group);
                group
            })
            .collect()
    }
}

/// Records of a program that may be pending: as many as stand for the entries that the launch queue has room for, on average
/// over the program. The same whatever is asked about memory.
fn queue_depth(limit: u32, (records, entries): (u32, u64)) -> u32 {
    if entries <= u64::from(records) {
        return limit;
    }
    let depth = u128::from(limit) * u128::from(records) / u128::from(entries);
    u32::try_from(depth).unwrap_or(limit).max(1)
}
