//! When flows end: those that got new rates together wait together.

use super::Flow;

/// A look at the flows of one settlement that end first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due(u32);

/// A flow in no batch.
pub(super) const NO_BATCH: u32 = u32::MAX;

/// Flows that got new rates in one settlement, by their ends. Those that have got others since are in other batches.
#[derive(Clone, Debug, Default)]
struct Batch {
    ends: Vec<(u64, u32)>,
    /// How many of them have been looked at.
    passed: usize,
    /// How many of the others are still in this batch.
    waiting: usize,
    /// What has been reported.
    due: u64,
}

/// All batches. Each with flows in it has exactly one report out.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends {
    batches: Vec<Batch>,
    free: Vec<u32>,
    /// Batches whose report has been used.
    used: Vec<u32>,
}

impl Ends {
    /// Whether some batch needs another report.
    pub(super) fn is_waiting(&self) -> bool {
        !self.used.is_empty()
    }

    /// A batch without flows.
    pub(super) fn open(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.batches.push(Batch::default());
            self.batches.len() as u32 - 1
        })
    }

    pub(super) fn add(&mut self, batch: u32, end: u64, flow: u32) {
        self.batches[batch as usize].ends.push((end, flow));
    }

    /// The batch has all its flows; their first end. It is given up if there are none.
    pub(super) fn close(&mut self, batch: u32) -> Option<(u64, Due)> {
        let state = &mut self.batches[batch as usize];
        // Equal ends, the usual case, are in order as they are.
        state.ends.sort_unstable_by_key(|end| end.0);
        (state.passed, state.waiting) = (0, state.ends.len());
        let Some(&(end, _)) = state.ends.first() else {
            self.free.push(batch);
            return None;
        };
        state.due = end;
        Some((end, Due(batch)))
    }

    /// All ends are so many picoseconds later.
    pub(super) fn put_off(&mut self, picos: u64) {
        for batch in &mut self.batches {
            for (end, _) in &mut batch.ends {
                *end = end.saturating_add(picos);
            }
            batch.due = batch.due.saturating_add(picos);
        }
    }

    /// A flow left its batch for another one. Must be called when the flow names its new one.
    pub(super) fn leave(&mut self, batch: u32, flows: &[Flow]) {
        let Some(state) = self.batches.get_mut(batch as usize) else { return };
        state.waiting -= 1;
        // Memory stays in proportion to the flows that wait; each look is paid for by a flow that left.
        if state.ends.len() - state.passed > 2 * state.waiting + 8 {
            state.ends.drain(..state.passed);
            state.passed = 0;
            state.ends.retain(|&(_, flow)| flows[flow as usize].batch == batch);
        }
    }

    /// How many flows a batch lists, those that have left it among them.
    #[cfg(test)]
    pub(super) fn listed(&self, batch: u32) -> usize {
        let Batch { ends, passed, .. } = &self.batches[batch as usize];
        ends.len() - passed
    }

    /// The flows that a report announced and that still end then.
    pub(super) fn take(&mut self, Due(batch): Due, flows: &mut [Flow], taken: &mut Vec<u32>) {
        let state = &mut self.batches[batch as usize];
        while let Some(&(end, flow)) = state.ends.get(state.passed) {
            let waits = flows[flow as usize].batch == batch;
            if waits && end > state.due {
                break;
            }
            state.passed += 1;
            if waits {
                state.waiting -= 1;
                flows[flow as usize].batch = NO_BATCH;
                taken.push(flow);
            }
        }
        self.used.push(batch);
    }

    /// Reports the next end of every batch whose report has been used, and gives up those without one.
    pub(super) fn report(&mut self, flows: &[Flow], mut report: impl FnMut(u64, Due)) {
        while let Some(batch) = self.used.pop() {
            let state = &mut self.batches[batch as usize];
            let rest = state.ends.get(state.passed..).unwrap_or_default();
            let next = rest.iter().position(|&(_, flow)| flows[flow as usize].batch == batch);
            if let Some(next) = next {
                state.passed += next;
                state.due = state.ends[state.passed].0;
                report(state.due, Due(batch));
            } else {
                state.ends.clear();
                (state.passed, state.waiting) = (0, 0);
                self.free.push(batch);
            }
        }
    }
}
