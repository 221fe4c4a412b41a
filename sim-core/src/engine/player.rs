//! Playing one rank ahead of global time: its host.

use std::ops::Range;

use super::Played;
use super::meetings::Meetings;
use super::moments::{Moments, Run};
use super::rank::{Blocked, Issue, Numbers, Pending, RankState, UnderWay, Work};
use crate::error::{At, SimulationError, overflow};
use crate::ledger::{Asked, Ledger, Step};
use crate::observer::{Emitter, Observer, SpanKind};
use crate::program::{Kind, Part, Record, Records, TensorSpec, place};
use crate::time::later;
use crate::world::{RankSpec, World};

/// Why a host stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It is done, or nothing but a resolution lets it bring a new arrival, or it is on the list of those that could run
    /// ahead.
    Waits,
    /// Going on, it might bring a new arrival.
    CouldRunAhead,
    /// It is where it was to pause, and goes on when it is run again.
    Pauses,
}

/// A rank at play.
pub(super) struct Player<'p, 'w, O> {
    pub(super) rank: u32,
    world: &'w World,
    pub(super) spec: &'w RankSpec,
    pub(super) records: Records<'w>,
    parts: &'w [Part],
    last_rendezvous: &'w [u64],
    tensors: Tensors<'w>,
    waits: &'w [u32],
    classes: &'w [u32],
    pub(super) host_class: u8,
    pub(super) state: &'p mut RankState,
    pub(super) meetings: &'p mut Meetings<'w>,
    pub(super) emit: Emitter<'p, O>,
}

impl<'p, 'w, O: Observer> Player<'p, 'w, O> {
    pub(super) fn new(
        world: &'w World,
        rank: u32,
        state: &'p mut RankState,
        meetings: &'p mut Meetings<'w>,
        observer: &'p mut O,
    ) -> Self {
        let program = world.program_of(rank);
        Self {
            rank,
            world,
            spec: &world.ranks()[rank as usize],
            records: program.records(),
            parts: program.parts(),
            last_rendezvous: program.last_rendezvous(),
            tensors: Tensors(program.tensor_specs()),
            waits: program.waits(),
            classes: world.classes(rank),
            host_class: world.host_class().0,
            state,
            meetings,
            emit: Emitter { observer, rank },
        }
    }

    /// Runs the host until it is done or stops. `ahead` lets it issue to blocked streams as long as that
    /// might bring a new arrival and has woken nobody.
    pub(super) fn run(&mut self, ahead: bool) -> Played<Stop> {
        let records = self.records;
        let mut next = self.state.next;
        let mut host = self.state.host;
        let mut ahead = ahead && self.could_run_ahead(next.part, next.record);
        let stop = loop {
            if next.record == next.end && next.part >= self.state.pause_at {
                break Stop::Pauses;
            }
            if !next.find(self.parts) {
                break Stop::Waits;
            }
            let pc = next.record;
            let record = &records.at(pc);
            match record.kind {
                Kind::Host => host = self.host_works(host, pc, record)?,
                Kind::HostSync => {
                    let stream = &self.state.streams[usize::from(record.stream)];
                    if stream.blocked != Blocked::No {
                        break Stop::Waits;
                    }
                    host = host.max(stream.clock);
                }
                Kind::HostWait => {
                    let event = self.state.events.back(record.index);
                    let Some((time, _)) = self.state.events.happened(event) else {
                        break Stop::Waits;
                    };
                    host = host.max(time);
                    self.state.events.waited(event);
                }
                _ if self.is_blocked(record.stream) => {
                    if !ahead {
                        let listed = self.state.listed || !self.could_run_ahead(next.part, pc);
                        break if listed { Stop::Waits } else { Stop::CouldRunAhead };
                    }
                    if matches!(record.kind, Kind::Kernel | Kind::Alloc | Kind::Free) {
                        let played = self.postpone_run(pc..next.end, &mut host)?;
                        if played == 0 {
                            break Stop::Waits;
                        }
                        next.record += played;
                        continue;
                    }
                    let Some(after) = self.postpone(host, pc, record) else { break Stop::Waits };
                    host = after;
                }
                Kind::Kernel => {
                    let played = self.kernels(pc..next.end, &mut host)?;
                    if played == 0 {
                        break Stop::Waits;
                    }
                    next.record += played;
                    continue;
                }
                _ => {
                    let Some(after) = self.issue(host, pc, record)? else { break Stop::Waits };
                    host = after;
                    if ahead {
                        ahead = self.meetings.woken.is_empty() && self.could_run_ahead(next.part, pc + 1);
                    }
                }
            }
            next.record += 1;
        };
        self.state.next = next;
        self.state.host = host;
        Ok(stop)
    }

