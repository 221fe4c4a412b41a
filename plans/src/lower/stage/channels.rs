//! The channels of a stage's program: with whom its ranks meet.

use steptime_core::Channel;

use super::{Meeting, StageBuilder};
use crate::lower::placement::Along;
use crate::zero::ZeroStage;

impl StageBuilder<'_> {
    pub(super) fn open_channels(&mut self) {
        let input = self.input;
        let training = input.training();
        let mut wanted = Vec::new();
        let groups = [
            (Along::Data, "data parallel", training || input.plan.zero == ZeroStage::Three),
            (Along::Tensor, "tensor parallel", true),
            (Along::Context, "context parallel", true),
            (Along::Expert, "expert parallel", input.plan.spreads_experts()),
            (Along::ExpertTensor, "expert tensor parallel", input.plan.spreads_experts()),
            (Along::ExpertData, "expert data parallel", training && input.plan.spreads_experts()),
            (Along::Replicas, "replicas of shards", training),
            (Along::Secondary, "second copies of parameters", training),
        ];
        for (along, name, needed) in groups {
            if needed && input.placements[along as usize].ranks > 1 {
                wanted.push((Meeting::Group(along), name));
            }
        }
        if input.plan.tensor_pieces && input.placements[Along::Tensor as usize].ranks > 1 {
            wanted.push((Meeting::Pieces, "tensor parallel, in pieces"));
        }
        for (number, chunk) in input.chunks.iter().enumerate() {
            if chunk.crosses[1].is_some() {
                wanted.push((Meeting::ForwardOut(number), "activations to next stage"));
                if training {
                    wanted.push((Meeting::BackwardIn(number), "gradients from next stage"));
                }
            }
            if chunk.crosses[0].is_some() {
                wanted.push((Meeting::ForwardIn(number), "activations from previous stage"));
                if training {
                    wanted.push((Meeting::BackwardOut(number), "gradients to previous stage"));
                }
            }
        }
        if input.tied_embedding.is_some() && training && (input.holds_embedding() || input.holds_head()) {
            wanted.push((Meeting::Embedding, "shared embedding"));
        }
        if input.opposite.is_some() && training {
            wanted.push((Meeting::Opposite, "copies on the opposite stage"));
        }
        wanted.extend(input.host_ways());
        for (meeting, name) in wanted {
            let channel = self.program.channel(name);
            self.meetings.push((meeting, channel));
        }
    }

    pub(super) fn channel(&self, meeting: Meeting) -> Option<Channel> {
        self.meetings.iter().find(|(known, _)| *known == meeting).map(|&(_, channel)| channel)
    }
}
