//! Predictions for the page: a scenario's text and changes in, the data of its page out.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use steptime_clusters::{ClusterEntry, cluster_from_catalogue, cluster_names};
use steptime_models::catalogue_names;
use steptime_scenarios::{Draft, InputError, Job, Scenario, Verdict, remedies, run};
use tokio::sync::Semaphore;

use super::Server;
use super::answer::Reply;
use super::folder::Folder;
use crate::commands::page::Origin;

/// What is shown before anything is chosen.
const FIRST: &str = include_str!("../../scenarios/llama3-8b-h100-zero3.toml");
/// How errors name what the page sends.
const NAMED: &str = "scenario";
/// For a prediction, waiting for others included.
const PREDICT_TIME: Duration = Duration::from_secs(30);
/// Changes of one request.
const MOST_CHANGES: usize = 64;

/// What the page asks for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// TOML.
    scenario: String,
    /// `section.key=value`.
    #[serde(default)]
    set: Vec<String>,
    /// With all that happens in the step.
    #[serde(default)]
    timeline: bool,
}

/// Lets only so many predictions be made at a time.
pub(super) struct Desk {
    plays: Arc<Semaphore>,
    /// Timelines are large: one at a time.
    timelines: Arc<Semaphore>,
}

impl Desk {
    pub(super) fn new(threads: usize) -> Self {
        Self { plays: Arc::new(Semaphore::new(threads)), timelines: Arc::new(Semaphore::new(1)) }
    }

    pub(super) async fn predict(&self, server: &Arc<Server>, body: Bytes) -> Reply {
        let wish: Wish = match serde_json::from_slice(&body) {
            Ok(wish) => wish,
            Err(error) => return Reply::error(StatusCode::BAD_REQUEST, &format!("the body: {error}")),
        };
        if wish.set.len() > MOST_CHANGES {
            let message = format!("at most {MOST_CHANGES} changes are taken");
            return Reply::error(StatusCode::BAD_REQUEST, &message);
        }
        let desk = Arc::clone(if wish.timeline { &self.timelines } else { &self.plays });
        let server = Arc::clone(server);
        let work = async {
            let place = desk.acquire_owned().await.ok()?;
            // A play cannot be broken off: the place is kept until it ends, whoever still waits for it.
            let play = move || {
                let _place = place;
                reply(&wish, &server.folder)
            };
            tokio::task::spawn_blocking(play).await.ok()
        };
        match tokio::time::timeout(PREDICT_TIME, work).await {
            Ok(Some(reply)) => reply,
            _ => Reply::error(StatusCode::SERVICE_UNAVAILABLE, "the prediction takes too long"),
        }
    }
}

fn reply(wish: &Wish, folder: &Folder) -> Reply {
    match predicted(wish, folder) {
        Ok(Ok(data)) => Reply::json(StatusCode::OK, &data),
        Ok(Err(message)) => Reply::error(StatusCode::INTERNAL_SERVER_ERROR, &message),
        Err(error) => Reply::error(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()),
    }
}

/// The data of the page; inside, why it could not be written.
fn predicted(wish: &Wish, folder: &Folder) -> Result<Result<Value, String>, InputError> {
    let draft = Draft::read(NAMED, &wish.scenario, &wish.set)?;
    let scenario = draft.scenario(folder)?;
    let mut result = run(&scenario, wish.timeline)?;
    result.report.scenario_hash = Some(draft.digest(folder));
    if wish.timeline && result.report.verdict == Verdict::OutOfMemory {
        result.report.remedies = remedies(&draft, folder);
    }
    let origin = if wish.timeline { Origin::of(&draft, &scenario, &result) } else { Origin::plain(&draft) };
    let data = origin.page(&result).data().map_err(|error| error.to_string());
    Ok(data.map(|mut data| {
        if let Value::Object(fields) = &mut data {
            fields.insert("settings".to_owned(), settings(&scenario));
        }
        data
    }))
}

/// What the controls of the page show of a scenario.
fn settings(scenario: &Scenario) -> Value {
    let Job::Gpus { cluster, plan, .. } = &scenario.job else { return Value::Null };
    json!({
        "nodes": cluster.nodes,
        "gpus_per_node": cluster.gpus_per_node,
        "micro_batch_size": scenario.batch.micro,
        "gradient_accumulation_steps": scenario.batch.accumulation,
        "data": plan.data,
        "tensor": plan.tensor,
        "pipeline": plan.pipeline,
        "context": plan.context,
    })
}

/// What the page offers to choose from.
pub(super) fn choices(folder: &Folder) -> Value {
    // Vehicles run component models only, which have no such controls.
    let size = |name: &str| match cluster_from_catalogue(name) {
        Ok(ClusterEntry::Nodes(cluster)) => {
            Some((name.to_owned(), json!([cluster.nodes, cluster.gpus_per_node])))
        }
        _ => None,
    };
    let sizes: serde_json::Map<String, Value> = cluster_names().into_iter().filter_map(size).collect();
    json!({
        "models": catalogue_names(),
        "clusters": sizes.keys().collect::<Vec<_>>(),
        "sizes": sizes,
        "scenarios": folder.scenarios(),
        "first": FIRST,
    })
}
