//! Stretches that nothing from before holds up.
//!
//! Where a stretch finds the host and all other streams no later than the primary one, what it does is the same each time,
//! counted from the primary stream's clock: when its kernels and transfers run, and what those lose that run side by side.
//! What has to be no later, and by how much, is found with it.

use super::alone::{Busy, duration, share_time};
use super::contention::Load;
use super::{Kind, Part, Records};

/// A time from before a stretch.
#[derive(Clone, Copy, Debug)]
enum Old {
    /// A stream's clock.
    Stream(usize),
    /// The event that a record waits for, which is counted from the stretch's first, and how many the stretch has recorded
    /// before it.
    Event(u32, u32),
}

/// A moment of the stretch.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after the primary stream's clock.
    Since(u64),
    Old(Old),
}

/// The host's clock.
#[derive(Clone, Copy, Debug)]
enum Host {
    /// So long after what it was.
    Later(u64),
    /// So long after the primary stream's clock.
    Since(u64),
}

/// What a stretch does. Times are counted from the primary stream's clock before it.
#[derive(Debug)]
pub(super) struct Closed {
    /// Kernels of the primary stream that take time, and what they become longer by. Records are counted from the first.
    pub(super) kernels: Vec<Busy>,
    /// Transfers that become longer.
    pub(super) transfers: Vec<Busy>,
    /// The primary stream's clock after it.
    pub(super) clock: u64,
    host: Host,
    /// Other streams' clocks after it, of those that it moves.
    clocks: Vec<(usize, u64)>,
    events: Vec<Moment>,
    /// The host has to be earlier than the primary stream by so much, if not more.
    lead: u64,
    /// What may not be later than the primary stream's clock, and what not than the host's.
    by_clock: Vec<Old>,
    by_host: Vec<Old>,
    /// Latest of all its times.
    latest: u64,
}

/// The clocks of a rank.
pub(super) struct Clocks {
    pub(super) host: u64,
    /// When each stream has done what it was given.
    pub(super) streams: Vec<u64>,
    pub(super) events: Vec<u64>,
}

impl Clocks {
    fn old(&self, old: Old, first: u32, records: Records<'_>) -> u64 {
        match old {
            Old::Stream(stream) => self.streams[stream],
            Old::Event(at, recorded) => {
                let back = records.kept[(first + at) as usize].index.saturating_sub(recorded);
                self.event(back)
            }
        }
    }

    /// When the event that is so many back happened.
    pub(super) fn event(&self, back: u32) -> u64 {
        let event = self.events.len().checked_sub(back as usize);
        event.and_then(|event| self.events.get(event)).copied().unwrap_or(0)
    }
}

/// A stretch that is played with what is known of it.
struct Playing<'a> {
    loads: &'a [Option<Load>],
    host: Host,
    /// None of those that are what they were.
    clocks: Vec<Option<u64>>,
    events: Vec<Moment>,
    lead: u64,
    by_clock: Vec<Old>,
    by_host: Vec<Old>,
    latest: u64,
    kernels: Vec<Busy>,
    transfers: Vec<Vec<Busy>>,
}

