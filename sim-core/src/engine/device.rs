//! Playing one rank ahead of global time: its streams.

use super::Played;
use super::meetings::{Answer, Arrival, Met, Wake};
use super::player::Player;
use super::rank::{Blocked, Issue, NO_RECORD, Numbers, Pending, Work};
use crate::accounts::Cause;
use crate::observer::{Observer, SpanKind};
use crate::program::{Kind, Record};
use crate::time::later;

impl<O: Observer> Player<'_, '_, O> {
    /// A stream's rendezvous resolved: it goes on with what was issued to it meanwhile, and so do the
    /// streams that waited for events on it.
    pub(super) fn resume(&mut self, wake: &Wake) -> Played<()> {
        self.transfer(wake.stream, wake.when);
        self.drain(wake.stream)?;
        // An event in one stream's backlog may free another stream, whose backlog may free a third.
        while self.state.event_waiters > 0 {
            let streams = self.state.streams.iter().enumerate();
            let ready = streams.into_iter().find_map(|(index, stream)| match stream.blocked {
                Blocked::Event(event) if self.state.events.happened(event).is_some() => {
                    Some((index as u8, event))
                }
                _ => None,
            });
            let Some((stream, event)) = ready else { break };
            self.state.event_waiters -= 1;
            self.state.streams[usize::from(stream)].blocked = Blocked::No;
            self.wait(stream, event);
            self.drain(stream)?;
        }
        Ok(())
    }

    /// A stream that is free gets to what was issued to it.
    fn play(&mut self, stream: u8, pending: &Pending) -> Played<()> {
        let &Pending { at, record: pc, count_or_meeting, step_or_order, worked } = pending;
        let pc = pc as usize;
        let record = &self.records.at(pc);
        let work = self.state.backlog_work.reach(worked);
        match record.kind {
            Kind::Kernel | Kind::Alloc | Kind::Free => return self.run_issued(stream, pending, work),
            Kind::Record => self.record(record.stream, step_or_order, at),
            Kind::Wait => self.wait_or_block(record.stream, step_or_order),
            Kind::Rendezvous => {
                let numbers = Numbers { meeting: count_or_meeting, order: step_or_order };
                return self.rendezvous(pc, record, Issue { at, work }, numbers);
            }
            Kind::Host | Kind::HostSync | Kind::HostWait => {}
        }
        Ok(())
    }

    /// A stream that is free gets to a run.
    fn run_issued(&mut self, index: u8, pending: &Pending, work: Work) -> Played<()> {
        let first = pending.record as usize;
        let records = self.records.shapes_of(first..first + pending.count_or_meeting as usize);
        let state = &mut *self.state;
        let (stream, busy) = (&mut state.streams[usize::from(index)], &mut state.busy[usize::from(index)]);
        let launches = &mut state.launches[usize::from(index)];
        let limited = launches.are_limited();
        let mut memory = state.moments.run(pending.step_or_order);
        let (mut landed, mut steps) = (0, 0);
        let (mut issued, mut clock, mut last) = (pending.at, stream.clock, stream.last);
        // Kernels without a gap between them: the first record, the one behind the last kernel, and their start.
        let (mut begin, mut end_of_last, mut begun) = (pending.record, pending.record, clock);
        for (number, (record, label)) in records.enumerate() {
            if record.kind != Kind::Kernel {
                let at = issued.max(clock);
                memory.reach((first + number) as u32, at);
                if O::ACTIVE {
                    state.moments.watch(&memory, steps, at, &mut self.emit);
                    steps += 1;
                }
                continue;
            }
            // That it is a time was checked when it was issued. A launch that had to wait for its place was issued later than
            // that, but not late for the stream, or it would be the first of its run.
            issued += record.extra;
            if issued > clock {
                if index == 0 {
                    let work = work.interval(self.records);
                    state.idle.host_late(clock, issued, &work, self.host_class);
                }
                if limited {
                    launches.completed(begin..end_of_last, (begun, clock));
                    (begin, begun) = ((first + number) as u32, issued);
                }
                clock = issued;
            }
            let start = clock;
            let Some(end) = later(start, record.time) else {
                return Err(self.overflow(first + number).into());
            };
            clock = end;
            busy.add(record.class, record.time);
            landed += 1;
            last = (first + number) as u32;
            end_of_last = last + 1;
            self.emit.span(Some(index), SpanKind::Kernel, (start, clock), record.class, label);
        }
        (stream.clock, stream.last) = (clock, last);
        if limited {
            launches.completed(begin..end_of_last, (begun, clock));
            launches.land(landed);
        }
        state.moments.resolve(pending.step_or_order, &memory, &mut state.ledger, &mut self.emit);
        Ok(())
    }

