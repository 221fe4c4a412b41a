//! Options of `steptime clusters`.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct ClustersArguments {
    /// Name of an entry; all entries are listed without it
    pub(crate) name: Option<String>,
    /// Print one JSON document on standard output and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// Show what each collective of a cluster takes by size, and in which algorithm and protocol, instead
    #[arg(long, requires = "name")]
    pub(crate) collectives: bool,
    /// Nodes of the group; those of the entry without it
    #[arg(long, value_name = "NODES", requires = "collectives")]
    pub(crate) nodes: Option<u32>,
    /// GPUs of each node in the group; all of a node without it
    #[arg(long, value_name = "GPUS", requires = "collectives")]
    pub(crate) gpus_per_node: Option<u32>,
}
