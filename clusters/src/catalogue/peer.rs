//! Nodes whose GPUs do not reach each other's memory.

use super::error::CatalogueError;
use super::parts::fabric_from_catalogue;
use crate::cluster::Cluster;
use crate::gpu::GpuArchitecture;

/// Fabrics without peer access by generation of PCI Express: 3, 4, 5.
const STAGED: [&str; 3] = ["pcie3-no-peer", "pcie4-no-peer", "pcie5-no-peer"];

impl Cluster {
    /// The cluster with every transfer inside a node staged in host memory, over the GPU's generation of PCI Express: NVLink
    /// and direct copies are left aside, as NCCL does with `NCCL_P2P_DISABLE=1`, and as it must where the driver or an
    /// IOMMU allows no peer access.
    ///
    /// # Errors
    /// The catalogue has no such links (it does for every GPU of its own).
    pub fn without_peer_access(&self) -> Result<Self, CatalogueError> {
        let preset = match self.gpu.architecture {
            GpuArchitecture::Volta | GpuArchitecture::Turing => STAGED[0],
            GpuArchitecture::Ampere | GpuArchitecture::Ada => STAGED[1],
            GpuArchitecture::Hopper | GpuArchitecture::Blackwell => STAGED[2],
        };
        Ok(Self { fabric: fabric_from_catalogue(preset)?, ..self.clone() })
    }

    /// Whether what GPUs of a node send to each other goes through the host's memory.
    pub fn stages_in_host(&self) -> bool {
        STAGED.contains(&self.fabric.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use crate::{CollectiveKind, Placement, collective};

    use super::*;
    use crate::catalogue::tests::nodes;

    /// 1 GiB over eight A100: 222 GB/s of bus bandwidth through NVSwitch (DGX A100, measured), 0.75 of the 20.3 GB/s of PCI
    /// Express 4.0 through the host.
    #[test]
    fn an_all_reduce_through_the_host_takes_the_rate_of_its_slots() {
        let bytes = 1_u64 << 30;
        let seconds = |cluster: &Cluster| {
            let placement = Placement { ranks: 8, nodes: 1 };
            let transfer = collective(cluster, CollectiveKind::AllReduce, placement, bytes);
            transfer.fixed_s + transfer.wire_bytes as f64 / cluster.fabric.port_bandwidth()
        };
        let dgx = nodes("dgx-a100-40gb");
        let staged = dgx.without_peer_access().unwrap();
        assert!(staged.stages_in_host() && !dgx.stages_in_host());
        let bus = |cluster: &Cluster| bytes as f64 * 14.0 / 8.0 / seconds(cluster) / 1e9;
        assert!(bus(&dgx) > 200.0, "{}", bus(&dgx));
        assert!((bus(&staged) - 15.2).abs() < 0.5, "{}", bus(&staged));
    }
}