    /// When an operation starts: issued, and its stream free. A primary stream that is free before was idle
    /// for want of work.
    #[inline]
    fn start(&mut self, stream: u8, issue: Issue) -> u64 {
        let clock = self.state.streams[usize::from(stream)].clock;
        if issue.at <= clock {
            return clock;
        }
        if stream == 0 {
            let work = issue.work.interval(self.records);
            self.state.idle.host_late(clock, issue.at, &work, self.host_class);
        }
        issue.at
    }

    /// A stream gets to an event.
    pub(super) fn record(&mut self, stream: u8, event: u32, issued: u64) {
        let stream = &self.state.streams[usize::from(stream)];
        let cause = if stream.last == NO_RECORD {
            Cause { class: self.host_class, ..Cause::default() }
        } else {
            let last = self.records.at(stream.last as usize);
            match last.kind {
                Kind::Rendezvous => {
                    let (arrived, met) = (stream.arrived, stream.met);
                    Cause { class: last.class, wait_class: last.wait_class, arrived, met }
                }
                _ => Cause { class: last.class, ..Cause::default() },
            }
        };
        let time = issued.max(stream.clock);
        self.state.events.happen(event, time, cause);
    }

    /// A stream gets to a wait.
    pub(super) fn wait_or_block(&mut self, stream: u8, event: u32) {
        if !self.wait(stream, event) {
            self.state.streams[usize::from(stream)].blocked = Blocked::Event(event);
            self.state.event_waiters += 1;
        }
    }

    /// A stream waits for an event; `false` if that has not happened.
    fn wait(&mut self, stream: u8, event: u32) -> bool {
        let state = &mut *self.state;
        let Some((time, cause)) = state.events.happened(event) else {
            return false;
        };
        let clock = &mut state.streams[usize::from(stream)].clock;
        if time > *clock {
            if stream == 0 {
                state.idle.event_wait(*clock, time, &cause);
            }
            *clock = time;
        }
        state.events.waited(event);
        true
    }

    /// A stream gets to a rendezvous.
    #[inline]
    pub(super) fn rendezvous(
        &mut self,
        pc: usize,
        record: &Record,
        issue: Issue,
        numbers: Numbers,
    ) -> Played<()> {
        let at = self.start(record.stream, issue);
        let stream = &mut self.state.streams[usize::from(record.stream)];
        stream.last = pc as u32;
        stream.order = numbers.order;
        stream.arrived = at;
        let begin = at.saturating_add(record.time);
        let first = self.under_way(record).is_some_and(|it| it.is_first(numbers.order, begin));
        let group = self.spec.groups[record.channel()];
        let arrival = Arrival { rank: self.rank, stream: record.stream, record: pc as u32, at };
        let answer =
            self.meetings.arrive((group, numbers.meeting), (arrival, first), record, self.emit.observer)?;
        match answer {
            Answer::Now(when) => self.transfer(record.stream, when),
            Answer::Wait(place) => {
                self.state.streams[usize::from(record.stream)].blocked = Blocked::Meeting(place);
            }
        }
        Ok(())
    }

    /// The rendezvous that a stream is at resolved.
    fn transfer(&mut self, stream: u8, Met { met, end }: Met) {
        let busy = &mut self.state.busy[usize::from(stream)];
        let state = &mut self.state.streams[usize::from(stream)];
        let record = &self.records.at(state.last as usize);
        let (last, arrived, order) = (state.last, state.arrived, state.order);
        state.blocked = Blocked::No;
        state.clock = end;
        state.met = met;
        busy.add(record.wait_class, met - arrived);
        busy.add(record.class, end - met);
        let launches = &mut self.state.launches[usize::from(stream)];
        if launches.are_limited() {
            launches.completed(last..last + 1, (end, end));
            launches.land(1);
        }
        if let Some(under_way) = self.under_way(record) {
            under_way.end(order, end);
        }
        if O::ACTIVE {
            let stream = Some(stream);
            if met > arrived {
                self.emit.span(stream, SpanKind::Waiting, (arrived, met), record.wait_class, record.index);
            }
            self.emit.span(stream, SpanKind::Transfer, (met, end), record.class, record.index);
        }
    }

    /// A stream works off what was issued while it was blocked, until it is blocked again.
    #[inline]
    fn drain(&mut self, stream: u8) -> Played<()> {
        if self.state.streams[usize::from(stream)].pending.is_empty() {
            Ok(())
        } else {
            self.drain_some(stream)
        }
    }

    fn drain_some(&mut self, stream: u8) -> Played<()> {
        while !self.is_blocked(stream) {
            let Some(pending) = self.state.streams[usize::from(stream)].pending.pop_front() else {
                break;
            };
            self.play(stream, &pending)?;
        }
        Ok(())
    }
}
