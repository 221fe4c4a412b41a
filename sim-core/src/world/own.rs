//! Links that only one rank's meetings use.
//!
//! A flow starts when all members of its group have come. So on a link that is only used by groups of which rank `r` is a
//! member, every flow is one for which `r` has issued a rendezvous and got there. Let `r` be the only member of group `g`,
//! and let `r` get to a rendezvous of `g` at a moment when all rendezvous on those links that `r` issued before it are over.
//! If those that `r` issues after it begin when it is over, its flow is alone, and its end is known at once.
//!
//! The first condition is the engine's to watch. The second is read off the program: work on a stream comes after all that
//! the stream has done, after every event that the stream has waited for, and after whatever the host had waited for when it
//! issued the work. That holds whatever the times are.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Group, World};
use crate::program::{Kept, Kind, Numbered, Part, Program, Record};

/// A channel of a rank that is watched.
#[derive(PartialEq)]
struct Watched {
    channel: usize,
    /// The channels whose flows may be on its links, itself among them.
    beside: Vec<usize>,
}

impl World {
    /// Finds the groups of one member whose flows are alone wherever what their rank issued before is over; `sends` are the
    /// groups that send bytes.
    pub(super) fn find_own_links(&mut self, sends: &[bool]) {
        let groups = self.groups.iter().zip(sends);
        let may_be_alone = |(group, sends): (&Group, &bool)| {
            // Halves are exact: parts played one by one take as long, to the picosecond. Of thirds that is not said.
            let exact = group.parts.is_power_of_two();
            *sends && exact && group.members.len() == 1 && group.private_rate.is_none()
        };
        let candidates: Vec<bool> = groups.map(may_be_alone).collect();
        if !candidates.contains(&true) {
            return;
        }
        let mut users = vec![Vec::new(); self.links.len()];
        for (id, group) in self.groups.iter().enumerate().filter(|(id, _)| sends[*id]) {
            for hop in &group.path {
                users[hop.link.0 as usize].push(id as u32);
            }
        }
        self.classes = vec![Vec::new(); self.ranks.len()];
        // Neighbours that run one program mostly use their links in the same way.
        let mut last: Option<(u32, Vec<Watched>, Vec<bool>)> = None;
        for rank in 0..self.ranks.len() as u32 {
            let watched = self.watched(rank, &candidates, &users);
            if watched.is_empty() {
                continue;
            }
            let program = self.ranks[rank as usize].program;
            let overtaken = match last.take() {
                Some((of, alike, overtaken)) if of == program && alike == watched => overtaken,
                _ => self.overtaken(rank, &watched),
            };
            self.enter_own(rank, &watched, &overtaken);
            last = Some((program, watched, overtaken));
        }
    }

    /// A rank's channels to groups that it is alone in, on links that no group without it uses.
    fn watched(&self, rank: u32, candidates: &[bool], users: &[Vec<u32>]) -> Vec<Watched> {
        let groups = &self.ranks[rank as usize].groups;
        if !groups.iter().any(|group| candidates[group.0 as usize]) {
            return Vec::new();
        }
        let channels: BTreeMap<u32, usize> = groups.iter().zip(0..).map(|(id, at)| (id.0, at)).collect();
        // Most links of a rank are those of many of its groups: each is looked at once.
        let mut own: BTreeMap<u32, bool> = BTreeMap::new();
        // By channel: for which one it was last found to be beside it.
        let mut found = vec![usize::MAX; groups.len()];
        let mut watched = Vec::new();
        for (channel, group) in groups.iter().enumerate().filter(|(_, group)| candidates[group.0 as usize]) {
            let path = &self.groups[group.0 as usize].path;
            let mut is_own = |link: u32| {
                let users = &users[link as usize];
                *own.entry(link).or_insert_with(|| users.iter().all(|user| channels.contains_key(user)))
            };
            if !path.iter().all(|hop| is_own(hop.link.0)) {
                continue;
            }
            let users = path.iter().flat_map(|hop| &users[hop.link.0 as usize]);
            let mut beside: Vec<usize> = users.filter_map(|user| channels.get(user).copied()).collect();
            beside.retain(|&other| std::mem::replace(&mut found[other], channel) != channel);
            watched.push(Watched { channel, beside });
        }
        watched
    }

