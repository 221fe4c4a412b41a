//! What stands before the first block and after the last.

use super::form::{Head, Position, Transformer};
use crate::blocks::{
    Function, Linear, activation, activation_by_result, all_tokens, cross_entropy, dropout, first_token,
    language_loss, linear, lookup, mean_pool, position_lookup, scale, shared_lookup, type_lookup,
};
use crate::operation::Dtype;
use crate::tape::{Tape, Tensor, Trace, Traced, names};

impl Transformer {
    pub(super) fn embedding(&self, trace: Trace<'_>) -> Traced {
        let shape = trace.shape;
        let (mut tape, ids) = Tape::start(trace, all_tokens(shape), 1, Dtype::Int64.bytes());
        let tape = &mut tape;
        let mut x = lookup(tape, self.naming.tokens, ids, [self.vocabulary, self.embedding_dim]);
        if self.embedding_dim != self.hidden {
            x = linear(tape, Linear::new("project_in", names!("embedding.projection"), self.hidden), x);
        }
        if self.embedding_scale {
            x = scale(tape, names!("embedding.scale"), x, false);
        }
        if let Position::Learned(rows) = self.position {
            x = position_lookup(tape, self.naming.positions, x, shape.sequence_length, rows);
        }
        if self.token_types > 0 {
            x = type_lookup(tape, self.naming.types, x, self.token_types);
        }
        if self.embedding_norm {
            x = self.norm(tape, self.naming.embedding_norm, names!("embedding.norm"), x);
        }
        // OPT's code makes this dropout and does not call it.
        let drops = self.dropout && self.naming.name != "opt";
        let x = dropout(tape, names!("embedding.dropout"), x, drops);
        tape.finish(x)
    }

    /// Embedding of the decoder's tokens, whose ids the sample holds.
    pub(super) fn decoder_embedding(&self, tape: &mut Tape<'_>) -> Tensor {
        let ids = tape.outside(all_tokens(tape.shape), 1, Dtype::Int64.bytes(), false);
        let x = shared_lookup(tape, self.naming.tokens, ids, [self.vocabulary, self.hidden]);
        dropout(tape, names!("embedding.dropout"), x, self.dropout)
    }

    /// What the last block of an encoder is followed by before a decoder reads it.
    pub(super) fn finish_encoder(&self, tape: &mut Tape<'_>, x: Tensor) -> Tensor {
        let x = if self.final_norm {
            self.norm(tape, "encoder.final_norm", names!("encoder.norm"), x)
        } else {
            x
        };
        dropout(tape, names!("encoder.dropout"), x, self.dropout)
    }

    /// Head of the model.
    pub(super) fn finish(&self, trace: Trace<'_>) -> Traced {
        let shape = trace.shape;
        let (mut tape, x) = self.start(trace);
        let tape = &mut tape;
        let x =
            if self.final_norm { self.norm(tape, self.naming.final_norm, names!("head.norm"), x) } else { x };
        let output = match self.head {
            Head::Language => self.language(tape, x),
            Head::MaskedLanguage => self.masked_language(tape, x),
            Head::Pooler => self.pool(tape, x),
            Head::MeanPool => {
                self.run_pooler(tape, x);
                mean_pool(tape, x, shape.micro_batch)
            }
            Head::Classifier(classes) => self.classify(tape, x, classes),
            Head::None => {
                self.run_pooler(tape, x);
                x
            }
        };
        tape.finish(output)
    }

    fn language(&self, tape: &mut Tape<'_>, x: Tensor) -> Tensor {
        let mut x = x;
        if self.is_t5() {
            x = dropout(tape, names!("head.dropout"), x, self.dropout);
            if self.tied {
                x = scale(tape, names!("head.scale"), x, false);
            }
        }
        if self.embedding_dim != self.hidden {
            x = linear(
                tape,
                Linear::new("project_out", names!("head.projection_out"), self.embedding_dim),
                x,
            );
        }
        let projection = Linear::new(self.naming.output, names!("head.projection"), self.vocabulary);
        language_loss(tape, projection.tied(self.tied), self.logit_softcap, x)
    }

    /// BERT's: the projection is the embedding's table with a bias of its own.
    fn masked_language(&self, tape: &mut Tape<'_>, x: Tensor) -> Tensor {
        self.run_pooler(tape, x);
        let dense =
            Linear::new("cls.predictions.transform.dense", names!("head.transform"), self.embedding_dim);
        let wide = linear(tape, dense.bias(true), x);
        let wide = activation(tape, names!("head.activation"), Function::Gelu, wide);
        let module = "cls.predictions.transform.LayerNorm";
        let normed = self.norm(tape, module, names!("head.transform_norm"), wide);
        let projection = Linear::new(self.naming.output, names!("head.projection"), self.vocabulary);
        language_loss(tape, projection.bias(true).tied(true), self.logit_softcap, normed)
    }

    /// Linear layer and tanh of the first token.
    fn pool(&self, tape: &mut Tape<'_>, x: Tensor) -> Tensor {
        let first = first_token(tape, x, tape.shape.micro_batch);
        let pooled = Linear::new("pooler.dense", names!("head.pooler"), self.hidden).bias(true);
        let pooled = linear(tape, pooled, first);
        activation_by_result(tape, names!("head.tanh"), pooled)
    }

    /// A pooler whose result nothing uses: it runs, and gets no gradient.
    fn run_pooler(&self, tape: &mut Tape<'_>, x: Tensor) {
        if self.pooler {
            self.pool(tape, x);
        }
    }

    /// Decoders project every token and take one; encoders pool first.
    fn classify(&self, tape: &mut Tape<'_>, x: Tensor, classes: u64) -> Tensor {
        let batch = tape.shape.micro_batch;
        let logits = if self.causal {
            let logits = linear(tape, Linear::new("score", names!("head.classifier"), classes), x);
            first_token(tape, logits, batch)
        } else {
            let pooled = if self.pooler { self.pool(tape, x) } else { first_token(tape, x, batch) };
            let pooled = dropout(tape, names!("head.dropout"), pooled, self.dropout);
            linear(tape, Linear::new("classifier", names!("head.classifier"), classes).bias(true), pooled)
        };
        if tape.shape.training { cross_entropy(tape, logits, false) } else { logits }
    }
}
