//! The world: programs, the ranks that run them, the groups they meet in, and the links between them.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use crate::program::{CLASSES, Class, Program};
use crate::time::SimTime;

mod own;

/// A link of a [`World`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u32);

/// A group of a [`World`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}", self.0)
    }
}

/// A link whose bandwidth is shared by the flows that cross it.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Name, for messages.
    pub name: String,
    /// Capacity in bytes per second.
    pub bytes_per_second: f64,
    /// Time that every flow over it takes on top, once.
    pub latency: SimTime,
}

/// A link on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkUse {
    /// The link.
    pub link: LinkId,
    /// How many equal flows over the link one flow of the group stands for; of a group whose bytes are divided into
    /// parts, how many parts cross the link.
    pub weight: u32,
}

/// Ranks that meet, and the path that their bytes cross.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    members: Vec<u32>,
    path: Vec<LinkUse>,
    /// Equal parts that its bytes are divided into.
    parts: u32,
    latency: SimTime,
    /// The rate of its flows in bytes per second if no other flow can ever be on its links at the same time.
    pub(crate) private_rate: Option<f64>,
    /// The same if no other flow can be on its links while nothing is under way that its rank has issued before.
    pub(crate) own_rate: Option<f64>,
}

impl Group {
    /// Indices of the ranks that list it, rising.
    pub fn members(&self) -> &[u32] {
        &self.members
    }

    /// The links its flows cross.
    pub fn path(&self) -> &[LinkUse] {
        &self.path
    }

    /// Equal parts that its bytes are divided into; the weight of a link says how many of them cross it.
    pub fn parts(&self) -> u32 {
        self.parts
    }

    /// Sum of the latencies of its links.
    pub fn latency(&self) -> SimTime {
        self.latency
    }
}

/// A rank to be.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RankSpec {
    /// Index of its program, from [`WorldBuilder::program`].
    pub program: u32,
    /// Its groups, indexed by the program's [`crate::Channel`]s.
    pub groups: Vec<GroupId>,
    /// Bytes it may hold; `None` is no limit.
    pub memory_capacity: Option<u64>,
    /// The most kernels and rendezvous its host may have in flight on one stream; the host waits to issue one
    /// until the one that many before it on the stream has completed. 0 is no limit.
    pub queue_depth: u32,
    /// How many identical ranks it stands for; only reported.
    pub multiplicity: u32,
}

/// Everything that a simulation plays, checked.
#[derive(Clone, Debug)]
pub struct World {
    programs: Vec<Program>,
    ranks: Vec<RankSpec>,
    groups: Vec<Group>,
    links: Vec<Link>,
    host_class: Class,
    tail_class: Class,
    /// By rank and channel: channels of one class may send over the same links. Empty for a rank that none of its groups
    /// needs to know it of, or altogether.
    classes: Vec<Vec<u32>>,
}

impl World {
    /// By channel of a rank: its class, of those that may send over the same links; empty where that does not matter.
    pub(crate) fn classes(&self, rank: u32) -> &[u32] {
        self.classes.get(rank as usize).map_or(&[], Vec::as_slice)
    }

    /// Bytes per second of a group's flow that has its links to itself.
    fn rate_alone(&self, group: GroupId) -> f64 {
        let group = &self.groups[group.0 as usize];
        let share = |hop: &LinkUse| self.links[hop.link.0 as usize].bytes_per_second / f64::from(hop.weight);
        group.path.iter().map(share).fold(f64::INFINITY, f64::min) * f64::from(group.parts)
    }

    /// The programs, indexed by [`RankSpec::program`].
    pub fn programs(&self) -> &[Program] {
        &self.programs
    }

    /// The ranks.
    pub fn ranks(&self) -> &[RankSpec] {
        &self.ranks
    }

    /// The groups, indexed by [`GroupId`].
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The links, indexed by [`LinkId`].
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Class of the host's issuing, and of idle time because the host issued late.
    pub fn host_class(&self) -> Class {
        self.host_class
    }

    /// Class of the idle time after a rank's last operation.
    pub fn tail_class(&self) -> Class {
        self.tail_class
    }

    /// Records that all ranks do together.
    pub(crate) fn operations(&self) -> u64 {
        let lengths: Vec<u64> = self.programs.iter().map(|program| program.len() as u64).collect();
        self.ranks.iter().map(|rank| lengths[rank.program as usize]).sum()
    }