    /// Whether the host, issuing from a record of a part on, might bring an arrival without a resolution of this rank
    /// before: whether a stream that is not blocked has rendezvous left.
    fn could_run_ahead(&self, part: usize, record: usize) -> bool {
        let here = place(part, record);
        let mut streams = self.state.streams.iter().zip(self.last_rendezvous);
        streams.any(|(stream, &last)| stream.blocked == Blocked::No && last > here)
    }

    #[inline]
    pub(super) fn is_blocked(&self, stream: u8) -> bool {
        self.state.streams[usize::from(stream)].blocked != Blocked::No
    }

    #[inline]
    pub(super) fn later(&self, start: u64, duration: u64, pc: usize) -> Played<u64> {
        later(start, duration).ok_or_else(|| self.overflow(pc).into())
    }

    #[cold]
    pub(super) fn overflow(&self, pc: usize) -> SimulationError {
        overflow(self.world, &At { rank: self.rank, record: self.records.at(pc) })
    }

    /// Plays the kernels of a range as long as they go to the same stream, which is free, and there is
    /// place in flight; returns how many. This is the hot loop: the clocks stay in registers.
    fn kernels(&mut self, range: Range<usize>, host: &mut u64) -> Played<usize> {
        let first = range.start;
        let index = self.records.at(first).stream;
        let state = &mut *self.state;
        let launches = &mut state.launches[usize::from(index)];
        let limited = launches.are_limited();
        let (stream, busy) = (&mut state.streams[usize::from(index)], &mut state.busy[usize::from(index)]);
        let (mut now, mut clock, mut issuing, mut played) = (*host, stream.clock, 0, 0);
        // Kernels without a gap between them: how many were played before the first, and its start. A stream that is free
        // has completed all launches before.
        let (mut begin, mut begun) = (0, clock);
        let done = |from: usize, until: usize| (first + from) as u32..(first + until) as u32;
        for (record, label) in self.records.shapes_of(range) {
            if record.kind != Kind::Kernel || record.stream != index {
                break;
            }
            if limited {
                if launches.wants_more() {
                    launches.completed(done(begin, played), (begun, clock));
                    (begin, begun) = (played, clock);
                }
                now = now.max(launches.take_place(self.records));
            }
            let Some(issued) = later(now, record.extra) else {
                return Err(self.overflow(first + played).into());
            };
            if issued > clock {
                if index == 0 {
                    let work = state.work.interval(self.records);
                    state.idle.host_late(clock, issued, &work, self.host_class);
                }
                if limited {
                    launches.completed(done(begin, played), (begun, clock));
                    (begin, begun) = (played, issued);
                }
            }
            let start = clock.max(issued);
            let Some(end) = later(start, record.time) else {
                return Err(self.overflow(first + played).into());
            };
            busy.add(record.class, record.time);
            if O::ACTIVE {
                if issued > now {
                    self.emit.span(None, SpanKind::Host, (now, issued), self.host_class, label);
                }
                self.emit.span(Some(index), SpanKind::Kernel, (start, end), record.class, label);
            }
            issuing += record.extra;
            (now, clock) = (issued, end);
            played += 1;
        }
        if played > 0 {
            if limited {
                launches.completed(done(begin, played), (begun, clock));
            }
            stream.clock = clock;
            stream.last = (first + played - 1) as u32;
            state.host_busy.add(self.host_class, issuing);
            *host = now;
        }
        Ok(played)
    }

