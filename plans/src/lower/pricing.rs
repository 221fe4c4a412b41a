//! Prices of a job: each distinct view of its ranks once.

use std::ops::Range;
use std::rc::Rc;

use steptime_clusters::Cluster;
use steptime_models::Model;

use super::cost::{ModelCost, Pricer};
use super::placement::{self, Placements};
use super::views::{Links, View, Views};
use crate::error::PlanError;
use crate::plan::Plan;
use crate::workload::Workload;

/// What prices depend on.
pub(super) struct Pricing<'a> {
    pub(super) model: &'a Model,
    pub(super) cluster: &'a Cluster,
    pub(super) plan: &'a Plan,
    pub(super) workload: &'a Workload,
    /// Routed experts of the model.
    pub(super) experts: u64,
    /// Where the groups sit.
    pub(super) placements: Placements,
    /// Layers of each chunk of the stages.
    pub(super) chunks: &'a [Range<usize>],
}

/// A view with its prices.
pub(super) struct Priced<'a> {
    pub(super) links: Links<'a>,
    pub(super) workload: Workload,
    /// Micro-batches of its ranks.
    pub(super) count: u32,
    pub(super) costs: Rc<ModelCost>,
    /// Costs of the last micro-batch, where it is smaller than the others.
    pub(super) short: Option<Rc<ModelCost>>,
}

/// Prices of all layers as the first rank runs them, whichever stage they are on; none of a plan without stages.
pub(super) fn costs_of_first_rank(
    model: &Model,
    cluster: &Cluster,
    plan: &Plan,
    workload: &Workload,
) -> Result<Option<Rc<ModelCost>>, PlanError> {
    let layout = placement::layout(cluster, plan, None)?;
    let views = Views::of(cluster, plan, layout);
    let (experts, placements) = (model.experts(), layout.placements(0));
    let whole: Vec<_> = std::iter::once(0..model.layers.len()).collect();
    let pricing = Pricing { model, cluster, plan, workload, experts, placements, chunks: &whole };
    let priced = pricing.all(&views)?;
    Ok(priced.into_iter().flatten().next().map(|it| it.costs))
}

impl<'a> Pricing<'a> {
    /// Prices of every view of every stage. Views that differ in whom they send to alone are priced once.
    pub(super) fn all(&self, views: &'a Views) -> Result<Vec<Vec<Priced<'a>>>, PlanError> {
        let mut known: Vec<(&View, Rc<ModelCost>, Short)> = Vec::new();
        let mut all = Vec::with_capacity(views.of_stage.len());
        for of_stage in &views.of_stage {
            let mut priced = Vec::with_capacity(of_stage.len());
            for view in of_stage {
                let links = Links::new(self.cluster, view);
                let micro_batch_size = view.samples.unwrap_or(self.workload.micro_batch_size);
                let workload = Workload { micro_batch_size, ..self.workload.clone() };
                let found = known.iter().find(|(other, ..)| other.prices_as(view));
                let (costs, short) = if let Some((_, costs, short)) = found {
                    (Rc::clone(costs), short.clone())
                } else {
                    let (costs, short) = self.costs(&workload, links)?;
                    known.push((view, Rc::clone(&costs), short.clone()));
                    (costs, short)
                };
                let count = view.count.unwrap_or(self.workload.accumulation) as u32;
                priced.push(Priced { links, workload, count, costs, short });
            }
            all.push(priced);
        }
        Ok(all)
    }

    fn costs(&self, workload: &Workload, links: Links<'_>) -> Result<(Rc<ModelCost>, Short), PlanError> {
        let pricer = self.with(workload, links);
        let costs = ModelCost::new(self.model, pricer, self.chunks)?;
        let short = workload.short_last();
        let short =
            short.map(|work| ModelCost::new(self.model, Pricer { workload: &work, ..pricer }, self.chunks));
        Ok((Rc::new(costs), short.transpose()?.map(Rc::new)))
    }

    fn with<'b>(&'b self, workload: &'b Workload, links: Links<'b>) -> Pricer<'b> {
        let Self { plan, experts, placements, .. } = *self;
        Pricer { cluster: links.own(), links, workload, plan, experts, placements }
    }

    /// Prices for the programs of a view.
    pub(super) fn pricer<'b>(&'b self, priced: &'b Priced<'a>) -> Pricer<'b> {
        self.with(&priced.workload, priced.links)
    }
}

/// Costs of a smaller last micro-batch.
type Short = Option<Rc<ModelCost>>;
