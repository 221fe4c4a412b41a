//! Regions that the model's own code recomputes in backward (`torch.utils.checkpoint`).

use super::{Gradient, Names, Step, Tape, Tensor, Trace};
use crate::units::total;
use crate::work_shape::WorkShape;

impl Tape<'_> {
    /// Records `region` on `x` as one step that keeps its input only: forward runs without keeping anything, backward
    /// runs it once more with everything kept, then its backward. What it keeps in between is scratch of the step.
    pub(crate) fn checkpointed(
        &mut self,
        names: Names,
        workspace: &'static str,
        x: Tensor,
        region: impl Fn(&mut Tape<'_>, Tensor) -> Tensor,
    ) -> Tensor {
        let inside = |shape: &WorkShape, lists_parameters: bool| {
            let input_needs_gradient = self.needs_gradient(x);
            let trainable = self.trace.trainable;
            let trace = Trace { shape, trainable, input_needs_gradient, lists_parameters };
            let (mut tape, input) = Tape::start(trace, x.rows, x.width, x.value_bytes);
            tape.added = self.added;
            let output = region(&mut tape, input);
            (tape.finish(output), output)
        };
        let shape = *self.shape;
        let (once, _) = inside(&WorkShape { training: false, ..shape }, false);
        let (again, output) = inside(&shape, self.trace.lists_parameters);
        let trains = again.parameters.iter().any(|it| it.trainable) || !again.work.backward.is_empty();
        for parameter in again.parameters {
            if self.listed.insert(parameter.name.clone()) {
                self.parameters.push(parameter);
            }
        }

        let held = self.tensor(workspace, once.work.forward_temporary.0, 1, 1);
        let y = self.tensor(names.output, output.rows, output.width, output.value_bytes);
        let kept = again.work.saved.iter().filter(|it| !it.is_layer_input()).map(|it| it.bytes.0);
        let passes = again.work.forward_temporary.max(again.work.backward_temporary).0;
        let backward: Vec<_> = again.work.forward.iter().chain(&again.work.backward).copied().collect();
        self.record(&Step {
            names,
            forward: &again.work.forward,
            reads: &[x, held],
            saves: &[x],
            inputs: &[x],
            outputs: &[y],
            backward: &backward,
            scratch: total(&[kept.fold(0, u64::saturating_add), passes]),
            gradient: Gradient::New,
            trains,
        });
        y
    }
}