    fn host_works(&mut self, host: u64, pc: usize, record: &Record) -> Played<u64> {
        let end = self.later(host, record.time, pc)?;
        self.state.host_busy.add(record.class, record.time);
        self.state.work = Work { end, record: pc as u32 };
        self.emit.span(None, SpanKind::Host, (host, end), record.class, record.index);
        Ok(end)
    }

    /// The host issues something other than a kernel to a stream that is free. Returns its clock after, or
    /// `None` if it has to wait for an earlier launch to complete.
    #[inline]
    fn issue(&mut self, host: u64, pc: usize, record: &Record) -> Played<Option<u64>> {
        match record.kind {
            Kind::Rendezvous => {
                let Some(host) = self.launch(record.stream, host) else { return Ok(None) };
                let (meeting, order) = self.next_meeting(record);
                let issue = Issue { at: host, work: self.state.work };
                self.rendezvous(pc, record, issue, Numbers { meeting, order })?;
                return Ok(Some(host));
            }
            Kind::Record => {
                let event = self.state.events.issue(self.waits);
                self.record(record.stream, event, host);
            }
            Kind::Wait => self.wait_or_block(record.stream, self.state.events.back(record.index)),
            Kind::Alloc | Kind::Free => {
                let at = host.max(self.state.streams[usize::from(record.stream)].clock);
                self.memory(record, host, at);
            }
            // Kernels are played in runs, the host's own records where the host is.
            Kind::Kernel | Kind::Host | Kind::HostSync | Kind::HostWait => {}
        }
        Ok(Some(host))
    }

    /// The host issues a record that is not part of a run to a stream that is blocked. Returns as [`Player::issue`] does.
    fn postpone(&mut self, mut host: u64, pc: usize, record: &Record) -> Option<u64> {
        let (count_or_meeting, step_or_order) = match record.kind {
            Kind::Rendezvous => {
                host = self.launch(record.stream, host)?;
                self.next_meeting(record)
            }
            Kind::Record => (1, self.state.events.issue(self.waits)),
            Kind::Wait => (1, self.state.events.back(record.index)),
            _ => (1, 0),
        };
        let worked = record.stream == 0 && self.state.backlog_work.issue(self.state.work);
        let pending = Pending { at: host, record: pc as u32, count_or_meeting, step_or_order, worked };
        self.state.streams[usize::from(record.stream)].pending.push_back(pending);
        Some(host)
    }

    /// The host issues kernels, allocations and frees of a range, as long as they go to the same stream, which is
    /// blocked, and there is place in flight; returns how many. They are kept as one, from which the moments at which they
    /// were issued can be told without what the host waited for; where that might matter another one begins.
    fn postpone_run(&mut self, range: Range<usize>, host: &mut u64) -> Played<usize> {
        let first = range.start;
        let index = self.records.at(first).stream;
        let state = &mut *self.state;
        let launches = &mut state.launches[usize::from(index)];
        let stream = &mut state.streams[usize::from(index)];
        let limited = launches.are_limited();
        // The stream is not free before that.
        let mut busy_until = launches.at_least.max(stream.clock);
        let mut worked = || index == 0 && state.backlog_work.issue(state.work);
        let mut run = Postponed::new(first, *host);
        let (mut now, mut issuing, mut pc) = (*host, 0, first);
        for (record, about) in self.records.shapes_of(range) {
            if record.stream != index {
                break;
            }
            match record.kind {
                Kind::Kernel => {
                    if limited {
                        if launches.are_full() {
                            break;
                        }
                        now = now.max(launches.take_place(self.records));
                    }
                    let Some(issued) = later(now, record.extra) else {
                        return Err(self.overflow(pc).into());
                    };
                    if O::ACTIVE && issued > now {
                        self.emit.span(None, SpanKind::Host, (now, issued), self.host_class, about);
                    }
                    run.told += record.extra;
                    if limited {
                        if issued > busy_until && issued != run.told {
                            let next = Postponed::new(pc, now);
                            let over = std::mem::replace(&mut run, Postponed { told: issued, ..next });
                            stream.pending.extend(over.pending(pc, &mut state.moments, &mut worked));
                        }
                        launches.launch();
                        busy_until = busy_until.max(issued).saturating_add(record.time);
                    }
                    issuing += record.extra;
                    now = issued;
                }
                Kind::Alloc | Kind::Free => {
                    let step = self.tensors.ask(record, about, now, &mut state.ledger);
                    state.moments.add(&mut run.memory, pc as u32, step, &mut self.emit);
                }
                _ => break,
            }
            pc += 1;
        }
        launches.at_least = busy_until;
        stream.pending.extend(run.pending(pc, &mut state.moments, worked));
        state.host_busy.add(self.host_class, issuing);
        *host = now;
        Ok(pc - first)
    }

