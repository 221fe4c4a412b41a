//! A rank that plays its records alone: when kernels of its primary stream run, and transfers beside them.
//!
//! What only the host and the primary stream do takes both from one moment to another by maxima and sums: wherever it
//! begins, each clock after it is `max(a + host, b + clock)`, with numbers of its own. Of stretches that come again
//! these are found once. Their kernels are placed in time only where a transfer lies beside them.

use std::ops::Range;

use super::closed::{Clocks, Closed};
use super::contention::{Load, share};
use super::stretches::Stretch;
use super::{Kind, Part, Record, Records};

/// A record's time on its stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Busy {
    /// Number of its part.
    pub(super) part: u32,
    pub(super) record: u32,
    pub(super) start: u64,
    pub(super) end: u64,
    /// What it becomes longer by.
    pub(super) more: u64,
}

/// A record that becomes longer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengthened {
    /// Number of its part, from 0.
    pub(super) part: u32,
    pub(super) record: u32,
    /// By so much.
    pub(super) more: u64,
}

/// Clocks after something, by the host's and the primary stream's before it.
#[derive(Clone, Copy, Debug)]
struct Through {
    host: Later,
    clock: Later,
}

/// A clock that is later than its own by a time, and than the other one by a time if that is there.
#[derive(Clone, Copy, Debug)]
struct Later {
    own: u64,
    other: Option<u64>,
}

/// A time that is past the last moment: there sums stay, and order matters.
struct Overflow;

impl Later {
    const NOTHING: Self = Self { own: 0, other: None };

    /// That much later.
    fn by(self, time: u64) -> Result<Self, Overflow> {
        let own = self.own.checked_add(time).ok_or(Overflow)?;
        let other = match self.other {
            Some(other) => Some(other.checked_add(time).ok_or(Overflow)?),
            None => None,
        };
        Ok(Self { own, other })
    }

    /// Not before what is later than the other clock by its own time.
    fn not_before(self, it: Self) -> Self {
        Self {
            own: self.own.max(it.other.unwrap_or(0)),
            other: Some(self.other.map_or(it.own, |other| other.max(it.own))),
        }
    }

    /// The clock after it; none past the last moment.
    #[inline]
    fn of(self, own: u64, other: u64) -> Option<u64> {
        let clock = own.checked_add(self.own)?;
        match self.other {
            Some(later) => Some(clock.max(other.checked_add(later)?)),
            None => Some(clock),
        }
    }
}

impl Through {
    /// Of nothing.
    const NOTHING: Self = Self { host: Later::NOTHING, clock: Later::NOTHING };