impl Closed {
    /// What a stretch does; none where that depends on more than the primary stream's clock, or where a transfer goes on
    /// after it.
    pub(super) fn of(
        part: Part,
        records: Records<'_>,
        streams: usize,
        loads: &[Option<Load>],
    ) -> Option<Self> {
        let mut clocks = vec![None; streams];
        *clocks.first_mut()? = Some(0);
        let mut playing = Playing {
            loads,
            host: Host::Later(0),
            clocks,
            events: Vec::new(),
            lead: 0,
            by_clock: Vec::new(),
            by_host: Vec::new(),
            latest: 0,
            kernels: Vec::with_capacity(part.len() / 2),
            transfers: vec![Vec::new(); streams],
        };
        for (at, (record, index)) in (0..).zip(records.shapes_of(part.range())) {
            let busy = Busy { part: 0, record: at, start: 0, end: 0, more: 0 };
            playing.step(busy, super::Record { index, ..*record })?;
        }
        let Playing { mut kernels, mut transfers, clocks, .. } = playing;
        let clock = clocks.first().copied().flatten()?;
        if transfers.iter().flatten().any(|it| it.end > clock) {
            return None;
        }
        for transfers in &mut transfers {
            share_time(&mut kernels, transfers, part.first, records, loads);
        }
        let moved = clocks.iter().enumerate().skip(1);
        Some(Self {
            kernels,
            transfers: transfers.into_iter().flatten().filter(|it| it.more > 0).collect(),
            clock,
            host: playing.host,
            clocks: moved.filter_map(|(stream, clock)| Some((stream, (*clock)?))).collect(),
            events: playing.events,
            lead: playing.lead,
            by_clock: playing.by_clock,
            by_host: playing.by_host,
            latest: playing.latest,
        })
    }

    /// Moves clocks through it when it begins at record `first`; `false`, and nothing moves, where something from before
    /// holds it up.
    pub(super) fn play(&self, first: u32, records: Records<'_>, clocks: &mut Clocks) -> bool {
        let (host, clock) = (clocks.host, clocks.streams[0]);
        let ahead = host.checked_add(self.lead).is_some_and(|host| host <= clock);
        let done = |it: &Old, by: u64| clocks.old(*it, first, records) <= by;
        let free = ahead
            && clock.checked_add(self.latest).is_some()
            && self.by_clock.iter().all(|it| done(it, clock))
            && self.by_host.iter().all(|it| done(it, host));
        if !free {
            return false;
        }
        let after = match self.host {
            Host::Later(time) => host.checked_add(time),
            Host::Since(time) => Some(clock + time),
        };
        let Some(after) = after else { return false };
        for event in &self.events {
            let moment = match *event {
                Moment::Since(time) => clock + time,
                Moment::Old(old) => clocks.old(old, first, records),
            };
            clocks.events.push(moment);
        }
        for &(stream, time) in &self.clocks {
            clocks.streams[stream] = clock + time;
        }
        (clocks.host, clocks.streams[0]) = (after, clock + self.clock);
        true
    }
}

