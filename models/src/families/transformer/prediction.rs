//! Modules that predict one token further than the model (DeepSeek-V3, section 2.2).

use super::Around;
use super::form::Transformer;
use crate::blocks::{Linear, all_tokens, join_columns, language_loss, linear, shared_lookup};
use crate::operation::Dtype;
use crate::tape::{Gradient, Step, Tape, Tensor, names};

impl Transformer {
    /// Norms of the last block's result and of the next tokens' embedding, a projection of both to the width of the
    /// model, a block, a norm, and a loss with the model's own table and projection. The last block's result goes on to
    /// the head as it is; outside training, where there is no loss, so does the module's prediction go nowhere.
    pub(super) fn predict(&self, tape: &mut Tape<'_>, around: &Around, x: Tensor) -> Tensor {
        let ids = tape.outside(all_tokens(tape.shape), 1, Dtype::Int64.bytes(), false);
        let next = shared_lookup(tape, self.naming.tokens, ids, [self.vocabulary, self.hidden]);
        let next = self.norm(tape, "enorm", names!("prediction.token_norm"), next);
        let last = self.norm(tape, "hnorm", names!("prediction.norm"), x);
        let both = join_columns(tape, names!("prediction.join"), [next, last]);
        let y = linear(tape, Linear::new("eh_proj", names!("prediction.projection"), self.hidden), both);
        let y = self.halves(tape, around, y);
        let y = self.norm(tape, "shared_head.norm", names!("head.norm"), y);
        let projection = Linear::new("shared_head.head", names!("head.projection"), self.vocabulary);
        let loss = language_loss(tape, projection.tied(true), self.logit_softcap, y);
        if tape.shape.training { attach(tape, x, loss) } else { x }
    }
}

/// `x` itself, with a loss that joins the model's: its gradient starts where that of `x` comes by.
fn attach(tape: &mut Tape<'_>, x: Tensor, loss: Tensor) -> Tensor {
    let y = tape.view(x, x.rows, x.width);
    tape.record(&Step {
        names: names!("prediction.loss"),
        forward: &[],
        reads: &[],
        saves: &[],
        inputs: &[x, loss],
        outputs: &[y],
        backward: &[],
        scratch: 0,
        gradient: Gradient::Passed,
        trains: false,
    });
    y
}