    /// Keeps what was found of a rank's channels.
    fn enter_own(&mut self, rank: u32, watched: &[Watched], overtaken: &[bool]) {
        let groups = self.ranks[rank as usize].groups.clone();
        let mut classes: Vec<u32> = (0..groups.len() as u32).collect();
        for (it, _) in watched.iter().zip(overtaken).filter(|(_, overtaken)| !**overtaken) {
            join(&mut classes, &it.beside);
            let group = groups[it.channel];
            self.groups[group.0 as usize].own_rate = Some(self.rate_alone(group));
        }
        if overtaken.contains(&false) {
            self.classes[rank as usize] = classes;
        }
    }

    /// By watched channel: whether a rendezvous beside it that is issued later may begin before it is over.
    fn overtaken(&self, rank: u32, watched: &[Watched]) -> Vec<bool> {
        let (program, channels) = (self.program_of(rank), self.ranks[rank as usize].groups.len());
        watched.chunks(WIDTH).flat_map(|watched| Order::overtaken(program, channels, watched)).collect()
    }
}

/// Gives some channels one class.
fn join(classes: &mut [u32], channels: &[usize]) {
    let Some(&first) = channels.first() else { return };
    for &channel in channels {
        let (from, to) = (classes[channel], classes[first]);
        if from != to {
            classes.iter_mut().filter(|class| **class == from).for_each(|class| *class = to);
        }
    }
}

/// Channels that are watched at once.
const WIDTH: usize = u64::BITS as usize;

/// Of which watched channels all rendezvous so far are surely over where a stream, the host or an event is: a bit each.
struct Order {
    /// By channel: the watched ones beside which it is, and itself if it is watched.
    beside: Vec<u64>,
    own: Vec<u64>,
    streams: Vec<u64>,
    host: u64,
    /// With the watched rendezvous that had been issued, of all channels.
    events: Vec<(u64, u32)>,
    issued: u32,
    /// By watched channel: how many had been issued with its last one.
    last: [u32; WIDTH],
    overtaken: u64,
}

/// A part of a program that may come again.
struct Often {
    /// Its records that say something of order.
    kept: Vec<Kept>,
    /// Whether it waits for no events from before it.
    alone: bool,
    /// Whether it has come before.
    again: bool,
    last: Option<Last>,
}

/// What a part did when it came last.
struct Last {
    /// What it found: of streams and the host.
    streams: Vec<u64>,
    host: u64,
    /// What it left.
    after: (Vec<u64>, u64),
    /// Its events, and how many watched rendezvous had been issued before it.
    events: Range<usize>,
    issued: u32,
    /// How many it issued, and of which channels which was the last.
    more: u32,
    met: Vec<(usize, u32)>,
}

impl Order {
    /// A part. One that finds what it found when it came last does the same again, and overtakes nobody anew.
    fn part(&mut self, part: &mut Often, shapes: &[Record]) {
        if let Some(last) = &mut part.last
            && last.host == self.host
            && last.streams == self.streams
        {
            let first = self.events.len();
            self.events.extend_from_within(last.events.clone());
            let between = self.issued - last.issued;
            self.events[first..].iter_mut().for_each(|(_, issued)| *issued += between);
            for &(place, number) in &last.met {
                self.last[place] = self.issued + number;
            }
            (last.events, last.issued) = (first..self.events.len(), self.issued);
            self.issued += last.more;
            self.streams.clone_from(&last.after.0);
            self.host = last.after.1;
            return;
        }
        // What comes a second time is worth being kept for the third.
        let kept = std::mem::replace(&mut part.again, true) && part.alone;
        let (streams, host) = (kept.then(|| self.streams.clone()), self.host);
        let (first, issued) = (self.events.len(), self.issued);
        for kept in &part.kept {
            self.step(&shapes[kept.shape as usize], kept.index);
        }
        let met = self.last.iter().enumerate().filter(|(_, last)| **last > issued);
        part.last = streams.map(|streams| Last {
            streams,
            host,
            after: (self.streams.clone(), self.host),
            events: first..self.events.len(),
            issued,
            more: self.issued - issued,
            met: met.map(|(place, last)| (place, last - issued)).collect(),
        });
    }