    /// The program of a rank of this world.
    pub(crate) fn program_of(&self, rank: u32) -> &Program {
        &self.programs[self.ranks[rank as usize].program as usize]
    }
}

impl World {
    /// The same world with a program of its own for every rank, and with links of other rates.
    ///
    /// `program` gets a rank's number and program, `rate` a link; the results take their places.
    ///
    /// # Errors
    /// [`WorldError`] as of [`WorldBuilder::build`].
    pub fn varied(
        &self,
        mut program: impl FnMut(u32, &Program) -> Program,
        mut rate: impl FnMut(&Link) -> f64,
    ) -> Result<Self, WorldError> {
        let ranks = self.ranks.iter().zip(0..);
        let programs = ranks.map(|(_, rank)| program(rank, self.program_of(rank))).collect();
        let ranks = self.ranks.iter().zip(0..).map(|(spec, program)| RankSpec { program, ..spec.clone() });
        let links = self.links.iter().map(|link| Link { bytes_per_second: rate(link), ..link.clone() });
        let (ranks, links) = (ranks.collect(), links.collect());
        WorldBuilder::again(Self { programs, ranks, links, ..self.clone() }).build()
    }
}

impl World {
    /// The world with the ranks of another behind its own, on the links that `shared` says they share: those have the
    /// same names in both. All other links of the other world get `prefix` before their names.
    ///
    /// # Errors
    /// [`WorldError`] as of [`WorldBuilder::build`].
    pub fn beside(
        &self,
        other: &Self,
        prefix: &str,
        shared: impl Fn(&str) -> bool,
    ) -> Result<Self, WorldError> {
        let mut world = self.clone();
        let mut known: BTreeMap<String, u32> = BTreeMap::new();
        for (link, number) in self.links.iter().zip(0..).filter(|(link, _)| shared(&link.name)) {
            known.insert(link.name.clone(), number);
        }
        let mut links = Vec::with_capacity(other.links.len());
        for link in &other.links {
            let found = known.get(&link.name).copied();
            links.push(found.unwrap_or_else(|| {
                let name =
                    if shared(&link.name) { link.name.clone() } else { format!("{prefix}{}", link.name) };
                world.links.push(Link { name, ..link.clone() });
                world.links.len() as u32 - 1
            }));
        }
        let (programs, groups) = (world.programs.len() as u32, world.groups.len() as u32);
        world.programs.extend(other.programs.iter().cloned());
        for group in &other.groups {
            let path =
                group.path.iter().map(|hop| LinkUse { link: LinkId(links[hop.link.0 as usize]), ..*hop });
            world.groups.push(Group { path: path.collect(), ..group.clone() });
        }
        for rank in &other.ranks {
            world.ranks.push(RankSpec {
                program: rank.program + programs,
                groups: rank.groups.iter().map(|group| GroupId(group.0 + groups)).collect(),
                ..rank.clone()
            });
        }
        WorldBuilder::again(world).build()
    }
}

/// What is wrong with a world.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum WorldError {
    /// A link without a positive, finite bandwidth.
    #[error("link {link} has {bytes_per_second} bytes/s; a bandwidth is positive and finite")]
    Bandwidth {
        /// The link's name.
        link: String,
        /// The bandwidth given.
        bytes_per_second: f64,
    },
    /// A path over a link that does not exist.
    #[error("the path of {group} names link {link}, which does not exist")]
    UnknownLink {
        /// The group.
        group: GroupId,
        /// The number given.
        link: u32,
    },
    /// A path that names a link twice; its weight says how often it is used.
    #[error("the path of {group} names link {link} twice; a weight of 2 says so")]
    LinkTwice {
        /// The group.
        group: GroupId,
        /// The link's name.
        link: String,
    },
    /// A link used zero times.
    #[error("the path of {group} uses link {link} with weight 0")]
    ZeroWeight {
        /// The group.
        group: GroupId,
        /// The link's name.
        link: String,
    },
    /// The latencies of a path overflow.
    #[error("the latencies of the path of {group} overflow")]
    Latency {
        /// The group.
        group: GroupId,
    },
    /// A rank of a program that does not exist.
    #[error("rank {rank} runs program {program}, which does not exist")]
    UnknownProgram {
        /// The rank.
        rank: u32,
        /// The number given.
        program: u32,
    },
    /// A rank in a group that does not exist.
    #[error("rank {rank} lists {group}, which does not exist")]
    UnknownGroup {
        /// The rank.
        rank: u32,
        /// The number given.
        group: GroupId,
    },
    /// A rank that lists a group more than once.
    #[error("rank {rank} lists {group} more than once")]
    GroupTwice {
        /// The rank.
        rank: u32,
        /// The group.
        group: GroupId,
    },
    /// A rank whose groups do not match its program's channels.
    #[error("rank {rank} lists {groups} groups, but program {program} has {channels} channels")]
    Channels {
        /// The rank.
        rank: u32,
        /// How many groups it lists.
        groups: usize,
        /// The program's name.
        program: String,
        /// How many channels the program has.
        channels: usize,
    },
    /// A group that another number of ranks list than it has members.
    #[error("{group} has {members} members, but {listed} ranks list it")]
    Members {
        /// The group.
        group: GroupId,
        /// Members declared.
        members: u32,
        /// Ranks that list it.
        listed: usize,
    },
    /// A rank that sends bytes over an empty path.
    #[error("rank {rank} sends bytes in {group}, which has no path")]
    NoPath {
        /// The rank.
        rank: u32,
        /// The group.
        group: GroupId,
    },
    /// A class past the last.
    #[error("class {class} does not exist; the last is 15")]
    Class {
        /// The number given.
        class: u8,
    },
}