impl Playing<'_> {
    /// None where it is not known what a record does.
    fn step(&mut self, busy: Busy, record: super::Record) -> Option<()> {
        let stream = usize::from(record.stream);
        match record.kind {
            Kind::Alloc | Kind::Free => {}
            Kind::Host => self.host_works(record.time)?,
            Kind::Kernel => {
                self.host_works(record.extra)?;
                let busy = self.run(stream, record.time, busy)?;
                if stream == 0 && record.time > 0 {
                    self.kernels.push(busy);
                }
            }
            Kind::Rendezvous => {
                if let Some(duration) = duration(&record, self.loads) {
                    let busy = self.run(stream, duration, busy)?;
                    if stream != 0 {
                        self.transfers.get_mut(stream)?.push(busy);
                    }
                }
            }
            Kind::Record => {
                let clock = *self.clocks.get(stream)?;
                self.events.push(clock.map_or(Moment::Old(Old::Stream(stream)), Moment::Since));
            }
            Kind::Wait => {
                let event = self.event(busy.record, record.index);
                self.wait(stream, event)?;
            }
            Kind::HostSync => {
                let clock = *self.clocks.get(stream)?;
                self.host_waits(clock.map_or(Moment::Old(Old::Stream(stream)), Moment::Since));
            }
            Kind::HostWait => {
                let event = self.event(busy.record, record.index);
                self.host_waits(event);
            }
        }
        Some(())
    }

    fn event(&self, at: u32, back: u32) -> Moment {
        let event = self.events.len().checked_sub(back as usize).and_then(|event| self.events.get(event));
        event.copied().unwrap_or(Moment::Old(Old::Event(at, self.events.len() as u32)))
    }

    fn host_works(&mut self, time: u64) -> Option<()> {
        self.host = match self.host {
            Host::Later(before) => Host::Later(before.checked_add(time)?),
            Host::Since(before) => Host::Since(self.moment(before.checked_add(time)?)),
        };
        Some(())
    }

    /// A time of the stretch.
    fn moment(&mut self, time: u64) -> u64 {
        self.latest = self.latest.max(time);
        time
    }

    /// The later of the host's clock and a moment.
    fn after_host(&mut self, moment: u64) -> u64 {
        match self.host {
            Host::Since(host) => moment.max(host),
            Host::Later(host) => {
                self.lead = self.lead.max(host.saturating_sub(moment));
                moment
            }
        }
    }

    fn run(&mut self, stream: usize, time: u64, busy: Busy) -> Option<Busy> {
        let start = match (*self.clocks.get(stream)?, self.host) {
            (Some(clock), _) => self.after_host(clock),
            (None, Host::Since(host)) => {
                self.by_clock.push(Old::Stream(stream));
                host
            }
            (None, Host::Later(_)) => return None,
        };
        let end = self.moment(start.checked_add(time)?);
        self.clocks[stream] = Some(end);
        Some(Busy { start, end, ..busy })
    }

    fn wait(&mut self, stream: usize, event: Moment) -> Option<()> {
        let clock = self.clocks.get_mut(stream)?;
        match (*clock, event) {
            (Some(before), Moment::Since(event)) => *clock = Some(before.max(event)),
            (None, Moment::Since(event)) => {
                *clock = Some(event);
                self.by_clock.push(Old::Stream(stream));
            }
            (Some(_), Moment::Old(old)) => self.by_clock.push(old),
            (None, Moment::Old(Old::Stream(of))) if of == stream => {}
            (None, Moment::Old(_)) => return None,
        }
        Some(())
    }

    fn host_waits(&mut self, event: Moment) {
        match (self.host, event) {
            (_, Moment::Since(event)) => self.host = Host::Since(self.after_host(event)),
            (Host::Since(_), Moment::Old(old)) => self.by_clock.push(old),
            (Host::Later(_), Moment::Old(old)) => self.by_host.push(old),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{Class, Event, Label, ProgramBuilder, Stream};
    use crate::time::SimTime;

    const LOAD: Load = Load { bandwidth: 1e12, arithmetic: 250_000, memory: 125_000, transfer: 500_000 };

    /// What a stretch does that is written on three streams, after an event of the second.
    fn closed(write: impl Fn(&mut ProgramBuilder, [Stream; 3], Event)) -> Option<Closed> {
        let mut b = ProgramBuilder::without_memory("p");
        b.label("x");
        let streams = ["compute", "one", "two"].map(|name| b.stream(name));
        b.channel("c");
        let before = b.record(streams[1]);
        let place = b.place();
        write(&mut b, streams, before);
        let passage = b.passage_in_one(place);
        b.repeat_as_it_is(&passage);
        let part = b.stretches()[1].part;
        Closed::of(part, b.inner.kept(), 3, &[Some(LOAD)])
    }

    fn kernel(b: &mut ProgramBuilder, stream: Stream, time: u64, issue: u64) {
        b.kernel(stream, Class(1), Label(0), SimTime(time), SimTime(issue));
    }

    fn send(b: &mut ProgramBuilder, stream: Stream, time: u64) {
        b.rendezvous(stream, crate::program::Channel(0), Class(1), Class(1), Label(0), SimTime(time), 0);
    }

    #[test]
    fn a_transfer_beside_kernels_of_its_stretch_is_the_same_each_time() {
        let it = closed(|b, [compute, one, _], before| {
            kernel(b, compute, 100, 3);
            let done = b.record(compute);
            b.wait(one, done);
            send(b, one, 40);
            let sent = b.record(one);
            kernel(b, compute, 80, 3);
            b.wait(compute, sent);
            b.wait(compute, before);
        });
        let it = it.expect("closed");
        let more =
            |list: &[Busy]| list.iter().map(|it| (it.record, it.start, it.end, it.more)).collect::<Vec<_>>();
        assert_eq!(more(&it.kernels), [(0, 0, 100, 0), (5, 100, 180, 10)]);
        assert_eq!(more(&it.transfers), [(3, 100, 140, 20)]);
        assert_eq!((it.clock, it.lead, it.clocks.as_slice()), (180, 3, &[(1, 140)][..]));
        let clocks = |host, one, event| Clocks { host, streams: vec![1000, one, 0], events: vec![event] };
        let records = Records { kept: &[], shapes: &[] };
        let mut free = clocks(997, 1000, 7);
        // Nothing but the event from before is read off the records; it has no effect on what follows.
        let known = Closed { by_clock: vec![Old::Stream(1)], ..it };
        assert!(known.play(0, records, &mut free));
        assert_eq!((free.host, free.streams, free.events), (1003, vec![1180, 1140, 0], vec![7, 1100, 1140]));
        // The host is late, or the stream of the transfer.
        assert!(!known.play(0, records, &mut clocks(998, 1000, 7)));
        assert!(!known.play(0, records, &mut clocks(997, 1001, 7)));
    }

    /// The event from before it happened before the stretch, or it has to be played; it is two back from where it is waited for.
    #[test]
    fn an_event_from_before_must_have_happened() {
        let mut b = ProgramBuilder::without_memory("p");
        b.label("x");
        let [compute, one] = ["compute", "one"].map(|name| b.stream(name));
        b.channel("c");
        let before = b.record(one);
        b.record(one);
        let place = b.place();
        kernel(&mut b, compute, 100, 3);
        b.record(compute);
        b.wait(compute, before);
        let passage = b.passage_in_one(place);
        b.repeat_as_it_is(&passage);
        let part = b.stretches()[1].part;
        let (records, first) = (b.inner.kept(), part.first);
        assert_eq!(first, 2);
        let it = Closed::of(part, records, 2, &[Some(LOAD)]).expect("closed");
        let plays = |event| {
            let events = vec![event, 5000];
            it.play(first, records, &mut Clocks { host: 0, streams: vec![1000, 0], events })
        };
        assert!(plays(1000));
        assert!(!plays(1001));
    }

    /// What another stream has done when a stretch begins is not known from the primary clock, what its own has is no matter.
    #[test]
    fn a_stream_may_wait_for_what_it_did_itself() {
        let waits = |of: usize| {
            closed(|b, streams, _| {
                kernel(b, streams[0], 100, 3);
                let done = b.record(streams[1]);
                b.wait(streams[of], done);
            })
        };
        assert!(waits(1).is_some_and(|it| it.clocks.is_empty()));
        assert!(waits(2).is_none());
    }

    /// When what a host issues begins at once, or a transfer goes on, more has to be known than the primary clock.
    #[test]
    fn what_depends_on_more_than_the_primary_stream_is_not_closed() {
        assert!(closed(|b, [_, one, _], _| send(b, one, 40)).is_none());
        let goes_on = |b: &mut ProgramBuilder, [compute, one, _]: [Stream; 3], _| {
            kernel(b, compute, 100, 3);
            let done = b.record(compute);
            b.wait(one, done);
            send(b, one, 40);
        };
        assert!(closed(goes_on).is_none());
        assert!(closed(|b, [.., two], before| b.wait(two, before)).is_none());
        // A host that has waited for the primary stream is as late as that.
        let synced = closed(|b, [compute, ..], _| {
            b.host_sync(compute);
            kernel(b, compute, 100, 3);
        });
        assert_eq!(synced.map(|it| it.clock), Some(103));
    }
}
