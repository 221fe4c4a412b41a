//! The engine: ranks run ahead of global time, and only what is shared goes through the event queue.
//!
//! # How it plays
//!
//! Within a rank everything is max-plus arithmetic. A kernel starts at max(host clock, stream clock); a wait
//! lifts the stream's clock to the event's time; a synchronization lifts the host's. None of this depends on
//! other ranks, so a rank plays its program record after record until it meets something *unresolved*: a
//! rendezvous whose other members have not come, or whose flow is under way. The stream is then blocked;
//! what the host issues to it queues up with its issue time.
//!
//! A rendezvous resolves when its last member arrives: at once, by arithmetic, if no bytes flow or if the
//! world shows that no other flow can be on its links (`Group::private_rate`); otherwise an event starts its
//! flow at the right time. Links are the only thing for which global time matters.
//!
//! # Why the order is safe
//!
//! Let `t` be the time of the queue's first event when no rank can move. Everything unresolved waits,
//! through members and streams, for a flow that is in the queue or on the links, and so cannot resolve
//! before `t`: a flow that ends does so at an event, and what it resolves lies at its end or later. A rank
//! resumed at `t` may run far ahead, but each new flow it causes starts at the latest arrival of a meeting
//! that includes something that resolved at or after `t`, hence at or after `t`. So no event is ever
//! inserted before the moment being played. At equal times it is: all events of a moment, including those
//! that their consequences insert at the same moment, are played before the links are settled once, so the
//! order among them cannot show.
//!
//! # How far ahead
//!
//! A host that meets a blocked stream stops there, because queueing what it would issue costs memory. It
//! goes on when the stream resolves, or when every rank has stopped and its going on could bring a new
//! arrival, that is, when a stream that is not blocked has rendezvous left. (Every other arrival takes a
//! resolution of this rank first.) This changes the order of play, never the result.

mod agenda;
mod device;
mod events;
mod launches;
mod looking;
mod meetings;
mod moments;
mod periods;
mod player;
mod rank;
mod woken;

use agenda::Shared;
use meetings::{Meetings, Wake};
use periods::Periods;
use player::{Player, Stop};
use rank::{Blocked, RankState};

use crate::accounts::ByClass;
use crate::error::{At, SimulationError, waiting_rank};
use crate::flow::{Due, Finished, FlowNetwork};
use crate::observer::{FlowRecord, Observer};
use crate::outcome::{Outcome, RankOutcome, StreamOutcome};
use crate::time::SimTime;
use crate::world::{GroupId, World};

/// The time of what is not resolved yet. No real moment has this value.
const UNKNOWN: u64 = u64::MAX;

/// Errors are boxed inside the engine: they are rare, and a small result is returned in registers.
type Played<T> = Result<T, Box<SimulationError>>;

/// Plays a world to its end.
///
/// The result depends on the world only, to the picosecond and the byte; [`crate::simulate_every_operation`]
/// gives the same.
///
/// # Errors
/// [`SimulationError`] if some ranks wait for ever, if the members of a meeting disagree, or if time
/// overflows.
pub fn simulate<O: Observer>(world: &World, observer: &mut O) -> Result<Outcome, SimulationError> {
    let mut engine = Engine::new(world, observer);
    if !O::ACTIVE {
        engine.watch();
    }
    let mut result = engine.result();
    if result.is_err() && engine.periods.skipped > 0 {
        // What went wrong is told as it goes wrong, at its time and place.
        result = Engine::new(world, observer).result();
    }
    if result.is_ok() {
        observer.finish();
    }
    result
}

/// How many rounds of periods are not played.
#[cfg(test)]
pub(crate) fn rounds_left_out(world: &World) -> u64 {
    let mut observer = crate::observer::NoObserver;
    let mut engine = Engine::new(world, &mut observer);
    engine.watch();
    engine.play().map_or(0, |()| engine.periods.skipped)
}

struct Engine<'a, O> {
    world: &'a World,
    observer: &'a mut O,
    ranks: Vec<RankState>,
    meetings: Meetings<'a>,
    network: FlowNetwork,
    /// The moment being played.
    now: u64,
    periods: Periods,
    /// Ranks that could still run ahead, each at most once.
    stopped: Vec<u32>,
    /// Lists to work off, kept for their capacity.
    due: Vec<Shared>,
    finished: Vec<Finished>,
    events: u64,
}

impl<'a, O: Observer> Engine<'a, O> {
    fn new(world: &'a World, observer: &'a mut O) -> Self {
        let ranks = (0..world.ranks().len() as u32).map(|rank| RankState::new(world, rank)).collect();
        Self {
            world,
            observer,
            ranks,
            meetings: Meetings::new(world),
            now: 0,
            periods: Periods::default(),
            network: FlowNetwork::new(world),
            stopped: Vec::new(),
            due: Vec::new(),
            finished: Vec::new(),
            events: 0,
        }
    }

    /// Does not play again and again what repeats itself; nobody may watch.
    fn watch(&mut self) {
        self.periods = Periods::of(self.world);
        if let Some((rank, part)) = self.periods.pause() {
            self.ranks[rank as usize].pause_at = part;
        }
    }

    fn result(&mut self) -> Result<Outcome, SimulationError> {
        self.play().map_err(|error| *error)?;
        self.outcome()
    }

