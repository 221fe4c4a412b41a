//! What hooks of libraries that shard models take the host: Python and views, beside the kernels and collectives that they
//! launch.

/// Names of [`HookCost::values`], as `[cluster] host.hooks` and the catalogue's `hooks.toml` have them (there a table a
/// library).
pub const HOOK_COSTS: [&str; 13] = [
    "fsdp1_unit_forward",
    "fsdp1_unit_backward",
    "fsdp1_parameter_forward",
    "fsdp1_parameter_backward",
    "fsdp2_unit_forward",
    "fsdp2_unit_backward",
    "fsdp2_parameter_forward",
    "fsdp2_parameter_backward",
    "deepspeed_module_forward",
    "deepspeed_module_backward",
    "deepspeed_parameter_gathered",
    "deepspeed_gradient_stage3",
    "deepspeed_gradient",
];

/// Host time of FSDP's hooks around a pass over a unit, seconds: before it checks, streams, storage and views, after it
/// resharding, and in backward what prepares the reduction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UnitHooks {
    /// Forward of one unit.
    pub unit_forward_s: f64,
    /// Backward of one unit.
    pub unit_backward_s: f64,
    /// Each parameter of a unit, forward.
    pub parameter_forward_s: f64,
    /// Each parameter of a unit, backward.
    pub parameter_backward_s: f64,
}

/// Host time of DeepSpeed's hooks, seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ModuleHooks {
    /// Stage 3: forward of one module with parameters (`fetch_sub_module`, `release_sub_module`).
    pub module_forward_s: f64,
    /// Stage 3: backward of one such module.
    pub module_backward_s: f64,
    /// Stage 3: each parameter each time that it is gathered: handle, views, partition.
    pub parameter_gathered_s: f64,
    /// Stage 3: each gradient (`reduce_partition_and_remove_grads`, `__reduce_and_partition_ipg_grads`).
    pub gradient_stage3_s: f64,
    /// Stages 1 and 2: each gradient that is reduced (`reduce_independent_p_g_buckets_and_remove_grads`).
    pub gradient_s: f64,
}

/// Host time of all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HookCost {
    /// `FullyShardedDataParallel`, PyTorch's FSDP of flat parameters.
    pub fsdp1: UnitHooks,
    /// `fully_shard`, FSDP by parameters.
    pub fsdp2: UnitHooks,
    /// DeepSpeed's ZeRO.
    pub deepspeed: ModuleHooks,
}

impl HookCost {
    /// The costs in the order of [`HOOK_COSTS`], seconds.
    pub fn values(&self) -> [f64; HOOK_COSTS.len()] {
        let unit = |it: &UnitHooks| {
            [it.unit_forward_s, it.unit_backward_s, it.parameter_forward_s, it.parameter_backward_s]
        };
        let ([a, b, c, d], [e, f, g, h]) = (unit(&self.fsdp1), unit(&self.fsdp2));
        let it = &self.deepspeed;
        let [i, j, k] = [it.module_forward_s, it.module_backward_s, it.parameter_gathered_s];
        [a, b, c, d, e, f, g, h, i, j, k, it.gradient_stage3_s, it.gradient_s]
    }

    /// Costs from such a list.
    pub fn from_values(values: [f64; HOOK_COSTS.len()]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m] = values;
        let unit = |[unit_forward_s, unit_backward_s, parameter_forward_s, parameter_backward_s]: [f64;
                        4]| {
            UnitHooks { unit_forward_s, unit_backward_s, parameter_forward_s, parameter_backward_s }
        };
        Self {
            fsdp1: unit([a, b, c, d]),
            fsdp2: unit([e, f, g, h]),
            deepspeed: ModuleHooks {
                module_forward_s: i,
                module_backward_s: j,
                parameter_gathered_s: k,
                gradient_stage3_s: l,
                gradient_s: m,
            },
        }
    }

    /// The same on a host that takes `factor` times as long.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self::from_values(self.values().map(|seconds| factor * seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_come_back_from_their_list_in_order() {
        let numbers: [f64; HOOK_COSTS.len()] = std::array::from_fn(|place| place as f64);
        let costs = HookCost::from_values(numbers);
        assert_eq!(costs.values().map(f64::to_bits), numbers.map(f64::to_bits));
        let place = |name| HOOK_COSTS.iter().position(|it| *it == name).map(|place| place as f64);
        assert_eq!(Some(costs.fsdp1.parameter_backward_s), place("fsdp1_parameter_backward"));
        assert_eq!(Some(costs.fsdp2.unit_forward_s), place("fsdp2_unit_forward"));
        assert_eq!(Some(costs.deepspeed.parameter_gathered_s), place("deepspeed_parameter_gathered"));
        assert_eq!(Some(costs.deepspeed.gradient_s), place("deepspeed_gradient"));
        assert_eq!(costs.scaled(2.0).values().map(f64::to_bits), numbers.map(|it| (2.0 * it).to_bits()));
    }
}