/// Puts a world together; [`WorldBuilder::build`] checks it.
#[derive(Clone, Debug)]
pub struct WorldBuilder {
    world: World,
    declared: Vec<u32>,
}

impl Default for WorldBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl WorldBuilder {
    /// A world of nothing.
    pub fn new() -> Self {
        let world = World {
            programs: Vec::new(),
            ranks: Vec::new(),
            groups: Vec::new(),
            links: Vec::new(),
            host_class: Class(0),
            tail_class: Class(0),
            classes: Vec::new(),
        };
        Self { world, declared: Vec::new() }
    }

    /// A built world to be checked once more: its groups are entered anew.
    fn again(mut world: World) -> Self {
        let declared = world.groups.iter().map(|group| group.members.len() as u32).collect();
        world.classes.clear();
        for group in &mut world.groups {
            group.members.clear();
            (group.latency, group.private_rate, group.own_rate) = (SimTime::ZERO, None, None);
        }
        Self { world, declared }
    }

    /// Adds a program and returns its index.
    pub fn program(&mut self, program: Program) -> u32 {
        self.world.programs.push(program);
        self.world.programs.len() as u32 - 1
    }

    /// Adds a link of a capacity in bytes per second.
    pub fn link(&mut self, name: &str, bytes_per_second: f64, latency: SimTime) -> LinkId {
        self.world.links.push(Link { name: name.to_owned(), bytes_per_second, latency });
        LinkId(self.world.links.len() as u32 - 1)
    }

    /// Adds a group of a number of members whose bytes cross `path`. A group of one member, which stands
    /// for equal ones, meets itself at once and still sends its bytes.
    pub fn group(&mut self, members: u32, path: Vec<LinkUse>) -> GroupId {
        self.divided_group(members, path, 1)
    }

    /// The same whose bytes are divided into equal parts, one or more, that take ways of their own and end together: a
    /// link of weight `w` carries `w / parts` of the bytes. Rates are fair among parts.
    pub fn divided_group(&mut self, members: u32, path: Vec<LinkUse>, parts: u32) -> GroupId {
        self.declared.push(members);
        let (latency, parts) = (SimTime::ZERO, parts.max(1));
        let (members, private_rate, own_rate) = (Vec::new(), None, None);
        self.world.groups.push(Group { members, path, parts, latency, private_rate, own_rate });
        GroupId(self.world.groups.len() as u32 - 1)
    }

    /// Adds a rank and returns its index.
    pub fn rank(&mut self, rank: RankSpec) -> u32 {
        self.world.ranks.push(rank);
        self.world.ranks.len() as u32 - 1
    }

    /// Class of the host's issuing, and of idle time because the host issued late. Class 0 if not set.
    pub fn host_class(&mut self, class: Class) {
        self.world.host_class = class;
    }

    /// Class of the idle time between a rank's last operation and the end of the simulation. Class 0 if not
    /// set.
    pub fn tail_class(&mut self, class: Class) {
        self.world.tail_class = class;
    }

