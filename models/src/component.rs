//! Models known only as components: FLOPs, memory and the bytes between partitions, as a source states them.
//!
//! The form is that of the SWIFT / FLAD model descriptions: components with FLOPs a sample (one direction) and a
//! memory requirement, grouped into partitions that a plan places as a whole. Values stay `f64`, because the
//! published cost formulas over them are evaluated in floating point and results must agree to the last digit.

use std::collections::BTreeSet;

use crate::document::Section;
use crate::error::{ModelError, Place};
use crate::quantity::{Dimension, nearest};

/// A part of a model that is known from outside only.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    /// Name, unique in the model.
    pub name: String,
    /// Work of one sample in one direction, in FLOPs.
    pub flops_per_sample: f64,
    /// Memory that it requires, in bytes, whatever the batch.
    pub capacity: f64,
}

/// Components that are placed together.
#[derive(Clone, Debug, PartialEq)]
pub struct Partition {
    /// Name, unique among the partitions.
    pub name: String,
    /// Bytes that it sends on for each sample.
    pub communication_volume: f64,
    /// Indices into [`ComponentGraph::components`], in the order of the source.
    pub components: Vec<usize>,
}

/// Components and their grouping into partitions, both in the order of the source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ComponentGraph {
    /// All components.
    pub components: Vec<Component>,
    /// All partitions; a plan assigns these.
    pub partitions: Vec<Partition>,
}

impl ComponentGraph {
    /// Work of one sample in one direction in a partition, in FLOPs; 0 for an index beyond the last.
    ///
    /// Summed from zero in the order of its components, as the published formula does it.
    pub fn partition_flops(&self, partition: usize) -> f64 {
        self.sum(partition, |component| component.flops_per_sample)
    }

    /// Memory that a partition requires, in bytes; summed like [`ComponentGraph::partition_flops`].
    pub fn partition_capacity(&self, partition: usize) -> f64 {
        self.sum(partition, |component| component.capacity)
    }

    fn sum(&self, partition: usize, value: impl Fn(&Component) -> f64) -> f64 {
        let members = self.partitions.get(partition).map_or(&[][..], |partition| &partition.components);
        members.iter().filter_map(|&index| self.components.get(index)).map(value).fold(0.0, |sum, x| sum + x)
    }

    /// Reads the tables `[[component]]` and `[[partition]]` of a model file.
    pub(crate) fn read(file: &Section) -> Result<Self, ModelError> {
        let mut graph = Self::default();
        let mut names = BTreeSet::new();
        for table in file.sections("component")? {
            table.only(&["name", "flops_per_sample", "capacity"])?;
            let name = table.text("name")?.to_owned();
            unique(&mut names, "component", &name, &table)?;
            graph.components.push(Component {
                name,
                flops_per_sample: table.quantity("flops_per_sample", Dimension::Flops)?,
                capacity: table.quantity("capacity", Dimension::Bytes)?,
            });
        }
        names.clear();
        // The partition that has each component.
        let mut taken: Vec<Option<usize>> = vec![None; graph.components.len()];
        for table in file.sections("partition")? {
            table.only(&["name", "communication_volume", "components"])?;
            let name = table.text("name")?.to_owned();
            unique(&mut names, "partition", &name, &table)?;
            let communication_volume = table.quantity("communication_volume", Dimension::Bytes)?;
            let components = graph.resolve(&name, &table, &mut taken)?;
            graph.partitions.push(Partition { name, communication_volume, components });
        }
        match taken.iter().position(Option::is_none) {
            None => Ok(graph),
            Some(unused) => {
                Err(unplaced(&graph.components[unused].name, file.sections("component")?.get(unused)))
            }
        }
    }

    /// Indices of the components that a partition names; none of them may be in `taken`, which they are then.
    fn resolve(
        &self,
        partition: &str,
        table: &Section,
        taken: &mut [Option<usize>],
    ) -> Result<Vec<usize>, ModelError> {
        let names = table.texts("components")?;
        if names.is_empty() {
            let place = table.place_of("components");
            return Err(ModelError::EmptyPartition { partition: partition.to_owned(), place });
        }
        let index_of = |name: &str| self.components.iter().position(|component| component.name == name);
        names
            .into_iter()
            .map(|(name, place)| {
                let index = index_of(name).ok_or_else(|| ModelError::UnknownComponent {
                    partition: partition.to_owned(),
                    component: name.to_owned(),
                    nearest: nearest(name, self.components.iter().map(|component| component.name.as_str())),
                    known: self.components.iter().map(|component| component.name.clone()).collect(),
                    place: Some(place),
                })?;
                // The number of this partition is the next one: it joins the list when it is complete.
                match taken[index].replace(self.partitions.len()) {
                    None => Ok(index),
                    Some(other) => {
                        let other = self.partitions.get(other).map_or(partition, |other| other.name.as_str());
                        Err(placed_twice(name, other, partition, place))
                    }
                }
            })
            .collect()
    }
}

/// A component that would be computed and held twice.
fn placed_twice(component: &str, first: &str, second: &str, place: Place) -> ModelError {
    let where_found = if first == second {
        format!("twice in partition `{first}`")
    } else {
        format!("in partition `{first}` and in partition `{second}`")
    };
    ModelError::BadValue {
        field: "components".to_owned(),
        found: format!("a list with `{component}`, which stands {where_found}"),
        allowed: "a list of components that stand in one partition, once".to_owned(),
        place: Some(place),
    }
}

/// A component that nobody would compute or hold.
fn unplaced(component: &str, table: Option<&Section>) -> ModelError {
    ModelError::BadValue {
        field: "name".to_owned(),
        found: format!("`{component}`, a component that no partition has"),
        allowed: "the name of a component that stands in one partition".to_owned(),
        place: table.and_then(|table| table.place_of("name")),
    }
}

/// Refuses a name that was there before.
fn unique(
    seen: &mut BTreeSet<String>,
    what: &'static str,
    name: &str,
    table: &Section,
) -> Result<(), ModelError> {
    if seen.insert(name.to_owned()) {
        return Ok(());
    }
    let place = table.place_of("name").or(table.place());
    Err(ModelError::DuplicateName { what, name: name.to_owned(), place })
}
