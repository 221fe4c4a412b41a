//! Options of `steptime serve`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// Folder with scenarios (TOML) to choose from; files outside of it are never read
    #[arg(value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    /// Port; 0 takes any that is free
    #[arg(long, value_name = "PORT", default_value_t = 8765)]
    pub(crate) port: u16,
    /// Address to listen on; others than this machine's own let the whole network ask
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) address: IpAddr,
    /// Another name by which requests may call this machine; repeatable
    #[arg(long, value_name = "NAME")]
    pub(crate) allow_host: Vec<String>,
}