    /// By watched channel: whether a rendezvous beside it that a rank of so many channels issues later may begin before it
    /// is over.
    fn overtaken(program: &Program, channels: usize, watched: &[Watched]) -> Vec<bool> {
        let (mut beside, mut own) = (vec![0; channels], vec![0; channels]);
        for (place, it) in watched.iter().enumerate() {
            own[it.channel] |= 1 << place;
            it.beside.iter().for_each(|&channel| beside[channel] |= 1 << place);
        }
        let mut order = Self {
            beside,
            own,
            streams: vec![u64::MAX; program.streams().len()],
            host: u64::MAX,
            events: Vec::new(),
            issued: 0,
            last: [0; WIDTH],
            overtaken: 0,
        };
        let records = program.records();
        let orders = |it: &Record| match it.kind {
            Kind::Host | Kind::Kernel | Kind::Alloc | Kind::Free => false,
            Kind::Rendezvous => it.bytes() > 0 && (order.beside[it.channel()] | order.own[it.channel()]) != 0,
            Kind::Record | Kind::Wait | Kind::HostSync | Kind::HostWait => true,
        };
        // Most shapes are those of kernels.
        let wanted: Vec<bool> = records.shapes.iter().map(orders).collect();
        let kept = |part: &Part| {
            let kept = records.kept[part.range()].iter();
            kept.filter(|kept| wanted[kept.shape as usize]).copied()
        };
        if let [only] = program.parts() {
            kept(only).for_each(|kept| order.step(&records.shapes[kept.shape as usize], kept.index));
        } else {
            // Of parts that come again, once.
            let (mut numbered, mut of_parts) = (Numbered::default(), Vec::new());
            for part in program.parts() {
                let number = numbered.number(*part);
                if number == of_parts.len() {
                    let kept: Vec<Kept> = kept(part).collect();
                    let after = kept.iter().scan(0, |recorded, kept| {
                        let kind = records.shapes[kept.shape as usize].kind;
                        let outer = matches!(kind, Kind::Wait | Kind::HostWait) && kept.index > *recorded;
                        *recorded += u32::from(kind == Kind::Record);
                        Some(outer)
                    });
                    let alone = !after.into_iter().any(|outer| outer);
                    of_parts.push(Often { kept, alone, again: false, last: None });
                }
                order.part(&mut of_parts[number], records.shapes);
            }
        }
        (0..watched.len()).map(|place| order.overtaken >> place & 1 == 1).collect()
    }

    /// A record of a shape; a wait is for the event that is `back` back.
    fn step(&mut self, record: &Record, back: u32) {
        let stream = usize::from(record.stream);
        match record.kind {
            Kind::Rendezvous => self.rendezvous(record.channel(), stream),
            Kind::Record => self.events.push((self.streams[stream] | self.host, self.issued)),
            Kind::Wait => self.streams[stream] |= self.event(back),
            Kind::HostSync => self.host |= self.streams[stream],
            Kind::HostWait => self.host |= self.event(back),
            Kind::Host | Kind::Kernel | Kind::Alloc | Kind::Free => {}
        }
    }

    /// Of which channels all rendezvous so far are over when an event has happened.
    fn event(&self, back: u32) -> u64 {
        let (over, issued) = self.events[self.events.len() - back as usize];
        if issued == self.issued {
            return over;
        }
        let mut left = over;
        let mut since = 0;
        while left != 0 {
            let place = left.trailing_zeros();
            since |= u64::from(self.last[place as usize] > issued) << place;
            left &= left - 1;
        }
        over & !since
    }

    fn rendezvous(&mut self, channel: usize, stream: usize) {
        self.overtaken |= self.beside[channel] & !(self.streams[stream] | self.host);
        let own = self.own[channel];
        if own != 0 {
            self.issued += 1;
            self.last[own.trailing_zeros() as usize] = self.issued;
            self.streams.iter_mut().for_each(|over| *over &= !own);
            self.host &= !own;
            self.streams[stream] |= own;
        }
    }
}

#[cfg(test)]
mod tests;
