//! Slices of one stream: kernels of a layer are one, a pass over a micro-batch is around its layers, and a meeting is
//! around its waiting and its transfer.

use steptime_core::{Span, SpanKind};

use super::meetings::Met;
use super::{Slice, Track, is_meeting};

/// Kinds of which a run over one micro-batch is a pass.
const PASSES: [&str; 5] = ["forward", "backward", "recompute", "weights", "optimizer"];

/// A leaf or a meeting with its parts, before passes are put around them.
struct Piece {
    slices: Vec<Slice>,
    /// The pass that it belongs to.
    pass: Option<Pass>,
    /// The label and the kind of span that a following kernel would go on with.
    open: Option<(SpanKind, u32)>,
}

/// A run over one micro-batch.
#[derive(Clone, PartialEq, Eq)]
struct Pass {
    kind: String,
    micro_batch: Option<u64>,
    /// Of the stage's chunks of layers, where it has several and this belongs to one.
    chunk: Option<u64>,
}

impl Pass {
    /// Of a label's parts, where its kind is one of passes.
    fn of(kind: &str, micro_batch: Option<u64>, chunk: Option<u64>) -> Option<Self> {
        PASSES.contains(&kind).then(|| Self { kind: kind.to_owned(), micro_batch, chunk })
    }

    /// Whether both are parts of one pass; what belongs to no layer goes with the chunk before it.
    fn goes_on(&self, next: &Self) -> bool {
        let same = next.chunk.is_none() || self.chunk == next.chunk;
        same && (&self.kind, self.micro_batch) == (&next.kind, next.micro_batch)
    }

    fn title(&self) -> String {
        let micro_batch = self.micro_batch.map_or_else(String::new, |number| format!(" {number}"));
        let chunk = self.chunk.map_or_else(String::new, |chunk| format!(", chunk {chunk}"));
        format!("{}{micro_batch}{chunk}", self.kind)
    }
}

impl Piece {
    fn end(&self) -> u64 {
        self.slices.first().map_or(0, |slice| slice.end)
    }
}

/// The track of a stream whose spans are in order; `met` are its rendezvous in order.
pub(super) fn track<'a>(name: &str, spans: &[Span], met: &[Met], label: impl Fn(&Span) -> &'a str) -> Track {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut met = met.iter().copied();
    let mut waiting: Option<Span> = None;
    for span in spans {
        if is_meeting(span) {
            if span.kind == SpanKind::Waiting {
                waiting = Some(*span);
                continue;
            }
            let piece = meeting(label(span), waiting.take(), span, met.next());
            pieces.extend(piece.filter(|it| !it.slices.is_empty()));
            continue;
        }
        if span.start == span.end {
            continue;
        }
        let open = Some((span.kind, span.label.0));
        match pieces.last_mut() {
            Some(last) if last.open == open && last.end() == span.start.picos() => {
                last.slices[0].end = span.end.picos();
            }
            _ => pieces.push(leaf(label(span), span)),
        }
    }
    nest(name, &pieces)
}

/// The parts of a label: name, kind, micro-batch, and chunk.
fn parts(label: &str) -> (&str, &str, [Option<u64>; 2]) {
    let mut parts = label.split('|');
    let name = parts.next().unwrap_or_default();
    let kind = parts.next().unwrap_or("other");
    (name, kind, [(); 2].map(|()| parts.next().and_then(|number| number.parse().ok())))
}

fn leaf(label: &str, span: &Span) -> Piece {
    let (name, kind, [micro_batch, chunk]) = parts(label);
    let pass = Pass::of(kind, micro_batch, chunk);
    let category = if span.kind == SpanKind::Host { "host" } else { kind };
    Piece {
        slices: vec![slice((name, category), (span.start.picos(), span.end.picos()), micro_batch)],
        pass,
        open: Some((span.kind, span.label.0)),
    }
}

fn slice((name, category): (&str, &str), (start, end): (u64, u64), micro_batch: Option<u64>) -> Slice {
    let (name, category) = (name.to_owned(), category.to_owned());
    Slice { name, category, start, end, depth: 0, micro_batch, bytes: None, arrow: None }
}

/// A meeting: waiting and transfer inside one slice, or the transfer alone where nobody waited.
fn meeting(label: &str, waiting: Option<Span>, transfer: &Span, met: Option<Met>) -> Option<Piece> {
    let (name, kind, [micro_batch, chunk]) = parts(label);
    let pass = Pass::of(kind, micro_batch, chunk);
    let (start, end) = (transfer.start.picos(), transfer.end.picos());
    let bytes = met.and_then(|met| met.bytes);
    let arrow = met.and_then(|met| met.arrow);
    // A collective inside a layer has the layer's label.
    let what = if pass.is_some() { "collective" } else { kind };
    let mut slices = Vec::new();
    if let Some(waiting) = waiting.filter(|span| span.start < span.end) {
        let begin = waiting.start.picos();
        slices.push(slice((name, what), (begin, end), micro_batch));
        slices.push(Slice { depth: 1, ..slice(("waiting", "waiting"), (begin, start), micro_batch) });
        if start < end {
            let inner = slice(("transfer", what), (start, end), micro_batch);
            slices.push(Slice { depth: 1, bytes, arrow, ..inner });
        }
    } else if start < end {
        slices.push(Slice { bytes, arrow, ..slice((name, what), (start, end), micro_batch) });
    }
    (!slices.is_empty()).then_some(Piece { slices, pass, open: None })
}

/// Puts a slice around each run of pieces of one pass, and counts what the innermost slices last.
fn nest(name: &str, pieces: &[Piece]) -> Track {
    let mut slices: Vec<Slice> = Vec::with_capacity(pieces.len() * 2);
    let mut at = 0;
    while at < pieces.len() {
        let same = |piece: &&Piece| {
            pieces[at].pass.as_ref().zip(piece.pass.as_ref()).is_some_and(|(pass, next)| pass.goes_on(next))
        };
        let run = pieces[at..].iter().take_while(same).count().max(1);
        let deeper = u32::from(pieces[at].pass.is_some());
        if let Some(pass) = &pieces[at].pass {
            let (start, end) = (pieces[at].slices[0].start, pieces[at + run - 1].end());
            slices.push(slice((&pass.title(), &pass.kind), (start, end), pass.micro_batch));
        }
        for piece in &pieces[at..at + run] {
            slices.extend(piece.slices.iter().map(|it| Slice { depth: it.depth + deeper, ..it.clone() }));
        }
        at += run;
    }
    let innermost = |(at, it): (usize, &Slice)| {
        let leaf = slices.get(at + 1).is_none_or(|next| next.depth <= it.depth);
        if leaf { it.end - it.start } else { 0 }
    };
    let busy = slices.iter().enumerate().map(innermost).sum();
    Track { name: name.to_owned(), slices, busy }
}