    /// Number of a rendezvous within its group, where members meet in order of issue, and among those that send over the
    /// same links.
    #[inline]
    fn next_meeting(&mut self, record: &Record) -> (u32, u32) {
        let order = self.under_way(record).map_or(0, UnderWay::issue);
        let issued = &mut self.state.issued[record.channel()];
        *issued += 1;
        (*issued - 1, order)
    }

    /// What is under way on the links of a rendezvous, where that matters.
    #[inline]
    pub(super) fn under_way(&mut self, record: &Record) -> Option<&mut UnderWay> {
        if self.classes.is_empty() || record.bytes() == 0 {
            return None;
        }
        self.state.under_way.get_mut(self.classes[record.channel()] as usize)
    }

    /// Takes the stream's next place in flight when the launch that held it has completed; returns the host's clock then.
    #[inline]
    fn launch(&mut self, stream: u8, host: u64) -> Option<u64> {
        let launches = &mut self.state.launches[usize::from(stream)];
        if !launches.are_limited() {
            return Some(host);
        }
        if launches.are_full() {
            return None;
        }
        let host = host.max(launches.take_place(self.records));
        launches.launch();
        launches.at_least = launches.at_least.max(host);
        Some(host)
    }

    /// The ledger serves the host's request, whose stream gets there `at` a moment.
    fn memory(&mut self, record: &Record, host: u64, at: u64) {
        let state = &mut *self.state;
        let step = self.tensors.ask(record, record.index, host, &mut state.ledger);
        state.moments.step(step, at, &mut state.ledger, &mut self.emit);
    }
}

/// A run on its way to a blocked stream.
struct Postponed {
    first: usize,
    /// The host's clock before it.
    at: u64,
    /// The host's clock as the records tell it.
    told: u64,
    memory: Run,
}

impl Postponed {
    fn new(first: usize, at: u64) -> Self {
        Self { first, at, told: at, memory: Run::empty() }
    }

    /// What the stream gets: the records up to one; nothing if there are none. `worked` as in [`Pending`].
    fn pending(self, end: usize, moments: &mut Moments, worked: impl FnOnce() -> bool) -> Option<Pending> {
        let count = (end - self.first) as u32;
        (count > 0).then(|| {
            let step_or_order = moments.wait(&self.memory);
            let record = self.first as u32;
            Pending { at: self.at, record, count_or_meeting: count, step_or_order, worked: worked() }
        })
    }
}

/// The tensors of a program.
#[derive(Clone, Copy)]
struct Tensors<'w>(&'w [TensorSpec]);

impl Tensors<'_> {
    /// What a ledger makes of an allocation or a free that the host asks for.
    #[inline]
    fn ask(self, record: &Record, tensor: u32, host: u64, ledger: &mut Ledger) -> Step {
        let spec = &self.0[tensor as usize];
        let asked = Asked { host, stream: record.stream };
        if record.kind == Kind::Alloc {
            ledger.allocate(tensor, spec, asked)
        } else {
            ledger.free(tensor, spec, asked)
        }
    }
}
