//! `steptime clusters`: clusters and GPUs of the catalogue, as lists and entry by entry.

use steptime_clusters::{
    CatalogueError, Cluster, ClusterEntry, Fact, Gpu, VehicleCluster, cluster_from_catalogue, cluster_names,
    gpu_from_catalogue, gpu_names,
};

use crate::cli::ClustersArguments;
use crate::commands::collectives::collectives;
use crate::failure::{Answer, Failure};
use crate::output;
use crate::present::{bytes, right_align, significant, table, trimmed};

/// `steptime clusters [NAME]`.
pub(crate) fn clusters(arguments: &ClustersArguments) -> Result<Answer, Failure> {
    let refuse = |error: CatalogueError| Failure::Message(error.to_string());
    let text = if let Some(name) = &arguments.name {
        if let Ok(gpu) = gpu_from_catalogue(name) {
            if arguments.collectives {
                return Err(Failure::Message(format!("--collectives: `{name}` is a GPU; name a cluster")));
            }
            if arguments.json { output::json(&gpu_json(&gpu))? } else { gpu_text(&gpu) }
        } else {
            let entry = cluster_from_catalogue(name).map_err(|error| unknown(name, &error))?;
            if arguments.collectives {
                collectives(arguments, &entry)?
            } else if arguments.json {
                output::json(&entry_json(&entry))?
            } else {
                entry_text(&entry)
            }
        }
    } else {
        let load = |name| cluster_from_catalogue(name).map_err(refuse);
        let entries = cluster_names().into_iter().map(load).collect::<Result<Vec<_>, _>>()?;
        let gpus =
            gpu_names().into_iter().map(gpu_from_catalogue).collect::<Result<Vec<_>, _>>().map_err(refuse)?;
        if arguments.json {
            output::json(&serde_json::json!({
                "clusters": entries.iter().map(entry_json).collect::<Vec<_>>(),
                "gpus": gpus.iter().map(gpu_json).collect::<Vec<_>>(),
            }))?
        } else {
            cluster_list(&entries, &gpus)
        }
    };
    output::print(&trimmed(&text))?;
    Ok(Answer::Yes)
}

/// Clusters and GPUs share one command, and so the message about a name that neither has.
fn unknown(name: &str, error: &CatalogueError) -> Failure {
    let CatalogueError::UnknownName { nearest, .. } = error else {
        return Failure::Message(error.to_string());
    };
    let gpu = match gpu_from_catalogue(name) {
        Err(CatalogueError::UnknownName { nearest, .. }) => nearest,
        _ => None,
    };
    let hint = nearest.clone().or(gpu).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    Failure::Message(format!(
        "no cluster and no GPU is named `{name}`{hint}; clusters: {}; GPUs: {}",
        cluster_names().join(", "),
        gpu_names().join(", ")
    ))
}

fn cluster_list(entries: &[ClusterEntry], gpus: &[Gpu]) -> String {
    let mut list = table(&["cluster", "nodes", "devices a node", "device"]);
    for entry in entries {
        match entry {
            ClusterEntry::Nodes(cluster) => list.add_row([
                cluster.name.clone(),
                cluster.nodes.to_string(),
                cluster.gpus_per_node.to_string(),
                cluster.gpu.name.clone(),
            ]),
            ClusterEntry::Vehicles(vehicles) => {
                let count = vehicles.vehicles.len().to_string();
                list.add_row([vehicles.name.clone(), "-".to_owned(), count, "vehicle".to_owned()])
            }
        };
    }
    let mut devices = table(&["GPU", "memory", "bandwidth", "SMs"]);
    for gpu in gpus {
        devices.add_row([
            gpu.name.clone(),
            bytes(gpu.memory.0),
            format!("{} GB/s", significant(gpu.memory_bandwidth / 1e9)),
            gpu.sms.to_string(),
        ]);
    }
    right_align(&mut devices, 1);
    format!("{list}\n\n{devices}\n")
}

fn fact_text<'a>(facts: impl IntoIterator<Item = &'a Fact>) -> String {
    facts
        .into_iter()
        .map(|fact| format!("  {} = {}\n      {}\n", fact.what, fact.value, fact.source))
        .collect::<Vec<_>>()
        .concat()
}

fn gpu_text(gpu: &Gpu) -> String {
    format!("{} ({})\n{}", gpu.name, gpu.product, fact_text(&gpu.facts))
}

fn cluster_facts(cluster: &Cluster) -> impl Iterator<Item = &Fact> {
    let network = cluster.network.iter().flat_map(|network| &network.facts);
    cluster.fabric.facts.iter().chain(network).chain(&cluster.host.facts)
}

fn entry_text(entry: &ClusterEntry) -> String {
    match entry {
        ClusterEntry::Nodes(cluster) => format!(
            "{}: {} x {} {}\nsource: {}\n{}",
            cluster.name,
            cluster.nodes,
            cluster.gpus_per_node,
            cluster.gpu.name,
            cluster.source,
            fact_text(cluster_facts(cluster))
        ),
        ClusterEntry::Vehicles(cluster) => vehicles_text(cluster),
    }
}

fn vehicles_text(cluster: &VehicleCluster) -> String {
    let mut list = table(&["vehicle", "memory", "compute", "communication"]);
    for vehicle in &cluster.vehicles {
        list.add_row([
            vehicle.id.clone(),
            format!("{} GB", vehicle.memory / 1e9),
            format!("{} GFLOP/s", vehicle.compute / 1e9),
            format!("{} GB/s", vehicle.communication / 1e9),
        ]);
    }
    right_align(&mut list, 1);
    let id = |index: usize| cluster.vehicles[index].id.as_str();
    let order: Vec<String> =
        cluster.dependencies.iter().map(|&(a, b)| format!("{} before {}", id(a), id(b))).collect();
    let order = if order.is_empty() { "none".to_owned() } else { order.join(", ") };
    format!("{}\nsource: {}\n\n{list}\n\ndependencies: {order}\n", cluster.name, cluster.source)
}

fn facts_json<'a>(facts: impl IntoIterator<Item = &'a Fact>) -> Vec<serde_json::Value> {
    let one =
        |fact: &Fact| serde_json::json!({ "what": fact.what, "value": fact.value, "source": fact.source });
    facts.into_iter().map(one).collect()
}

fn gpu_json(gpu: &Gpu) -> serde_json::Value {
    serde_json::json!({ "name": gpu.name, "product": gpu.product, "facts": facts_json(&gpu.facts) })
}

fn entry_json(entry: &ClusterEntry) -> serde_json::Value {
    match entry {
        ClusterEntry::Nodes(cluster) => serde_json::json!({
            "name": cluster.name,
            "source": cluster.source,
            "gpu": cluster.gpu.name,
            "nodes": cluster.nodes,
            "gpus_per_node": cluster.gpus_per_node,
            "facts": facts_json(cluster_facts(cluster)),
        }),
        ClusterEntry::Vehicles(cluster) => serde_json::json!({
            "name": cluster.name,
            "source": cluster.source,
            "vehicles": cluster.vehicles.iter().map(|vehicle| serde_json::json!({
                "id": vehicle.id,
                "memory_bytes": vehicle.memory,
                "flops_per_second": vehicle.compute,
                "bytes_per_second": vehicle.communication,
            })).collect::<Vec<_>>(),
            "dependencies": cluster.dependencies.iter().map(|&(a, b)| {
                [&cluster.vehicles[a].id, &cluster.vehicles[b].id]
            }).collect::<Vec<_>>(),
        }),
    }
}