    fn play(&mut self) -> Played<()> {
        for rank in 0..self.ranks.len() as u32 {
            self.meetings.woken.go_to(rank);
            self.run(rank, false)?;
            while let Some(wake) = self.meetings.woken.pop_near() {
                self.resume(&wake)?;
            }
        }
        loop {
            self.run_ranks()?;
            let next = self.meetings.agenda.next();
            if next != Some(self.now) && self.network.is_dirty() {
                let agenda = &mut self.meetings.agenda;
                self.network
                    .settle(self.now, |end, due| agenda.push(end, Shared::FlowsEnd(due)))
                    .map_err(|meeting| self.meetings.past(meeting))?;
                continue;
            }
            let Some(next) = next else { return Ok(()) };
            self.now = next;
            self.play_moment(next)?;
        }
    }

    /// Plays the agenda's events of one moment.
    fn play_moment(&mut self, now: u64) -> Played<()> {
        while self.meetings.agenda.next() == Some(now) {
            self.meetings.agenda.pop(&mut self.due);
        }
        self.events += self.due.len() as u64;
        while let Some(event) = self.due.pop() {
            match event {
                Shared::FlowStart(meeting) => {
                    let (group, bytes) = self.meetings.flow_of(meeting);
                    self.network.start(now, group, meeting, bytes);
                }
                Shared::FlowsEnd(due) => self.end_flows(due, now)?,
            }
        }
        Ok(())
    }

    fn end_flows(&mut self, due: Due, now: u64) -> Played<()> {
        self.network.finish(due, &mut self.finished);
        while let Some(Finished { group, meeting, start, bytes }) = self.finished.pop() {
            self.meetings.flow_ended(meeting, now)?;
            if O::ACTIVE {
                let (start, end, group) = (SimTime(start), SimTime(now), GroupId(group));
                self.observer.flow(&FlowRecord { start, end, group, bytes });
            }
        }
        Ok(())
    }

    /// Runs every rank as far as it goes.
    fn run_ranks(&mut self) -> Played<()> {
        loop {
            self.resume_woken()?;
            let Some(rank) = self.stopped.pop() else {
                return Ok(());
            };
            self.ranks[rank as usize].listed = false;
            self.run(rank, true)?;
        }
    }

    fn resume_woken(&mut self) -> Played<()> {
        while let Some(wake) = self.meetings.woken.pop() {
            self.resume(&wake)?;
        }
        Ok(())
    }

    fn resume(&mut self, wake: &Wake) -> Played<()> {
        let mut player = self.player(wake.rank);
        player.resume(wake)?;
        let stop = player.run(false)?;
        self.stopped(wake.rank, stop)
    }

    fn run(&mut self, rank: u32, ahead: bool) -> Played<()> {
        let stop = self.player(rank).run(ahead)?;
        self.stopped(rank, stop)
    }

    fn stopped(&mut self, rank: u32, mut stop: Stop) -> Played<()> {
        while stop == Stop::Pauses {
            self.look_for_period();
            stop = self.player(rank).run(false)?;
        }
        let state = &mut self.ranks[rank as usize];
        if stop == Stop::CouldRunAhead && !state.listed {
            state.listed = true;
            self.stopped.push(rank);
        }
        Ok(())
    }

    fn player(&mut self, rank: u32) -> Player<'_, 'a, O> {
        let state = &mut self.ranks[rank as usize];
        Player::new(self.world, rank, state, &mut self.meetings, self.observer)
    }

    fn outcome(&mut self) -> Result<Outcome, SimulationError> {
        let waiting: Vec<_> = (0..self.ranks.len() as u32).filter_map(|rank| self.waiting(rank)).collect();
        if !waiting.is_empty() {
            return Err(SimulationError::Deadlock { waiting });
        }
        let end = self.ranks.iter().map(RankState::end).max().unwrap_or(0);
        // What is kept of a rank goes as its outcome comes, which takes its place in memory.
        let states = std::mem::take(&mut self.ranks);
        let ranks = (0..).zip(states).map(|(rank, state)| self.rank_outcome(rank, &state, end)).collect();
        Ok(Outcome {
            end: SimTime(end),
            ranks,
            events: self.events,
            // All have done all that they do, or somebody would wait.
            operations: self.world.operations(),
        })
    }

    /// What an unfinished rank waits for when nothing moves any more: the rendezvous of its first stream
    /// that is at one. There is one, for events are recorded before they are waited for, so that some
    /// stream's wait always leads to a rendezvous.
    fn waiting(&self, rank: u32) -> Option<crate::error::WaitingRank> {
        let state = &self.ranks[rank as usize];
        let stream = state.streams.iter().find(|stream| matches!(stream.blocked, Blocked::Meeting(_)))?;
        let Blocked::Meeting(id) = stream.blocked else {
            return None;
        };
        let records = self.world.program_of(rank).records();
        let at = At { rank, record: records.at(stream.last as usize) };
        let (key, arrived) = self.meetings.arrived(id);
        Some(waiting_rank(self.world, &at, key, arrived))
    }

    fn rank_outcome(&self, rank: u32, state: &RankState, end: u64) -> RankOutcome {
        let mut idle = state.idle;
        let primary = state.streams.first().map_or(0, |stream| stream.clock);
        idle.add(self.world.tail_class().0, end - primary);
        let stream = |(stream, busy): (&rank::StreamState, &ByClass)| StreamOutcome {
            busy: busy.times(),
            end: SimTime(stream.clock),
        };
        RankOutcome {
            end: SimTime(state.end()),
            host_end: SimTime(state.host),
            multiplicity: self.world.ranks()[rank as usize].multiplicity,
            streams: state.streams.iter().zip(&state.busy).map(stream).collect(),
            idle: idle.times(),
            host_busy: state.host_busy.times(),
            memory: state.ledger.outcome(self.world.program_of(rank)),
        }
    }
}