    /// The finished world.
    ///
    /// # Errors
    /// [`WorldError`] names the first thing that does not fit together.
    pub fn build(mut self) -> Result<World, WorldError> {
        for class in [self.world.host_class.0, self.world.tail_class.0] {
            if usize::from(class) >= CLASSES {
                return Err(WorldError::Class { class });
            }
        }
        self.check_links()?;
        self.check_paths()?;
        for rank in 0..self.world.ranks.len() as u32 {
            self.enter(rank)?;
        }
        for (group, &members) in self.declared.iter().enumerate() {
            let listed = self.world.groups[group].members.len();
            if listed != members as usize {
                return Err(WorldError::Members { group: GroupId(group as u32), members, listed });
            }
        }
        self.find_private_groups();
        Ok(self.world)
    }

    fn check_links(&self) -> Result<(), WorldError> {
        for Link { name, bytes_per_second, .. } in &self.world.links {
            if !(bytes_per_second.is_finite() && *bytes_per_second > 0.0) {
                let (link, bytes_per_second) = (name.clone(), *bytes_per_second);
                return Err(WorldError::Bandwidth { link, bytes_per_second });
            }
        }
        Ok(())
    }

    fn check_paths(&mut self) -> Result<(), WorldError> {
        // The last group, counted from 1, whose path named the link.
        let mut named_by = vec![0_u32; self.world.links.len()];
        for (index, group) in self.world.groups.iter_mut().enumerate() {
            let id = GroupId(index as u32);
            for hop in &group.path {
                let Some(link) = self.world.links.get(hop.link.0 as usize) else {
                    return Err(WorldError::UnknownLink { group: id, link: hop.link.0 });
                };
                if hop.weight == 0 {
                    return Err(WorldError::ZeroWeight { group: id, link: link.name.clone() });
                }
                let last = &mut named_by[hop.link.0 as usize];
                if *last == id.0 + 1 {
                    return Err(WorldError::LinkTwice { group: id, link: link.name.clone() });
                }
                *last = id.0 + 1;
                group.latency =
                    group.latency.checked_add(link.latency).map_err(|_| WorldError::Latency { group: id })?;
            }
        }
        Ok(())
    }

    /// Enters a rank into its groups.
    fn enter(&mut self, rank: u32) -> Result<(), WorldError> {
        let spec = &self.world.ranks[rank as usize];
        let Some(program) = self.world.programs.get(spec.program as usize) else {
            return Err(WorldError::UnknownProgram { rank, program: spec.program });
        };
        let uses = program.channel_uses();
        if uses.len() != spec.groups.len() {
            return Err(WorldError::Channels {
                rank,
                groups: spec.groups.len(),
                program: program.name().to_owned(),
                channels: uses.len(),
            });
        }
        for (&id, uses) in spec.groups.iter().zip(uses) {
            let Some(group) = self.world.groups.get_mut(id.0 as usize) else {
                return Err(WorldError::UnknownGroup { rank, group: id });
            };
            // Ranks enter in order, so a second listing finds the rank at the end.
            if group.members.last() == Some(&rank) {
                return Err(WorldError::GroupTwice { rank, group: id });
            }
            if uses.sends && group.path.is_empty() {
                return Err(WorldError::NoPath { rank, group: id });
            }
            group.members.push(rank);
        }
        Ok(())
    }

    /// A flow of a group can share no link with another flow if no other group uses its links and some
    /// member meets in it on one stream only, so that its meetings follow each other.
    fn find_private_groups(&mut self) {
        let world = &mut self.world;
        let mut sends = vec![false; world.groups.len()];
        let mut serial = vec![false; world.groups.len()];
        for spec in &world.ranks {
            let uses = world.programs[spec.program as usize].channel_uses();
            for (id, uses) in spec.groups.iter().zip(uses) {
                sends[id.0 as usize] |= uses.sends;
                serial[id.0 as usize] |= !uses.overlaps;
            }
        }
        let mut users = vec![0_u32; world.links.len()];
        for (group, _) in world.groups.iter().zip(&sends).filter(|(_, sends)| **sends) {
            for hop in &group.path {
                users[hop.link.0 as usize] += 1;
            }
        }
        let private: Vec<u32> = (0..world.groups.len() as u32)
            .filter(|&id| {
                let mut path = world.groups[id as usize].path.iter();
                let alone = path.all(|hop| users[hop.link.0 as usize] == 1);
                sends[id as usize] && serial[id as usize] && alone
            })
            .collect();
        for id in private {
            world.groups[id as usize].private_rate = Some(world.rate_alone(GroupId(id)));
        }
        world.find_own_links(&sends);
    }
}

#[cfg(test)]
mod tests;