    /// With one record more; `false` where it does something else too.
    fn with(&mut self, record: &Record, loads: &[Option<Load>]) -> Result<bool, Overflow> {
        match (record.kind, record.stream) {
            (Kind::Alloc | Kind::Free, _) => {}
            (Kind::Host, _) => self.host = self.host.by(record.time)?,
            (Kind::HostSync, 0) => self.host = self.host.not_before(self.clock),
            (Kind::Kernel, 0) => {
                self.host = self.host.by(record.extra)?;
                self.clock = self.clock.not_before(self.host).by(record.time)?;
            }
            (Kind::Rendezvous, 0) => {
                if let Some(duration) = duration(record, loads) {
                    self.clock = self.clock.not_before(self.host).by(duration)?;
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The clocks after it.
    #[inline]
    fn after(&self, host: u64, clock: u64) -> Option<(u64, u64)> {
        Some((self.host.of(host, clock)?, self.clock.of(clock, host)?))
    }
}

/// How long a rendezvous takes; one without a load takes no part, and does not make the rank wait either.
pub(super) fn duration(record: &Record, loads: &[Option<Load>]) -> Option<u64> {
    let load = loads.get(record.channel()).copied().flatten()?;
    Some(record.time.saturating_add(load.picos(record.bytes())))
}

/// Some records of a stretch in a row, counted from its first, and what they do to the clocks if that is all that they do.
#[derive(Clone, Debug)]
struct Piece {
    range: Range<u32>,
    through: Option<Through>,
    /// Whether there are kernels among them that take time.
    works: bool,
}

/// Kernels of the primary stream in a row.
#[derive(Clone, Debug)]
struct Row {
    /// Not after the first begins.
    start: u64,
    /// Not before the last ends.
    end: u64,
    kernels: Kernels,
}

#[derive(Clone, Debug)]
enum Kernels {
    /// Those of the list.
    Placed(Range<usize>),
    /// Those among some records of a part, which begin when the host and the stream are at these moments.
    Among { part: u32, records: Range<u32>, host: u64, clock: u64 },
    /// Those of a stretch of a kind that nothing held up.
    Closed(Held),
}

/// A stretch that nothing held up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// Number of its part, and its first record.
    pub(super) part: u32,
    pub(super) first: u32,
    /// What it is like.
    pub(super) alike: u32,
    clock: u64,
}

/// What is known of stretches that are alike.
#[derive(Debug, Default)]
struct Class {
    /// How many are still to come.
    left: u32,
    come: bool,
    /// What they do where nothing holds them up; none as well as long as that has not been looked for.
    closed: Option<Closed>,
    /// What they do in pieces, likewise.
    pieces: Option<Box<[Piece]>>,
}

/// What becomes longer.
pub(super) struct Contended {
    /// Kernels, and then the transfers of each stream, each in the order of the program; but for those of stretches that
    /// nothing held up and that have nothing beside them.
    pub(super) longer: Vec<Lengthened>,
    /// These stretches, in order.
    pub(super) closed: Vec<Held>,
    /// By what stretches are like: records that become longer, counted from the first, and by how much.
    pub(super) of_closed: Vec<Vec<(u32, u64)>>,
}

/// Stretches to come from which on it is worth looking what they do where nothing holds them up.
const WORTH: u32 = 3;

/// Room for kernels and rows to begin with.
const SOME: usize = 1024;

/// What a rank does when nobody makes it wait.
pub(super) struct Alone<'a> {
    records: Records<'a>,
    loads: &'a [Option<Load>],
    clocks: Clocks,
    /// Kernels of the primary stream that have been placed.
    kernels: Vec<Busy>,
    /// All of them, in order.
    rows: Vec<Row>,
    /// Transfers with a load on each other stream, in order.
    transfers: Vec<Vec<Busy>>,
    /// Of stretches that are alike, by number.
    classes: Vec<Class>,
    /// Stretches that nothing held up and that have something beside them.
    opened: Vec<Held>,
}

impl<'a> Alone<'a> {
    pub(super) fn new(
        records: Records<'a>,
        streams: usize,
        loads: &'a [Option<Load>],
        stretches: &[Stretch],
    ) -> Self {
        let mut classes: Vec<Class> = Vec::new();
        for alike in stretches.iter().filter_map(|it| it.alike) {
            classes.resize_with(classes.len().max(alike as usize + 1), Class::default);
            classes[alike as usize].left += 1;
        }
        Self {
            records,
            loads,
            clocks: Clocks { host: 0, streams: vec![0; streams], events: Vec::new() },
            kernels: Vec::with_capacity(SOME),
            rows: Vec::with_capacity(SOME / 4),
            transfers: vec![Vec::new(); streams],
            classes,
            opened: Vec::new(),
        }
    }

    /// Plays the next stretch of the program.
    pub(super) fn stretch(&mut self, stretch: &Stretch) {
        let Stretch { number, part, alike, .. } = *stretch;
        let Some(alike) = alike.filter(|_| !self.clocks.streams.is_empty()) else {
            return self.play(number, part.first..part.end);
        };
        let class = &mut self.classes[alike as usize];
        class.left = class.left.saturating_sub(1);
        // Those of which more are to come are worth being looked at.
        if !std::mem::replace(&mut class.come, true) {
            if class.left == 0 {
                return self.play(number, part.first..part.end);
            }
            if class.left >= WORTH {
                class.closed = Closed::of(part, self.records, self.clocks.streams.len(), self.loads);
            }
        }
        let clock = self.clocks.streams[0];
        if let Some(closed) = &class.closed
            && closed.play(part.first, self.records, &mut self.clocks)
        {
            if !closed.kernels.is_empty() {
                let held = Held { part: number, first: part.first, alike, clock };
                let end = clock + closed.clock;
                self.rows.push(Row { start: clock, end, kernels: Kernels::Closed(held) });
            }
            return;
        }
        self.play_pieces(number, part, alike as usize);
    }

    /// Plays a stretch that is like others, of which something is known.
    fn play_pieces(&mut self, number: u32, part: Part, alike: usize) {
        let pieces = self.classes[alike].pieces.take().unwrap_or_else(|| self.pieces_of(part.range()));
        for piece in &pieces {
            let range = part.first + piece.range.start..part.first + piece.range.end;
            let (host, clock) = (self.clocks.host, self.clocks.streams[0]);
            let Some((host_after, after)) = piece.through.and_then(|it| it.after(host, clock)) else {
                self.play(number, range);
                continue;
            };
            if piece.works {
                let kernels = Kernels::Among { part: number, records: range, host, clock };
                self.rows.push(Row { start: host.max(clock), end: after, kernels });
            }
            (self.clocks.host, self.clocks.streams[0]) = (host_after, after);
        }
        self.classes[alike].pieces = Some(pieces);
    }

    /// A stretch as rows of records of which it is known what they do to the clocks, and others.
    fn pieces_of(&self, range: Range<usize>) -> Box<[Piece]> {
        let mut pieces: Vec<Piece> = Vec::with_capacity(range.len().min(SOME) / 32);
        for (at, (record, _)) in (0..).zip(self.records.shapes_of(range)) {
            let works = record.kind == Kind::Kernel && record.stream == 0 && record.time > 0;
            if let Some(last) = pieces.last_mut()
                && let Some(before) = &last.through
            {
                let mut through = *before;
                if let Ok(true) = through.with(record, self.loads) {
                    last.range.end = at + 1;
                    last.through = Some(through);
                    last.works |= works;
                    continue;
                }
            }
            let mut through = Through::NOTHING;
            let known = matches!(through.with(record, self.loads), Ok(true));
            match pieces.last_mut().filter(|last| !known && last.through.is_none()) {
                Some(last) => last.range.end = at + 1,
                None => pieces.push(Piece { range: at..at + 1, through: known.then_some(through), works }),
            }
        }
        pieces.into_boxed_slice()
    }

    /// Plays records of a part one by one.
    fn play(&mut self, part: u32, range: Range<u32>) {
        let before = self.kernels.len();
        self.place(part, range);
        if let (Some(first), Some(last)) = (self.kernels.get(before), self.kernels.last()) {
            let kernels = Kernels::Placed(before..self.kernels.len());
            self.rows.push(Row { start: first.start, end: last.end, kernels });
        }
    }

    /// The same, and puts their kernels at the end of the list.
    fn place(&mut self, part: u32, range: Range<u32>) {
        let (records, mut at) = (self.records, range.start);
        while at < range.end {
            let record = records.shape(at as usize);
            if record.kind == Kind::Kernel {
                at += self.run_kernels(part, at..range.end);
            } else {
                self.step((part, at), record, records.kept[at as usize].index);
                at += 1;
            }
        }
    }

    /// Runs the kernels that follow each other on one stream; returns how many records. The clocks stay in registers.
    fn run_kernels(&mut self, part: u32, range: Range<u32>) -> u32 {
        let stream = self.records.shape(range.start as usize).stream;
        let (mut host, mut end, mut number) = (self.clocks.host, self.clock(usize::from(stream)), 0);
        for (record, _) in self.records.shapes_of(range.start as usize..range.end as usize) {
            match record.kind {
                Kind::Alloc | Kind::Free => {}
                Kind::Kernel if record.stream == stream => {
                    host = host.saturating_add(record.extra);
                    let start = end.max(host);
                    end = start.saturating_add(record.time);
                    if stream == 0 && record.time > 0 {
                        self.kernels.push(Busy { part, record: range.start + number, start, end, more: 0 });
                    }
                }
                _ => break,
            }
            number += 1;
        }
        self.clocks.host = host;
        self.set(usize::from(stream), end);
        number
    }

    /// Indices that do not exist are left for the checks of the finished program. A wait is for the event that is `back`
    /// back.
    fn step(&mut self, (part, at): (u32, u32), record: &Record, back: u32) {
        let stream = usize::from(record.stream);
        match record.kind {
            Kind::Host => self.clocks.host = self.clocks.host.saturating_add(record.time),
            Kind::HostSync => self.clocks.host = self.clocks.host.max(self.clock(stream)),
            Kind::HostWait => self.clocks.host = self.clocks.host.max(self.clocks.event(back)),
            Kind::Record => self.clocks.events.push(self.clock(stream)),
            Kind::Wait => self.set(stream, self.clock(stream).max(self.clocks.event(back))),
            // Kernels run in rows.
            Kind::Alloc | Kind::Free | Kind::Kernel => {}
            Kind::Rendezvous => {
                let Some(duration) = duration(record, self.loads) else { return };
                let start = self.clocks.host.max(self.clock(stream));
                let end = start.saturating_add(duration);
                self.set(stream, end);
                if stream != 0 {
                    let busy = Busy { part, record: at, start, end, more: 0 };
                    self.transfers.get_mut(stream).into_iter().for_each(|list| list.push(busy));
                }
            }
        }
    }

    fn clock(&self, stream: usize) -> u64 {
        self.clocks.streams.get(stream).copied().unwrap_or(0)
    }

    fn set(&mut self, stream: usize, clock: u64) {
        if let Some(place) = self.clocks.streams.get_mut(stream) {
            *place = clock;
        }
    }

    /// What becomes longer when everything has been played.
    pub(super) fn contended(mut self) -> Contended {
        let mut transfers = std::mem::take(&mut self.transfers);
        for transfers in &mut transfers {
            self.contend_with(transfers);
        }
        let (mut placed, mut closed) = (Vec::new(), Vec::new());
        for row in &self.rows {
            match &row.kernels {
                Kernels::Placed(range) => placed.push(&self.kernels[range.clone()]),
                Kernels::Closed(held) => closed.push(*held),
                Kernels::Among { .. } => {}
            }
        }
        let all = placed.into_iter().chain(transfers.iter().map(Vec::as_slice)).flatten();
        let longer = all.filter(|busy| busy.more > 0);
        let mut longer: Vec<Lengthened> =
            longer.map(|&Busy { part, record, more, .. }| Lengthened { part, record, more }).collect();
        let closed_of = |alike: usize| self.classes.get(alike).and_then(|class| class.closed.as_ref());
        for held in &self.opened {
            let transfers = closed_of(held.alike as usize).map_or(&[][..], |it| &it.transfers);
            longer.extend(transfers.iter().map(|it| Lengthened {
                part: held.part,
                record: held.first + it.record,
                more: it.more,
            }));
        }
        let of_closed = |class: &Class| {
            let closed = class.closed.iter().flat_map(|it| it.kernels.iter().chain(&it.transfers));
            closed.filter(|it| it.more > 0).map(|it| (it.record, it.more)).collect()
        };
        let of_closed = self.classes.iter().map(of_closed).collect();
        Contended { longer, closed, of_closed }
    }

    /// Kernels and transfers are in order of time, and neither overlap themselves.
    fn contend_with(&mut self, transfers: &mut [Busy]) {
        // The first row that is not over, and in it the first kernel.
        let (mut first, mut kernel) = (0, 0);
        for transfer in transfers {
            let channel = self.records.at(transfer.record as usize).channel();
            let Some(load) = self.loads.get(channel).copied().flatten() else { continue };
            while let Some(row) = self.rows.get(first) {
                if row.end > transfer.start {
                    let over = |it: &&Busy| it.end <= transfer.start;
                    if let Kernels::Placed(range) = &row.kernels {
                        kernel +=
                            self.kernels[range.start + kernel..range.end].iter().take_while(over).count();
                    }
                    break;
                }
                (first, kernel) = (first + 1, 0);
            }
            let (mut shared, mut skipped) = (0, kernel);
            let begun = self.rows[first..].iter().take_while(|row| row.start < transfer.end).count();
            for row in first..first + begun {
                let range = self.placed(row);
                let kernels = &mut self.kernels[range.start + skipped..range.end];
                shared += beside(kernels, transfer, load, 0, self.records);
                skipped = 0;
            }
            transfer.more = transfer.more.saturating_add(share(shared, load.transfer));
        }
    }

    /// The kernels of a row, placed in time.
    fn placed(&mut self, row: usize) -> Range<usize> {
        let (part, records, host, clock) = match self.rows[row].kernels.clone() {
            Kernels::Placed(range) => return range,
            Kernels::Among { part, records, host, clock } => (part, records, host, clock),
            Kernels::Closed(held) => return self.open(row, held),
        };
        let before = self.kernels.len();
        let after = (self.clocks.host, self.clocks.streams[0]);
        (self.clocks.host, self.clocks.streams[0]) = (host, clock);
        self.place(part, records);
        (self.clocks.host, self.clocks.streams[0]) = after;
        let range = before..self.kernels.len();
        self.rows[row].kernels = Kernels::Placed(range.clone());
        range
    }

    /// The same of a stretch that nothing held up: beside its kernels are transfers of others.
    fn open(&mut self, row: usize, held: Held) -> Range<usize> {
        let before = self.kernels.len();
        if let Some(closed) = &self.classes[held.alike as usize].closed {
            self.kernels.extend(closed.kernels.iter().map(|it| Busy {
                part: held.part,
                record: held.first + it.record,
                start: held.clock + it.start,
                end: held.clock + it.end,
                more: it.more,
            }));
        }
        self.opened.push(held);
        let range = before..self.kernels.len();
        self.rows[row].kernels = Kernels::Placed(range.clone());
        range
    }
}

/// Lengthens those of some kernels that run beside a transfer; returns the time together. Their records are counted from
/// the `first`.
fn beside(kernels: &mut [Busy], transfer: &Busy, load: Load, first: u32, records: Records<'_>) -> u64 {
    let mut shared = 0;
    let kernels = kernels.iter_mut().skip_while(|it| it.end <= transfer.start);
    for kernel in kernels.take_while(|it| it.start < transfer.end) {
        let both = kernel.end.min(transfer.end) - kernel.start.max(transfer.start);
        let by_memory = records.shape((first + kernel.record) as usize).is_limited_by_memory();
        let lost = share(both, if by_memory { load.memory } else { load.arithmetic });
        kernel.more = kernel.more.saturating_add(lost);
        shared += both;
    }
    shared
}

/// Lengthens kernels and transfers by what they take from each other. Both are in order of time, and neither overlap
/// themselves.
pub(super) fn share_time(
    kernels: &mut [Busy],
    transfers: &mut [Busy],
    first: u32,
    records: Records<'_>,
    loads: &[Option<Load>],
) {
    let mut over = 0;
    for transfer in transfers {
        let channel = records.shape((first + transfer.record) as usize).channel();
        let Some(load) = loads.get(channel).copied().flatten() else { continue };
        over += kernels[over..].iter().take_while(|it| it.end <= transfer.start).count();
        let shared = beside(&mut kernels[over..], transfer, load, first, records);
        transfer.more = transfer.more.saturating_add(share(shared, load.transfer));
    }
}
